"""Empty the group of /dev/kvm, or take the kernel's module away. Runs as root.

Argument: {"state": "denied" or "absent"}.
"""

import grp
import json
import os
import subprocess
import sys

if json.loads(sys.argv[1])["state"] == "denied":
    group = grp.getgrgid(os.stat("/dev/kvm").st_gid).gr_name
    command = ["gpasswd", "--members", "", group]
else:
    loaded = [name for name in ("kvm_amd", "kvm_intel", "kvm") if os.path.exists("/sys/module/" + name)]
    command = ["modprobe", "--remove", *loaded]
subprocess.run(command, check=True, capture_output=True, text=True)
print(json.dumps({"applied": True}))
