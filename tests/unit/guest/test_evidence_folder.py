"""Keeping the files that a guest sends, which may be anything."""

from pathlib import Path

import pytest

from lab.guest import collect
from lab.guest.collect import EvidenceFolder, HostileEvidence


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "cell"
    folder.mkdir(parents=True)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_files_are_kept_with_their_folders_and_the_last_of_a_name_counts(into: Path) -> None:
    folder = EvidenceFolder(into)
    folder.keep("kernel.log", b"first")
    folder.keep("boxlite/box-a/logs/boxlite.log", b"x")
    folder.keep("suite/kernel.log", b"the suite's")
    folder.keep("kernel.log", b"last")
    assert files(into) == {
        "kernel.log": b"last",
        "boxlite/box-a/logs/boxlite.log": b"x",
        "suite/kernel.log": b"the suite's",
    }


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../outside",
        "suite/../../outside",
        "suite/" + "x" * 300,
        "suite/" + "a/" * 30 + "b",
        "suite/red\x1b[31m",
        "suite/two\nlines",
        "suite/\u202eb",
        # Names of the lab's own.
        "console.log",
        "probes.json",
        "fault-1/kernel.log",
        "remedies/userns-clone-on/userns-clone-on.sh",
        "repeat-2/kernel.log",
        # A folder in place of a file, and a file in place of a folder.
        "audit.log/x",
        "suite",
        "boxlite",
    ],
)
def test_a_name_that_no_file_of_evidence_has_is_refused(tmp_path: Path, into: Path, name: str) -> None:
    with pytest.raises(HostileEvidence, match="has a file with the name") as refused:
        EvidenceFolder(into).keep(name, b"x")
    assert "\x1b" not in str(refused.value)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("names", [["suite/a", "suite/a/b"], ["suite/a/b", "suite/a"]], ids=["below", "above"])
def test_a_file_and_a_folder_of_one_name_are_refused(into: Path, names: list[str]) -> None:
    folder = EvidenceFolder(into)
    folder.keep(names[0], b"x")
    with pytest.raises(HostileEvidence, match="a file and a folder of one name"):
        folder.keep(names[1], b"x")


def test_no_more_is_kept_than_the_bounds_say(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MOST_FILES", 3)
    folder = EvidenceFolder(into)
    for number in range(3):
        folder.keep(f"suite/{number}", b"x")
    with pytest.raises(HostileEvidence, match="more than 3 files"):
        folder.keep("suite/3", b"x")
    monkeypatch.setattr(collect, "MOST_BYTES", 2**20)
    with pytest.raises(HostileEvidence, match="larger than 1 MiB"):
        EvidenceFolder(into).keep("suite/zeros", bytes(2**20 + 1))
