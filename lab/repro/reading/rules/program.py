"""Versions of programs beside boxlite."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, matches, quote
from lab.repro.report import Program

# How people write each program's name.
NAMES = {
    "bubblewrap": r"bubblewrap|bwrap",
    "apparmor": r"apparmor(?:_parser)?|AppArmor parser",
    "python": r"c?python3?",
    "podman": "podman",
    "docker": r"docker(?: engine)?",
    "systemd": "systemd",
    "glibc": r"g?libc",
    "libkrun": "libkrun",
    "firejail": "firejail",
    "codex": r"codex(?: cli)?",
    "node": r"node(?:\.?js)?",
    "rustc": r"rustc|rust",
    "qemu": r"qemu",
}
VERSION = r"\d+\.\d+(?:\.\d+)*(?:[-~+.][\w.~+-]*\w)?"
PATTERN = re.compile(
    rf"(?<![\w/.-])(?:{'|'.join(f'(?P<{name}>{written})' for name, written in NAMES.items())})"
    rf"(?!:\d)(?:[ ,:=\"'(v@-]|version|is ){{1,12}}(?P<version>{VERSION})(?!\w|\+)",
    re.IGNORECASE,
)


class Programs(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for line in text.lines:
            for match in matches(PATTERN, line.labelled):
                name = next(name for name in NAMES if match[name])
                yield Found(Program(quote(line), name, match["version"]), line.number)
