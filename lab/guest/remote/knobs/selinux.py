"""Add a module to SELinux's policy, and set SELinux's mode. Runs as root.

Argument: {"mode": "enforcing" or "permissive", "module": text in CIL, or null}.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ENFORCE = Path("/sys/fs/selinux/enforce")

asked = json.loads(sys.argv[1])
if asked["module"]:
    # Debian's policy denies semodule to label what it writes, once for each file: 1,400 lines, by which the
    # kernel's log loses what stood there. Permissive, each rule is told once.
    ENFORCE.write_text("0")
    # semodule calls a module as its file, and the policy lets it read below /tmp what it may not in /run.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lab.cil"
        file.write_text(asked["module"])
        subprocess.run(["semodule", "--install", str(file)], check=True, capture_output=True, text=True)
ENFORCE.write_text("1" if asked["mode"] == "enforcing" else "0")
print(json.dumps({"applied": True}))
