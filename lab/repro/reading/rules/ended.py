"""Exit statuses and signals."""

import re
import signal
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, matches, quote
from lab.repro.report import Ended

# A shell's exit status of a program that a signal ended.
BY_SIGNAL = 128
STATUS = re.compile(
    r"\b(?:(?:exit(?:ed)?|return(?:ed)?)(?:\s+(?:with|code|status|value|non-zero)){0,4}|status)[\s:=(]{1,3}"
    r"(\d{1,3})\b(?!\.\d|/)",
    re.IGNORECASE,
)
NAME = re.compile(r"\b(SIG(?:SYS|SEGV|KILL|TERM|ABRT|BUS|ILL|FPE|TRAP|PIPE|INT|HUP))\b")
NUMBER = re.compile(r"\bsignal[:= ]{1,2}(\d{1,2})\b|\bstatus=(\d{1,2})/[A-Z]+", re.IGNORECASE)
# What shells and the kernel print instead of a signal's name.
WORDS = {"Bad system call": "SIGSYS", "Segmentation fault": "SIGSEGV", "Illegal instruction": "SIGILL"}


class Endings(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for line in text.lines:
            for status in self._statuses(line.text):
                yield Found(Ended(quote(line), status, _name(status)), line.number)

    def _statuses(self, text: str) -> Iterator[int]:
        yield from (int(match[1]) for match in matches(STATUS, text) if int(match[1]) < 256)
        names = [match[1] for match in matches(NAME, text)]
        names += [name for words, name in WORDS.items() if words in text]
        yield from (BY_SIGNAL + signal.Signals[name] for name in names)
        numbers = (int(match[1] or match[2]) for match in matches(NUMBER, text))
        yield from (BY_SIGNAL + number for number in numbers if _name(BY_SIGNAL + number))


def _name(status: int) -> str | None:
    known = {each.value: each.name for each in signal.Signals}
    return known.get(status - BY_SIGNAL)
