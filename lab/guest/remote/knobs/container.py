"""Make the command that runs another one in a container, /usr/local/bin/lab-container. Runs as root.

Argument: {"kind": one of OPTIONS}.
"""

import json
import subprocess
import sys
from pathlib import Path

# The guest's root file system once more, without what is mounted on it: no image has to be made of it.
ROOT = Path("/srv/lab-container")
FILTER = Path("/srv/lab-container.json")
EPERM = 1
ENOSYS = 38
CLONE_NEWUSER = 0x10000000
# What a filter must refuse so that no user namespace is made; Docker's default one refuses a lot more. A filter
# cannot see the flags of clone3: where that does not exist, programs use clone.
REFUSED = [
    {"names": ["unshare", "setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
    {
        "names": ["clone"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": EPERM,
        "args": [
            {"index": 0, "value": CLONE_NEWUSER, "valueTwo": CLONE_NEWUSER, "op": "SCMP_CMP_MASKED_EQ"},
        ],
    },
]
OPTIONS = {
    "no-namespaces": ["--security-opt=seccomp=%s" % FILTER],
    "default": [],
    "apparmor-off": ["--security-opt=apparmor=unconfined"],
    "unconfined": [
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=unmask=ALL",
    ],
    "privileged": ["--privileged"],
}
# What is mounted on its own in the guest is so in the container, with its options.
# With --init there is a first process that collects those that end without a parent, as on every host.
COMMAND = """#!/bin/sh
exec sudo -n podman run --rm --init $(test -t 0 && echo --interactive --tty) \\
    $(test -n "$LAB_STDIN" && echo --interactive) \\
    --network=host $(test -e /dev/kvm && echo --device=/dev/kvm) \\
    $(for each in /home /tmp; do ! mountpoint -q $each || echo --volume=$each:$each; done) \\
    --user "$(id -un)" --workdir "$PWD" %(options)s --rootfs %(root)s "$@"
"""

kind = json.loads(sys.argv[1])["kind"]
ROOT.mkdir(exist_ok=True)
subprocess.run(["mount", "--bind", "/", str(ROOT)], check=True, capture_output=True, text=True)
FILTER.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": REFUSED}))
command = Path("/usr/local/bin/lab-container")
command.write_text(COMMAND % {"options": " ".join(OPTIONS[kind]), "root": ROOT})
command.chmod(0o755)
# As a member of Docker's group could: whoever may start containers is root outside of them.
rule = Path("/etc/sudoers.d/lab-container")
rule.write_text("ALL ALL=(root) NOPASSWD: /usr/bin/podman run *\n")
rule.chmod(0o440)
print(json.dumps({"applied": True}))
