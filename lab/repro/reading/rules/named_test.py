"""Tests that fail, by their names."""

import re
from collections.abc import Iterator

from lab import catalog
from lab.repro.reading.rules._base import Found, Rule, Text, matches, quote
from lab.repro.report import NamedTest

# How Rust's and Python's test runners name a test that fails.
OTHERS = re.compile(
    r"\btest ([\w:]{3,200}) \.\.\. FAILED|"
    r"\bFAIL(?:ED)?\s+(?:\[[^\]]{1,20}\]\s+)?(?:\([^)]{1,20}\)\s+)?(?:[\w:-]{1,100}\s+)?([\w/.]{1,200}(?:::\w+)+)|"
    r"(?<![\w:])jailer::(\w{3,100})|([\w/.]{1,200}\.py::\w+) FAILED"
)
PASSES = re.compile(r"\b(?:pass(?:es|ed)?|ok|succeeds?|works?)\b", re.IGNORECASE)
FAILS = re.compile(r"\bfail|\berror|\bignore", re.IGNORECASE)


class NamedTests(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        known = catalog.load_suite("jailer").tests
        for line in text.lines:
            if PASSES.search(line.text) and not FAILS.search(line.text):
                continue
            here = [name for name in known if name in line.text]
            for name in here:
                yield Found(NamedTest(quote(line), name, known=True), line.number)
            for match in matches(OTHERS, line.text):
                name = next(filter(None, match.groups()))
                if not any(each in name for each in here):
                    yield Found(NamedTest(quote(line), name, known=False), line.number)
