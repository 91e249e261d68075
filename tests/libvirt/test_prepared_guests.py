"""Guests whose cloud disk is prepared before their lanes start."""

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import pytest

from lab.base.wait import Deadline, wait_for
from lab.catalog import Firmware, Guest
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import prepare_image as prepare
from lab.lane.prepare_image import NotPrepared
from lab.lane.running import RunningLane
from lab.machine.lane import Lane, LaneDied, open_lane
from tests.builders.lab import ONE, Lab, boots, statuses


@pytest.fixture
def cloud(lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> BaseImage:
    """Guests whose image boots itself, and has to be prepared first."""
    made = replace(image, firmware=Firmware.BIOS)
    monkeypatch.setattr(store, "ensure", lambda _paths, _guest, _say: made)
    return made


def test_lanes_start_from_prepared_images(lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[BaseImage] = []
    prepared = replace(cloud, manifest=cloud.manifest.model_copy(update={"disk_sha256": "2" * 64}))

    def boot(running: RunningLane) -> None:
        images.append(running.lane.image)
        boots(running)

    lab.boot = boot
    monkeypatch.setattr(prepare, "ensure", lambda _work, _guest, base: prepared if base == cloud else None)
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert images == lab.heard.images == [prepared]
    assert [lane.image for lane in run.run.lanes] == ["2" * 64]


def test_each_cell_says_why_it_has_no_run(lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def ensure(_work: object, guest: Guest, _image: object) -> BaseImage:
        if guest.name == "debian-12":
            raise NotPrepared("debian-12 lacks bubblewrap", hint="a network", evidence={"console.log": "Linux"})
        return cloud

    monkeypatch.setattr(prepare, "ensure", ensure)
    run = lab.run()
    assert statuses(run) == {"debian-12": ["error", "error"], "debian-13": ["pass", "pass"]}
    for cell in run.cells[:2]:
        assert (cell.reason, cell.retried) == ("debian-12 lacks bubblewrap\n  next: a network", [])
        assert [(lab.folder / name).read_text() for name in cell.evidence] == ["Linux"]
    assert lab.lanes(of="debian-12") == []
    assert run.exit_status() == 3


def test_a_preparation_is_tried_again(lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([LaneDied("the machine of debian-13 is gone")])

    def ensure(*_: object) -> BaseImage:
        if error := next(steps, None):
            raise error
        return cloud

    monkeypatch.setattr(prepare, "ensure", ensure)
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert [cell.retried for cell in run.cells] == [["the machine of debian-13 is gone"]] * 2


def test_an_interrupt_takes_down_the_machine_of_a_guest_that_is_being_prepared(
    lab: Lab, cloud: BaseImage, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]
) -> None:
    held: list[Lane] = []

    def ensure(work: prepare.Preparation, guest: Guest, image: BaseImage) -> NoReturn:
        with open_lane(
            work.connection, work.paths, guest=guest, image=image, acceleration=work.acceleration
        ) as made:
            work.on_lane(made)
            held.append(made)
            made.start()
            interrupt()
            gone = Deadline(20, "the interrupt")
            wait_for(lambda: None, gone, alive=made.check_wanted, interval=0.01)
        raise AssertionError("it was not given up")

    monkeypatch.setattr(prepare, "ensure", ensure)
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["not-run", "not-run"]}
    assert (run.run.interrupted, len(held)) == (True, 1)
