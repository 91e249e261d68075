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
