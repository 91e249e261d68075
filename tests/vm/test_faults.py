"""Guests that fail, each in its own way: their cells are `error` and say why, and the other lanes go on."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.base import process
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.catalog import Catalog, Guest, Suite
from lab.guest import ready
from lab.images import debian, store
from lab.images.store import BaseImage
from lab.machine import checkpoint
from lab.record import CellResult, Needs, Outcome, RunResult, Status
from tests.builders.processes import keys_for_all
from tests.builders.runs import Told
from tests.vm.conftest import (
    RELEASE,
    RunCells,
    changed_image,
    domains_of,
    lab,
    lab_at_work,
    processes_of,
    wait_until,
)

CHEAP = "userns-clone-off"  # blocked at once, so that its cell takes the least time

INIT = ["rm /usr/sbin/init", "write {script} /usr/sbin/init", "sif /usr/sbin/init mode 0100755"]
NO_SSH = [
    "symlink /etc/systemd/system/ssh.service /dev/null",
    "symlink /etc/systemd/system/ssh.socket /dev/null",
]

DIE = "#!/bin/sh\necho this guest dies >/dev/console\nexit 1\n"
HANG = "#!/bin/sh\necho this guest hangs >/dev/console\nexec sleep 100000\n"


@pytest.fixture(scope="module")
def broken_images(image: BaseImage, home: Path) -> Iterator[dict[str, BaseImage]]:
    """Images whose guests fail at boot, by how they do."""
    base = home / "broken"
    base.mkdir()
    ways = {
        "dies": (INIT, DIE),
        "hangs": (INIT, HANG),
        "no-ssh": (NO_SSH, ""),
    }
    images = {}
    for name, (commands, text) in ways.items():
        script = base / f"{name}.txt"
        script.write_text(text)
        filled = [line.format(script=script) for line in commands]
        images[name] = changed_image(image, base / name, filled)
    yield images
    shutil.rmtree(base)


@pytest.fixture
def broken(
    broken_images: dict[str, BaseImage], image: BaseImage, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Guest]:
    """Guests that fail at boot, by how they do, and one that does not."""
    good = known.guest("debian-13")
    images = {good.name: image, **broken_images}
    monkeypatch.setattr(store, "ensure", lambda paths, guest, say: images[guest.name])
    return {name: good.model_copy(update={"name": name}) for name in images}


def by_guest(run: RunResult) -> dict[str, CellResult]:
    return {cell.guest: cell for cell in run.cells}


def test_guests_that_do_not_come_up_are_errors_and_the_others_go_on(
    broken: dict[str, Guest], run_cells: RunCells
) -> None:
    run = run_cells([broken[name] for name in ("dies", "debian-13")], [CHEAP])
    cells = by_guest(run)

    assert cells["debian-13"].status is Status.XFAIL, cells["debian-13"].reason
    assert run.exit_status() == 3
    assert cells["dies"].status is Status.ERROR
    assert "stopped" in cells["dies"].reason or "gone" in cells["dies"].reason
    assert "Kernel Offset" in cells["dies"].reason  # the end of a panic is the console's last line
    assert any(name.endswith("console.log") for name in cells["dies"].evidence)


@pytest.mark.slow
def test_guests_that_hang_or_never_open_ssh_are_given_up_at_a_deadline(
    broken: dict[str, Guest], run_cells: RunCells, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These guests never come up, so the real limit would only make the test longer, and so would turns.
    monkeypatch.setattr(ready, "BOOT_SECONDS", 6.0)
    run = run_cells([broken["hangs"], broken["no-ssh"]], [CHEAP], processors=4)
    cells = by_guest(run)
    assert run.exit_status() == 3
    for cell in run.cells:
        assert cell.status is Status.ERROR
        assert re.search(r"waited \d+ s for the guest's SSH server; this host boots a kernel", cell.reason)
        assert any(name.endswith("console.log") for name in cell.evidence)
    assert "this guest hangs" in cells["hangs"].reason
    assert "its console ends" in cells["no-ssh"].reason


def kill_qemu(paths: Paths) -> None:
    [lane] = [folder.name for folder in paths.lanes.glob("lab-*")]
    [qemu] = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if f"guest={lane}," in " ".join(process.info["cmdline"] or [])
    ]
    qemu.kill()


def test_a_qemu_killed_during_the_suite_is_an_error_with_its_console(
    run_cells: RunCells, known: Catalog, paths: Paths
) -> None:
    def kill(_lane: str, text: str) -> None:
        if text.endswith("running the suite"):
            kill_qemu(paths)

    run = run_cells([known.guest("debian-13")], [CHEAP, "max-userns-zero"], observer=Told(kill))
    assert [cell.status for cell in run.cells] == [Status.ERROR, Status.ERROR]
    assert all("console" in cell.reason for cell in run.cells)
    assert run.exit_status() == 3


@pytest.mark.slow
def test_a_fault_of_the_labs_own_is_tried_again_on_a_fresh_lane_and_told(
    run_cells: RunCells, known: Catalog, paths: Paths, tmp_path: Path
) -> None:
    lanes: list[str] = []

    def kill_first(lane: str, text: str) -> None:
        if text.endswith("running the suite"):
            lanes.append(lane)
            if len(lanes) == 1:
                kill_qemu(paths)

    run = run_cells([known.guest("debian-13")], [CHEAP], observer=Told(kill_first), retries=1)
    [cell] = run.cells
    assert (cell.status, cell.cause) == (Status.XFAIL, "userns-sysctl"), cell.reason
    assert lanes == ["debian-13", "debian-13 #2"]
    [fault] = cell.retried
    assert "debian-13 is gone" in fault
    assert any("/fault-1/console.log" in name for name in cell.evidence)


class HangingSuite(Suite):
    """A suite whose second test never ends, and that pytest cannot stop by itself."""

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / "hanging_suite"


@pytest.mark.slow
def test_a_suite_that_hangs_on_two_lanes_has_failed_and_the_tests_that_ran_keep_their_outcomes(
    run_cells: RunCells, known: Catalog
) -> None:
    suite = HangingSuite(
        name="hanging_suite",
        title="",
        control="ends",
        witness="ends",
        test_seconds=1000,
        suite_seconds=3,
        tests={"ends": Needs.BOX, "hangs": Needs.NOTHING, "is_never_reached": Needs.NOTHING},
    )
    run = run_cells([known.guest("debian-13")], ["stock"], suite=suite, retries=1)
    [cell] = run.cells
    # The first time it may have been the emulator that was slow.
    [first] = cell.retried
    assert "the lab's time limit ended it on a slow host" in first
    assert [(t.name, t.outcome) for t in cell.tests] == [
        ("ends", Outcome.PASS),
        ("hangs", Outcome.FAIL),
        ("is_never_reached", Outcome.NOT_RUN),
    ]
    assert cell.status is Status.FAIL
    assert "killed at its time limit" in cell.reason


@pytest.mark.slow
def test_without_a_checkpoint_of_memory_cells_boot_from_the_deployed_disk(
    run_cells: RunCells, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What QEMU before 6.0 answers, from the real QEMU: it does not know the command.
    monkeypatch.setattr(checkpoint, "SAVE", "snapshot-save-of-a-newer-qemu")
    observer = Told()
    run = run_cells([known.guest("debian-13")], [CHEAP], observer=observer)
    assert [(cell.status, cell.fork) for cell in run.cells] == [(Status.XFAIL, "disk")]
    [lane] = run.run.lanes
    assert lane.fork == "disk"
    assert "has not been found" in lane.note
    assert any("no checkpoint of memory" in text for _, text in observer.lanes)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room, which only root can make."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = Path("/var/tmp") / f"boxlite-lab-small-{os.getpid()}"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160M,mode=755", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def test_a_disk_that_fills_up_while_building_keeps_nothing(
    small_disk: Path, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUILD_FREE_BYTES", 0)
    # Root builds in the image's own folder where memory has no room.
    monkeypatch.setattr(debian, "IN_MEMORY", small_disk)
    paths = Paths(cache=small_disk / "cache", state=small_disk / "state")
    with pytest.raises(LabError, match="the disk filled up"):
        store.ensure(paths, known.guest("debian-13"), lambda text: None)
    assert store.find(paths, known.guest("debian-13")) is None
    assert [path for path in paths.images.iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_disk_that_fills_up_under_a_guest_is_an_error_that_says_so(
    small_disk: Path, run_cells: RunCells, known: Catalog, paths: Paths, image: BaseImage
) -> None:
    tight = Paths(cache=paths.cache, state=small_disk / "state")
    run = run_cells([known.guest("debian-13")], [CHEAP], at=tight)
    [cell] = run.cells
    assert cell.status is Status.ERROR
    assert "stopped at a failed write" in cell.reason
    assert "MiB are free" in cell.reason
    assert list(tight.lanes.glob("lab-*")) == []


@pytest.fixture
def two_images(paths: Paths, known: Catalog, image: BaseImage) -> None:
    """Of both guests: one whose image is built meanwhile comes up when the other is done."""
    store.ensure(paths, known.guest("debian-12"), lambda text: None)


@pytest.mark.parametrize(
    "number",
    [*(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL],
)
def test_nothing_is_left_of_a_lab_that_was_ended_under_load_and_its_run_can_be_resumed(
    number: signal.Signals, home: Path, paths: Paths, two_images: None
) -> None:
    folder = home / f"ended-{number.name}"
    words = ["-g", "debian-12", "-g", "debian-13", "-v", CHEAP, "--build", RELEASE, "-o", str(folder)]
    lanes: set[str] = set()

    def under_load() -> bool:
        """Two guests run, and a suite in one of them. A lane that stores its boot has no machine meanwhile."""
        lanes.update(path.name for path in paths.lanes.glob("lab-*"))
        log = folder / "run.log"
        at_work = log.exists() and "running the suite" in log.read_text()
        return at_work and len(domains_of(lanes)) == 2 and len(processes_of(lanes)) == 2

    with lab_at_work(home, "matrix", "--no-remedies", *words) as started:
        wait_until(under_load, 400, "two guests and a suite")
        started.send_signal(number)
        status = started.wait(60)
    assert status == (-number if number is signal.SIGKILL else 130)
    assert {cell.status for cell in RunResult.read(folder).cells} == {Status.NOT_RUN}
    assert keys_for_all(folder) == keys_for_all(paths.state) == []
    following = lab(home, "clean")
    output, _ = following.communicate(timeout=60)
    assert following.returncode == 0, output

    assert domains_of(lanes) == set()
    wait_until(lambda: processes_of(lanes) == [], 10, "QEMU to be gone")
    assert list(paths.lanes.glob("lab-*")) == []

    if number is signal.SIGKILL:
        again = lab(home, "matrix", "--resume", str(folder))
        output, _ = again.communicate(timeout=600)
        run = RunResult.read(folder)
        assert again.returncode == 0, output
        assert [cell.status for cell in run.cells] == [Status.XFAIL, Status.XFAIL]
        assert (len(run.run.resumed), run.run.interrupted) == (1, False)


def test_a_second_signal_stops_at_once_and_the_next_command_cleans_up(
    home: Path, paths: Paths, image: BaseImage
) -> None:
    started = lab(
        home,
        "matrix",
        "--no-remedies",
        "-g",
        "debian-13",
        "-v",
        CHEAP,
        "--build",
        RELEASE,
        "-o",
        str(home / "twice"),
    )
    wait_until(lambda: any(paths.lanes.glob("lab-*/console-1.log")), 120, "a guest to be started")
    lanes = {path.name for path in paths.lanes.glob("lab-*")}
    for number in (signal.SIGINT, signal.SIGINT):
        started.send_signal(number)
    output, _ = started.communicate(timeout=60)
    assert started.returncode == 130, output
    following = lab(home, "clean")
    output, _ = following.communicate(timeout=60)
    assert following.returncode == 0, output
    assert domains_of(lanes) == set()
    assert list(paths.lanes.glob("lab-*")) == []


def unpacking(pid: int) -> bool:
    """Whether a process has come so far that dpkg is at work below it."""
    try:
        return any(child.name().startswith("dpkg") for child in psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:  # It ended while it was looked at.
        return False


def test_a_killed_build_is_never_taken_for_whole(home: Path, known: Catalog) -> None:
    guest = known.guest("debian-12")
    own = Paths(cache=home / "fresh" / "cache", state=home / "fresh" / "state")
    started = lab(home / "fresh", "images", "build", guest.name)
    # Not by the tree: an ordinary user's is elsewhere, and not for that user's eyes.
    wait_until(lambda: unpacking(started.pid), 120, "a tree to grow")
    os.killpg(started.pid, signal.SIGKILL)
    started.wait(10)
    assert store.find(own, guest) is None
    # A build at its end would take the place of the killed one; here it is enough that it starts afresh.
    again = lab(home / "fresh", "images", "build", guest.name)
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 0, output
    assert store.find(own, guest) is not None
    assert [path.name for path in own.images.iterdir() if path.name.startswith(".partial")] == []
    process.run(["rm", "-rf", home / "fresh"], timeout=60)
