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
    raise AssertionError("a release was looked up")


@pytest.mark.parametrize(
    ("request_", "options"),
    [
        # The set decides what the user leaves open.
        ({}, {"remedies": True, "experiments": "unclear"}),
        ({"remedies": False}, {"experiments": "unclear"}),
        ({"set_name": "quick"}, {"experiments": "unclear"}),
        ({"set_name": "quick", "remedies": True}, {"remedies": True, "experiments": "unclear"}),
        ({"experiment": True}, {"remedies": True, "experiments": "always"}),
        ({"experiment": False}, {"remedies": True, "experiments": "never"}),
        ({"cold": True}, {"cold": True, "experiments": "never"}),
        # Until a test fails: a hundred times, unless the user says how often.
        ({"repeat": 3}, {"remedies": True, "experiments": "unclear", "repeat": 3}),
        ({"until_fail": True}, {"remedies": True, "experiments": "unclear", "until_fail": True, "repeat": 100}),
        (
            {"until_fail": True, "repeat": 8},
            {"remedies": True, "experiments": "unclear", "until_fail": True, "repeat": 8},
        ),
    ],
)
def test_options_of_a_run_follow_from_the_request(request_: dict[str, Any], options: dict[str, Any]) -> None:
    assert Request(**request_).options(KNOWN) == RunOptions.model_validate(options)


def test_what_takes_forks_contradicts_cold() -> None:
    with pytest.raises(UsageError, match=r"--remedies and --cold .* each remedy"):
        Request(cold=True, remedies=True).options(KNOWN)
    with pytest.raises(UsageError, match=r"--experiment and --cold .* each change"):
        Request(cold=True, experiment=True).options(KNOWN)


def test_a_preview_does_not_look_up_the_newest_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "releases", refuse)
    cells, options = start.preview(Request(guests=["debian-13"], variants=["stock"], repeat=3), KNOWN)
    assert [(cell.guest.name, cell.variant.name, cell.build) for cell in cells] == [
        ("debian-13", "stock", builds.ANY)
    ]
    assert options.repeat == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"guests": ["debian-99"]},
        {"variants": ["none"]},
        {"set_name": "none"},
        {"shard": "3"},
        {"rootfs": Path("/none")},
        {"cold": True, "remedies": True},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_request_is_refused_before_a_release_is_looked_up_or_a_folder_is_made(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    monkeypatch.setattr(wheels, "releases", refuse)
    with pytest.raises(UsageError):
        start.new(Request(**wrong), KNOWN, paths, None, "lab matrix")
    with pytest.raises(UsageError):
        start.preview(Request(**wrong), KNOWN)
    assert not paths.runs.exists()


def test_a_new_run_has_its_own_folder(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Wheel("0.10.8", "0.10.8")
    monkeypatch.setattr(builds, "resolve_all", lambda _names, **_more: [release])
    monkeypatch.setattr(Wheel, "check", refuse)  # The newest release is known to be there.
    planned = start.new(Request(guests=["debian-13"]), KNOWN, paths, None, "lab matrix -g debian-13")
    assert planned.cells == plan.choose(KNOWN, guests=["debian-13"]).cells([release])
    assert (planned.info.command, planned.info.id) == ("lab matrix -g debian-13", planned.folder.name)
    assert planned.folder.parent == paths.runs
    assert (planned.left, planned.complete) == (planned.cells, [])
