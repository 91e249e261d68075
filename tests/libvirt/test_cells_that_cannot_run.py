"""Guests without an image or without memory, and cells that make no sense: the others go on."""

from pathlib import Path

import pytest

from lab.base.errors import NotApplicable
from lab.base.paths import Paths
from lab.builds import Build
from lab.catalog import Guest
from lab.images import download, store
from lab.images.cloud import UNPINNED
from lab.images.store import BaseImage
from lab.lane import cell as lane_cell
from lab.lane import prepare_image
from lab.lane.running import RunningLane
from lab.plan import Cell
from lab.record import CellResult, CellVerdict, Status, SuiteResult
from tests.builders.facts import facts
from tests.builders.lab import OLDER, ONE, PASSED, RELEASE, Lab, statuses


def test_a_guest_that_the_host_has_no_memory_for_is_not_run_and_the_others_are(lab: Lab) -> None:
    run = lab.run(memory=4096, sizes={"debian-12": 8192})
    assert statuses(run) == {"debian-12": ["not-run", "not-run"], "debian-13": ["pass", "pass"]}
    assert {cell.reason for cell in run.cells[:2]} == {
        "a lane needs 9216 MiB of memory, and 4096 of the 4096 MiB for lanes are left"
    }
    assert run.exit_status() == 3


def test_a_build_that_has_nothing_for_a_guest_is_not_applicable_there(lab: Lab, tmp_path: Path) -> None:
    sides: set[Build | None] = set()

    def deploy(running: RunningLane, build: Build) -> dict[str, str]:
        sides.add(running.work.build)
        if running.lane.guest.name == "debian-12" and build == OLDER:
            raise NotApplicable("boxlite has no wheels for Python 3.11")
        return {"boxlite.whl": "2" * 64} if build == RELEASE else {}

    lab.deploy = deploy
    lab.facts = lambda running: facts(python="3.11" if running.lane.guest.name == "debian-12" else "3.13")
    run = lab.run(builds=[OLDER, RELEASE])
    assert statuses(run) == {"debian-12": ["n/a", "pass"] * 2, "debian-13": ["pass"] * 4}
    reasons = {(cell.build, cell.reason) for cell in run.cells if cell.guest == "debian-12"}
    assert reasons == {("0.9.0", "boxlite has no wheels for Python 3.11"), ("0.10.8", "")}
    # What the reason rests on was read in the guest, and is there to be read.
    read = [cell.facts for cell in run.cells if cell.status is Status.NOT_APPLICABLE]
    assert read == [facts(python="3.11")] * 2
    assert len(lab.lanes(of="debian-12")) == 1
    assert sides == {None}
    assert [build.files for build in run.run.builds] == [{}, {"boxlite.whl": "2" * 64}]
    assert run.exit_status() == 0


def test_nothing_is_predicted_of_a_guest_that_the_build_has_nothing_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(running: RunningLane, _build: Build) -> dict[str, Path]:
        if running.lane.guest.name == "debian-12":
            raise NotApplicable("boxlite has no wheels for Python 3.11")
        return {}

    def predict(_running: RunningLane, cell: Cell) -> CellResult:
        verdict = CellVerdict(status=Status.NOT_RUN, reason=lane_cell.PREDICTED_ONLY)
        return cell.judged_result(SuiteResult(), verdict)

    monkeypatch.setattr(RunningLane, "fetch", fetch)
    monkeypatch.setattr(lane_cell, "predict_without_suite", predict)
    run = lab.run(predict=True)
    assert statuses(run) == {"debian-12": ["n/a"] * 2, "debian-13": ["not-run"] * 2}
    assert {cell.reason for cell in run.cells[:2]} == {"boxlite has no wheels for Python 3.11"}


def test_a_variant_that_makes_no_sense_is_not_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_obstacle(_running: RunningLane, cell: Cell) -> str | None:
        return "no such sysctl" if cell.variant.name == "max-userns-zero" else None

    monkeypatch.setattr(lane_cell, "find_obstacle", find_obstacle)
    run = lab.run(guests=ONE)
    assert [(cell.status, cell.reason) for cell in run.cells] == [("pass", ""), ("n/a", "no such sysctl")]
    assert lab.lanes() == [["stock"]]


CLOUD = ["ubuntu-24.04", "fedora-44", "debian-12-cloud"]


def never(*_: object, **__: object) -> BaseImage:
    raise AssertionError("no image may be asked for")


def test_cloud_guests_need_a_network(lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def ensure(_paths: Paths, guest: Guest, _say: object) -> BaseImage:
        assert guest.name == "debian-13"
        return image

    servers = {"cloud-images.ubuntu.com": "no route", "download.fedoraproject.org": "no name"}
    monkeypatch.setattr(store, "ensure_image", ensure)
    monkeypatch.setattr(download, "find_unreachable_hosts", lambda _urls: servers)
    run = lab.run(guests=[*CLOUD, "debian-13"], variants=["stock"], retries=3)
    assert statuses(run) == {**{name: ["not-run"] for name in CLOUD}, "debian-13": ["pass"]}
    assert [cell.reason for cell in run.cells[:3]] == [
        "image not available: cloud-images.ubuntu.com cannot be reached: no route",
        "image not available: download.fedoraproject.org cannot be reached: no name",
        f"image not available: {UNPINNED}",
    ]
    [note] = [note for note in lab.heard.notes if "no image" in note]
    assert all(name in note for name in CLOUD)
    assert "with --offline no server is asked" in note
    assert run.exit_status() == 3


def test_offline_no_server_is_asked(lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "find_unreachable_hosts", never)
    monkeypatch.setattr(store, "ensure_image", never)
    monkeypatch.setattr(store, "find_image", lambda _paths, guest: image if guest.name == "fedora-44" else None)
    monkeypatch.setattr(prepare_image, "find_ready_image", lambda _paths, _guest: None)
    run = lab.run(guests=["debian-13", *CLOUD[:2]], variants=["stock"], offline=True)
    assert [cell.reason for cell in run.cells] == [
        "image not available: it is not in the store, and --offline forbids fetching it",
        "image not available: it is not in the store, and --offline forbids fetching it",
        "image not available: it is not prepared yet, and --offline forbids installing packages in it",
    ]
    assert len([note for note in lab.heard.notes if "no image" in note]) == 1


@pytest.mark.parametrize("offline", [True, False])
def test_no_server_is_asked_for_what_is_here(
    lab: Lab, image: BaseImage, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(prepare_image, "find_ready_image", lambda _paths, _guest: image if offline else None)
    monkeypatch.setattr(download, "find_unreachable_hosts", never)
    assert statuses(lab.run(offline=offline)) == PASSED
