"""Load AppArmor profiles, from files below /etc/apparmor.d, and unload others. Runs as root.

Argument: {"profiles": [{"name", "mode", "text" or "shipped"}], "removed": [path]}.
"""

import json
import re
import subprocess
import sys
from pathlib import Path


def put(profile):
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
    parse("--replace", *arguments, str(path))


def parse(*arguments):
    subprocess.run(["apparmor_parser", *arguments], check=True, capture_output=True, text=True)


asked = json.loads(sys.argv[1])
for each in asked["profiles"]:
    put(each)
for path in asked["removed"]:
    parse("--remove", path)
print(json.dumps({"applied": True}))
