"""The runs that the tests with real guests share: made in order, told with their output, ended in time."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.base.wait import Deadline, wait_for
from tests.vm.shared import SharedRun, SharedRuns, in_order


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "user"))


def run(name: str, seconds: float, *, words: Sequence[str] = (), after: Sequence[str] = ()) -> SharedRun:
    return SharedRun(name, words, guests=[], seconds=seconds, after=after)


def test_the_longest_begins_first_unless_it_waits_for_another(tmp_path: Path) -> None:
    runs = [run("short", 1, words=["--bad-short"]), run("long", 9, words=["--bad-long"], after=["short"])]
    assert [run.name for run in in_order(runs)] == ["long", "short"]
    with SharedRuns(tmp_path / "home", runs) as shared:
        with pytest.raises(AssertionError, match="--bad-long"):
            shared.result(runs[1])
        assert list(shared._ended) == ["short", "long"]


def test_what_a_run_printed_says_why_it_failed(tmp_path: Path) -> None:
    bad = run("bad", 1, words=["-g", "no-such-guest"])
    with (
        SharedRuns(tmp_path / "home", [bad]) as shared,
        pytest.raises(AssertionError, match="no guest is called 'no-such-guest'"),
    ):
        shared.result(bad)


def test_what_still_runs_at_the_end_is_ended_and_nothing_is_left(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with SharedRuns(tmp_path / "home", [], [["sh", "-c", f"touch {started}; exec sleep 100"]]) as shared:
        wait_for(
            lambda: (started.exists() and shared._processes) or None,
            Deadline(10, "a build to start"),
            interval=0.05,
        )
        [build] = shared._processes
    assert build.poll() is not None
    assert not (tmp_path / "home").exists()
