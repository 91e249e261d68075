"""Error messages: who says them, which error they tell, and what was refused.

Known programs' words are the table `messages.toml`, which is searched anywhere in a line. Other lines are
messages if they begin with a program's name and hold an error's text.
"""

import errno
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.repro.lines import END_OF_SENTENCE, Read, Text, quote
from lab.repro.report import Quote, Speaker, Words

TABLE = Path(__file__).with_suffix(".toml")
# The errors that tell hosts apart.
NAMES = (
    "EPERM", "EACCES", "ENOENT", "ENOSPC", "EAGAIN", "EINVAL", "ENOMEM", "ENOSYS", "EBUSY", "EROFS", "ENODEV",
    "ENXIO", "ELOOP", "EUSERS", "EMFILE", "ENOEXEC", "EOPNOTSUPP", "ENOTDIR", "EEXIST",
)  # fmt: skip
ROWS = tomllib.loads(TABLE.read_text())
TEXTS = {os.strerror(getattr(errno, name)).lower(): name for name in NAMES} | {
    text.lower(): name for name, texts in ROWS["translated"].items() for text in texts
}
NUMBER = re.compile(
    r"\(os error (\d{1,3})\)|\berrno[:= ]{1,3}(\d{1,3})\b|"
    r"\bcode: (\d{1,3})(?:, kind:| \})|\bError\((\d{1,3})\)|"
    r"\[Errno (\d{1,3})\]",
    re.IGNORECASE,
)
NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")
TEXT = re.compile("|".join(sorted(map(re.escape, TEXTS), key=len, reverse=True)), re.IGNORECASE)
# What may follow the text of an error and belongs to it.
CODE = re.compile(r"\s*\((?:os error )?-?\d{1,3}\)")
# So far after a message's first words, in characters, an error still belongs to it; and so far before them.
AFTER, BEFORE = 200, 60
# The table's words for bubblewrap, and for a message that several programs print.
# Another clause is about something else.
CLAUSE = re.compile(r";|\. ")
BWRAP, ANY = "bubblewrap", "any"
BUBBLEWRAP = re.compile(r"(?<!failed to run )(?<!::)\bbwrap: (.{3,})")
# What opens a quotation, and what closes it.
QUOTED = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "«": "»", "(": ")"}
# How boxlite's own messages begin, or what they hold; and names of errors that other programs have, too.
OF_BOXLITE = (
    r"\b(?:StorageError|BoxliteError|boxlite\.errors\.\w+)\s*[(:]|"
    r"Sandbox preflight failed|failed to run bwrap|bwrap --unshare-user failed|The sandbox could not be init|"
    r"clone\(CLONE_NEWUSER\) errno|Box \w+ failed to start"
)
BOXLITE = re.compile(rf"(?:{OF_BOXLITE}).*")
# What other programs say, too: kvm-ok begins it with INFO.
COMMON = (
    r"(?<!INFO: )(?:KVM is (?:not )?available|/dev/kvm (?:does not exist|exists but))|"
    r"Timeout waiting for guest ready|The VM failed to start|engine reported an error|"
    r"\b(?:Config|RuntimeError|ExecutionError)\s*[(:]|Cause: "
)
BOXLITE_OR_COMMON = re.compile(rf"(?:{OF_BOXLITE}|{COMMON}).*")
KERNEL = re.compile(r"^\s*(?:\S+ +){0,6}(?:kernel: )?\[ *\d+\.\d+\] (.+)|\bkernel: (.+)")
KERNEL_TELLS = re.compile(r"\b(?:denied|error|fail|killed|segfault|trap|oom|lockdown)", re.IGNORECASE)
# Rust's form of an error of the operating system.
RUST = re.compile(r"\bOs \{ code: \d{1,3}, .{1,200}")
# PROGRAM: what: why
OTHER = re.compile(r"^\s*(?:sudo: )?([\w./-]{2,60}): (.{3,})")
# The program that stands before its message.
PROGRAM = re.compile(r"(?<![\w,] )(?<![\w./@+-])[\w./@+-]{2,60}: $")
# Steps of messages that name no error.
SAY_ENOUGH = ("chromium", "disabled", "sandbox", "kvm-unusable")
# How a line goes on with the error of the line before.
GOES_ON = re.compile(
    r"^\s*(?:\d{1,2}: |caused by\b|because\b|->|[-└╰>]+ |error: |os error|reason: |\w+Error: )", re.IGNORECASE
)
# What stands between the two: a heading, or the marks under a line of a Python traceback.
BETWEEN = re.compile(r"^\s*(?:caused by:|[~^]+)\s*$", re.IGNORECASE)
# A record of the audit log, of any type.
RECORD = re.compile(r"\bmsg=audit\(")
# A command that counts the processor's flags of virtualization, and what it prints.
COUNTS_FLAGS = re.compile(r"\b(?:svm|vmx)\b.{0,40}/proc/cpuinfo.{0,20}$")
NONE_COUNTED = re.compile(r"^\s*0\s*$")


class Message(BaseModel):
    """A row of the table, which explains its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: str
    pattern: str
    step: str
    errno: str | None = None
    errors: list[str] = []
    engine: bool = False
    alone: bool = False
    source: str


@dataclass(frozen=True)
class Row:
    """A row of the table with its pattern compiled."""

    message: Message
    pattern: re.Pattern[str]


@cache
def table() -> tuple[Row, ...]:
    """The rows of the table, in its order."""
    rows = [Message.model_validate(row) for row in ROWS["message"]]
    return tuple(Row(row, re.compile(row.pattern, re.IGNORECASE)) for row in rows)


def error(words: str) -> str | None:
    """Return the name of the first error that a text tells, by its name, its number or its message."""
    first = _first_error(words)
    return first[0] if first else None


def read(text: Text, is_audit: re.Pattern[str]) -> Iterator[Read]:
    """Yield the messages, at most one of a line. Lines of the audit log are none."""
    of_boxlite = any("boxlite" in line.raw.lower() for line in text.lines)
    taken = -1
    for index, line in enumerate(text.lines):
        if index <= taken or is_audit.search(line.text) or RECORD.search(line.text):
            continue
        words, last = message_of(quote(line), line.text, of_boxlite=of_boxlite), line.number
        if words is None and (rest := _rest(text, index)) is not None:
            whole = f"{line.text.rstrip()} {rest.strip()}"
            words, taken = message_of(quote(line), whole, of_boxlite=of_boxlite), index + 1
            last = text.lines[taken].number
        if words is not None and words.errno is None and words.step is not None and not _says_enough(words):
            # The error of a chain is on a line of its own.
            if (further := _chained(text, index)) is not None:
                after, name = further
                taken, last = after, text.lines[after].number
                words = replace(
                    words, errno=name, means=name, text=f"{words.text}: {text.lines[after].text.strip()}"
                )
            elif words.speaker is Speaker.OTHER:
                words = None
        if words is not None:
            yield Read(words, last)


def message_of(quote_: Quote, text: str, *, of_boxlite: bool = False) -> Words | None:
    """Return what is said on a line; None if it is no message. `of_boxlite`: the text is about boxlite."""
    if match := BUBBLEWRAP.search(text):
        words = _unquoted(_bubblewrap(text, match).strip())
        row = _row(words, BWRAP)
        name = error(words) or (row.errno if row else None)
        # Only what the text itself tells is its error; a step's own error is for the judging.
        return Words(quote_, words, Speaker.BUBBLEWRAP, error(words), row.step if row else None, BWRAP, name)
    if match := (BOXLITE_OR_COMMON if of_boxlite else BOXLITE).search(text):
        words = _unquoted(match[0].strip())
        return _with_row(Words(quote_, words, Speaker.BOXLITE, error(words)))
    if (match := KERNEL.search(text)) and KERNEL_TELLS.search(text):
        return Words(quote_, _unquoted((match[1] or match[2]).strip()), Speaker.KERNEL, error(match[0]))
    if match := RUST.search(text):
        return _with_row(Words(quote_, _unquoted(match[0].strip()), Speaker.OTHER, error(match[0])))
    if (known := _known(quote_, text)) is not None:
        return known
    if (match := OTHER.match(text)) and error(match[2]):
        return Words(quote_, _unquoted(text.strip()), Speaker.OTHER, error(match[2]))
    return None


def span(line: str) -> tuple[int, int] | None:
    """Where bubblewrap's message stands on a line: what it names are no systems and settings of the host."""
    match = BUBBLEWRAP.search(line)
    return (match.start(), match.start(1) + len(_bubblewrap(line, match))) if match else None


def _known(quote_: Quote, text: str) -> Words | None:
    """The message of a known program on a line; one that tells its error comes before others."""
    without: Words | None = None
    for row in table():
        if row.message.program == BWRAP and not row.message.alone:
            continue  # Its words stand in other programs' messages, too.
        if not (match := row.pattern.search(text)):
            continue
        start = match.start()
        program = PROGRAM.search(text[max(0, start - 64) : start])
        start -= len(program[0]) if program else 0
        found = _first_error(text[match.start() : match.end() + AFTER])
        clause = CLAUSE.split(text[max(0, start - BEFORE) : start])[-1]
        if found is None and (before := _first_error(clause)):
            name, end = before[0], match.end()
        elif found is not None:
            name, end = found[0], match.start() + found[1]
        else:
            name, end = None, _end_of_sentence(text, match.end())
        words = Words(
            quote_,
            _unquoted(text[start:end].strip()),
            Speaker.BUBBLEWRAP if row.message.program == BWRAP else Speaker.OTHER,
            name,
            row.message.step,
            row.message.program,
            name or row.message.errno,
            row.message.engine,
        )
        if row.message.errors and name not in row.message.errors:
            continue
        if name is not None or _says_enough(words):
            return words
        without = without or words
    return without


def _says_enough(words: Words) -> bool:
    """Whether the words tell by themselves what was refused, without an error's name."""
    return words.means is not None or words.step in SAY_ENOUGH


def _end_of_sentence(text: str, start: int) -> int:
    end = END_OF_SENTENCE.search(text, start)
    return end.start() if end else len(text)


def _with_row(words: Words) -> Words:
    known = _known(words.quote, words.text)
    if known is None:
        return replace(words, means=words.errno)
    return replace(words, step=known.step, program=known.program, means=words.errno or known.means)


def _row(text: str, program: str) -> Message | None:
    rows = (row.message for row in table() if row.message.program == program and row.pattern.search(text))
    return next(rows, None)


def _rest(text: Text, index: int) -> str | None:
    """The next line, if it ends the bracket that a line opens or answers what it asks; else None."""
    if index + 1 >= len(text.lines) or error(text.lines[index].text):
        return None
    line, following = text.lines[index], text.lines[index + 1]
    if COUNTS_FLAGS.search(line.text):
        return following.text if NONE_COUNTED.match(following.text) else None
    opens = line.text.count("(") - line.text.count(")")
    closes = following.text.count(")") - following.text.count("(")
    same = line.block == following.block
    return following.text if same and opens == closes == 1 and error(following.text) else None


def _chained(text: Text, index: int) -> tuple[int, str] | None:
    """The index of the line that tells the error of the message on a line, and the error."""
    following = index + 1
    if following < len(text.lines) and BETWEEN.match(text.lines[following].text):
        following += 1
    if following >= len(text.lines):
        return None
    line = text.lines[following].text
    name = error(line) if GOES_ON.match(line) else None
    return (following, name) if name else None


def _first_error(words: str) -> tuple[str, int] | None:
    """The name of the first error in a text, and the column where it ends, with its number."""
    ends: list[tuple[int, int, str]] = []
    if named := NAME.search(words):
        ends.append((named.start(), named.end(), named[1]))
    if text := TEXT.search(words):
        code = CODE.match(words, text.end())
        ends.append((text.start(), code.end() if code else text.end(), TEXTS[text[0].lower()]))
    for number in NUMBER.finditer(words):
        name = errno.errorcode.get(int(next(filter(None, number.groups()))))
        if name is not None:
            ends.append((number.start(), number.end(), name))
            break
    if not ends:
        return None
    _, end, name = min(ends)
    return name, end


def _bubblewrap(text: str, match: re.Match[str]) -> str:
    """Bubblewrap's message without what the sentence around it says."""
    words = match[1]
    closing = QUOTED.get(text[match.start() - 1] if match.start() else "")
    if closing and (end := words.find(closing)) > 0 and words[:end].count("(") == words[:end].count(")"):
        return words[:end]
    if text_of_error := TEXT.search(words):
        end = text_of_error.end()
        code = CODE.match(words, end)
        rest = words[code.end() if code else end :]
        # A hint of the program's own follows a colon or a comma.
        if rest and rest[0] in " \"'`”<)]},;." and not rest.startswith((", ", " (")):
            return words[: code.end() if code else end]
    return words


def _unquoted(words: str) -> str:
    """Drop what follows a message in a program's output: quotes, and brackets that it does not open."""
    opened, closed = words.count("("), words.count(")")
    while (rest := words.rstrip("\\\"'`")).endswith(")") and closed > opened:
        words, closed = rest[:-1], closed - 1
    return rest
