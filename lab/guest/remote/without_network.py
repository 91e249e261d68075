"""Run one command of a bug report as the suite's user, without a network and within limits. Runs as root.

Argument: {"command": text for a shell, "user": name, "under": [words to put before that shell],
"seconds": limit, "bytes": most output, "tasks": most processes, "memory": most bytes of memory}.
Prints {"interfaces": names of the network interfaces that the command had, or null if it was not run, "status":
exit status or null, "timed_out": bool, "cut": bool, "output": text}.
"""

import json
import os
import pwd
import selectors
import subprocess
import sys
import time
from pathlib import Path

GROUP = Path("/sys/fs/cgroup/lab-report-command")
STATUS = Path("/run/lab-report-command")
# It is root in a network namespace of its own. A command that would have any other interface is not run.
INSIDE = """
import json, os, pwd, sys
asked = json.loads(sys.argv[1])
interfaces = [line.partition(":")[0].strip() for line in open("/proc/self/net/dev") if ":" in line]
routes = open("/proc/self/net/route").read().splitlines()[1:]
cut = interfaces == ["lo"] and not routes
def tell(status):
    with open(asked["status"], "w") as file:
        json.dump({"interfaces": interfaces if cut else None, "status": status}, file)


# Told before the command has its turn: it may be killed.
tell(None)
if cut:
    with open(asked["group"] + "/cgroup.procs", "w") as file:
        file.write("0")
    child = os.fork()
    if child == 0:
        user = pwd.getpwnam(asked["user"])
        os.setsid()
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        os.chdir(user.pw_dir)
        words = ["env", "--", *asked["under"], "sh", "-c", asked["command"]]
        who = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "LC_ALL": "C.UTF-8"}
        who["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        try:
            os.execve("/usr/bin/env", words, who)
        finally:
            os._exit(127)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tell(status if status >= 0 else 128 - status)
"""


def make_group(asked):
    """A control group with limits; all that is in it can be killed at once, whatever it was started by."""
    (GROUP.parent / "cgroup.subtree_control").write_text("+pids +memory")
    GROUP.mkdir(exist_ok=True)
    (GROUP / "pids.max").write_text(str(asked["tasks"]))
    (GROUP / "memory.max").write_text(str(asked["memory"]))


def stop_what_could_run_it_elsewhere(user):
    """Stop what could run a command for the user outside of the group and of its network namespace."""
    for unit in ("user@%d.service" % pwd.getpwnam(user).pw_uid, "cron.service", "atd.service"):
        subprocess.run(["systemctl", "stop", unit], check=False, capture_output=True)
        state = subprocess.run(["systemctl", "is-active", unit], check=False, capture_output=True, text=True)
        if state.stdout.strip() == "active":
            sys.exit("%s cannot be stopped" % unit)


def read(process, asked):
    """Read what it prints, up to both limits: the output, whether it was cut, whether its time was over."""
    end = time.monotonic() + asked["seconds"]
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return found, False, True
            if not selector.select(left):
                continue
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                return found, False, False
            found += part
            if len(found) > asked["bytes"]:
                return found[: asked["bytes"]], True, False


asked = json.loads(sys.argv[1])
stop_what_could_run_it_elsewhere(asked["user"])
make_group(asked)
STATUS.unlink(missing_ok=True)
inside = [
    "python3",
    "-I",
    "-S",
    "-c",
    INSIDE,
    json.dumps({**asked, "status": str(STATUS), "group": str(GROUP)}),
]
process = subprocess.Popen(
    ["unshare", "--net", "--", *inside],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
)
try:
    output, cut, timed_out = read(process, asked)
finally:
    (GROUP / "cgroup.kill").write_text("1")
process.stdout.close()
process.wait()
told = json.loads(STATUS.read_text()) if STATUS.exists() else {"interfaces": None, "status": None}
text = output.decode(errors="replace")
print(json.dumps({**told, "timed_out": timed_out, "cut": cut, "output": text}))
