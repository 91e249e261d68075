"""Load AppArmor profiles, in their files below /etc/apparmor.d and into the kernel. Runs as root.

Argument: {"profiles": [{"name", "mode", "text" or "shipped"}]}.
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
    command = ["apparmor_parser", "--replace", *arguments, str(path)]
    subprocess.run(command, check=True, capture_output=True, text=True)


for each in json.loads(sys.argv[1])["profiles"]:
    put(each)
print(json.dumps({"applied": True}))
