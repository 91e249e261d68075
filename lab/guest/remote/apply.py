"""Begin a cell: set the clock, mark the kernel log, put the variant's settings on. Runs as root.

Argument: {"clock": seconds since 1970, "mark": text, "sysctl": {name: value}, "apparmor": [profile]}.
Settings are written where a reboot finds them again, and put into force at once.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

# Sorts after every file that a distribution ships, 50-bubblewrap.conf among them.
SYSCTL_FILE = Path("/etc/sysctl.d/99-zz-lab.conf")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit("%s: %s%s" % (" ".join(command), done.stdout, done.stderr))


def put_sysctls(wanted):
    lines = ["%s = %d\n" % item for item in wanted.items()]
    SYSCTL_FILE.write_text("".join(lines))
    run("sysctl", "--quiet", "--load", str(SYSCTL_FILE))


def put_profile(profile):
    if profile["shipped"]:
        path = Path(profile["shipped"])
        text = path.read_text()
    else:
        path = Path("/etc/apparmor.d") / profile["name"]
        text = profile["text"]
    if profile["mode"] == "enforce":
        text = re.sub(r"\s*flags=\(complain\)", "", text)
        text = re.sub(r"\bcomplain,\s*|,\s*complain\b", "", text)
    path.write_text(text)
    arguments = ["--complain"] if profile["mode"] == "complain" else []
    run("apparmor_parser", "--replace", *arguments, str(path))


wanted = json.loads(sys.argv[1])
# After a fork the clock stands where it stood at the checkpoint.
time.clock_settime(time.CLOCK_REALTIME, wanted["clock"])
# The kernel's limit on its own messages drops audit lines when a cell makes many at once.
Path("/proc/sys/kernel/printk_ratelimit").write_text("0")
Path("/dev/kmsg").write_text(wanted["mark"] + "\n")
if wanted["sysctl"]:
    put_sysctls(wanted["sysctl"])
for each in wanted["apparmor"]:
    put_profile(each)
print(json.dumps({"applied": True}))
