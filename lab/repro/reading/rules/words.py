"""Error messages, with their speakers and errors."""

import errno
import os
import re
from collections.abc import Iterator

from lab.repro.reading.rules._base import Found, Rule, Text, quote
from lab.repro.reading.rules.audit import BEGINS
from lab.repro.report import Speaker, Words

# strerror(3) of the errors that tell hosts apart.
NAMES = (
    "EPERM",
    "EACCES",
    "ENOENT",
    "ENOSPC",
    "EAGAIN",
    "EINVAL",
    "ENOMEM",
    "ENOSYS",
    "EBUSY",
    "EROFS",
    "ENODEV",
    "ELOOP",
    "EUSERS",
    "EMFILE",
    "ENOEXEC",
    "EOPNOTSUPP",
)
TEXTS = {os.strerror(getattr(errno, name)): name for name in NAMES}
NUMBER = re.compile(
    r"\(os error (\d{1,3})\)|\berrno[:= ]{1,3}(\d{1,3})\b|\bcode: (\d{1,3}), kind:", re.IGNORECASE
)
NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")
BUBBLEWRAP = re.compile(r"(?<!failed to run )(?<!::)\bbwrap: (.{3,})")
# How boxlite's own messages begin, or what they hold.
BOXLITE = re.compile(
    r"(?:\b(?:Config|RuntimeError|StorageError|ExecutionError|BoxliteError|boxlite\.errors\.\w+)\s*[(:]|"
    r"Sandbox preflight failed|failed to run bwrap|bwrap --unshare-user failed|The sandbox could not be init|"
    r"clone\(CLONE_NEWUSER\) errno|KVM is (?:not )?available|/dev/kvm (?:does not exist|exists but)|"
    r"Timeout waiting for guest ready|"
    r"The VM failed to start|engine reported an error|Box \w+ failed to start|Cause: ).*"
)
KERNEL = re.compile(r"^\s*(?:\S+ +){0,6}(?:kernel: )?\[ *\d+\.\d+\] (.+)|\bkernel: (.+)")
KERNEL_TELLS = re.compile(r"\b(?:denied|error|fail|killed|segfault|trap|oom|lockdown)", re.IGNORECASE)
# Rust's form of an error of the operating system.
RUST = re.compile(r"\bOs \{ code: \d{1,3}, .{1,200}")
# PROGRAM: what: why
OTHER = re.compile(r"^\s*(?:sudo: )?([\w./-]{2,60}): (.{3,})")


class ErrorWords(Rule):
    def read(self, text: Text) -> Iterator[Found]:
        for line in text.lines:
            if BEGINS.search(line.text):
                continue
            if (said := _said(line.text)) is not None:
                speaker, words = said
                words = _unquoted(words.strip())
                yield Found(Words(quote(line), words, speaker, error(words)), line.number)


def error(words: str) -> str | None:
    """Return the name of the error that a message tells."""
    if named := NAME.search(words):
        return named[1]
    if number := NUMBER.search(words):
        return errno.errorcode.get(int(next(filter(None, number.groups()))))
    return next((name for text, name in TEXTS.items() if text.lower() in words.lower()), None)


def _unquoted(words: str) -> str:
    """Drop what follows a message in a program's output: quotes, and brackets that it does not open."""
    opened, closed = words.count("("), words.count(")")
    while (rest := words.rstrip("\\\"'`")).endswith(")") and closed > opened:
        words, closed = rest[:-1], closed - 1
    return rest


def _said(text: str) -> tuple[Speaker, str] | None:
    """Return who says what on a line; None if it is no message."""
    if said := BUBBLEWRAP.search(text):
        return Speaker.BUBBLEWRAP, said[1]
    if said := BOXLITE.search(text):
        return Speaker.BOXLITE, said[0]
    if (said := KERNEL.search(text)) and KERNEL_TELLS.search(text):
        return Speaker.KERNEL, said[1] or said[2]
    if said := RUST.search(text):
        return Speaker.OTHER, said[0]
    if (said := OTHER.match(text)) and error(said[2]):
        return Speaker.OTHER, text.strip()
    return None
