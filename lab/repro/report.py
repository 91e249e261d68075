"""A bug report as data: statements, each with its line, what they show, and how both are shown.

Two statements are equal if they say the same, whatever their lines are.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from packaging.version import InvalidVersion, Version

from lab.base.files import cut_text

if TYPE_CHECKING:
    from lab.probes.report import HostReport

# The program that the causes are about, unless a finding names another.
BUBBLEWRAP = "bwrap"
# The name of the program under test among the programs of a report.
BOXLITE = "boxlite"
# What stands for the program of a message that several programs print.
ANY = "any"
# What a report may lack, in words.
A_MESSAGE = "an error message that the lab knows, or a line of the kernel's audit log"
THE_VERSION = "the version of boxlite"
# Fields of an audit line that tell what happened, in this order.
AUDIT_FIELDS = (
    "apparmor", "avc", "operation", "class", "tclass", "info", "profile", "target", "comm", "name",
    "capability", "capname", "scontext", "permissive", "sig", "syscall",
)  # fmt: skip
# Longest line that is shown of a report, and the most lines that are shown as not understood.
LONGEST_SHOWN = 160
# Most lines of a report that a sentence refers to.
MOST_REFERENCES = 6
MOST_SHOWN = 20


@dataclass(frozen=True)
class Quote:
    """A line of a report. `number` counts from 1; `text` is the line without control characters.

    `last`: the number of the last line that was read with it.
    """

    number: int
    text: str
    last: int = field(default=0, compare=False)


class Place(StrEnum):
    """Which system a statement is about."""

    HOST = "host"
    CONTAINER = "container"


class Mood(StrEnum):
    """What the reporter says of a setting: it holds on the host, or it was tried as a cure.

    Only these two are facts. A default is what a system is said to have; what is hypothetical or avoided is
    nothing that anybody did.
    """

    HOLDS = "holds"
    TRIED = "tried"
    DEFAULT = "default"
    HYPOTHETICAL = "hypothetical"
    AVOIDED = "avoided"


# What is shown of a setting that was tried, by whether it helped, and of one that neither holds nor was tried.
OUTCOMES = {
    True: "the reporter says that it helps",
    False: "the reporter says that it does not help",
    None: "outcome not said",
}
MOODS = {
    Mood.DEFAULT: "said to be the default",
    Mood.HYPOTHETICAL: "named as what it takes",
    Mood.AVOIDED: "not wanted",
}


class Speaker(StrEnum):
    """Who said the words that a report quotes."""

    BOXLITE = "boxlite"
    BUBBLEWRAP = "bubblewrap"
    OTHER = "another program"


@dataclass(frozen=True)
class Statement:
    """One thing that a report says. Beside its `kind` people are shown its text: mostly its first field."""

    kind: ClassVar[str]
    quote: Quote = field(compare=False)

    def __str__(self) -> str:
        return str(getattr(self, fields(self)[1].name))


@dataclass(frozen=True)
class System(Statement):
    """A distribution. `id` and `version` as in /etc/os-release: ubuntu and 24.04; `name` as it is written.

    `like`: the distribution that it derives from. `or_derivative`: the report leaves open whether it is this
    distribution or one that derives from it. `inferred`: nobody named it, its kernel's words tell it.
    `rolling`: it has no releases.
    """

    kind = "system"
    id: str
    version: str | None
    name: str = field(compare=False)
    place: Place = Place.HOST
    like: str | None = field(default=None, compare=False)
    or_derivative: bool = field(default=False, compare=False)
    inferred: bool = field(default=False, compare=False)
    rolling: bool = field(default=False, compare=False)

    @property
    def title(self) -> str:
        """The distribution as the report names it, with what the report leaves open."""
        version = f" {self.version}" if self.version and self.version not in self.name else ""
        more = " or a derivative" if self.or_derivative else ""
        return f"{self.name}{version}{more}"

    def __str__(self) -> str:
        notes = {
            "version not named": not self.version and not self.rolling,
            f"derives from {self.like}": self.like,
            "the report names no system, and only this one has what it shows": self.inferred,
            "in a container": self.place is Place.CONTAINER,
        }
        return "; ".join([self.title, *(note for note, holds in notes.items() if holds)])


@dataclass(frozen=True)
class KernelStatement(Statement):
    """The release of the running kernel."""

    kind = "kernel"
    release: str


@dataclass(frozen=True)
class ArchitectureStatement(Statement):
    """The architecture of the host, as `uname -m` prints it."""

    kind = "architecture"
    name: str


@dataclass(frozen=True)
class ProgramVersion(Statement):
    """The version of a program: of boxlite, or of one beside it, for example of bubblewrap."""

    kind = "program"
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Setting(Statement):
    """A sysctl, or a step that was tried. `helped`: whether the reporter says that it cured; None: not said.

    `value` is None for a step that is no value, and `name` then is the command, for example
    `apparmor_parser -R /etc/apparmor.d/unprivileged_userns`.
    """

    kind = "setting"
    name: str
    value: str | None
    mood: Mood
    helped: bool | None = None
    place: Place = Place.HOST

    @property
    def written(self) -> str:
        """The setting as its reporter would write it."""
        return self.name if self.value is None else f"{self.name}={self.value}"

    def __str__(self) -> str:
        place = " (in a container)" if self.place is Place.CONTAINER else ""
        note = OUTCOMES[self.helped] if self.mood is Mood.TRIED else MOODS.get(self.mood)
        return f"{self.written}{place}" + (f"; {note}" if note else "")


@dataclass(frozen=True)
class AuditLine(Statement):
    """A line of the kernel's audit log: its fields, without those that differ each time."""

    kind = "audit line"
    fields: dict[str, str] = field(hash=False)

    @property
    def written(self) -> str:
        """Its fields, each on a line of its own."""
        return "\n".join(f"{key}={value}" for key, value in self.fields.items())

    def __str__(self) -> str:
        return ", ".join(f"{key}={self.fields[key]}" for key in AUDIT_FIELDS if key in self.fields)


@dataclass(frozen=True)
class ErrorMessage(Statement):
    """An error message. `errno` is the name of the error it tells, for example EACCES.

    If it is one of the table `messages.toml`: `operation` is what was refused, `program` is who says so,
    `means` is the error that the words stand for even if they do not name it, and `engine` says that the
    program makes containers. `subject` is what it is about beside the start of a box, and `remark` what it
    means.
    """

    kind = "message"
    text: str
    speaker: Speaker
    errno: str | None = None
    operation: str | None = None
    program: str | None = None
    means: str | None = None
    engine: bool = False
    subject: str = ""
    remark: str = ""

    def __str__(self) -> str:
        is_named = self.speaker is Speaker.OTHER and self.program not in (None, ANY)
        error = f" [{self.errno}]" if self.errno else ""
        return f"{self.program if is_named else self.speaker}: {self.text}{error}"


@dataclass(frozen=True)
class ProgramEnd(Statement):
    """How a program ended: its exit status, and the name of the signal that this status stands for."""

    kind = "exit status"
    status: int
    signal: str | None = None

    def __str__(self) -> str:
        return f"{self.status} = 128 + {self.status - 128}, {self.signal}" if self.signal else str(self.status)


@dataclass(frozen=True)
class Command(Statement):
    """A command line that the reporter ran. It is shown and never run."""

    kind = "command"
    text: str


@dataclass(frozen=True)
class NamedTest(Statement):
    """A test that fails, by its name in upstream's suite. `known`: the lab's suite has a test of this name."""

    kind = "failing test"
    name: str
    known: bool

    def __str__(self) -> str:
        return self.name if self.known else f"{self.name} (not in the lab's suite)"


@dataclass(frozen=True)
class Assertion(Statement):
    """What a report asserts of hosts, of boxlite or of a cure, and a cell can show: see `assertions.toml`.

    `observer` is the function of `lab/verdict/observers.py` that looks for it, with `arguments`. The cell of
    `variant` shows it, or the cells of the report's questions if that is empty.
    """

    kind = "assertion"
    text: str
    observer: str
    arguments: dict[str, Any] = field(hash=False)
    variant: str = ""

    @property
    def is_of_host(self) -> bool:
        """Whether only the report's own host shows it: what names a system or a version says where it holds."""
        return bool(self.variant) and self.arguments.keys().isdisjoint(("system", "oldest"))


@dataclass(frozen=True)
class ProbeOutput(Statement):
    """The output of the probe script: what the reporter's host is, and what its kernel allows.

    `host` is None if the output is damaged; `damaged` then says why. Its facts are statements of their own too.
    """

    kind = "lab probe"
    host: "HostReport | None" = field(hash=False)
    damaged: str = ""

    def __str__(self) -> str:
        if self.host is None:
            return f"not used: {self.damaged}"
        probes = self.host.probes.by_name().items()
        worked = ", ".join(name for name, probe in probes if probe.worked)
        failed = ", ".join(name for name, probe in probes if probe.failed)
        return f"failed: {failed or 'none'}; worked: {worked or 'none'}"


@dataclass(frozen=True)
class Report:
    """What was read out of a report. `unread`: lines that look technical and were not understood.

    `size` is the text's length in characters; `cut`: only its beginning was read. `topics` are what the text is
    about beside its statements, each with the line that says so: see `judging.toml`. `subjects` are the same in
    the words that say what tests are about: see `lab/suites/subjects.toml`.
    """

    title: str
    statements: tuple[Statement, ...]
    unread: tuple[Quote, ...] = ()
    size: int = 0
    cut: bool = False
    topics: Mapping[str, Quote] = field(default_factory=dict, hash=False)
    subjects: Mapping[str, Quote] = field(default_factory=dict, hash=False)

    def of[S: Statement](self, kind: type[S]) -> Iterator[S]:
        """Yield the statements of one kind, in the order of the text."""
        return (statement for statement in self.statements if isinstance(statement, kind))

    @property
    def host(self) -> System | None:
        """The host's system, a named one before one that is inferred; None if the report names none."""
        hosts = (system for system in self.of(System) if system.place is Place.HOST)
        return min(hosts, key=lambda system: system.inferred, default=None)

    @property
    def named_host(self) -> System | None:
        """The host's system as the report names it; None if it names none."""
        return self.host if self.host and not self.host.inferred else None

    @property
    def arch(self) -> str | None:
        """The host's architecture; None if the report names none, or several."""
        names = {statement.name for statement in self.of(ArchitectureStatement)}
        return names.pop() if len(names) == 1 else None

    @property
    def versions(self) -> list[Version]:
        """The versions of boxlite that it names, each once."""
        versions = []
        for program in self.of(ProgramVersion):
            with suppress(InvalidVersion):
                versions += [Version(program.version)] if program.name == BOXLITE else []
        return list(dict.fromkeys(versions))

    @property
    def quotes_failure(self) -> bool:
        """Whether it quotes what fails: a message, an audit line, a test, a status, or a probe's output."""
        kinds = (ErrorMessage, AuditLine, NamedTest, ProbeOutput)
        return any(
            isinstance(one, kinds) or (isinstance(one, ProgramEnd) and one.status != 0)
            for one in self.statements
        )

    @property
    def tells_failure(self) -> bool:
        """Whether something fails, by its words, by what it quotes, or since something cured it."""
        is_cured = any(setting.helped for setting in self.of(Setting))
        return not {"failure", "error-text"}.isdisjoint(self.topics) or self.quotes_failure or is_cured

    @property
    def missing(self) -> dict[str, str]:
        """What it does not say and a verdict needs, each with a command that shows it on the host."""
        host = self.named_host
        hint = f" (its words only point to {self.host.title})" if self.host else ""
        release = f"the release of {host.name}" if host else f"the distribution{hint} and its release"
        has_release = host is not None and (host.rolling or host.version is not None)
        messages = any(isinstance(statement, ErrorMessage | AuditLine) for statement in self.statements)
        lacks = {
            release: ("cat /etc/os-release; uname -rm", not has_release),
            A_MESSAGE: ("sudo dmesg | tail -n 50", not messages),
            THE_VERSION: ("pip show boxlite", not self.versions),
        }
        return {lack: command for lack, (command, is_missing) in lacks.items() if is_missing}

    @property
    def is_in_wsl(self) -> bool:
        """Whether the host is WSL2, by its kernel, or by the line that names its system."""
        kernels = [kernel.release.lower() for kernel in self.of(KernelStatement)]
        line = self.topics.get("wsl")
        host = self.host
        is_said = line is not None and (
            host is None or host.quote.number == line.number or host.id == "windows"
        )
        return any("microsoft" in release or "wsl2" in release for release in kernels) or is_said


# -- what a text alone shows


@dataclass(frozen=True)
class Finding:
    """A cause that the text shows: its name, how sure that is (as of a cell), why, and the lines that show it.

    `program` is the program that the cause blocks, if it is not bubblewrap. `next_best` is the cause with the
    next best odds; empty if none is worth telling.
    """

    name: str
    confidence: Literal["proved", "likely"]
    reason: str
    quotes: tuple[Quote, ...]
    program: str = BUBBLEWRAP
    next_best: str = ""


@dataclass(frozen=True)
class PossibleCause:
    """A cause that may be behind what the text quotes, and is not likely enough to bet on.

    `share`: its share of the odds, from 0 to 1. `speaks_for` and `speaks_against` are facts of the report.
    `command` tells it from the others: it `shows` something if it is this cause.
    """

    name: str
    share: float
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]
    command: str
    shows: str
    quotes: tuple[Quote, ...]


@dataclass(frozen=True)
class Explanation:
    """What is behind a report, by its words, if it is none of the causes that the lab knows.

    `says` it in one sentence. `command`, on the reporter's host, `shows` something if the sentence is right.
    """

    topic: str
    says: str
    command: str
    shows: str
    quotes: tuple[Quote, ...]


@dataclass(frozen=True)
class Remark:
    """A contradiction, or a warning against a wrong conclusion, with the lines that it is about."""

    text: str
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True)
class JudgedReport:
    """What a report's text alone shows. `findings` are in the order in which the causes block.

    `instead` is what the text is about if it shows none of these causes, the best explanation first.
    """

    findings: tuple[Finding, ...] = ()
    remarks: tuple[Remark, ...] = ()
    possible: tuple[PossibleCause, ...] = ()
    instead: tuple[Explanation, ...] = ()


# -- as people and programs are shown it


def format_report(report: Report, judged: JudgedReport) -> Iterator[str]:
    """Yield the lines that show what was read of a report, and all remarks. The comment has its causes."""
    yield f"report: {report.title or '(no title)'}"
    for name, quote in report.subjects.items():
        yield f"        about {name}, by line {quote.number}"
    yield f"        {report.size:,} characters{'; only the beginning was read' if report.cut else ''}"
    yield "\nunderstood"
    if not report.statements:
        yield "        nothing"
    for quote, group in groupby(report.statements, key=lambda statement: statement.quote):
        yield _quoted(quote)
        of_line = list(group)
        steps = {statement.name for statement in of_line if isinstance(statement, Setting)}
        for statement in of_line:
            # A step that was tried is shown as that, and not as a command, too.
            if not (isinstance(statement, Command) and statement.text in steps):
                yield f"          {statement.kind:<13} {cut_text(str(statement), LONGEST_SHOWN)}"
    if report.unread:
        yield "\nnot understood, and perhaps of interest"
        yield from map(_quoted, report.unread[:MOST_SHOWN])
        if len(report.unread) > MOST_SHOWN:
            yield f"        and {len(report.unread) - MOST_SHOWN} more lines: --json lists them"
    if judged.remarks:
        yield "\nremarks"
    for remark in judged.remarks:
        yield f"        {remark.text}{cite_lines(remark.quotes)}"


def cite_lines(quotes: Iterable[Quote]) -> str:
    """Return the lines of quotes in brackets; what was read from several lines has all of them."""
    spans = sorted({(quote.number, max(quote.number, quote.last)) for quote in quotes})[:MOST_REFERENCES]
    numbers = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    is_one = len(spans) == 1 and spans[0][0] == spans[0][1]
    return f" (line{'' if is_one else 's'} {', '.join(numbers)})" if numbers else ""


def _quoted(quote: Quote) -> str:
    return f"{quote.number:>6} | {cut_text(quote.text, LONGEST_SHOWN)}"


def make_report_document(report: Report, judged: JudgedReport) -> dict[str, Any]:
    """Return the same as a JSON document."""
    return {
        "title": report.title,
        "characters": report.size,
        "cut": report.cut,
        "subjects": {name: _quote(quote) for name, quote in report.subjects.items()},
        "statements": [_statement(statement) for statement in report.statements],
        "not_understood": [_quote(quote) for quote in report.unread],
        "findings": [_judged(finding) for finding in judged.findings],
        "possible": [_judged(candidate) for candidate in judged.possible],
        "instead": [_judged(explanation) for explanation in judged.instead],
        "remarks": [_judged(remark) for remark in judged.remarks],
    }


def _statement(statement: Statement) -> dict[str, Any]:
    says = asdict(statement)
    del says["quote"]
    if isinstance(statement, ProbeOutput) and statement.host:
        says["host"] = statement.host.model_dump(mode="json")
    return {"kind": statement.kind.replace(" ", "-"), **_quote(statement.quote), "says": says}


def _judged(item: Finding | PossibleCause | Explanation | Remark) -> dict[str, Any]:
    fields = asdict(item) | {"quotes": [_quote(quote) for quote in item.quotes]}
    return {"cause": fields.pop("name"), **fields} if "name" in fields else fields


def _quote(quote: Quote) -> dict[str, Any]:
    return {"line": quote.number, "text": quote.text}
