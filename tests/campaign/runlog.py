"""The steps of a run, from its log."""

from datetime import UTC, datetime
from pathlib import Path

from lab.run.journal import RUN_LOG
from tests.campaign.choice import Step


def steps(run: Path, began: datetime | None = None) -> list[Step]:
    """The lines of a run's log, with the seconds since `began`; notes are left out."""
    try:
        lines = (run / RUN_LOG).read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        stamp, _, text = line.partition(" ")
        if text and not text.startswith("note:"):
            found.append(Step(text=_short(text), seconds=_since(stamp, began)))
    return found


def last_step(run: Path) -> str:
    """What the run was doing, as its log says."""
    found = steps(run)
    return found[-1].text if found else "before the first step"


def _short(text: str) -> str:
    """A step without the times that a decided cell has."""
    return text.partition(" (")[0][:200]


def _since(stamp: str, began: datetime | None) -> float:
    if began is None:
        return 0.0
    try:
        at = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return max(0.0, round((at - began).total_seconds(), 2))
