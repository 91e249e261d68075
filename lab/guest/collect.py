"""Gathering a cell's evidence from the guest into the run's folder."""

from pathlib import Path

from lab.builds import FOLDER
from lab.catalog import Variant
from lab.guest import suite
from lab.guest.archive import unpack
from lab.guest.session import Session
from lab.guest.variant import Mark, home

ARCHIVE = f"{FOLDER}/evidence.tar.gz"


def collect(session: Session, folder: Path, variant: Variant, *, mark: Mark, full: bool) -> None:
    """Fetch what the suite wrote, and with `full` everything that can explain a failure, into `folder`.

    Raises LabError; what was unpacked before stays.
    """
    session.program(
        "collect",
        {
            "mark": mark.text,
            "since": mark.clock,
            "results": suite.folder(variant),
            "homes": home(variant),
            "full": full,
            "to": ARCHIVE,
        },
        seconds=20,
    )
    archive = folder / ".evidence.tar.gz"
    try:
        session.get(ARCHIVE, archive)
        unpack(archive, folder)
    finally:
        archive.unlink(missing_ok=True)
