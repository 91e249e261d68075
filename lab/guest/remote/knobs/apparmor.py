"""Load AppArmor profiles, from files below /etc/apparmor.d, and unload others. Runs as root.

Argument: {"profiles": [{"name", "mode", "text" or "shipped"}], "removed": [path]}.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

# The modes of a profile, which stand among its flags.
MODES = {"enforce", "complain", "unconfined"}


def put(profile):
    if profile["shipped"]:
        path = Path(profile["shipped"])
        text = path.read_text()
    else:
        path = Path("/etc/apparmor.d") / profile["name"]
        text = profile["text"]
    text = re.sub(r"[ \t]*flags=\(([^)]*)\)", without_mode, text)
    if profile["mode"] == "unconfined":
        text = unconfined(text, profile["name"])
    path.write_text(text)
    arguments = ["--complain"] if profile["mode"] == "complain" else []
    parse("--replace", *arguments, str(path))


def without_mode(flags):
    kept = [flag for flag in re.split(r"[,\s]+", flags[1]) if flag and flag not in MODES]
    return " flags=(%s)" % ", ".join(kept) if kept else ""


def unconfined(text, name):
    """Put the flag `unconfined` into the profile's first line: apparmor_parser has no option for it."""
    begins = r'(?m)^((?:profile[ \t]+)?"?%s"?(?=\s)[^\n]*?)(?:[ \t]*flags=\(([^)]*)\))?[ \t]*\{[ \t]*$'

    def line(found):
        return "%s flags=(%s) {" % (found[1], ", ".join(filter(None, [found[2], "unconfined"])))

    return re.sub(begins % re.escape(name), line, text, count=1)


def parse(*arguments):
    subprocess.run(["apparmor_parser", *arguments], check=True, capture_output=True, text=True)


asked = json.loads(sys.argv[1])
for each in asked["profiles"]:
    put(each)
for path in asked["removed"]:
    parse("--remove", path)
print(json.dumps({"applied": True}))
