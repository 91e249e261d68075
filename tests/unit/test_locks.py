import threading
from pathlib import Path

import pytest

from lab.base import locks
from lab.base.errors import LabError
from lab.base.locks import locked
from tests.builders.processes import LOCK_HOLDER, other_process


@pytest.fixture(autouse=True)
def interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "INTERVAL_SECONDS", 0.01)


def test_a_lock_that_another_lab_never_gives_back_is_waited_for_within_the_limit(tmp_path: Path) -> None:
    texts: list[str] = []
    lock = tmp_path / "an image.lock"
    with (
        other_process(LOCK_HOLDER, lock),
        pytest.raises(LabError) as late,
        locked(lock, 0.05, "this image to be built", texts.append),
    ):
        raise AssertionError("it was not waited for")
    assert set(texts) == {"waiting for this image to be built"}
    assert str(late.value).startswith("waited 0 s for this image to be built\n")
    assert late.value.hint == f"lslocks shows which process holds {lock}; end it if it hangs"


def test_what_is_said_is_true_if_a_thread_of_the_same_lab_holds_the_lock(tmp_path: Path) -> None:
    lock, texts, held, let_go = tmp_path / "an image.lock", list[str](), threading.Event(), threading.Event()

    def hold() -> None:
        with locked(lock, 0, "this image to be built", texts.append):
            held.set()
            assert let_go.wait(30)

    def say(text: str) -> None:
        texts.append(text)
        let_go.set()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    with locked(lock, 30, "this image to be built", say):
        holder.join(30)
    assert set(texts) == {"waiting for this image to be built"}


def test_a_lock_is_free_again_after_the_block_whatever_ended_it(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            pytest.raises(RuntimeError, match="a bug"),
            locked(tmp_path / "lock", 0, "work", lambda text: None),
        ):
            raise RuntimeError("a bug")
