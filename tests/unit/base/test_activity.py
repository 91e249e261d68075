"""Long work as it is seen from outside: its progress, its end before its time, and who is told of both."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from lab.base.activity import UNWATCHED, Activity, CancelToken, Progress, Task
from lab.base.errors import LabError
from lab.base.locks import hold_lock
from lab.fleet.messages import LaneEvent, PredictionEvent, read_event
from lab.fleet.part import EventLines
from lab.record import Foreseen, Prediction
from lab.run.observer import JoinedObserver, Observer
from tests.builders.cells import cell
from tests.builders.guests import base_image
from tests.builders.runs import SMALL

DOWNLOADING = Progress("downloading: 1 of 2", Activity.IMAGE, "downloading")


def test_without_how_far_it_is_progress_is_called_by_its_text() -> None:
    assert (Progress("booting").name, DOWNLOADING.name) == ("booting", "downloading")


def test_the_progress_of_a_part_keeps_its_activity_and_gets_a_prefix() -> None:
    waiting = Progress("waiting for it", Activity.WAITING).within(Activity.IMAGE, prefix="image: ")
    assert waiting == Progress("image: waiting for it", Activity.WAITING)
    assert DOWNLOADING.within(Activity.OTHER, prefix="image: ").name == "image: downloading"
    assert Progress("unpacking").within(Activity.IMAGE).activity is Activity.IMAGE


def test_a_token_lets_work_go_on_until_it_is_cancelled() -> None:
    token = CancelToken()
    token.check()
    assert not token.is_cancelled
    token.cancel()
    assert token.is_cancelled
    with pytest.raises(LabError, match=r"^interrupted$"):
        token.check()


def test_cancelled_work_begins_nothing_behind_a_lock(tmp_path: Path) -> None:
    token, lock = CancelToken(), tmp_path / "lock"
    token.cancel()
    with (
        pytest.raises(LabError, match="interrupted"),
        hold_lock(lock, 60, "this image", Task(check=token.check)),
    ):
        raise AssertionError("the work began")
    with hold_lock(lock, 60, "this image", UNWATCHED):
        assert lock.exists()


@pytest.mark.parametrize("progress", [DOWNLOADING, Progress("a note"), None])
def test_a_host_tells_the_coordinator_the_progress_as_it_is(progress: Progress | None) -> None:
    out = StringIO()
    EventLines(out).lane("debian-13", progress)
    event = read_event({**json.loads(out.getvalue()), "part": 1})
    assert isinstance(event, LaneEvent)
    assert event.progress == progress


def test_a_host_tells_the_coordinator_what_the_probes_expect() -> None:
    out, foreseen = StringIO(), Prediction(says=Foreseen.BLOCKED, cause="userns-sysctl", reason="x" * 9000)
    EventLines(out).prediction(SMALL[0], foreseen)
    event = read_event({**json.loads(out.getvalue()), "part": 1})
    assert isinstance(event, PredictionEvent)
    assert event.cell == SMALL[0].name
    assert str(event.prediction) == "~ userns-sysctl"
    assert event.reason.startswith("xxx")


class Listener(Observer):
    """Notes what it is told, and fails afterwards if it is `broken`."""

    def __init__(self, *, broken: bool = False) -> None:
        self.events: list[tuple[str, Any]] = []
        self.broken = broken

    def _add(self, name: str, *content: Any) -> None:
        self.events.append((name, content))
        if self.broken:
            raise ZeroDivisionError(name)

    def lane(self, lane: str, progress: Progress | None) -> None:
        self._add("lane", lane, progress)

    def prediction(self, cell: Any, prediction: Any) -> None:
        self._add("prediction", cell, prediction)

    def cell(self, result: Any) -> None:
        self._add("cell", result)

    def note(self, text: str) -> None:
        self._add("note", text)

    def time_left(self, seconds: float | None) -> None:
        self._add("time_left", seconds)

    def image(self, image: Any) -> None:
        self._add("image", image)


def tell_each(observer: Observer) -> list[tuple[str, Any]]:
    """Tell an observer one event of each kind, and return them."""
    result: Any = cell()
    image = base_image(Path("base"))
    observer.lane("debian-13", DOWNLOADING)
    expected: Any = object()
    observer.prediction(result, expected)
    observer.cell(result)
    observer.note("a note")
    observer.time_left(3.0)
    observer.image(image)
    return [
        ("lane", ("debian-13", DOWNLOADING)),
        ("prediction", (result, expected)),
        ("cell", (result,)),
        ("note", ("a note",)),
        ("time_left", (3.0,)),
        ("image", (image,)),
    ]


def test_a_joined_observer_passes_every_event_on_and_an_error_of_one_keeps_none_from_the_others() -> None:
    events = {name for name in vars(Observer) if not name.startswith("_")}
    broken, other, bugs = Listener(broken=True), Listener(), list[str]()
    expected = tell_each(JoinedObserver(broken, other, on_bug=lambda error: bugs.append(str(error))))
    assert broken.events == other.events == expected
    assert bugs == [name for name, _ in expected]
    assert set(bugs) == events, "an observer has an event that is not passed on"
    with pytest.raises(ZeroDivisionError, match="lane"):
        tell_each(JoinedObserver(broken))
