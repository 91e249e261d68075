"""Steps that were tried and are no sysctl: a profile unloaded, a mode changed, a program run in another way."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, matches, place, quote
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
            for match in matches(STEP, line.text):
                step = STUCK.sub("", match[0]).rstrip(".,;:)`'\"")
                context = said(text, index, match.start(), match.end(), changes=True)
                if index in text.advice and context.helped is None:
                    continue
                yield Found(
                    Setting(quote(line), step, None, Mood.TRIED, context.helped, place(line)), line.number
                )
            for match in matches(OPTION, line.text if line.kind is not Kind.CODE else ""):
                context = said(text, index, match.start(), match.end(), changes=False)
                if PERHAPS.search(text.lead(index, match.start())):
                    yield Found(
                        Setting(quote(line), match[0], None, Mood.TRIED, context.helped, place(line)),
                        line.number,
                    )
            for span in line.spans:
                start = line.text.find(span)
                if len(span.split()) < 2 or any(each.search(span) for each in (STEP, PAIR, ECHO)):
                    continue
                context = said(text, index, start, start + len(span), changes=False)
                if context.helped is not None and PERHAPS.search(text.lead(index, start)):
                    yield Found(
                        Setting(quote(line), span, None, Mood.TRIED, context.helped, place(line)), line.number
                    )
