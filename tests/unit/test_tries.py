from pathlib import Path

import pytest

from lab.lane.attempts import agreed, clear, fault_folder, set_aside
from lab.record import RemedyOutcome

HELPS, NOT, ERROR = RemedyOutcome.VERIFIED, RemedyOutcome.DOES_NOT_HELP, RemedyOutcome.ERROR


@pytest.mark.parametrize(
    ("first", "second", "outcome", "reason"),
    [
        ((NOT, "a"), (NOT, "b"), NOT, "twice: a"),
        ((NOT, "a"), (HELPS, ""), ERROR, "two tries disagree: does not help: a; verified"),
        (
            (NOT, "a"),
            (ERROR, "SSH broke"),
            ERROR,
            "a second try, after does not help: a, met a fault: SSH broke",
        ),
    ],
)
def test_two_tries_tell_something_only_together(
    first: tuple[RemedyOutcome, str], second: tuple[RemedyOutcome, str], outcome: RemedyOutcome, reason: str
) -> None:
    assert agreed(first, second, ERROR) == (outcome, reason)


def left_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_all_that_a_try_left_is_kept_beside_the_faults_before(tmp_path: Path) -> None:
    write(tmp_path, "kernel.log", "boxlite/box-a/logs/boxlite.log")
    set_aside(tmp_path, fault_folder(tmp_path))
    write(tmp_path, "kernel.log", "boxlite/box-b/logs/boxlite.log")
    set_aside(tmp_path, fault_folder(tmp_path))
    assert left_in(tmp_path) == [
        "fault-1/boxlite/box-a/logs/boxlite.log",
        "fault-1/kernel.log",
        "fault-2/boxlite/box-b/logs/boxlite.log",
        "fault-2/kernel.log",
    ]
    assert fault_folder(tmp_path) == tmp_path / "fault-3"


def test_what_a_try_left_is_cleared_but_for_the_evidence_of_its_fault(tmp_path: Path) -> None:
    for name in ("kernel.log", "repeat-2/kernel.log", "fault-1/console.log", "fault-2/console.log"):
        file = tmp_path / "cell" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    clear(tmp_path / "cell")
    assert sorted(path.name for path in (tmp_path / "cell").iterdir()) == ["fault-1", "fault-2"]
    assert (tmp_path / "cell" / "fault-1" / "console.log").exists()
    clear(tmp_path / "never")
    assert not (tmp_path / "never").exists()
