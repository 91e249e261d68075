"""What boxlite says about its own failures, judged by a run, as Markdown."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import catalog
from lab.base import notices
from lab.base.files import group_values
from lab.catalog import remedies
from lab.record import RemedyOutcome, RemedyResult, RunResult
from lab.report import markdown_pages, table
from lab.report.sections import format_command
from lab.verdict import words
from lab.verdict.words import FinishedCell, WordsVerdict

# Number of log lines that suffice to show what was refused.
MOST_LINES = 3


@dataclass(frozen=True)
class Misdiagnosis:
    """Cells with the same causes about which boxlite says the same, and the verdict on what it says."""

    judged: WordsVerdict
    cells: list[FinishedCell]

    @property
    def first(self) -> FinishedCell:
        """The cell whose evidence and boxlite's words about it are shown."""
        return self.cells[0]

    @property
    def title(self) -> str:
        cause = self.first.result.causes[0].reason
        match self.judged:
            case WordsVerdict.WRONG_KNOB:
                return f"boxlite blames something else: {self.first.words.essence} But {cause}"
            case WordsVerdict.NO_CURE:
                return f"boxlite's advice does not cure it: {cause}"
            case WordsVerdict.UNKNOWN:
                return f"boxlite calls it an unknown restriction: {cause}"
            case _:
                return f"boxlite does not say why: {cause}"

    @property
    def cures(self) -> dict[str, list[RemedyResult]]:
        """The remedies tried on these cells, by name: the verified ones, or else all that have a result."""
        results = [remedy for cell in self.cells for remedy in cell.result.remedies]
        by_name = group_values((remedy.name, remedy) for remedy in results if not remedy.result.says_nothing)
        verified = {name: results for name, results in by_name.items() if count_cures(results)}
        return verified or by_name


def count_cures(results: Iterable[RemedyResult]) -> int:
    return sum(result.result is RemedyOutcome.VERIFIED for result in results)


@dataclass(frozen=True)
class Review:
    """The review of boxlite's words in a run's failed cells: counts by verdict, and the wrong diagnoses.

    `unread` names the cells whose words could not be judged, each with the reason.
    """

    counts: Counter[WordsVerdict | None]
    misdiagnoses: list[Misdiagnosis]
    unread: list[str]


def review_words(run: RunResult, folder: Path) -> Review:
    """Judge boxlite's words in a run's failed cells, grouping cells with the same causes and the same words."""
    counts: Counter[WordsVerdict | None] = Counter()
    by_words: dict[tuple[str, ...], Misdiagnosis] = {}
    unread: list[str] = []

    def add(cell: FinishedCell) -> str:
        judged = words.judge_words(cell.result, cell.words, remedies.load_remedies())
        counts[judged] += 1
        if judged is not None and judged is not WordsVerdict.RIGHT:
            key = (judged, cell.words.essence, *(finding.name for finding in cell.result.causes))
            by_words.setdefault(key, Misdiagnosis(judged, [])).cells.append(cell)
        return ""

    for cell in (FinishedCell(result, folder) for result in run.cells):
        if cell.result.status.failed and (problem := notices.guard_text(add)(cell)):
            unread.append(f"{table.name_cell(cell.result)}: {problem}")
    return Review(counts, list(by_words.values()), unread)


def render_misdiagnoses(run: RunResult, folder: Path) -> str:
    return markdown_pages.render_template(
        "upstream.md",
        run=run,
        review=review_words(run, folder),
        judged=WordsVerdict,
        variants=catalog.load_catalog().variants,
        format_command=format_command,
        versions=_versions,
        cured=count_cures,
        advice=_advice,
        probes=notices.guard_text(_failed_probes),
        refusals=notices.guard_text(_refusals),
    )


def _versions(cell: FinishedCell) -> list[str]:
    """Versions of system, kernel, bubblewrap, AppArmor and boxlite, and SELinux's mode; a dash for none."""
    facts = cell.result.facts
    parts = [facts.bubblewrap, facts.apparmor] if facts else [None, None]
    versions = [(part.version if part else None) or "-" for part in parts]
    system = (facts.os.pretty_name if facts else None) or cell.result.guest
    selinux = facts.selinux.mode if facts and facts.selinux else "-"
    return [system, table.format_kernel([cell.result]), *versions, selinux, cell.result.build]


def _advice(cell: FinishedCell, command: str) -> list[RemedyResult]:
    all_remedies = remedies.load_remedies()
    return [
        remedy
        for remedy in cell.result.remedies
        if remedy.name in all_remedies and all_remedies[remedy.name].is_advised_by(command)
    ]


def _failed_probes(cell: FinishedCell) -> str:
    return "\n".join(
        f"$ {' '.join(probe.command)}\n{probe.stderr}"
        for probe in cell.evidence.probes.by_name().values()
        if probe.failed
    )


def _refusals(cell: FinishedCell) -> str:
    return "\n".join(line for lines in cell.refusals.values() for line in lines[:MOST_LINES])
