"""Error messages: who says them, which error they tell, and what was refused.

Known programs' words are the table `messages.toml`, which is searched anywhere in a line. Other lines are
messages if they begin with a program's name and hold an error's text.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lab.repro.report import ErrorMessage, Quote, Speaker
from lab.repro.source import END_OF_SENTENCE, LETTER, ReportText, load_table, quote_line

TABLE = load_table(__file__)
SAYS = {name: re.compile(pattern) for name, pattern in TABLE["patterns"].items()}
# The errors that tell hosts apart, by what strerror(3) says.
TEXTS = {os.strerror(getattr(errno, name)).lower(): name for name in TABLE["errors"]} | {
    text.lower(): name for name, texts in TABLE["translated"].items() for text in texts
}
# How a line ends that a terminal broke within such a text.
BEGINNINGS = tuple(
    {f" {' '.join(words[:count])}" for words in map(str.split, TEXTS) for count in range(1, len(words))}
)
TEXT = rf"(?i:{'|'.join(sorted(map(re.escape, TEXTS), key=len, reverse=True))})"
CODE = r"(?:\s*\((?:os error )?-?\d{1,3}\))?"
TEXT_OF_ERROR = re.compile(f"{TEXT}{CODE}")
# An error by its name, its text, or its number, each with the number in brackets that may follow a text.
ERROR = re.compile(
    rf"(?<!== )\b(?P<name>{'|'.join(TABLE['errors'])})\b|(?P<text>{TEXT}){CODE}"
    rf"|(?i:{'|'.join(TABLE['numbers'])})"
)
# So far after a message's first words, in characters, an error still belongs to it; and so far before them.
AFTER, BEFORE = 200, 60
# Longest name of the program before a message.
LONGEST_PROGRAM = 64
# The table's word for bubblewrap, and the programs whose words are looked for in a cell.
BWRAP = "bubblewrap"
SPEAKERS = {BWRAP: Speaker.BUBBLEWRAP, "boxlite": Speaker.BOXLITE}
# What opens a quotation, and what closes it.
QUOTED = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“", "«": "»", "(": ")"}


@dataclass(frozen=True)
class Message:
    """A row of the table, which explains its fields."""

    program: str
    pattern: re.Pattern[str]
    operation: str
    source: str
    errno: str | None = None
    errors: tuple[str, ...] = ()
    engine: bool = False
    alone: bool = False
    subject: str = ""
    remark: str = ""


MESSAGES = [Message(**row | {"pattern": re.compile(row["pattern"], re.IGNORECASE)}) for row in TABLE["message"]]


def read_messages(text: ReportText, is_audit: re.Pattern[str]) -> Iterator[ErrorMessage]:
    """Yield the messages, at most one of a line. Lines of the audit log are none."""
    of_boxlite = any("boxlite" in line.raw.lower() for line in text.lines)
    last = -1
    for index, line in enumerate(text.lines):
        if index <= last or is_audit.search(line.text) or SAYS["record"].search(line.text):
            continue
        words, last_of_it = find_message(quote_line(line), line.text, of_boxlite=of_boxlite), index
        if (words is None or words.errno is None) and (joined := _whole(text, index, words)):
            words, last_of_it = find_message(quote_line(line), joined, of_boxlite=of_boxlite), index + 1
        if words is not None and words.operation and words.errno is None and not _says_enough(words):
            # The error of a chain is on a line of its own.
            if (end := _end_of_chain(text, index)) is not None:
                last_of_it, words_of_error = end, text.lines[end].text.strip()
                name = error(words_of_error)
                words = replace(words, errno=name, means=name, text=f"{words.text}: {words_of_error}")
            elif words.speaker is Speaker.OTHER:
                words = None
        if words is not None:
            last = last_of_it
            yield replace(words, quote=quote_line(line, text.lines[last].number))


def find_message(quote_: Quote, text: str, *, of_boxlite: bool = False) -> ErrorMessage | None:
    """Return what is said on a line; None if it is no message. `of_boxlite`: the text is about boxlite."""
    if not LETTER.search(text):
        return None
    if match := SAYS["bubblewrap"].search(text):
        words = _unquoted(_bubblewrap(text, match).strip())
        name = error(words)
        rows = (row for row in MESSAGES if row.program == BWRAP and row.pattern.search(words))
        row = next((row for row in rows if not row.errors or name in row.errors), None)
        # Only what the text itself tells is its error; an operation's own error is for the judging.
        means = name or (row.errno if row else None)
        operation = row.operation if row else None
        return ErrorMessage(quote_, words, Speaker.BUBBLEWRAP, name, operation, BWRAP, means)
    matches = [SAYS["boxlite"].search(text), SAYS["common"].search(text) if of_boxlite else None]
    first = min(filter(None, matches), key=lambda match: match.start(), default=None)
    if speech := first or SAYS["rust"].search(text):
        words, name = (
            _unquoted(_within_quotes(text, speech.start(), speech[0]).strip()),
            error(speech[0]),
        )
        speaker = Speaker.BOXLITE if first else Speaker.OTHER
        row_words = _of_table(quote_, words if first else text) or ErrorMessage(quote_, words, speaker)
        means = name or row_words.means
        return replace(row_words, text=words, speaker=speaker, errno=name, means=means, engine=False)
    if listed_ := _of_table(quote_, text):
        return listed_
    if (match := SAYS["other"].match(text)) and (name := error(match[2])):
        return ErrorMessage(quote_, _unquoted(text.strip()), Speaker.OTHER, name)
    return None


def find_message_span(line: str) -> tuple[int, int] | None:
    """Where bubblewrap's message stands on a line: what it names are no systems and settings of the host."""
    match = SAYS["bubblewrap"].search(line)
    return (match.start(), match.start(1) + len(_bubblewrap(line, match))) if match else None


def _of_table(quote_: Quote, text: str) -> ErrorMessage | None:
    """The message of a known program on a line; one that tells its error comes before others."""
    without: ErrorMessage | None = None
    for row in MESSAGES:
        if row.program == BWRAP and not row.alone:
            continue  # Its words stand in other programs' messages, too.
        if not (match := row.pattern.search(text)):
            continue
        start = match.start()
        program = SAYS["program"].search(text[max(0, start - LONGEST_PROGRAM) : start])
        start -= len(program[0]) if program else 0
        name, end = _first_error(text[match.start() : match.end() + AFTER])
        end += match.start()
        if name is None and (ending := SAYS["ending"].search(text, end)):
            # A hint may stand between what failed and its error.
            name, end = error(ending[0]), len(text)
        elif name is None:
            name, _ = _first_error(SAYS["clause"].split(text[max(0, start - BEFORE) : start])[-1])
            sentence = END_OF_SENTENCE.search(text, match.end())
            end = match.end() if name else sentence.start() if sentence else len(text)
        if row.errors and name not in row.errors:
            continue
        speaker = SPEAKERS.get(row.program, Speaker.OTHER)
        message = _unquoted(text[start:end].strip())
        means = name or row.errno
        of_row = (row.operation, row.program, means, row.engine, row.subject, row.remark)
        words = ErrorMessage(quote_, message, speaker, name, *of_row)
        if name is not None or _says_enough(words):
            return words
        without = without or words
    return without


def _says_enough(words: ErrorMessage) -> bool:
    """Whether the words tell by themselves what was refused, without an error's name."""
    return words.means is not None or words.operation in TABLE["say_enough"] or bool(words.remark)


def _whole(text: ReportText, index: int, words: ErrorMessage | None) -> str | None:
    """A line with the next one, if a terminal broke a message between them or that answers it; else None.

    `words`: what the line says by itself.
    """
    if index + 1 >= len(text.lines):
        return None
    line, following = text.lines[index], text.lines[index + 1]
    joined = f"{line.text.rstrip()} {following.text.strip()}"
    if SAYS["counts_flags"].search(line.text):
        return joined if SAYS["none_counted"].match(following.text) else None
    is_broken = f" {line.text.strip().lower()}".endswith(BEGINNINGS)
    is_open = words is None and line.text.count("(") > line.text.count(")")
    if line.block == following.block and (is_broken or is_open) and not error(line.text) and error(joined):
        return joined
    return None


def _end_of_chain(text: ReportText, index: int) -> int | None:
    """The index of the line that tells the error of the message on a line; None if none does."""
    for number, line in enumerate(text.lines[index + 1 : index + 3], index + 1):
        is_next = number == index + 1 and SAYS["breaks_off"].search(text.lines[index].text)
        if (is_next or SAYS["goes_on"].match(line.text)) and error(line.text):
            return number
        if not SAYS["between"].match(line.text):
            break
    return None


def error(words: str) -> str | None:
    """The name of the first error that a text tells, by its name, its number or its message."""
    return _first_error(words)[0]


def _first_error(words: str) -> tuple[str | None, int]:
    """The name of the first error in a text, and the column where it ends, with its number."""
    for match in ERROR.finditer(words):
        numbers = [int(number) for number in match.groups()[2:] if number]
        name = match["name"] or TEXTS.get((match["text"] or "").lower())
        if name := name or next((errno.errorcode.get(number) for number in numbers), None):
            return name, match.end()
    return None, 0


def _within_quotes(text: str, start: int, words: str) -> str:
    """Words that begin at a column of a line, up to the end of the quotation that begins right before them."""
    closing = QUOTED.get(text[start - 1] if start else "")
    if closing and (end := words.find(closing)) > 0 and words[:end].count("(") == words[:end].count(")"):
        return words[:end]
    return words


def _bubblewrap(text: str, match: re.Match[str]) -> str:
    """Bubblewrap's message without what the sentence around it says."""
    words = _within_quotes(text, match.start(), match[1])
    if words != match[1]:
        return words
    if error_text := TEXT_OF_ERROR.search(words):
        tail = words[error_text.end() :]
        # A hint of the program's own follows a colon or a comma.
        if tail and tail[0] in " \"'`”<)]},;." and not tail.startswith((", ", " (")):
            return words[: error_text.end()]
    for row in MESSAGES:
        if (
            row.alone
            and (sentence := row.pattern.search(words))
            and SAYS["sentence_goes_on"].match(words, sentence.end())
        ):
            return words[: sentence.end()]
    return words


def _unquoted(words: str) -> str:
    """Drop what follows a message in a program's output: quotes, and brackets that it does not open."""
    opening, closing = words.count("("), words.count(")")
    while (stripped := words.rstrip("\\\"'`")).endswith(")") and closing > opening:
        words, closing = stripped[:-1], closing - 1
    return stripped
