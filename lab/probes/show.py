"""Print what the programs say of the host of a user: a summary for people, and all of it as JSON.

Arguments: what `facts.py` prints for a user, and what `probe.py` prints. It runs on that host, whose Python may
be 3.6. The home is written as ~. In the JSON only plain characters stand for themselves, others are %XX:
it has no white space, no quote inside of a text and no markup. So nothing is lost where a mail program folds or
quotes lines.
"""

import json
import os
import re
import sys
from typing import Any, Callable, Iterator, Tuple
from urllib.parse import quote

# Of the form of the output: a reader refuses any other.
VERSION = 4
# Characters of a line. Mail programs fold lines at 76 characters or more.
WIDTH = 74
# Characters of a text, and of a text in the summary.
LONGEST = 2000
SHORT = 200
PLAIN = "/:+,()~"


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """A document with each of its texts changed, the names too."""
    if isinstance(value, dict):
        return {change(name): changed(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [changed(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


def without_home(text: str) -> str:
    home = os.path.expanduser("~").rstrip("/")
    return text.replace(home, "~") if home else text


def escaped(text: str) -> str:
    return quote(text[:LONGEST], PLAIN, "utf-8", "replace")


def summary(host: Any) -> Iterator[Tuple[str, str]]:
    facts, hidden = host["facts"], host["unreadable"]

    def module(name: str, words: Callable[[Any], str]) -> str:
        return words(facts[name]) if facts[name] else "cannot be read" if name in hidden else "not in use"

    def program(about: Any) -> str:
        return "%s, mode %s" % (about["version"] or "of unknown version", about["mode"])

    def device(about: Any) -> str:
        return "mode %s, owner %s, group %s" % (about["mode"], about["owner"], about["group"])

    yield "system", facts["os"]["pretty_name"] or facts["os"]["id"] or "no name"
    yield "kernel", facts["kernel"]
    yield "architecture", facts["arch"]
    yield "AppArmor", module("apparmor", lambda about: "in use, " + (about["version"] or "without its parser"))
    yield "SELinux", module("selinux", lambda about: about["mode"])
    yield "bubblewrap", program(facts["bubblewrap"]) if facts["bubblewrap"] else "not installed"
    yield "/dev/kvm", device(facts["kvm"]) if facts["kvm"] else "not there"
    if "landlock" not in hidden:
        yield "Landlock", "not in use" if facts["landlock"] is None else "version %d" % facts["landlock"]
    lacking = [name for name, value in ((facts["kvm"] or {}).get("capabilities") or {}).items() if not value]
    if lacking:
        yield "KVM lacks", " ".join(lacking)
    without = [name for name, value in (facts["kernel_options"] or {}).items() if value is None]
    if without:
        yield "kernel built without", " ".join(without)
    yield "user", "root" if host["who"]["uid"] == 0 else "not root"
    session = host["who"]["context"]["session"]
    yield "session", "%s, in %s" % (session["kind"], session["cgroup"])
    yield "service manager of the user", "answers" if session["manager"] else "does not answer"
    for name, value in facts["sysctls"].items():
        if value is not None:
            yield name, value
    for name, probe in host["probes"].items():
        status, error = probe["status"], probe["stderr"]
        worked = "works" if status == 0 else "could not be tried" if status is None else "REFUSED"
        yield name, worked + (": " + error if status != 0 and error else "")


def main(facts: Any, probed: Any) -> None:
    host = dict(facts, probes=probed.pop("probes"), who=probed)
    host = changed(host, without_home)
    print("===== begin boxlite-probe %d =====" % VERSION)
    for name, value in summary(host):
        # Nothing in a value may look like the beginning of the other part, or like its end.
        print(re.sub(r"[^ -~]|[{=]", "?", "%s: %s" % (name, value[:SHORT])))
    text = json.dumps(changed(host, escaped), separators=(",", ":"))
    for start in range(0, len(text), WIDTH):
        print(text[start : start + WIDTH])
    print("===== end boxlite-probe %d: %d characters =====" % (VERSION, len(text)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
