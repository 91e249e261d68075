"""What a whole run does: each cell is run, shown and written, and nothing is left behind."""

import platform
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.base.errors import LabError
from lab.builds import Build, SuiteOptions
from lab.catalog import Guest
from lab.images import store
from lab.images.store import BaseImage
from lab.lane import cell as lane_cell
from lab.lane import prepare_image as prepare
from lab.lane.running import RunningLane
from lab.machine import acceleration, clock, console, domain
from lab.machine.acceleration import Acceleration
from lab.machine.connection import NoLibvirt
from lab.plan import Cell
from lab.record import CellResult, Foreseen, Outcome, Prediction, Status, TestResult
from lab.report import run_notes
from lab.run.journal import ResultsNotWritten
from tests.builders.cells import changed
from tests.builders.lab import ONE, PASSED, Lab, RunCell, Seconds, at, boots, statuses

# The fixture puts another one in its place.
DECIDE = acceleration.decide_acceleration


def test_every_cell_is_run_shown_and_written_and_nothing_is_left(lab: Lab) -> None:
    run = lab.run()
    assert statuses(run) == PASSED
    assert (run.exit_status(), run.run.interrupted, len(run.run.lanes)) == (0, False, 2)
    assert sorted(lab.heard.cells, key=str) == sorted(run.cells, key=str)
    assert [lane.processor_seconds for lane in run.run.lanes] == [1.5, 1.5]
    assert {step.lane for step in run.run.steps} == {lane.label for lane in run.run.lanes}


def test_the_first_cell_of_a_lane_is_predicted_before_its_build_is_fetched_and_deployed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    says = Prediction(says=Foreseen.WORKS)

    def probe(_running: RunningLane, cell: Cell, _watch: object) -> None:
        order.append(f"probe {cell.variant.name}")
        if len(order) == 1:
            raise LabError("the guest does not answer")

    def fetch(_running: RunningLane, _build: Build) -> dict[str, Path]:
        order.append("fetch")
        return {}

    def deploy(_running: RunningLane, _build: Build) -> dict[str, str]:
        order.append("deploy")
        monkeypatch.setattr(RunningLane, "has_no_build", False)
        return {}

    monkeypatch.setattr(RunningLane, "has_no_build", True)
    monkeypatch.setattr(RunningLane, "fetch", fetch)
    monkeypatch.setattr(lane_cell, "probe_without_build", probe)
    monkeypatch.setattr(lane_cell, "predict_cell", lambda _cell, _applied: says)
    lab.deploy = deploy
    run = lab.run(guests=ONE, jobs=1)
    # Probes that fail cost a cell a try, as they do later, and no other cell.
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    first, second = order[:2]
    assert first.startswith("probe ") and second.startswith("probe ") and order[2:] == ["deploy", "deploy"]
    assert [str(prediction) for _cell, prediction in lab.heard.predictions] == ["~ works"]
    assert sorted(map(str, lab.known)) == ["None", "~ works"]


def test_emulation_is_told_once_with_the_measured_speed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Acceleration(False, "a test", 7.0)
    monkeypatch.setattr(acceleration, "decide_acceleration", lambda *_, **__: how)
    lab.run()
    speed = "this host boots a kernel 14 times slower than ordinary hardware with KVM"
    assert lab.heard.notes == [f"guests of x86_64 run under software emulation: a test; {speed}"]


def test_on_a_host_of_arm64_some_guests_have_kvm_and_others_are_emulated(
    lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ensure(_paths: object, guest: Guest, _say: object) -> BaseImage:
        return replace(image, manifest=image.manifest.model_copy(update={"arch": guest.arch}))

    decided: list[tuple[str, float, int]] = []

    def boot(running: RunningLane) -> None:
        boots(running)
        how = running.lane.acceleration
        kind = ET.fromstring(lab.opened.lookupByName(running.lane.name).XMLDesc()).find("os/type")
        assert kind is not None
        decided.append((f"{kind.get('arch')} {how.name}", how.speed.factor, how.processors(2)))

    lab.boot = boot
    monkeypatch.setattr(store, "ensure_image", ensure)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(clock, "find_library", lambda: None)
    monkeypatch.setattr(domain, "check_emulator", lambda *_: None)
    monkeypatch.setattr(
        acceleration, "read_acceleration", lambda *_: Acceleration(True, "a guest kernel ran under KVM")
    )
    monkeypatch.setattr(acceleration, "decide_acceleration", DECIDE)
    run = lab.run(guests=["debian-12", "debian-13", "debian-13-arm64"])
    assert set(decided) == {("x86_64 emulation", 10.0, 1), ("aarch64 kvm", 1.0, 2)}
    # Told once, although two guests are emulated.
    assert lab.heard.notes == [
        "guests of x86_64 run under software emulation: this host has no processor for x86_64"
    ]
    lanes = {lane.guest: lane.host.acceleration for lane in run.run.lanes if lane.host}
    assert lanes == {"debian-12": "emulation", "debian-13": "emulation", "debian-13-arm64": "kvm"}
    assert len(run.run.hosts()) == 2
    assert len(run_notes.name_hosts(run.run)) == 1


def test_where_kvm_runs_guests_and_not_their_boxes_the_run_is_emulated_and_says_so(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has /dev/kvm, and the parameter `nested` says yes; the guest's answer is a stand-in's."""
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(acceleration, "KVM_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(acceleration, "can_nest", lambda: True)
    said = "[ 0.4] Run /init as init process\nboxlite-lab: KVM in this guest: [Errno 22] Invalid argument\n"
    monkeypatch.setattr(console, "read_console", lambda _file: said)
    monkeypatch.setattr(clock, "find_library", lambda: None)
    monkeypatch.setattr(acceleration, "decide_acceleration", DECIDE)
    run = lab.run()
    assert statuses(run) == PASSED
    assert lab.heard.notes[0].startswith(
        "guests of x86_64 run under software emulation: /dev/kvm opens, but under it a guest has no KVM that "
        "runs a machine for boxlite: [Errno 22] Invalid argument"
    )
    assert {lane.host.acceleration for lane in run.run.lanes if lane.host} == {"emulation"}


def test_a_speed_that_the_first_boot_shows_is_said_and_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Acceleration] = []
    how = Acceleration(False, "a test")
    monkeypatch.setattr(acceleration, "decide_acceleration", lambda *_, **__: how)

    def keep(_paths: object, booted: Acceleration, _boot: object) -> bool:
        kept.append(booted)
        return len(kept) == 1

    monkeypatch.setattr(acceleration, "keep_speed", keep)

    def boot(running: RunningLane) -> None:
        running.lane.acceleration = how.learned("[    7.0] Run /init as init process")

    lab.boot = boot
    lab.run()
    assert [booted.kernel_seconds for booted in kept] == [7.0] * len(lab.booted)
    speed = "this host boots a kernel 14 times slower than ordinary hardware with KVM (software emulation)"
    assert lab.heard.notes == [
        "guests of x86_64 run under software emulation: a test",
        f"{speed}, in 7.0 s; limits of time are 14 times those for KVM",
    ]


def test_the_longest_guest_goes_first(lab: Lab) -> None:
    lab.run(jobs=1, estimates=Seconds(10.0, {"debian-12": 30.0, "debian-13": 40.0}))
    assert [guest for guest, _ in lab.booted] == ["debian-13", "debian-12"]
    # At each cell: what the others take.
    assert lab.heard.lefts == [100.0, 60.0, 30.0, 0.0]


def test_lanes_start_from_prepared_images(lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[BaseImage] = []
    prepared = replace(image, manifest=image.manifest.model_copy(update={"disk_sha256": "2" * 64}))

    def boot(running: RunningLane) -> None:
        images.append(running.lane.image)
        boots(running)

    lab.boot = boot
    monkeypatch.setattr(
        prepare, "ensure_prepared_image", lambda _work, _guest, base: prepared if base == image else None
    )
    run = lab.run(guests=ONE)
    assert statuses(run) == {"debian-13": ["pass", "pass"]}
    assert images == lab.heard.images == [prepared]
    assert [lane.image for lane in run.run.lanes] == ["2" * 64]


def test_repeats_that_disagree_are_flaky(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []
    kinds = iter([Status.PASS, Status.FAIL, Status.PASS])

    def run(
        _running: RunningLane, cell: Cell, folder: Path, _options: SuiteOptions, *_prediction: object
    ) -> CellResult:
        folder.mkdir(parents=True)
        (folder / "kernel.log").touch()
        folders.append(folder.relative_to(lab.folder / cell.folder))
        return cell.result(next(kinds))

    monkeypatch.setattr(lane_cell, "run_cell", run)
    [cell] = lab.run(guests=ONE, variants=["stock"], repeat=3).cells
    assert cell.status is Status.FLAKY
    assert [repeat.status for repeat in cell.suite.repeats] == ["pass", "fail", "pass"]
    assert folders == [Path(), Path("repeat-2"), Path("repeat-3")]
    base = "cells/debian-13/stock/0.10.8"
    assert cell.evidence == [f"{base}/{name}kernel.log" for name in ("", "repeat-2/", "repeat-3/")]


@pytest.mark.parametrize(("fails_in", "ran"), [(1, 1), (2, 2), (9, 5)])
def test_a_cell_is_repeated_until_a_test_fails(lab: Lab, fails_in: int, ran: int) -> None:
    def runs(outcome: Outcome, status: Status) -> RunCell:
        tests = [TestResult(name="box_starts", outcome=outcome)]
        return lambda _, cell: changed(cell.result(status), tests=tests)

    passed, failed = runs(Outcome.PASS, Status.PASS), runs(Outcome.FAIL, Status.FAIL)
    # What the lab is to blame for ends nothing.
    slow = runs(Outcome.FAIL, Status.ERROR)
    lab.cell = at("debian-13/stock", *[[passed, slow][number % 2] for number in range(fails_in - 1)], failed)
    run = lab.run(guests=ONE, repeat=5, until_fail=True, retries=0)
    [stock, other] = run.cells
    assert (len(stock.suite.repeats), len(other.suite.repeats)) == (ran, 5)
    assert [rate.failed_in for rate in stock.suite.rates] == [[fails_in] if fails_in <= 5 else []]
    assert stock.suite.repeats[-1].failed == (["box_starts"] if fails_in <= 5 else [])
    assert "--repeat 5 --until-fail" in stock.rerun


def test_each_repeat_has_an_order_of_its_own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[str]] = []

    def run(
        _running: RunningLane, cell: Cell, _folder: Path, options: SuiteOptions, *_prediction: object
    ) -> CellResult:
        orders.append(list(options.tests))
        assert sorted(options.tests) == sorted(cell.suite.tests)
        return changed(cell.result(Status.PASS), seed=options.seed)

    monkeypatch.setattr(lane_cell, "run_cell", run)
    cells = lab.run(guests=ONE, repeat=3, shuffle=41).cells
    assert [[repeat.seed for repeat in cell.suite.repeats] for cell in cells] == [[41, 42, 43]] * 2
    assert len({tuple(order) for order in orders}) == 3
    assert orders[:3] == orders[3:]
    assert "--repeat 3 --shuffle=41" in cells[0].rerun


def test_a_resumed_run_runs_only_what_is_left(lab: Lab) -> None:
    def kept(cell: Cell) -> CellResult | None:
        left = cell.name == "debian-13/max-userns-zero/0.10.8"
        return None if left else cell.result(Status.FAIL, reason="kept")

    run = lab.run(kept=kept)
    assert statuses(run) == {"debian-12": ["fail", "fail"], "debian-13": ["fail", "pass"]}
    assert [cell.reason for cell in run.cells] == ["kept", "kept", "kept", ""]
    assert lab.lanes() == [["max-userns-zero"]]
    assert lab.lanes(of="debian-12") == []
    assert len(lab.heard.cells) == 1


def test_results_that_cannot_be_written_end_the_run(lab: Lab) -> None:
    def takes_the_place_of_the_results(_running: RunningLane, cell: Cell) -> CellResult:
        (lab.folder / "results.json").unlink()
        (lab.folder / "results.json").mkdir()
        return cell.result(Status.PASS)

    lab.cell = takes_the_place_of_the_results
    with pytest.raises(ResultsNotWritten, match=f"the results cannot be written into {lab.folder}"):
        lab.run(jobs=1)
    assert len(lab.served) == 1


def test_without_libvirt_nothing_is_begun(lab: Lab) -> None:
    with pytest.raises(NoLibvirt):
        lab.run(uri="test+bogus:///x")
    assert not lab.folder.exists()
