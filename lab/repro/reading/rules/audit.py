"""Lines of the kernel's audit log, in every form in which people paste them."""

import re
from collections.abc import Iterator
from dataclasses import replace

from lab.base.files import bounded
from lab.repro.reading.rules._base import LONGEST, Found, Rule, Text, quote
from lab.repro.reading.structure import Line
from lab.repro.report import AuditLine

BEGINS = re.compile(r"apparmor=\\?\"?[A-Z]+|avc:\s+(?:denied|granted)|\btype=(?:1326|SECCOMP)\b")
# Another line of a log: it does not continue the one before.
NEW_LINE = re.compile(r"^\W*(?:type=|audit|\[ *\d+\.\d+\]|avc:|\w{3} +\d+ \d\d:|\d{4}-\d\d-\d\d|[$#] )")
CONTINUES = re.compile(r"^\s*\S*\w=\S")
# At most so many lines are one wrapped line.
MOST_WRAPPED = 8
KEY = re.compile(r"(?:^|(?<=[\s,(]))(\w+)=")
DENIED = re.compile(r"avc:\s+denied\s+\{([^}]*)\}")
# Without these the line says too little to be one.
TELLING = ("operation", "avc", "syscall", "sig")
# What `ausearch -i` prints for numbers; capabilities(7).
CAPABILITIES = {
    "sys_admin": "21",
    "setpcap": "8",
    "sys_ptrace": "19",
    "setuid": "7",
    "setgid": "6",
    "net_admin": "12",
}
# Fields whose values hold spaces, which `ausearch -i` prints without quotes.
WORDS = ("info", "name", "comm", "exe", "proctitle", "denied", "requested", "flags")


class AuditLines(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        index = 0
        while index < len(text.lines):
            line = text.lines[index]
            index += 1
            if not BEGINS.search(line.text):
                continue
            whole, last, written = line.text, line.number, [line.raw.strip()]
            for after in text.lines[index : index + MOST_WRAPPED]:
                if not _continues(whole, last, after):
                    break
                whole, last, index = _joined(whole, after.text), after.number, index + 1
                written.append(after.raw.strip())
            fields = _fields(whole.replace('\\"', '"'))
            if any(key in fields for key in TELLING):
                whole_quote = replace(quote(line), text=bounded(" ".join(written), LONGEST))
                yield Found(AuditLine(whole_quote, fields), last)


def _continues(begun: str, last: int, line: Line) -> bool:
    if line.number != last + 1 or NEW_LINE.match(line.text):
        return False
    unclosed = begun.replace('\\"', '"').count('"') % 2 == 1
    return unclosed or CONTINUES.match(line.text) is not None


def _joined(begun: str, rest: str) -> str:
    """Join what a terminal wrapped: within a word if the last word is no whole `key=value`."""
    word = begun.rsplit(None, 1)[-1] if begun.strip() else ""
    quotes = begun.replace('\\"', '"').count('"')
    whole = "=" in word or word.endswith(('"', "}", ":", "for")) or begun.endswith(" ")
    return f"{begun}{'' if quotes % 2 == 1 or not whole else ' '}{rest.strip()}"


def _fields(line: str) -> dict[str, str]:
    """Return the fields of a line. See `lab.causes.evidence`, which reads lines that nobody edited."""
    fields: dict[str, str] = {}
    keys = list(KEY.finditer(line))
    interpreted = '="' not in line
    at = 0
    for key, following in zip(keys, [*keys[1:], None], strict=False):
        if key.start() < at:
            continue  # Inside the quotes of the field before.
        rest = line[key.end() :]
        if rest.startswith('"'):
            value = rest[1:].partition('"')[0]
            at = key.end() + len(value) + 2
        elif interpreted and key[1] in WORDS:
            value = line[key.end() : following.start() if following else len(line)].strip()
        else:
            value = (rest.split(None, 1) or [""])[0].rstrip("`)\"',")
        fields.setdefault(key[1], value)
    if denied := DENIED.search(line):
        fields["avc"] = denied[1].strip()
    capability = fields.get("capability", "")
    fields.update(
        {"capability": CAPABILITIES[capability], "capname": capability} if capability in CAPABILITIES else {}
    )
    return fields
