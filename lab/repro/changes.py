"""Settings that hold on a host and steps that were tried, and whether the reporter says that they helped."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lab.repro import messages
from lab.repro.lines import MOST_ON_A_LINE, Read, Text, matches, place, quote
from lab.repro.report import Mood, Place, Setting
from lab.repro.source import Kind

# What the words around a setting say: the lists of `changes.toml`, each as one pattern.
TABLE = Path(__file__).with_suffix(".toml")
WORDS: dict[str, list[str]] = tomllib.loads(TABLE.read_text())
SAYS = {name: re.compile("|".join(alternatives), re.IGNORECASE) for name, alternatives in WORDS.items()}
# Kernel settings by the names that they have: user.name and net.http are none.
NAME = rf"(?:{'|'.join(WORDS['sysctls'])})(?:\.[\w-]+)*"
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
# `name = value` and what people write for it; `:` also as grep prints it after a path. A sentence gives a
# number.
PAIR = re.compile(
    rf"(?<![A-Za-z_./])({NAME}|{PATH}|{'|'.join(SHORT)})[\"'`]?"
    rf"(?:(?:\s*[=:]\s*|\s*(?:->|→)\s*)[\"'`]?(?P<value>{NUMBERS}|[\w./|%-]+)|"
    r"(?:\s+(?:(?:is|was|be|being)(?: now| still| already)?(?: re)?(?: ?set to)?)\s+|\s+(?:(?:re)?set )?to\s+)"
    rf"[\"'`]?(?P<number>{NUMBERS}))"
)
# In words, of a setting that is 1 or 0.
SWITCH = re.compile(
    rf"(?<![A-Za-z_./])(?P<name>{NAME}|{PATH}|{'|'.join(SHORT)})[\"'`]? (?:is |was )?"
    r"(?:(?:now|already|still) )?(?P<not>not )?"
    r"(?:(?P<on>enabled|switched on|turned on)|disabled|switched off|turned off)\b"
)
# A number's name, which no word switches on.
COUNT = re.compile(r"\bmax_\w+$")
# echo 0 | sudo tee /proc/sys/..., and with >.
ECHO = re.compile(rf"\becho\s+[\"']?({NUMBERS})[\"']?\s*(?:\|\s*(?:sudo\s+)?tee(?:\s+-a)?|>)\s*[\"']?({PATH})")
# More settings, or more steps, than that say the same.
MOST_SETTINGS = 500
# What changes the settings on its line.
CHANGES = re.compile(r"\bsysctl\s+(?:-\S+\s+)*(?:-w\b|--write\b|[a-z]+\.[\w.-]+=)|\btee\b|\becho\b|/etc/sysctl")
# What a program says of a setting that it does not know.
NO_SETTING = re.compile(
    r"unknown key|cannot stat|: No such file|not found|permission denied on key", re.IGNORECASE
)
# A question whose answer is on the following lines: cat PATH..., sysctl -n NAME...
ASKS = re.compile(
    r"^(?:\W*|\s*\[?[\w.-]+@[\w.-]+[: ][^$#%]{0,80}\]?[$#%] )(?:sudo )?(?:cat|sysctl -n)\s+"
    rf"((?:(?:{PATH}|{NAME})\s*)+)$"
)
WRAPPED = re.compile(r"^[a-z_]+$")
ANSWER = re.compile(rf"^\s*({NUMBERS}|[\w./|%-]+)\s*$")
# Commands that change what a host allows, up to the end of what they change.
STEP = re.compile(
    r"\b(?:apparmor_parser -[A-Za-z]+(?: -\w+)* \S+|aa-teardown\b|aa-(?:disable|complain|enforce) \S+|"
    r"setenforce [01]|setsebool \S+ \S+(?: \S+)?|systemctl (?:stop|disable|restart|reload) apparmor\S*|"
    r"chmod \S+ /\S+|chown \S+ /dev/\S+|setfacl -\S+ \S+ /dev/\S+|"
    r"(?:usermod|gpasswd|adduser) -?\S+ \S+(?: \S+)?|"
    r"modprobe \S+|setcap \S+ \S+|mount -o \S+ \S+|ulimit -u \S+)"
)
# The same in words, which count only if the sentence says what came of it.
DEED = re.compile(
    r"\b(?:(?:add|join)(?:ed|ing)? (?:\w+ ){0,4}?(?:the )?[\"'`]?kvm[\"'`]? group|"
    r"enabl(?:ed|ing) (?:[\w-]+ ){0,3}?(?:VT-x|VT-d|AMD-V|SVM|virtuali[sz]ation)\b)",
    re.IGNORECASE,
)
# Options of a container's, in a sentence about what they change.
OPTION = re.compile(
    r"(?<!\S)--(?:privileged|security-opt[ =]\S+|cap-add[ =]\S+|userns[ =]\S+|network[ =]\S+)|"
    r"\b(?:privileged: true|cap_add: \S+)"
)
STUCK = re.compile(r"(?<=[a-z_])does not .*")

# Most characters before a word in which it is looked for what negates it.
LONGEST_NOT = 40


@dataclass(frozen=True)
class Outcome:
    """What the words around a setting say of it: its mood, and whether it helped."""

    mood: Mood
    helped: bool | None


def read(text: Text) -> Iterator[Read]:
    """Yield the settings of a report, and the steps that were tried and are no settings."""
    yield from islice(_settings(text), MOST_SETTINGS)
    yield from islice(_steps(text), MOST_SETTINGS)


def _steps(text: Text) -> Iterator[Read]:
    for index, line in enumerate(text.lines):
        for step, helped in (*_commands(text, index), *_options(text, index), *_spans(text, index)):
            yield Read(Setting(quote(line), step, None, Mood.TRIED, helped, place(line)), line.number)


def name_of(written: str) -> str:
    """Return the name of a sysctl that is written as a name or as a path below /proc/sys."""
    if written.startswith("/proc/"):
        return written.removeprefix("/proc/sys/").replace("/", ".")
    return SHORT.get(written, written)


def _settings(text: Text) -> Iterator[Read]:
    changed: set[tuple[str, str]] = set()
    for index, line in enumerate(text.lines):
        # bubblewrap's advice names a sysctl that nobody set, and an error names one that is not there.
        if messages.span(line.text) or NO_SETTING.search(line.text):
            continue
        yield from _answers(text, index)
        changes = CHANGES.search(line.text) is not None
        pairs = [(match, match[1], match["value"] or match["number"]) for match in matches(PAIR, line.text)]
        pairs += [(match, match[2], match[1]) for match in matches(ECHO, line.text)]
        pairs += [
            (match, match["name"], "1" if bool(match["on"]) is not bool(match["not"]) else "0")
            for match in matches(SWITCH, line.text)
            if not COUNT.search(match["name"])
        ]
        for match, name, value in pairs:
            what = name_of(name), value.rstrip(".")
            context = outcome_of(text, index, match.start(), match.end(), changes=changes)
            if index in text.advice and context.helped is None:
                continue
            if what in changed and line.kind is Kind.CODE and not changes:
                continue  # What `sysctl -w` prints.
            if SAYS["elsewhere"].search(text.introduction(index)) or SAYS["elsewhere"].search(
                text.lead(index, match.start())
            ):
                continue
            if changes:
                changed.add(what)
            yield _setting(text, index, what, context, match.start(), line.number)


def _answers(text: Text, index: int) -> Iterator[Read]:
    line = text.lines[index]
    question = ASKS.match(line.text)
    if question is None:
        return
    names = question[1].split()[:20]
    # A terminal wrapped the line within the name.
    if len(names) == 1 and index + 2 < len(text.lines):
        rest, answer_ = text.lines[index + 1].text.strip(), text.lines[index + 2].text.strip()
        if WRAPPED.match(rest) and answer_.isdecimal() and text.lines[index + 2].number == line.number + 2:
            what = name_of(names[0] + rest), answer_
            yield _setting(text, index, what, Outcome(Mood.HOLDS, None), 0, line.number + 2)
            return
    for number, name in enumerate(names, index + 1):
        answer = ANSWER.match(text.lines[number].text) if number < len(text.lines) else None
        if answer is None or text.lines[number].number != line.number + number - index:
            return
        what = name_of(name), answer[1]
        yield _setting(text, index, what, Outcome(Mood.HOLDS, None), 0, text.lines[number].number)


def _setting(text: Text, index: int, what: tuple[str, str], context: Outcome, start: int, last: int) -> Read:
    line = text.lines[index]
    name, value = what
    # A container has its host's kernel; only what is counted for each user is its own.
    where = place(line, start) if name.startswith("user.") else Place.HOST
    value = " ".join(value.split())
    return Read(Setting(quote(line), name, value, context.mood, context.helped, where), last)


def _commands(text: Text, index: int) -> Iterator[tuple[str, bool | None]]:
    """Yield the commands that change a host, and whether they helped; what is only advised is none."""
    for match in matches(STEP, text.lines[index].text):
        helped = outcome_of(text, index, match.start(), match.end(), changes=True).helped
        # What stands below advice does not tell what came of it.
        if index not in text.advice or _helped(text.lines[index].text) is not None:
            yield STUCK.sub("", match[0]).rstrip(".,;:)`'\""), helped
    for match in matches(DEED, text.lines[index].text):
        helped = outcome_of(text, index, match.start(), match.end(), changes=True).helped
        if helped is not None and index not in text.advice:
            yield match[0], helped


def _options(text: Text, index: int) -> Iterator[tuple[str, bool | None]]:
    """Yield the options that a sentence is about."""
    line = text.lines[index]
    for match in matches(OPTION, line.text if line.kind is not Kind.CODE else ""):
        option, start = match[0].rstrip(".,;:)`'\""), match.start()
        end = start + len(option)
        lead, tail = text.lead(index, start), text.tail(index, end)
        is_trial = SAYS["perhaps"].search(lead) or SAYS["cure"].search(lead)
        is_said = SAYS["cured"].match(tail.strip(" `\"'")) or SAYS["in_vain"].match(tail.strip(" `\"'"))
        if SAYS["usual"].search(lead) or not (is_trial or is_said):
            continue
        yield option, outcome_of(text, index, start, end, changes=False, nearest=True).helped


def _spans(text: Text, index: int) -> Iterator[tuple[str, bool | None]]:
    """Yield the commands between backticks, if the sentence says what came of them."""
    line = text.lines[index]
    for span in line.spans[:MOST_ON_A_LINE]:
        start = line.text.find(span)
        if len(span.split()) < 2 or any(known.search(span) for known in (STEP, PAIR, ECHO, OPTION)):
            continue
        if messages.error(span) or messages.span(span) or SAYS["looks"].match(span):
            continue  # A message that somebody quotes, or a command that changes nothing.
        helped = outcome_of(text, index, start, start + len(span), changes=False).helped
        # "After that, `COMMAND` works" is a test.
        clause = text.lead(index, start).rpartition(",")[2]
        if helped is not None and SAYS["perhaps"].search(clause):
            yield span, helped


def outcome_of(
    text: Text, index: int, start: int, end: int, *, changes: bool, nearest: bool = False
) -> Outcome:
    """Judge the words around columns `start` to `end` of a line.

    `changes`: the line itself is a change. `nearest`: only words in the same clause say what came of it.
    """
    line = text.lines[index]
    lead, tail = text.lead(index, start), text.tail(index, end)
    if nearest:
        lead, tail = re.split(r"[,;]| because | until ", lead)[-1], re.split(r"[,;]| because | until ", tail)[0]
    if SAYS["avoided"].search(lead) or SAYS["undone"].match(tail):
        return Outcome(Mood.AVOIDED, None)
    helped = _helped(tail)
    if helped is None:
        helped = _helped(lead)
    if SAYS["although"].search(lead):
        helped = False
    tried = changes or SAYS["tried"].search(lead) is not None
    if helped is None and (
        SAYS["cure"].search(lead)
        or SAYS["cure_section"].match(line.section)
        or SAYS["cure"].search(text.introduction(index))
    ):
        # Somebody presents it as the cure.
        helped, tried = True, True
    elif changes and helped is None and _reproduces(text, index):
        return Outcome(Mood.HOLDS, None)
    if tried and helped is None and (changes or line.kind is Kind.CODE):
        helped = _helped(text.next_sentence(index))
    tried = tried or SAYS["in_vain"].search(lead) is not None
    if not tried and helped is not None:
        tried = (
            SAYS["perhaps"].search(lead) is not None
            or SAYS["cured"].match(tail.strip()) is not None
            or SAYS["in_vain"].match(tail.strip()) is not None
        )
    if tried:
        return Outcome(Mood.TRIED, helped)
    return Outcome(_mood(line.text, lead, tail), None)


def _mood(line: str, lead: str, tail: str) -> Mood:
    """The mood of a setting that nobody says was tried."""
    if SAYS["default"].search(f"{lead} {tail}") or SAYS["comment"].match(line):
        return Mood.DEFAULT
    supposed = SAYS["hypothetical"].search(lead) or SAYS["hypothetical_after"].match(tail)
    return Mood.HYPOTHETICAL if supposed else Mood.HOLDS


def _reproduces(text: Text, index: int) -> bool:
    """Whether a line is a step to reproduce the failure: then it is the state in which it fails."""
    line = text.lines[index]
    return bool(SAYS["reproduce"].search(line.section) or SAYS["reproduce"].search(text.introduction(index)))


def _helped(words: str) -> bool | None:
    """Whether words say that something cured (True) or did not (False); None: they do not say."""
    if SAYS["in_vain"].search(words):
        return False
    begins = (cure.start() for cure in SAYS["cured"].finditer(words))
    cured = (
        begin for begin in begins if not SAYS["not_said"].search(words[max(0, begin - LONGEST_NOT) : begin])
    )
    return None if next(cured, None) is None else True
