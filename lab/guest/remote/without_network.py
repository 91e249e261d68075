"""Run one command of a bug report as the suite's user, without a network and within limits. Runs as root.

Argument: {"command": text for a shell, "user": name, "under": [words to put before that shell],
"seconds": limit, "bytes": most output, "tasks": most processes}.
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

UNIT = "lab-report-command"
STATUS = "/run/lab-report-command"
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
    child = os.fork()
    if child == 0:
        user = pwd.getpwnam(asked["user"])
        os.setsid()
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        os.chdir(user.pw_dir)
        words = [*asked["under"], "sh", "-c", asked["command"]]
        who = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "LC_ALL": "C.UTF-8"}
        who["PATH"] = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        try:
            os.execvpe(words[0], words, who)
        finally:
            os._exit(127)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tell(status if status >= 0 else 128 - status)
"""


def limited(asked):
    """The command line that runs `INSIDE` in a network namespace and a control group with limits."""
    properties = {
        "TasksMax": asked["tasks"],
        "MemoryMax": "512M",
        "RuntimeMaxSec": asked["seconds"] + 5,
        "KillMode": "control-group",
    }
    words = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--unit=%s" % UNIT]
    words += [word for item in properties.items() for word in ("--property", "%s=%s" % item)]
    inside = ["python3", "-I", "-S", "-c", INSIDE, json.dumps({**asked, "status": STATUS})]
    return [*words, "--", "unshare", "--net", "--", *inside]


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


def cut_off(user):
    """Take from the whole guest its way out, and from the user what could run a command outside of the limits.

    The connection of the lab comes from the guest's own network and needs no default route.
    """
    for family in ("-4", "-6"):
        subprocess.run(["ip", family, "route", "flush", "default"], check=False, capture_output=True)
    for unit in ("user@%d.service" % pwd.getpwnam(user).pw_uid, "cron.service", "atd.service"):
        subprocess.run(["systemctl", "stop", unit], check=False, capture_output=True)
    with open("/proc/net/route") as file:
        destinations = [line.split()[1] for line in file.read().splitlines()[1:]]
    if "00000000" in destinations:
        sys.exit("the guest still has a default route")


asked = json.loads(sys.argv[1])
cut_off(asked["user"])
if os.path.exists(STATUS):
    os.unlink(STATUS)
process = subprocess.Popen(
    limited(asked), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
)
output, cut, timed_out = read(process, asked)
if cut or timed_out:
    subprocess.run(["systemctl", "kill", "--signal=KILL", UNIT], check=False, capture_output=True)
process.stdout.close()
process.wait()
try:
    with open(STATUS) as file:
        told = json.load(file)
except (OSError, ValueError):
    told = {"interfaces": None, "status": None}
text = output.decode(errors="replace")
print(json.dumps({**told, "timed_out": timed_out, "cut": cut, "output": text}))
