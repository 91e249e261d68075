"""What a command line asks for, before anything is started."""

from pathlib import Path
from typing import Any

import pytest

from lab import builds, catalog, plan
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds.kinds.wheel import Wheel
from lab.record import RunOptions
from lab.run import start
from lab.run.request import Request

KNOWN = catalog.load()


def refuse(*_: object) -> Any:
    raise AssertionError("a release was asked for")


@pytest.mark.parametrize(
    ("asked", "tries", "experiments"),
    [
        ({}, True, "unclear"),
        ({"remedies": False}, False, "unclear"),
        ({"set_name": "quick"}, False, "unclear"),
        ({"set_name": "quick", "remedies": True}, True, "unclear"),
        ({"experiment": True}, True, "always"),
        ({"experiment": False}, True, "never"),
        ({"cold": True}, False, "never"),
        ({"cold": True, "remedies": False, "experiment": False}, False, "never"),
    ],
)
def test_the_set_decides_what_is_not_asked_for(asked: dict[str, Any], tries: bool, experiments: str) -> None:
    options = Request(**asked).options(KNOWN)
    assert options.remedies is tries
    assert options == RunOptions.model_validate(
        {"cold": options.cold, "remedies": tries, "experiments": experiments}
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"remedies": True}, "--remedies and --cold contradict each other"),
        ({"experiment": True}, "--experiment and --cold contradict each other"),
    ],
)
def test_what_takes_forks_contradicts_cold(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Request(cold=True, **asked).options(KNOWN)


def test_a_preview_does_not_ask_for_the_newest_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "releases", refuse)
    cells, options = start.preview(Request(guests=["debian-13"], variants=["stock"], repeat=3), KNOWN)
    assert [(cell.guest.name, cell.variant.name, cell.build) for cell in cells] == [
        ("debian-13", "stock", builds.ANY)
    ]
    assert options.repeat == 3


@pytest.mark.parametrize(
    "asked",
    [
        {"guests": ["debian-99"]},
        {"variants": ["none"]},
        {"set_name": "none"},
        {"shard": "3"},
        {"rootfs": Path("/none")},
        {"cold": True, "remedies": True},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_a_wrong_request_is_refused_before_a_release_is_looked_up_or_a_folder_is_made(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    monkeypatch.setattr(wheels, "releases", refuse)
    with pytest.raises(UsageError):
        start.new(Request(**asked), KNOWN, paths, None, "lab matrix")
    with pytest.raises(UsageError):
        start.preview(Request(**asked), KNOWN)
    assert not paths.runs.exists()


def test_a_new_run_has_its_own_folder(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Wheel("0.10.8", "0.10.8")
    monkeypatch.setattr(builds, "resolve_all", lambda wanted: [release])
    monkeypatch.setattr(Wheel, "check", refuse)  # The newest release is known to be there.
    planned = start.new(Request(guests=["debian-13"]), KNOWN, paths, None, "lab matrix -g debian-13")
    assert planned.cells == plan.choose(KNOWN, guests=["debian-13"]).cells([release])
    assert (planned.info.command, planned.info.id) == ("lab matrix -g debian-13", planned.folder.name)
    assert planned.folder.parent == paths.runs
    assert (planned.left, planned.complete) == (planned.cells, [])


@pytest.mark.parametrize(
    ("asked", "times"),
    [({}, 1), ({"repeat": 3}, 3), ({"until_fail": True}, 100), ({"until_fail": True, "repeat": 8}, 8)],
)
def test_until_fail_means_a_hundred_repeats_unless_told(asked: dict[str, Any], times: int) -> None:
    options = Request(**asked).options(KNOWN)
    assert (options.repeat, options.until_fail) == (times, "until_fail" in asked)
