"""The answer to a report: Markdown that a maintainer can paste as a comment to its issue."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import causes
from lab.base.files import bounded, plain
from lab.builds import Build
from lab.catalog import remedies
from lab.catalog.remedies import Remedy
from lab.record import UNKNOWN, CellResult, RemedyOutcome, RemedyResult, RunResult
from lab.report import markdown, table
from lab.repro import guests, questions
from lab.repro.bisection import Bisection
from lab.repro.claims import ClaimLine
from lab.repro.planning import PROBE, Plan, named
from lab.repro.verdict import FAILED, OWN, Answered, Result, Verdict, shown

TEMPLATES = Path(__file__).parent / "templates"
FILE = TEMPLATE = "answer.md"
# Longest page; GitHub takes no comment of more than 65,536 characters.
LONGEST = 60_000


@dataclass(frozen=True)
class Cure:
    """A remedy with which the whole suite passed on a cell of this report."""

    tried: RemedyResult
    remedies: tuple[Remedy, ...]
    variant: str

    @property
    def title(self) -> str:
        return "; ".join(each.title for each in self.remedies)


@dataclass(frozen=True)
class Row:
    """A cell in the table: what it is, what it did, and why."""

    guest: str
    variant: str
    title: str
    square: str
    cause: str


@dataclass(frozen=True)
class Subject:
    """All that an answer is made of. `run` is None if nothing was run."""

    plan: Plan
    verdict: Verdict
    claims: Sequence[ClaimLine] = ()
    run: RunResult | None = None
    again: str = ""
    bisection: Bisection | None = None
    # Why there is no bisection, if one was asked for.
    not_bisected: str = ""

    @property
    def headline(self) -> str:
        """The verdict, and on which guest: a guest that is not the report's host is named as what it is."""
        return f"{self.verdict.result}{self.where}"

    @property
    def where(self) -> str:
        guest = self.plan.guest
        if self.run is None or guest is None or self.verdict.result is Result.NOT_RUN:
            return ""
        if self.plan.is_host:
            return f" on {guest.name}"
        system = guests.host_of(self.plan.report)
        is_named = system is not None and not system.inferred
        host = f"not on {named(system)}" if system and is_named else "the report names no host"
        asked = [each.cause for each in self.plan.questions]
        policies = [guests.POLICIES[name] for name in asked if name in guests.POLICIES]
        if not policies:
            return f" on {guest.name}; {host}"
        partly = "" if len(policies) == len(asked) else "in part "
        return f" on {guest.name}, {partly}{' and '.join(policies)}; {host}"

    @property
    def programs(self) -> list[str]:
        """Programs other than boxlite's whose trouble the report shows."""
        others = [each.program for each in self.plan.questions if each.program not in ("", *OWN)]
        return list(dict.fromkeys(others))

    @property
    def rows(self) -> list[Row]:
        titles = {each.name: each.title for each in self.plan.variants}
        return [
            Row(cell.guest, cell.variant, titles.get(cell.variant, ""), table.square(cell), cell.reason)
            for cell in (self.run.cells if self.run else [])
        ]

    @property
    def explained(self) -> dict[str, str]:
        """The causes that were found on the cells of the questions, each in two sentences."""
        known = causes.known()
        found = [each.name for answered in self.failed for each in _cell(answered).causes]
        return {name: known[name].explanation for name in dict.fromkeys(found) if name in known}

    @property
    def failed(self) -> list[Answered]:
        """The questions whose cells failed."""
        return [each for each in self.verdict.answered if each.cell and each.cell.result.status in FAILED]

    @property
    def unknown(self) -> list[str]:
        """The variants that failed for a cause that the evidence does not show."""
        return [_cell(each).variant for each in self.failed if _cell(each).cause in (None, UNKNOWN)]

    @property
    def cures(self) -> list[Cure]:
        """The verified remedies, for each question the one that gives up least first."""
        return list(self._cures())

    @property
    def cheapest(self) -> list[Cure]:
        """The cheapest verified remedy of each question, each once."""
        first = {cure.variant: cure for cure in reversed(self.cures)}
        return list({cure.tried.name: cure for cure in reversed(first.values())}.values())

    @property
    def uncured(self) -> list[Answered]:
        """The questions for whose cells no remedy was verified."""
        cured = {cure.variant for cure in self.cures}
        return [each for each in self.failed if _cell(each).variant not in cured]

    @property
    def untested(self) -> list[str]:
        """What could not be tested, and why, beside the claims: their table says it of each."""
        said = [f"{each.question.cause}: {each.why}" for each in self.verdict.answered if not each.cell]
        said += [f"which release first failed: {self.not_bisected}"] if self.not_bisected else []
        return list(dict.fromkeys(said))

    @property
    def versions(self) -> list[str]:
        """What the cells ran with, as the guest showed it."""
        return list(dict.fromkeys(line for cell in self._cells for line in _versions(cell)))

    @property
    def emulated(self) -> bool:
        return self.run is not None and any(host.acceleration != "kvm" for host in self.run.run.hosts())

    @property
    def to_repeat(self) -> list[str]:
        """The commands that do it again. They hold no path of the machine that this was run on."""
        build = f" --build {shlex.quote(_argument(self.plan.build))}" if self.plan.build else ""
        plain_variants = [each.name for each in self.plan.variants if not questions.is_made(each)]
        cells = [
            f"lab matrix -g {self.plan.guest.name} -v {name}{build}"
            for name in plain_variants
            if self.plan.guest is not None
        ]
        return [self.again, *cells]

    @property
    def probe(self) -> str:
        """What to ask the reporter for if the report does not say enough; empty if it does."""
        if not self.plan.missing or (self.verdict.result is not Result.NOT_RUN and self.plan.is_host):
            return ""
        return f"The report does not say: {', '.join(self.plan.missing)}; {PROBE}."

    @property
    def _cells(self) -> list[CellResult]:
        return [_cell(each) for each in self.verdict.answered if each.cell]

    def _cures(self) -> Iterator[Cure]:
        known = remedies.load()
        for cell in self._cells:
            for tried in cell.remedies:
                names = tried.name.split(remedies.AND)
                if tried.result is RemedyOutcome.VERIFIED and all(name in known for name in names):
                    yield Cure(tried, tuple(known[name] for name in names), cell.variant)


def render(subject: Subject) -> str:
    """Return the answer as Markdown. Text from the report and from guests is escaped."""
    page = markdown.page(TEMPLATE, TEMPLATES, it=subject, shown=shown, unlinked=_unlinked)
    return bounded(page, LONGEST)


def document(subject: Subject) -> dict[str, object]:
    """Return the verdict for programs: one JSON document."""
    plan, verdict = subject.plan, subject.verdict
    return {
        "verdict": str(verdict.result),
        "headline": plain(subject.headline),
        "why": [plain(each) for each in verdict.why],
        "guest": plan.guest.name if plan.guest else None,
        "is_host": plan.is_host,
        "nearest": plan.nearest.guest.name if plan.nearest else None,
        "build": plan.build.name if plan.build else None,
        "steps": [plain(each) for each in plan.steps],
        "missing": list(plan.missing),
        "questions": [_question(each) for each in verdict.answered],
        "claims": [
            {
                "claim": plain(each.claim),
                "line": each.line,
                "result": str(each.held),
                "why": plain(each.why),
                "files": list(each.files),
            }
            for each in subject.claims
        ],
        "bisection": subject.bisection.document() if subject.bisection else None,
        "cures": [
            {"remedy": each.tried.name, "variant": each.variant, "price": each.tried.price}
            for each in subject.cures
        ],
    }


def _question(answered: Answered) -> dict[str, object]:
    return {
        "cause": answered.question.cause,
        "variant": answered.question.variant.name if answered.question.variant else None,
        "verdict": str(answered.result),
        "why": plain(answered.why),
        "words": [
            {
                "line": each.statement.quote.number,
                "text": plain(each.quote),
                "file": each.proof.file if each.proof else None,
                "file_line": each.proof.line if each.proof else None,
                "untested": each.untested or None,
            }
            for each in answered.compared
        ],
    }


def _unlinked(text: str) -> str:
    """Keep GitHub from turning escaped text of a report into a mention of a user or of another issue."""
    return re.sub(r"([@#])(?=\w)", r"\1<!-- -->", text)


def _versions(cell: CellResult) -> Iterator[str]:
    facts = cell.facts
    yield f"boxlite {cell.build}"
    if facts is None:
        return
    yield f"{facts.os.pretty_name or cell.guest}, kernel {facts.kernel}"
    if facts.bubblewrap and facts.bubblewrap.version:
        yield f"bubblewrap {facts.bubblewrap.version}"
    if facts.apparmor and facts.apparmor.version:
        yield f"AppArmor {facts.apparmor.version}"
    if facts.selinux:
        yield f"SELinux {facts.selinux.mode}, policy {facts.selinux.policy or 'without a name'}"


def _argument(build: Build) -> str:
    """What --build takes, for a local file only its name."""
    return Path(build.argument or build.version).name


def _cell(answered: Answered) -> CellResult:
    assert answered.cell is not None
    return answered.cell.result
