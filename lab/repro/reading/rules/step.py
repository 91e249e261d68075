"""Steps that were tried and are no sysctl: a profile unloaded, a mode changed, a program run in another way."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, place, quote
from lab.repro.reading.rules._tried import PERHAPS, said
from lab.repro.report import Mood, Setting

# Commands that change what a host allows, up to the end of what they change.
STEP = re.compile(
    r"\b(?:apparmor_parser -[A-Za-z]+(?: -\w+)* \S+|aa-(?:teardown|disable|complain|enforce)\b(?: \S+)?|"
    r"setenforce [01]|setsebool \S+ \S+(?: \S+)?|systemctl (?:stop|disable|restart|reload) apparmor\S*|"
    r"chmod \S+ /\S+|chown \S+ /dev/\S+|(?:usermod|gpasswd) -\S+ \S+(?: \S+)?|modprobe \S+|setcap \S+ \S+|"
    r"(?:apt|apt-get|dnf) install (?:-\S+ ){0,5}\S+)"
)
STUCK = re.compile(r"(?<=[a-z_])does not .*")


class Steps(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for index, line in enumerate(text.lines):
            for match in STEP.finditer(line.text):
                step = STUCK.sub("", match[0]).rstrip(".,;:)`'\"")
                context = said(text, index, match.start(), match.end(), changes=True)
                yield Found(
                    Setting(quote(line), step, None, Mood.TRIED, context.helped, place(line)), line.number
                )
            for span in line.spans:
                start = line.text.find(span)
                if len(span.split()) < 2 or STEP.search(span) or "=" in span.split()[0]:
                    continue
                context = said(text, index, start, start + len(span), changes=False)
                if context.helped is not None and PERHAPS.search(text.lead(index, start)):
                    yield Found(
                        Setting(quote(line), span, None, Mood.TRIED, context.helped, place(line)), line.number
                    )
