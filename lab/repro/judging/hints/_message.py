"""Hints that are messages with one meaning."""

import re
from typing import ClassVar

from lab.repro.judging._base import Hint, Shown
from lab.repro.report import Report, Words


class Message(Hint):
    """A message, whoever prints it: `pattern` is what it holds, `why` what it says in the lab's words."""

    pattern: ClassVar[str]
    why: ClassVar[str]

    def shown(self, report: Report) -> Shown | None:
        quotes = tuple(each.quote for each in report.of(Words) if re.search(self.pattern, each.text))
        return (self.why, quotes) if quotes else None
