from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lab import catalog, matrix
from lab.builds import Build
from lab.errors import UsageError
from lab.paths import Paths
from lab.plan import choose

QUICK = choose(catalog.load(), guests=["debian-12", "debian-13"]).cells(Build("0.10.8", "0.10.8"))


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(paths: Paths) -> None:
    folders = set()
    for _ in range(3):
        folder = matrix.new_folder(paths, None)
        folder.mkdir()
        folders.add(folder)
    assert len(folders) == 3
    assert {folder.parent for folder in folders} == {paths.runs}


def test_a_folder_with_a_run_in_it_is_not_used_again(paths: Paths, tmp_path: Path) -> None:
    assert matrix.new_folder(paths, tmp_path) == tmp_path
    (tmp_path / "results.json").touch()
    with pytest.raises(UsageError, match=f"-o {tmp_path}: there is a run in it already"):
        matrix.new_folder(paths, tmp_path)


@pytest.mark.parametrize(
    ("cpus", "memory_mib", "lanes"),
    [(8, 64_000, 2), (1, 64_000, 1), (8, 6_200, 2), (8, 6_000, 1), (8, 100, 1)],
    ids=["one for each guest", "one processor", "memory for two", "memory for one", "memory for none"],
)
def test_as_many_lanes_run_as_the_host_carries(
    monkeypatch: pytest.MonkeyPatch, cpus: int, memory_mib: int, lanes: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=memory_mib * 2**20))
    assert matrix.default_jobs(QUICK) == lanes
