"""Gathering a cell's evidence from the guest into a folder. The guest is hostile: it may send anything.

No file goes outside of the folder, or has a name that is the lab's own; no more is taken than the bounds below.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.base.errors import LabError
from lab.base.files import clean_text, cut_text
from lab.catalog import Variant
from lab.guest import suite
from lab.guest.session import Session
from lab.guest.variant import CellStart, find_home

# What `remote/collect.py` reads as root; the suite chooses none of these names.
FILES = frozenset(
    {
        *("kernel.log", "kernel-mark-lost.log", "audit.log", "journal.log", "sysctls.txt"),
        *("apparmor-profiles.txt", "processes.txt", "modes.txt"),
    }
)
# What the suite and boxlite wrote, under names that they chose. No rule takes it for the kernel's.
FOLDERS = frozenset({"suite", "boxlite"})
MOST_BYTES = 256 * 2**20
MOST_FILES = 5_000
MOST_LEVELS = 20
LONGEST_NAME, LONGEST_PATH = 255, 4096


def collect_evidence(session: Session, folder: Path, variant: Variant, *, mark: CellStart, full: bool) -> None:
    """Fetch what the suite wrote, and with `full` everything that can explain a failure, into `folder`.

    Raises LabError; what came before stays.
    """
    argument = {
        "mark": mark.text,
        "since": mark.clock,
        "results": suite.get_results_folder(variant),
        "homes": find_home(variant),
        "full": full,
    }
    session.programs([("collect", argument)], seconds=20, keep=EvidenceFolder(folder).keep)


class HostileEvidence(LabError):
    """The guest sent what is no evidence, or more than is taken from a guest."""


@dataclass
class EvidenceFolder:
    """Keeps files below a folder; the last file of a name counts."""

    folder: Path
    _files: int = 0
    _bytes: int = 0

    def keep(self, name: str, content: bytes) -> None:
        """Write a file of the guest's. Raises HostileEvidence, OSError."""
        self._files += 1
        self._bytes += len(content)
        if self._files > MOST_FILES:
            raise HostileEvidence(f"the guest's evidence has more than {MOST_FILES} files")
        if self._bytes > MOST_BYTES:
            raise HostileEvidence(f"the guest's evidence is larger than {MOST_BYTES // 2**20} MiB")
        target = self._target(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise HostileEvidence(
                f"the guest's evidence has a file and a folder of one name: {target.name}"
            ) from error

    def _target(self, name: str) -> Path:
        """Where a file goes. Raises HostileEvidence for a name that no file of evidence has."""
        parts = PurePosixPath(name[: LONGEST_PATH + 1]).parts
        wrong = (
            len(name) > LONGEST_PATH
            or clean_text(name) != name
            or "\n" in name
            or not (name in FILES or (len(parts) > 1 and parts[0] in FOLDERS))
            or len(parts) > MOST_LEVELS
            or any(part in ("/", "..") or len(part.encode()) > LONGEST_NAME for part in parts)
        )
        if wrong:
            raise HostileEvidence(
                f"the guest's evidence has a file with the name {cut_text(clean_text(name), 100)!r}"
            )
        return self.folder.joinpath(*parts)
