"""The tables of docs/faults.md: python -m tests.campaign.table [record.jsonl...]

Without a file it takes the tries that are published beside that page. Add new ones there.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from tests.campaign import record
from tests.campaign.kinds import KINDS
from tests.campaign.record import TryRecord

# All tries that the page is about.
PUBLISHED = Path(__file__).parents[2] / "docs" / "faults.jsonl"
# Findings of one try that a table shows.
SHOWN = 3


def promises() -> str:
    """Each kind of fault with what the lab promises."""
    return _table(
        ("fault", "what happens", "what the lab promises"),
        [(f"`{name}`", kind.happens, kind.promise) for name, kind in KINDS.items()],
    )


def tries(made: Sequence[TryRecord]) -> str:
    """How often each fault was made, and how often all was as promised."""
    rows = []
    for name in KINDS:
        own = [each for each in made if each.fault == name]
        did = [each for each in own if each.happened]
        kept = [each for each in did if not each.findings]
        rows.append((f"`{name}`", str(len(own)), str(len(did)), str(len(kept)), _seconds(own)))
    whole = [each for each in made if each.happened]
    good = [each for each in whole if not each.findings]
    rows.append(("in all", str(len(made)), str(len(whole)), str(len(good)), _seconds(made)))
    return _table(("fault", "tries", "fault made", "as promised", "median s"), rows)


def findings(made: Iterable[TryRecord]) -> str:
    """What was not as promised, each with the try that repeats it; the first of many alike stand for all."""
    rows = [(f"`{each.name}`", each.lab, each.doing, finding) for each in made for finding in _first(each)]
    return _table(("try", "lab", "while", "finding"), rows) if rows else "No finding."


def _first(made: TryRecord) -> list[str]:
    more = len(made.findings) - SHOWN
    return made.findings if more <= 0 else [*made.findings[:SHOWN], f"and {more} more, all in the record"]


def _seconds(made: Sequence[TryRecord]) -> str:
    ordered = sorted(each.seconds for each in made)
    return f"{ordered[len(ordered) // 2]:.0f}" if ordered else "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def table(files: tuple[Path, ...]) -> None:
    """Print what the lab promises for each fault and, from records, what was found."""
    made = record.read(files or (PUBLISHED,))
    click.echo(f"{promises()}\n\n{tries(made)}\n\n{findings(made)}")


if __name__ == "__main__":
    table()
