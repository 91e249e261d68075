"""Where boxlite tells its user something else than the cause: each a report that can be filed, as Markdown."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab import catalog, remedies
from lab.evidence import refusals
from lab.record import RemedyOutcome, RemedyResult, RunResult, Status
from lab.remedies import Remedy
from lab.report import markdown, squares
from lab.upstream import told
from lab.upstream.recorded import Recorded
from lab.upstream.told import Judged

# Enough of them to show what was refused.
MOST_LINES = 3


@dataclass(frozen=True)
class Misdiagnosis:
    """Cells with the same causes of which boxlite says the same, and how that stands to the causes."""

    judged: Judged
    cells: list[Recorded]

    @property
    def first(self) -> Recorded:
        """The cell whose words and evidence are shown."""
        return self.cells[0]

    @property
    def title(self) -> str:
        """What is wrong, in a line: a title for an issue."""
        why = self.first.findings[0].why
        match self.judged:
            case Judged.WRONG_KNOB:
                return f"boxlite blames something else: {self.first.told.essence} But {why}"
            case Judged.NO_CURE:
                return f"boxlite's advice does not cure it: {why}"
            case Judged.UNKNOWN:
                return f"boxlite calls it an unknown restriction: {why}"
            case _:
                return f"boxlite does not say why: {why}"

    @property
    def cures(self) -> dict[str, list[RemedyResult]]:
        """What was tried on these cells, by name: that with which every test passed, or else all that told."""
        found: dict[str, list[RemedyResult]] = {}
        for each in (each for cell in self.cells for each in cell.result.remedies):
            if each.result not in (RemedyOutcome.CANNOT, RemedyOutcome.ERROR):
                found.setdefault(each.name, []).append(each)
        verified = {name: results for name, results in found.items() if cured(results)}
        return verified or found


def cured(results: Iterable[RemedyResult]) -> int:
    """In how many cells the whole suite passed."""
    return sum(each.result is RemedyOutcome.VERIFIED for each in results)


@dataclass(frozen=True)
class Review:
    """boxlite's words in all cells of a run that failed: how many are judged how, and what is wrong."""

    counts: Counter[Judged | None]
    found: list[Misdiagnosis]


def review(run: RunResult, folder: Path, known: Mapping[str, Remedy]) -> Review:
    """Judge boxlite's words; cells with the same causes of which it says the same are one misdiagnosis.

    `known` are the remedies, some of which are its advice.
    """
    counts: Counter[Judged | None] = Counter()
    found: dict[tuple[str, ...], Misdiagnosis] = {}
    failed = (result for result in run.cells if result.status in (Status.FAIL, Status.XFAIL))
    for cell in (Recorded(result, folder) for result in failed):
        judged = told.judge(cell.result, cell.told, known)
        counts[judged] += 1
        if judged is not None and judged is not Judged.RIGHT:
            key = (judged, cell.told.essence, *(finding.name for finding in cell.findings))
            found.setdefault(key, Misdiagnosis(judged, [])).cells.append(cell)
    return Review(counts, list(found.values()))


def render(run: RunResult, folder: Path) -> str:
    """What can be filed upstream of a run in `folder`; that there is nothing where there is nothing."""
    known = remedies.load()
    return markdown.page(
        "upstream.md",
        run=run,
        review=review(run, folder, known),
        judged=Judged,
        variants=catalog.load().variants,
        table=squares,
        versions=_versions,
        cured=cured,
        advice=partial(_advice, known),
        probes=_failed_probes,
        refusals=_refusals,
    )


def _versions(cell: Recorded) -> list[str]:
    """Of system, kernel, bubblewrap and AppArmor, SELinux's mode, and boxlite; a dash for what is not there."""
    facts = cell.result.facts
    versions = [(facts.get(name) or {}).get("version") or "-" for name in ("bubblewrap", "apparmor")]
    system = facts.get("os", {}).get("PRETTY_NAME", cell.result.guest)
    selinux = (facts.get("selinux") or {}).get("mode") or "-"
    return [system, squares.kernel([cell.result]), *versions, selinux, cell.result.build]


def _advice(known: Mapping[str, Remedy], cell: Recorded, command: str) -> list[RemedyResult]:
    """What came of one command that boxlite advises."""
    return [
        tried
        for tried in cell.result.remedies
        if tried.name in known and known[tried.name].is_advised_by(command)
    ]


def _failed_probes(cell: Recorded) -> str:
    """What was tried in the cell as boxlite's user and failed, a command and what it said."""
    return "\n".join(
        f"$ {' '.join(probe.command)}\n{probe.stderr}"
        for probe in cell.evidence.probes.values()
        if probe.status not in (0, None)
    )


def _refusals(cell: Recorded) -> str:
    return "\n".join(line for lines in refusals(cell.folder).values() for line in lines[:MOST_LINES])
