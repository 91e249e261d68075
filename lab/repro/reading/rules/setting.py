"""Sysctls: those that hold on the host, and those that were tried."""

import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, matches, place, quote
from lab.repro.reading.rules._tried import Said, said
from lab.repro.reading.rules.words import BUBBLEWRAP
from lab.repro.reading.structure import Kind
from lab.repro.report import Mood, Place, Setting

ROOTS = "kernel|user|fs|net|vm|dev|abi|debug"
NAME = rf"(?:{ROOTS})\.[a-z0-9_]+(?:\.[\w-]+)*"
PATH = r"/proc/sys/[a-z0-9_]+(?:/[\w.-]+)+"
# A list of numbers is separated by tabs, or by spaces up to the end of the line.
NUMBERS = r"-?\d+(?:(?:[ \t]+-?\d+){1,40}(?=\s*$)|(?:\t+-?\d+){1,40})?"
# Names that people write without the part before the last dot.
SHORT = {
    "unprivileged_userns_clone": "kernel.unprivileged_userns_clone",
    "apparmor_restrict_unprivileged_userns": "kernel.apparmor_restrict_unprivileged_userns",
    "apparmor_restrict_unprivileged_unconfined": "kernel.apparmor_restrict_unprivileged_unconfined",
    "unprivileged_userns_apparmor_policy": "kernel.unprivileged_userns_apparmor_policy",
    "max_user_namespaces": "user.max_user_namespaces",
    "ptrace_scope": "kernel.yama.ptrace_scope",
    "io_uring_disabled": "kernel.io_uring_disabled",
}
# `name = value` and what people write for it; `:` also as grep prints it after a path.
PAIR = re.compile(
    rf"(?<![A-Za-z_./])({NAME}|{PATH}|{'|'.join(SHORT)})[\"']?"
    r"(?:\s*[=:]\s*|\s+(?:is|was)(?: now| still| already)?(?: set to)?\s+|\s+(?:set )?to\s+|\s*(?:->|→)\s*)"
    rf"[\"']?({NUMBERS}|[\w./|%-]+)"
)
# echo 0 | sudo tee /proc/sys/..., and with >.
ECHO = re.compile(rf"\becho\s+[\"']?({NUMBERS})[\"']?\s*(?:\|\s*(?:sudo\s+)?tee(?:\s+-a)?|>)\s*[\"']?({PATH})")
# What changes the settings on its line.
CHANGES = re.compile(r"\bsysctl\s+(?:-\S+\s+)*(?:-w\b|--write\b|[a-z]+\.[\w.-]+=)|\btee\b|\becho\b|/etc/sysctl")
# A question whose answer is on the following lines: cat PATH..., sysctl -n NAME...
ASKS = re.compile(rf"^\W*(?:sudo )?(?:cat|sysctl -n)\s+((?:(?:{PATH}|{NAME})\s*)+)$")
ANSWER = re.compile(rf"^\s*({NUMBERS}|[\w./|%-]+)\s*$")


class Settings(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        changed: set[tuple[str, str]] = set()
        for index, line in enumerate(text.lines):
            if BUBBLEWRAP.search(line.text):
                continue  # Its advice names a sysctl that nobody set.
            yield from self._answers(text, index)
            changes = CHANGES.search(line.text) is not None
            pairs = [(match, match[1], match[2]) for match in matches(PAIR, line.text)]
            pairs += [(match, match[2], match[1]) for match in matches(ECHO, line.text)]
            for match, name, value in pairs:
                what = name_of(name), value.rstrip(".")
                context = said(text, index, match.start(), match.end(), changes=changes)
                if index in text.advice and context.helped is None:
                    continue
                if what in changed and line.kind is Kind.CODE and not changes:
                    continue  # What `sysctl -w` prints.
                if changes:
                    changed.add(what)
                yield self._found(text, index, what, context, match.start(), line.number)

    def _answers(self, text: Text, index: int) -> Iterator[Found]:
        line = text.lines[index]
        asked = ASKS.match(line.text)
        if asked is None:
            return
        for number, name in enumerate(asked[1].split()[:20], index + 1):
            answer = ANSWER.match(text.lines[number].text) if number < len(text.lines) else None
            if answer is None or text.lines[number].number != line.number + number - index:
                return
            what = name_of(name), answer[1]
            yield self._found(text, index, what, Said(Mood.HOLDS, None), 0, text.lines[number].number)

    @staticmethod
    def _found(text: Text, index: int, what: tuple[str, str], context: Said, start: int, last: int) -> Found:
        line = text.lines[index]
        name, value = what
        # A container has its host's kernel; only what is counted for each user is its own.
        where = place(line, start) if name.startswith("user.") else Place.HOST
        return Found(
            Setting(quote(line), name, " ".join(value.split()), context.mood, context.helped, where),
            last,
        )


def name_of(written: str) -> str:
    """Return the name of a sysctl that is written as a name or as a path below /proc/sys."""
    if written.startswith("/proc/"):
        return written.removeprefix("/proc/sys/").replace("/", ".")
    return SHORT.get(written, written)
