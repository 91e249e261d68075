"""Settings that hold on a host and steps that were tried, and whether the reporter says that they helped.

The patterns, and the words that tell a mood, are in `settings.toml`.
"""

import re
from collections.abc import Iterator
from itertools import islice

from lab.repro import messages
from lab.repro.report import Mood, Place, Setting
from lab.repro.source import LineKind, ReportText, find_matches, find_place, load_table, quote_line

TABLE = load_table(__file__)
SAYS = {name: re.compile("|".join(parts), re.IGNORECASE) for name, parts in TABLE["says"].items()}
NAME = rf"(?:{'|'.join(TABLE['sysctls'])})(?:\.[\w-]+){{0,8}}|{TABLE['PATH']}|{'|'.join(TABLE['short'])}"
# So many settings, and as many steps, are looked at: the words around each cost time, and more say the same.
MOST = 300
# Most values that one command asks for, and most characters before a word in which its negation is looked for.
MOST_ASKED, LONGEST_NOT = 20, 40
# What parts the clauses of a sentence.
CLAUSE = re.compile(r"[,;]| because | until ")
STUCK = re.compile(r"(?<=[a-z_])does not .*")


def _pattern(written: str) -> re.Pattern[str]:
    for placeholder, pattern in {"NAME": NAME, "PATH": TABLE["PATH"], "NUMBERS": TABLE["NUMBERS"]}.items():
        written = written.replace(f"{{{placeholder}}}", pattern)
    return re.compile(written)


FORMS = [_pattern(form) for form in TABLE["forms"]]
CHANGES, NO_SETTING, ASKS, ANSWER = (
    _pattern(TABLE[name]) for name in ("changes", "no_setting", "asks", "answer")
)
STEPS = [
    (re.compile(row["pattern"]), row.get("command", False), row.get("said", False)) for row in TABLE["step"]
]

# What the words around a setting say of it: its mood, and whether it helped.
type Outcome = tuple[Mood, bool | None]


def read_settings(text: ReportText) -> Iterator[Setting]:
    """Yield the settings of a report, and the steps that were tried and are no settings."""
    yield from _of_values(text)
    for index in range(len(text.lines)):
        yield from _answers(text, index)
    steps = (
        (index, match, is_command, is_said)
        for index, line in enumerate(text.lines)
        for pattern, is_command, is_said in STEPS
        if (is_command or line.kind is not LineKind.CODE) and index not in text.build_steps
        for match in find_matches(pattern, line.text)
    )
    for index, match, is_command, is_said in islice(steps, MOST):
        line, is_advice = text.lines[index], index in text.advice
        # A step in words is a change; an option only in the clause that is about it.
        mood, helped = judge_outcome(
            text, index, match.start(), match.end(), changes=is_command, clause=not is_command
        )
        # What stands below advice does not tell what came of it.
        is_told = (_helped(line.text) if is_advice else helped) is not None
        if mood is Mood.TRIED and (is_told or not (is_said or is_advice)):
            name = STUCK.sub("", match[0]).rstrip(".,;:)`'\"")
            yield Setting(quote_line(line), name, None, mood, helped, find_place(line))


def _of_values(text: ReportText) -> Iterator[Setting]:
    """Yield each setting that stands with its value."""
    forms = (
        (index, match, CHANGES.search(line.text) is not None)
        for index, line in enumerate(text.lines)
        # bubblewrap's advice names a sysctl that nobody set, and an error names one that is not there.
        if not messages.find_message_span(line.text)
        and not NO_SETTING.search(line.text)
        and index not in text.build_steps
        for form in FORMS
        for match in find_matches(form, line.text)
    )
    changed: set[tuple[str, str]] = set()
    for index, match, changes in islice(forms, MOST):
        groups = match.groupdict()
        if value := groups.get("value") or groups.get("number"):
            value = " ".join(value.rstrip(".").split())
        else:
            value = "1" if bool(groups["on"]) is not bool(groups["not"]) else "0"
        pair = name_of(match["name"]), value
        mood, helped = judge_outcome(text, index, match.start(), match.end(), changes=changes)
        is_advice = index in text.advice and helped is None
        # What `sysctl -w` prints.
        is_echo = pair in changed and text.lines[index].kind is LineKind.CODE and not changes
        lead = f"{text.introduction(index)}\n{text.lead(index, match.start())}"
        if is_advice or is_echo or SAYS["elsewhere"].search(lead):
            continue
        if changes:
            changed.add(pair)
        yield _setting(text, index, pair, (mood, helped), match.start(), index)


def _answers(text: ReportText, index: int) -> Iterator[Setting]:
    """Yield the settings that a command on a line asks for, and that the lines below it answer."""
    question = ASKS.match(text.lines[index].text)
    names = question["names"].split()[:MOST_ASKED] if question else []
    following = text.lines[index + 1 : index + 1 + len(names)]
    for below, (name, line) in enumerate(zip(names, following, strict=False), start=1):
        answer = ANSWER.match(line.text)
        if answer is None or line.number != text.lines[index].number + below:
            return
        pair = name_of(name), " ".join(answer[1].split())
        yield _setting(text, index, pair, (Mood.HOLDS, None), 0, index + below)


def name_of(written: str) -> str:
    """Return the name of a sysctl that is written in short, or as a path below /proc/sys."""
    if written.startswith("/proc/"):
        return written.removeprefix("/proc/sys/").replace("/", ".")
    return str(TABLE["short"].get(written, written))


def _setting(
    text: ReportText, index: int, pair: tuple[str, str], outcome: Outcome, start: int, last: int
) -> Setting:
    line = text.lines[index]
    # A container has its host's kernel; only what is counted for each user is its own.
    where = find_place(line, start) if pair[0].startswith("user.") else Place.HOST
    return Setting(quote_line(line, text.lines[last].number), *pair, *outcome, where)


def judge_outcome(
    text: ReportText, index: int, start: int, end: int, *, changes: bool, clause: bool = False
) -> Outcome:
    """Judge the words around columns `start` to `end` of a line.

    `changes`: the line itself is a change. `clause`: only words in the same clause say what came of it.
    """
    line = text.lines[index]
    lead, tail = text.lead(index, start), text.tail(index, end)
    if clause:
        lead, tail = CLAUSE.split(lead)[-1], CLAUSE.split(tail)[0]
    if clause and SAYS["relative"].match(lead):
        return Mood.HYPOTHETICAL, None
    if SAYS["avoided"].search(lead) or SAYS["undone"].match(tail):
        return Mood.AVOIDED, None
    of_tail = _helped(tail)
    helped = _helped(lead) if of_tail is None else of_tail
    if SAYS["although"].search(lead):
        helped = False
    introduction = text.introduction(index)
    if helped is None:
        is_cure = SAYS["cure"].search(lead) or SAYS["cure"].search(introduction)
        if is_cure or SAYS["cure_section"].match(line.section):
            return Mood.TRIED, True  # Somebody presents it as the cure.
        if (
            changes
            and not SAYS["reply"].search(line.text[:end])
            and SAYS["reproduce"].search(f"{line.section}\n{introduction}")
        ):
            return Mood.HOLDS, None  # A step to reproduce the failure is the state in which it fails.
        if SAYS["advised"].search(lead):
            return Mood.HYPOTHETICAL, None
    is_introduced = SAYS["tried"].search(introduction) is not None
    is_tried = changes or is_introduced or SAYS["tried"].search(lead) is not None
    if is_tried and helped is None and (changes or is_introduced or line.kind is LineKind.CODE):
        helped = _helped(text.next_sentence(index))
    if helped is not None and not is_tried:
        ending = tail.strip()
        is_tried = bool(
            SAYS["perhaps"].search(lead) or SAYS["cured"].match(ending) or SAYS["in_vain"].match(ending)
        )
    if is_tried or SAYS["in_vain"].search(lead):
        return Mood.TRIED, helped
    if SAYS["blamed"].search(lead):
        return Mood.HOLDS, None
    if SAYS["default"].search(f"{lead} {tail}") or SAYS["comment"].match(line.text):
        return Mood.DEFAULT, None
    supposed = SAYS["hypothetical"].search(lead) or SAYS["hypothetical_after"].match(tail)
    return Mood.HYPOTHETICAL if supposed else Mood.HOLDS, None


def _helped(words: str) -> bool | None:
    """Whether words say that something cured (True) or did not (False); None: they do not say."""
    if SAYS["in_vain"].search(words):
        return False
    for cure in SAYS["cured"].finditer(words):
        if not SAYS["not_said"].search(words[max(0, cure.start() - LONGEST_NOT) : cure.start()]):
            return True
    return None
