"""Temporary folders, and finding those of processes that were killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base import scratch
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.images import debian
from tests.builders.processes import other_process, run_main, wait_until_ended
from tests.unit.images.test_store import build_well

HOLDER = """
import sys
from pathlib import Path
from lab.base import scratch

with scratch.make_locked_folder(Path(sys.argv[1]), "build-") as folder:
    (folder / "disk").write_bytes(bytes(1 << 20))
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No other lab has its temporary folders here."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(debian, "ON_DISK", folder)
    monkeypatch.setattr(debian, "IN_MEMORY", tmp_path / "memory")
    yield folder


def abandoned(parent: Path, prefix: str) -> list[Path]:
    return list(scratch.find_abandoned_folders(parent, prefix))


def test_a_temporary_folder_is_the_users_own_and_gone_after_its_block(elsewhere: Path) -> None:
    with scratch.make_temporary_folder() as folder:
        (folder / "file").touch()
        assert (folder.parent, folder.stat().st_mode & 0o777) == (elsewhere, 0o700)
        assert abandoned(elsewhere, scratch.PREFIX) == []
    assert list(elsewhere.iterdir()) == []


def test_the_folder_of_a_process_is_abandoned_when_that_was_killed(tmp_path: Path) -> None:
    with other_process(HOLDER, tmp_path) as (holder, name):
        assert abandoned(tmp_path, "build-") == []
        holder.kill()
        wait_until_ended(holder.pid)
    assert abandoned(tmp_path, "build-") == [Path(name)]


def test_two_sweeps_at_once_do_not_remove_one_folder_twice(tmp_path: Path) -> None:
    (tmp_path / "build-1").mkdir()
    sweeping = scratch.find_abandoned_folders(tmp_path, "build-")
    assert next(sweeping) == tmp_path / "build-1"
    assert abandoned(tmp_path, "build-") == []
    sweeping.close()
    assert abandoned(tmp_path, "build-") == [tmp_path / "build-1"]


def test_what_others_own_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "build-link").symlink_to(tmp_path / "target")
    (tmp_path / "build-file").touch()
    (tmp_path / "build-folder").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert abandoned(tmp_path, "build-") == []
    monkeypatch.undo()
    assert abandoned(tmp_path, "build-") == [tmp_path / "build-folder"]


def test_a_swept_folder_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really, made = tempfile.mkdtemp, []

    def take_the_first(prefix: str, dir: Path) -> str:  # noqa: A002
        made.append(really(prefix=prefix, dir=dir))
        if len(made) == 1:
            shutil.rmtree(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", take_the_first)
    with scratch.make_locked_folder(tmp_path, "build-") as folder:
        assert (str(folder), folder.is_dir(), len(made)) == (made[1], True, 2)


def test_the_lab_gives_up_after_a_few_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "lock_folder", lambda folder: None)
    match = "no temporary folder could be made"
    with pytest.raises(LabError, match=match), scratch.make_locked_folder(tmp_path, "build-"):
        pass
    assert len(list(tmp_path.glob("build-*"))) == scratch.TRIES


def test_a_new_folder_is_this_process_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a server that maps root to nobody does.
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with scratch.make_locked_folder(tmp_path, "build-") as folder:
        assert list(tmp_path.glob("build-*")) == [folder]
    assert list(scratch.find_abandoned_folders(tmp_path, "build-")) == []


def test_unlocked_folders_are_never_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")  # What NFS answers.

    monkeypatch.setattr(fcntl, "flock", refuse)
    with scratch.make_locked_folder(tmp_path, "build-") as folder:
        assert folder.is_dir()
        assert abandoned(tmp_path, "build-") == []


def left_by_dead_labs(paths: Paths, temporary: Path) -> list[Path]:
    """Folders of all kinds that labs leave that were killed."""
    folders = [
        temporary / f"{debian.WORKSPACE}abc",
        debian.IN_MEMORY / f"{debian.WORKSPACE}abc",
        temporary / f"{scratch.PREFIX}abc",
        paths.make(paths.images) / ".partial-debian-13-0123456789abcdef",
    ]
    for folder in folders:
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "disk").write_bytes(os.urandom(1 << 20))
    return folders


def test_clean_removes_the_workspace_of_a_killed_build_and_all_other_temporary_folders_of_dead_labs(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAB_CONNECT", "test:///default")
    folders = left_by_dead_labs(Paths.default(), elsewhere)
    other = elsewhere / "boxlite-lab-of-somebody"
    other.mkdir()
    with other_process(HOLDER.replace("build-", debian.WORKSPACE), elsewhere) as (_, alive):
        assert run_main(monkeypatch, "clean") == 0
        assert [folder for folder in folders if folder.exists()] == []
        assert sorted(elsewhere.iterdir()) == sorted([other, Path(alive)])
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines[:-1]) == sorted(f"removed {folder} (1 MiB)" for folder in folders)
    assert lines[-1] == "nothing of a dead run is left"


def test_a_killed_build_is_removed(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(debian, "build_image", build_well)
    folders = left_by_dead_labs(Paths.default(), elsewhere)
    assert run_main(monkeypatch, "images", "build", "debian-12") == 0
    assert [folder for folder in folders if folder.exists()] == []


def test_a_folder_that_cannot_be_removed_is_named_by_clean_and_stops_no_other_command(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    [workspace, *rest] = left_by_dead_labs(Paths.default(), elsewhere)
    really = debian.remove_workspace

    def refuse(folder: Path) -> None:
        if folder == workspace:
            raise OSError(13, "Permission denied", str(folder))
        really(folder)

    monkeypatch.setattr(debian, "remove_workspace", refuse)
    assert run_main(monkeypatch, "attach", "--list") == 0
    assert [folder for folder in rest if folder.exists()] == []
    assert run_main(monkeypatch, "clean") == 3
    error = capsys.readouterr().err
    assert f"lab: cannot remove {workspace}: [Errno 13] Permission denied" in error
    assert "run lab clean again" in error
