from pathlib import Path

from lab.lane.cell import clear, fault_folder, set_aside


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
