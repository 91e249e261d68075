from pathlib import Path

import pytest

from lab.base import locks
from lab.base.errors import LabError
from lab.base.locks import locked
from tests.unit.examples import LOCK_HOLDER, other_process


@pytest.fixture(autouse=True)
def interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "INTERVAL_SECONDS", 0.01)


def test_a_lock_that_another_lab_never_gives_back_is_waited_for_within_the_limit(tmp_path: Path) -> None:
    said: list[str] = []
    lock = tmp_path / "an image.lock"
    with (
        other_process(LOCK_HOLDER, lock),
        pytest.raises(LabError) as late,
        locked(lock, 0.05, "build this image", said.append),
    ):
        raise AssertionError("it was not waited for")
    assert set(said) == {"waiting for another lab to build this image"}
    assert str(late.value).startswith("waited 0 s for another lab to build this image\n")
    assert late.value.hint == f"end that lab if it hangs; lslocks shows which process holds {lock}"


def test_a_lock_is_free_again_after_the_block_whatever_ended_it(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            pytest.raises(RuntimeError, match="a bug"),
            locked(tmp_path / "lock", 0, "work", lambda text: None),
        ):
            raise RuntimeError("a bug")
