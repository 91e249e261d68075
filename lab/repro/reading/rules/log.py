"""Lines of boxlite's log."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, quote
from lab.repro.report import LogLine

ENTRY = re.compile(r"^\s*\S{10,40}Z?\s+(TRACE|DEBUG|INFO|WARN|ERROR)\s+([\w:]*\bboxlite[\w:]*): (.+)$")


class Logs(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for line in text.lines:
            if entry := ENTRY.match(line.text):
                yield Found(LogLine(quote(line), entry[1], entry[2], entry[3]), line.number)
