"""Commands that the reporter ran."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, quote
from lab.repro.reading.structure import Kind, Line
from lab.repro.report import Command

PROMPT = re.compile(r"^\s*(?:\[?[\w.-]+@[\w.-]+[: ][^$#%]{0,80}\]?)?[$#%❯➜] +(?=\S)")
# In prose it would be a quotation.
QUOTE_PROMPT = re.compile(r"^\s*> +(?=\S)")
PROGRAM = re.compile(
    r"^(?:sudo (?:-\w+ )*)?(?:\w+=\S* )*(?:\./)?"
    r"(?:git|make|cargo|apt(?:-get)?|dnf|pacman|pip3?|uv|npm|sysctl|cat|echo|grep|ls|bwrap|unshare|dmesg|journalctl|"
    r"ausearch|aa-\w+|apparmor_parser|getenforce|setenforce|docker|podman|python3?|curl|"
    r"boxlite(?= (?:run|exec|ls|list|ps|pull|rm|start|stop|create|logs|images|-))|"
    r"modprobe|uname|lsb_release|lsmod|id|groups|usermod|chmod|chown|systemctl|strace|mount|kvm-ok|firejail|node|npx|ulimit|"
    r"prlimit)(?: |$)"
)
# Words of a sentence, which no command line holds, and how a sentence ends.
SENTENCE = re.compile(
    r"(?:^|\s)(?:the|that|is|are|and|sure|it|this|to|does|not|with|we|you|fails?|failed|succeeds)(?=\s|$)|[.?!:,;]$|\w:\s"
)
# A sentence about a command line, for example: bwrap --unshare-user ... succeeds
ABOUT = re.compile(
    r"^((?:sudo )?(?:bwrap|unshare|boxlite|aa-exec|cargo|docker|podman) -{0,2}\S+.{0,400}?) "
    r"(?:succeeds|works|fails|prints|says|gives|returns)\b"
)


class Commands(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for index, line in enumerate(text.lines):
            if index not in text.advice and (command := self._command(line)):
                yield Found(Command(quote(line), command), line.number)

    def _command(self, line: Line) -> str | None:
        shown = line.raw if line.kind is Kind.HEADING else line.text
        if prompt := PROMPT.match(shown) or (QUOTE_PROMPT.match(shown) if line.kind is Kind.CODE else None):
            rest = shown[prompt.end() :].strip()
            # A line of code that begins with # may also be a comment, and a heading is one with #.
            return rest if "#" not in prompt[0] or (PROGRAM.match(rest) and not SENTENCE.search(rest)) else None
        words = line.text.strip()
        if about := ABOUT.match(words):
            return about[1]
        if PROGRAM.match(words) and not SENTENCE.search(words) and line.kind is not Kind.HEADING:
            return words
        return None
