"""Steps that were tried and are no sysctl: a profile unloaded, a mode changed, a program run in another way."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import MOST_ON_A_LINE, Found, Rule, Text, matches, place, quote
from lab.repro.reading.rules._tried import PERHAPS, said
from lab.repro.reading.rules.setting import ECHO, PAIR
from lab.repro.reading.structure import Kind
from lab.repro.report import Mood, Setting

# Commands that change what a host allows, up to the end of what they change.
STEP = re.compile(
    r"\b(?:apparmor_parser -[A-Za-z]+(?: -\w+)* \S+|aa-(?:teardown|disable|complain|enforce)\b(?: \S+)?|"
    r"setenforce [01]|setsebool \S+ \S+(?: \S+)?|systemctl (?:stop|disable|restart|reload) apparmor\S*|"
    r"chmod \S+ /\S+|chown \S+ /dev/\S+|(?:usermod|gpasswd) -\S+ \S+(?: \S+)?|modprobe \S+|setcap \S+ \S+|"
    r"(?:apt|apt-get|dnf) install (?:-\S+ ){0,5}\S+)"
)
# Options of a container's, in a sentence about what they change.
OPTION = re.compile(r"(?<!\S)--(?:privileged|security-opt[ =]\S+|cap-add[ =]\S+|userns[ =]\S+|network[ =]\S+)")
STUCK = re.compile(r"(?<=[a-z_])does not .*")


class Steps(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for index, line in enumerate(text.lines):
            for step, helped in (*_commands(text, index), *_options(text, index), *_spans(text, index)):
                said_of_it = Setting(quote(line), step, None, Mood.TRIED, helped, place(line))
                yield Found(said_of_it, line.number)


def _commands(text: Text, index: int) -> Iterator[tuple[str, bool | None]]:
    """Yield the commands that change a host, and whether they helped; what is only advised is none."""
    for match in matches(STEP, text.lines[index].text):
        helped = said(text, index, match.start(), match.end(), changes=True).helped
        if helped is not None or index not in text.advice:
            yield STUCK.sub("", match[0]).rstrip(".,;:)`'\""), helped


def _options(text: Text, index: int) -> Iterator[tuple[str, bool | None]]:
    """Yield the options that a sentence is about."""
    line = text.lines[index]
    for match in matches(OPTION, line.text if line.kind is not Kind.CODE else ""):
        if PERHAPS.search(text.lead(index, match.start())):
            yield match[0], said(text, index, match.start(), match.end(), changes=False).helped


def _spans(text: Text, index: int) -> Iterator[tuple[str, bool | None]]:
    """Yield the commands between backticks, if the sentence says what came of them."""
    line = text.lines[index]
    for span in line.spans[:MOST_ON_A_LINE]:
        start = line.text.find(span)
        if len(span.split()) < 2 or any(each.search(span) for each in (STEP, PAIR, ECHO)):
            continue
        helped = said(text, index, start, start + len(span), changes=False).helped
        if helped is not None and PERHAPS.search(text.lead(index, start)):
            yield span, helped
