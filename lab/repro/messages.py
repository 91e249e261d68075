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
from pathlib import Path
from typing import Any

from lab.repro.lines import END_OF_SENTENCE, Text, quote
from lab.repro.report import Quote, Speaker, Words

# The errors that tell hosts apart.
NAMES = (
    "EPERM", "EACCES", "ENOENT", "ENOSPC", "EAGAIN", "EINVAL", "ENOMEM", "ENOSYS", "EBUSY", "EROFS", "ENODEV",
    "ENXIO", "ELOOP", "EUSERS", "EMFILE", "ENOEXEC", "EOPNOTSUPP", "ENOTDIR", "EEXIST",
)  # fmt: skip
TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
SAYS = {name: re.compile(pattern) for name, pattern in TABLE["patterns"].items()}
TEXTS = {os.strerror(getattr(errno, name)).lower(): name for name in NAMES} | {
    text.lower(): name for name, texts in TABLE["translated"].items() for text in texts
}
NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")
TEXT = re.compile("|".join(sorted(map(re.escape, TEXTS), key=len, reverse=True)), re.IGNORECASE)
# So far after a message's first words, in characters, an error still belongs to it; and so far before them.
AFTER, BEFORE = 200, 60
# Longest name of the program before a message.
LONGEST_PROGRAM = 64
# The table's words for bubblewrap, and for a message that several programs print.
BWRAP, ANY = "bubblewrap", "any"
# What opens a quotation, and what closes it.
QUOTED = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "«": "»", "(": ")"}
# Steps of messages that name no error.
SAY_ENOUGH = ("chromium", "disabled", "sandbox", "kvm-unusable")


@dataclass(frozen=True)
class Message:
    """A row of the table, which explains its fields."""

    program: str
    pattern: re.Pattern[str]
    step: str
    source: str
    errno: str | None = None
    errors: tuple[str, ...] = ()
    engine: bool = False
    alone: bool = False


MESSAGES = [Message(**row | {"pattern": re.compile(row["pattern"], re.IGNORECASE)}) for row in TABLE["message"]]


def error(words: str) -> str | None:
    """Return the name of the first error that a text tells, by its name, its number or its message."""
    first = _first_error(words)
    return first[0] if first else None


def read(text: Text, is_audit: re.Pattern[str]) -> Iterator[Words]:
    """Yield the messages, at most one of a line. Lines of the audit log are none."""
    of_boxlite = any("boxlite" in line.raw.lower() for line in text.lines)
    taken = -1
    for index, line in enumerate(text.lines):
        if index <= taken or is_audit.search(line.text) or SAYS["record"].search(line.text):
            continue
        words, last = message_of(quote(line), line.text, of_boxlite=of_boxlite), index
        if words is None and (rest := _rest(text, index)) is not None:
            whole = f"{line.text.rstrip()} {rest.strip()}"
            words, last = message_of(quote(line), whole, of_boxlite=of_boxlite), index + 1
        if words is not None and words.errno is None and words.step is not None and not _says_enough(words):
            # The error of a chain is on a line of its own.
            if (further := _chained(text, index)) is not None:
                last, name = further
                whole = f"{words.text}: {text.lines[last].text.strip()}"
                words = replace(words, errno=name, means=name, text=whole)
            elif words.speaker is Speaker.OTHER:
                words = None
        if words is not None:
            taken = last
            yield replace(words, quote=quote(line, text.lines[last].number))


def message_of(quote_: Quote, text: str, *, of_boxlite: bool = False) -> Words | None:
    """Return what is said on a line; None if it is no message. `of_boxlite`: the text is about boxlite."""
    if match := SAYS["bubblewrap"].search(text):
        words = _unquoted(_bubblewrap(text, match).strip())
        name = error(words)
        rows = (row for row in MESSAGES if row.program == BWRAP and row.pattern.search(words))
        row = next((row for row in rows if not row.errors or name in row.errors), None)
        # Only what the text itself tells is its error; a step's own error is for the judging.
        means = name or (row.errno if row else None)
        return Words(quote_, words, Speaker.BUBBLEWRAP, name, row.step if row else None, BWRAP, means)
    own = [SAYS["boxlite"].search(text), SAYS["common"].search(text) if of_boxlite else None]
    if match := min(filter(None, own), key=lambda match: match.start(), default=None):
        return _with_row(quote_, match[0], Speaker.BOXLITE)
    if (match := SAYS["kernel"].search(text)) and SAYS["kernel_tells"].search(text):
        return Words(quote_, _unquoted((match[1] or match[2]).strip()), Speaker.KERNEL, error(match[0]))
    if match := SAYS["rust"].search(text):
        return _with_row(quote_, match[0], Speaker.OTHER)
    if (of_table := _of_table(quote_, text)) is not None:
        return of_table
    if (match := SAYS["other"].match(text)) and error(match[2]):
        return Words(quote_, _unquoted(text.strip()), Speaker.OTHER, error(match[2]))
    return None


def span(line: str) -> tuple[int, int] | None:
    """Where bubblewrap's message stands on a line: what it names are no systems and settings of the host."""
    match = SAYS["bubblewrap"].search(line)
    return (match.start(), match.start(1) + len(_bubblewrap(line, match))) if match else None


def _of_table(quote_: Quote, text: str) -> Words | None:
    """The message of a known program on a line; one that tells its error comes before others."""
    without: Words | None = None
    for row in MESSAGES:
        if row.program == BWRAP and not row.alone:
            continue  # Its words stand in other programs' messages, too.
        if not (match := row.pattern.search(text)):
            continue
        start = match.start()
        program = SAYS["program"].search(text[max(0, start - LONGEST_PROGRAM) : start])
        start -= len(program[0]) if program else 0
        clause = SAYS["clause"].split(text[max(0, start - BEFORE) : start])[-1]
        if after := _first_error(text[match.start() : match.end() + AFTER]):
            name, end = after[0], match.start() + after[1]
        elif before := _first_error(clause):
            name, end = before[0], match.end()
        else:
            sentence = END_OF_SENTENCE.search(text, match.end())
            name, end = None, sentence.start() if sentence else len(text)
        if row.errors and name not in row.errors:
            continue
        speaker = Speaker.BUBBLEWRAP if row.program == BWRAP else Speaker.OTHER
        words = Words(
            quote_,
            _unquoted(text[start:end].strip()),
            speaker,
            name,
            row.step,
            row.program,
            name or row.errno,
            row.engine,
        )
        if name is not None or _says_enough(words):
            return words
        without = without or words
    return without


def _says_enough(words: Words) -> bool:
    """Whether the words tell by themselves what was refused, without an error's name."""
    return words.means is not None or words.step in SAY_ENOUGH


def _with_row(quote_: Quote, said: str, speaker: Speaker) -> Words:
    """A message of boxlite's or of a Rust program, with what the table says of its words."""
    text = _unquoted(said.strip())
    words = Words(quote_, text, speaker, error(said), means=error(said))
    row = _of_table(quote_, text)
    if row is None:
        return words
    return replace(words, step=row.step, program=row.program, means=words.errno or row.means)


def _rest(text: Text, index: int) -> str | None:
    """The next line, if it ends the bracket that a line opens or answers what it asks; else None."""
    if index + 1 >= len(text.lines) or error(text.lines[index].text):
        return None
    line, following = text.lines[index], text.lines[index + 1]
    if SAYS["counts_flags"].search(line.text):
        return following.text if SAYS["none_counted"].match(following.text) else None
    opens = line.text.count("(") - line.text.count(")")
    closes = following.text.count(")") - following.text.count("(")
    same = line.block == following.block
    return following.text if same and opens == closes == 1 and error(following.text) else None


def _chained(text: Text, index: int) -> tuple[int, str] | None:
    """The index of the line that tells the error of the message on a line, and the error."""
    following = index + 1
    if following < len(text.lines) and SAYS["between"].match(text.lines[following].text):
        following += 1
    if following >= len(text.lines):
        return None
    line = text.lines[following].text
    name = error(line) if SAYS["goes_on"].match(line) else None
    return (following, name) if name else None


def _first_error(words: str) -> tuple[str, int] | None:
    """The name of the first error in a text, and the column where it ends, with its number."""
    ends: list[tuple[int, int, str]] = []
    if named := NAME.search(words):
        ends.append((named.start(), named.end(), named[1]))
    if text := TEXT.search(words):
        code = SAYS["code"].match(words, text.end())
        ends.append((text.start(), code.end() if code else text.end(), TEXTS[text[0].lower()]))
    for number in SAYS["number"].finditer(words):
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
        code = SAYS["code"].match(words, end)
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
