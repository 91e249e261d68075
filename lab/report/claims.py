"""The claims of a bug report or of documentation, judged by a run, as Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import claims
from lab.claims import Judgement, Seen
from lab.record import RunResult
from lab.report import markdown
from lab.upstream.finished import FinishedCell


@dataclass(frozen=True)
class Row:
    """The cells of one guest that show the same about a claim."""

    guest: str
    system: str
    shows: str
    what: str
    seen: list[Seen]


def render(run: RunResult, folder: Path, report: str) -> str:
    """Say what the run in `folder` shows about each claim on each guest. Raises UsageError: unknown report."""
    known = claims.known(report)
    cells = [FinishedCell(result, folder) for result in run.cells]
    guests = list(dict.fromkeys(cell.guest for cell in run.cells))
    judged = {name: [claims.judge(claim, guest, cells) for guest in guests] for name, claim in known.items()}
    return markdown.page(
        "claims.md",
        run=run,
        title=claims.title(report),
        claims=known,
        guests=guests,
        judged=judged,
        rows=_rows,
    )


def _rows(judgements: Iterable[Judgement]) -> list[Row]:
    rows: dict[tuple[str, ...], Row] = {}
    for judgement in judgements:
        for seen in judgement.seen:
            system = _system(seen.cell)
            row = Row(judgement.guest, system, str(claims.shows(seen.sight)), seen.sight.what, [])
            rows.setdefault((row.guest, system, row.shows, row.what), row).seen.append(seen)
    return list(rows.values())


def _system(cell: FinishedCell) -> str:
    """Return the system that the guest reports, a dash if it is not known, and the version of boxlite."""
    facts = cell.result.facts
    system = (facts.os.pretty_name if facts else None) or "-"
    return f"{system}, boxlite {cell.result.build}"
