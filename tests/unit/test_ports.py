import secrets
import socket
from pathlib import Path

import pytest
from filelock import FileLock

from lab.base.errors import LabError
from lab.machine import ports
from tests.builders.processes import LOCK_HOLDER, other_process


@pytest.fixture(autouse=True)
def begin(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where each search begins, counted from the first port; what is left of the list begins at the first."""
    places: list[int] = []
    monkeypatch.setattr(secrets, "randbelow", lambda _count: places.pop(0) if places else 0)
    return places


def test_two_labs_begin_at_different_ports(tmp_path: Path, begin: list[int]) -> None:
    begin += [7, 300]
    found = [ports.reserve(tmp_path / user) for user in ("one", "other")]
    assert found[0].number != found[1].number


def test_the_search_goes_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: list[int]) -> None:
    monkeypatch.setattr(ports, "FIRST", 23460)
    monkeypatch.setattr(ports, "LAST", 23462)
    begin += [1, 1, 1]
    found = [ports.reserve(tmp_path) for _ in range(3)]
    assert [port.number for port in found] == [23461, 23462, 23460]


def test_two_reservations_differ(tmp_path: Path) -> None:
    assert ports.reserve(tmp_path).number != ports.reserve(tmp_path).number


def test_a_released_port_can_be_had_again(tmp_path: Path) -> None:
    port = ports.reserve(tmp_path)
    port.release()
    assert list(tmp_path.iterdir()) == []
    assert ports.reserve(tmp_path).number == port.number


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_skipped(tmp_path: Path, address: str) -> None:
    port = ports.reserve(tmp_path)
    port.release()
    with socket.create_server((address, port.number)):
        other = ports.reserve(tmp_path)
    assert other.number > port.number
    assert [file.name for file in tmp_path.iterdir()] == [f"{other.number}.lock"]


def test_a_port_that_another_lab_holds_is_skipped(tmp_path: Path) -> None:
    port = ports.reserve(tmp_path)
    port.release()
    with other_process(LOCK_HOLDER, tmp_path / f"{port.number}.lock"):
        assert ports.reserve(tmp_path).number > port.number


def test_when_none_is_left_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.reserve(tmp_path)
    monkeypatch.setattr(ports, "FIRST", port.number)
    monkeypatch.setattr(ports, "LAST", port.number)
    with pytest.raises(LabError, match="no free port"):
        ports.reserve(tmp_path)


def test_only_locks_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    ours = ports.reserve(tmp_path)
    stale, held = tmp_path / "22998.lock", tmp_path / "22999.lock"
    stale.touch()
    with other_process(LOCK_HOLDER, held):
        assert ports.remove_stale(tmp_path) == [stale]
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / f"{ours.number}.lock", held])


def test_a_lock_is_free_once_its_process_is_dead(tmp_path: Path) -> None:
    held = tmp_path / "22999.lock"
    with other_process(LOCK_HOLDER, held):
        pass
    FileLock(held, timeout=0).acquire()
    assert held.exists()
