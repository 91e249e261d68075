"""The running kernel."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, matches, quote
from lab.repro.report import Kernel

RELEASE = r"\d\.\d{1,2}(?:\.\d{1,3})?(?:[-+.~][\w.+~-]*[\w])?"
NAMED = re.compile(
    r"\b(?:linux(?: kernel)?(?: version)?|kernel(?: version| release)?|uname(?: -\w+)?)"
    rf"[\s:=(\"'v]{{1,4}}({RELEASE})(?![+\w])",
    re.IGNORECASE,
)
# Releases that distributions give to kernels, which need no word before them.
BARE = re.compile(
    r"(?<![\w.-])(\d\.\d{1,2}\.\d{1,3}[-+.~][\w.+~-]*?"
    r"(?:generic|aws|azure|gcp|lowlatency|amd64|arm64|x86_64|pve|zen\d?|arch\d[\w.-]*|fc\d\d[\w.]*|el\d[\w.]*|amzn\d+[\w.]*|MANJARO|WSL2|default|lts)"
    r"(?:[-.][\w.]+)*)(?![\w-])"
)
UNAME = re.compile(rf"\bLinux \S{{1,255}} ({RELEASE}) #\d")
# Kernels that have something, not the one that runs.
OTHERS = re.compile(
    r"(?:≥|>=?|<=?|since|until|before|from|requires?|needs?)\s*(?:linux |kernel )*$", re.IGNORECASE
)
NEWER = re.compile(r"\s*(?:\+|or (?:newer|later|above)|and (?:newer|later|above))")


class Kernels(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for line in text.lines:
            words = line.labelled
            for pattern in (UNAME, NAMED, BARE):
                for match in matches(pattern, words):
                    if OTHERS.search(words[: match.start()]) or NEWER.match(words[match.end() :]):
                        continue
                    yield Found(Kernel(quote(line), match[1]), line.number)
