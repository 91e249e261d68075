"""Gathering a cell's evidence from the guest into the run's folder."""

from pathlib import Path

from lab.catalog import Variant
from lab.guest import suite
from lab.guest.evidence_folder import EvidenceFolder
from lab.guest.session import Session
from lab.guest.variant import Mark, home


def collect(session: Session, folder: Path, variant: Variant, *, mark: Mark, full: bool) -> None:
    """Fetch what the suite wrote, and with `full` everything that can explain a failure, into `folder`.

    Raises LabError; what came before stays.
    """
    argument = {
        "mark": mark.text,
        "since": mark.clock,
        "results": suite.folder(variant),
        "homes": home(variant),
        "full": full,
    }
    session.programs([("collect", argument)], seconds=20, keep=EvidenceFolder(folder).keep)
