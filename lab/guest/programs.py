"""The programs that run in guests: their sources, the command that runs them there, what they answer."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lab.base.errors import LabError, format_first_errors
from lab.base.files import check_values, clean_text, cut_text
from lab.probes import PROGRAMS

# What runs the programs in a guest: over SSH, or as the resident agent.
LOADER = Path(__file__).with_name("loader.py")

# How much of what a guest printed is part of an error.
MOST_SHOWN = 20_000
# How many wrong fields of an answer an error names.
MOST_NAMED = 5

# A program's name, and its argument.
Call = tuple[str, dict[str, Any]]
# What takes a file that a program sends: its name and its content.
Keep = Callable[[str, bytes], None]


class RemoteFailed(LabError):
    """One of the lab's own commands failed in the guest; the message holds its output."""


def files() -> dict[str, Path]:
    folders = (Path(__file__).parent / "remote", PROGRAMS)
    return {file.stem: file for folder in folders for file in sorted(folder.glob("[!_]*.py"))}


@cache
def source(file: Path) -> str:
    """The text of a program, read once in the life of a process: a run recorded the digest of it."""
    return file.read_text()


def read_sources() -> dict[str, str]:
    return {name: source(file) for name, file in files().items()}


def compute_programs_digest() -> str:
    """A digest of the source of every program, and of what runs them."""
    return hashlib.sha256(json.dumps([read_sources(), read_loader()]).encode()).hexdigest()


def read_loader() -> str:
    """The program that runs programs in a guest: `python3 -c TEXT once CALLS`, or `python3 FILE agent PORT`."""
    return source(LOADER)


def build_command(calls: Sequence[Call]) -> list[str]:
    """The command that runs programs one after another in one interpreter, each with a JSON argument.

    Starting an interpreter takes half a second in an emulated guest.
    """
    loaded = [
        (name, base64.b64encode(read_sources()[name].encode()).decode(), json.dumps(argument))
        for name, argument in calls
    ]
    # The programs need the standard library only, and not what `site` looks for.
    return ["python3", "-I", "-S", "-c", read_loader(), "once", json.dumps(loaded)]


def refuse_file(name: str, _content: bytes) -> None:
    """For programs that send no file."""
    raise ValueError(f"nobody asked for the file {cut_text(clean_text(name), 100)!r}")


class _Line(BaseModel):
    """A line of an answer: a file, or its end. `results` are checked by whoever called the programs."""

    model_config = ConfigDict(strict=True)

    file: str | None = None
    content: str = ""
    failed: str | None = None
    results: list[Any] | None = None


class ProgramReply:
    """What programs answer, a line at a time; see `loader.py`. Files go to `keep`.

    `results` is what each program printed, after the last line.
    """

    def __init__(self, calls: Sequence[Call], keep: Keep = refuse_file) -> None:
        self.names = ", ".join(name for name, _ in calls)
        self.results: list[Any] = []
        self._count = len(calls)
        self._keep = keep

    def take(self, printed: str | bytes) -> bool:
        """Take a line; whether it was the last one.

        Raises RemoteFailed if a program failed, or if this is no answer of the lab's programs.
        """
        try:
            line = check_reply(self.names, _Line, _parsed(printed))
            if line.file is not None:
                self._keep(line.file, base64.b64decode(line.content, validate=True))
                return False
            if line.failed is None and (line.results is None or len(line.results) != self._count):
                raise ValueError(f"expected a list with {self._count} results")
        except ValueError as error:
            text = printed if isinstance(printed, str) else printed.decode(errors="replace")
            raise RemoteFailed(
                f"{self.names} in the guest printed no JSON of its results ({error}): "
                f"{clean_text(cut_text(text, MOST_SHOWN))}"
            ) from error
        if line.failed is not None:
            reason = clean_text(cut_text(line.failed.rstrip(), MOST_SHOWN))
            raise RemoteFailed(f"`{self.names}` in the guest failed: {reason}")
        self.results = line.results or []
        return True


def _parsed(line: str | bytes) -> object:
    """A line as JSON. Raises ValueError."""
    check_values(line)
    try:
        return _without_halves(json.loads(line))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _without_halves(value: Any) -> Any:
    """Replace half of a surrogate pair, as Python reads what is no UTF-8 in a guest: no file can have one."""
    match value:
        case str():
            return value if value.isascii() else value.encode(errors="replace").decode()
        case dict():
            return {_without_halves(key): _without_halves(inner) for key, inner in value.items()}
        case list():
            return [_without_halves(inner) for inner in value]
    return value


def check_reply[T](program: str, kind: type[T], printed: object) -> T:
    """Return the JSON that a program printed as a `kind`. Raises RemoteFailed if it does not fit.

    The error names the program and the first fields that are wrong.
    """
    try:
        return TypeAdapter(kind).validate_python(printed)
    except ValidationError as error:
        wrong = clean_text(cut_text(format_first_errors(error, MOST_NAMED), MOST_SHOWN))
        raise RemoteFailed(
            f"`{program}` in the guest printed JSON of another form: {wrong}",
            hint=f"the program {program}.py and the model of what it prints must agree",
        ) from error
