import secrets
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock

from lab.base.errors import LabError
from lab.machine import ports
from tests.builders.processes import LOCK_HOLDER, other_process

FIRST, LAST = 23460, 23462


@pytest.fixture(autouse=True)
def begin(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each search in the three ports begins; what is left of the list begins at the first."""
    places: list[int] = []
    monkeypatch.setattr(secrets, "randbelow", lambda _count: places.pop(0) if places else 0)
    monkeypatch.setattr(ports, "FIRST", FIRST)
    monkeypatch.setattr(ports, "LAST", LAST)
    return places


def reserve(folder: Path, count: int = 1) -> list[int]:
    """The next ports, held together and given back."""
    with ExitStack() as held:
        return [held.enter_context(ports.reserved(folder)) for _ in range(count)]


def test_the_search_begins_anywhere_and_goes_round_until_none_is_left(tmp_path: Path, begin: list[int]) -> None:
    begin += [1, 1, 1]
    assert reserve(tmp_path, 3) == [FIRST + 1, FIRST + 2, FIRST]
    with pytest.raises(LabError, match="no free port"):
        reserve(tmp_path, 4)
    # They were given back.
    assert list(tmp_path.iterdir()) == []
    assert reserve(tmp_path) == [FIRST]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_skipped(tmp_path: Path, address: str) -> None:
    with socket.create_server((address, FIRST)), ports.reserved(tmp_path) as port:
        assert port == FIRST + 1
        assert [file.name for file in tmp_path.iterdir()] == [f"{port}.lock"]


def test_a_port_that_another_lab_holds_is_skipped(tmp_path: Path) -> None:
    with other_process(LOCK_HOLDER, tmp_path / f"{FIRST}.lock"):
        assert reserve(tmp_path) == [FIRST + 1]


def test_only_locks_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    stale, held = tmp_path / "22998.lock", tmp_path / "22999.lock"
    stale.touch()
    with ports.reserved(tmp_path) as ours, other_process(LOCK_HOLDER, held):
        assert ports.remove_stale(tmp_path) == [stale]
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / f"{ours}.lock", held])
    # A lock is free once its process is dead.
    FileLock(held, timeout=0).acquire()
