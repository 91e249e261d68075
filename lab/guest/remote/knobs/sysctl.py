"""Set sysctls: written where a reboot finds them again, and put into force at once. Runs as root.

Argument: {name: value}.
"""

import json
import subprocess
import sys
from pathlib import Path

# Sorts after every file that a distribution ships, 50-bubblewrap.conf among them.
FILE = Path("/etc/sysctl.d/99-zz-lab.conf")

wanted = json.loads(sys.argv[1])
FILE.write_text("".join("%s = %s\n" % item for item in wanted.items()))
subprocess.run(["sysctl", "--quiet", "--load", str(FILE)], check=True, capture_output=True, text=True)
print(json.dumps({"applied": True}))
