"""Guests that fail, each in its own way: their cells are `error` and say why, and the other lanes go on."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lab.base import process, scratch
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.catalog import Catalog, Guest, Suite
from lab.guest import ready
from lab.images import debian, store
from lab.images.store import BaseImage
from lab.record import Needs, Outcome, RunResult, Status
from tests.builders.processes import keys_for_all
from tests.builders.runs import Told
from tests.conftest import Mount
from tests.vm.conftest import (
    RELEASE,
    RunCells,
    changed_image,
    domains_of,
    lab,
    lab_at_work,
    processes_of,
    run_lab,
    wait_until,
)

# Blocked at once, so that its cell takes the least time.
CHEAP = "userns-clone-off"
INIT = ["rm /usr/sbin/init", "write {script} /usr/sbin/init", "sif /usr/sbin/init mode 0100755"]
# Guests that fail at boot, by how they do: what debugfs does to their disk, and the script that it writes.
BROKEN = {
    "dies": (INIT, "#!/bin/sh\necho this guest dies >/dev/console\nexit 1\n"),
    "hangs": (INIT, "#!/bin/sh\necho this guest hangs >/dev/console\nexec sleep 100000\n"),
    "no-ssh": ([f"symlink /etc/systemd/system/ssh.{unit} /dev/null" for unit in ("service", "socket")], ""),
}


@pytest.fixture
def broken(
    image: BaseImage, home: Path, definitions: Catalog, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Guest]]:
    """Makes a guest that fails at boot in this way."""
    base, images = home / "broken", dict[str, BaseImage]()
    base.mkdir()

    def make(name: str) -> Guest:
        commands, text = BROKEN[name]
        script = base / f"{name}.txt"
        script.write_text(text)
        images[name] = changed_image(image, base / name, [line.format(script=script) for line in commands])
        return definitions.guest("debian-13").model_copy(update={"name": name})

    monkeypatch.setattr(store, "ensure_image", lambda paths, guest, say: images[guest.name])
    yield make
    shutil.rmtree(base)


def test_a_guest_that_does_not_come_up_is_an_error_with_the_end_of_its_console(
    broken: Callable[[str], Guest], run_cells: RunCells
) -> None:
    run = run_cells([broken("dies")], [CHEAP])
    [cell] = run.cells
    assert run.exit_status() == 3
    assert cell.status is Status.ERROR
    assert "stopped" in cell.reason or "gone" in cell.reason
    assert "Kernel Offset" in cell.reason  # the end of a panic is the console's last line
    assert any(name.endswith("console.log") for name in cell.evidence)


@pytest.mark.slow
def test_guests_that_hang_or_never_open_ssh_are_given_up_at_a_deadline(
    broken: Callable[[str], Guest], run_cells: RunCells, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These guests never come up, so the real limit would only make the test longer, and so would turns.
    monkeypatch.setattr(ready, "BOOT_SECONDS", 6.0)
    run = run_cells([broken("hangs"), broken("no-ssh")], [CHEAP], processors=4)
    cells = {cell.guest: cell for cell in run.cells}
    assert run.exit_status() == 3
    for cell in run.cells:
        assert cell.status is Status.ERROR
        assert re.search(r"waited \d+ s for the guest's SSH server; this host", cell.reason)
        assert any(name.endswith("console.log") for name in cell.evidence)
    assert "this guest hangs" in cells["hangs"].reason
    assert "its console ends" in cells["no-ssh"].reason


def test_a_cell_whose_qemu_was_killed_is_tried_again_on_a_fresh_lane_and_told(
    run_cells: RunCells, definitions: Catalog, paths: Paths
) -> None:
    lanes: list[str] = []

    def kill_first(lane: str, text: str) -> None:
        if text.endswith("running the suite"):
            lanes.append(lane)
            if len(lanes) == 1:
                [name] = [folder.name for folder in paths.lanes.glob("lab-*")]
                [qemu] = processes_of({name})
                qemu.kill()

    run = run_cells([definitions.guest("debian-13")], [CHEAP], observer=Told(kill_first), retries=1)
    [cell] = run.cells
    assert (cell.status, cell.cause) == (Status.XFAIL, "userns-sysctl"), cell.reason
    assert lanes == ["debian-13", "debian-13 #2"]
    [fault] = cell.history.retried
    assert "debian-13 is gone" in fault
    assert "console" in fault
    assert any("/fault-1/console.log" in name for name in cell.evidence)


class HangingSuite(Suite):
    """A suite whose second test never ends, and that pytest cannot stop by itself."""

    @property
    def folder(self) -> Path:
        return Path(__file__).parent / "hanging_suite"


@pytest.mark.slow
def test_a_suite_that_hangs_on_two_lanes_has_failed_and_the_tests_that_ran_keep_their_outcomes(
    run_cells: RunCells, definitions: Catalog
) -> None:
    suite = HangingSuite(
        name="hanging_suite",
        title="",
        subject="start",
        control="ends",
        witness="ends",
        test_seconds=1000,
        suite_seconds=3,
        tests={"ends": Needs.BOX, "hangs": Needs.NOTHING, "is_never_reached": Needs.NOTHING},
    )
    run = run_cells([definitions.guest("debian-13")], ["stock"], suite=suite, retries=1)
    [cell] = run.cells
    # The first time it may have been the emulator that was slow.
    [first] = cell.history.retried
    assert "the lab's time limit ended it on a slow host" in first
    assert [(t.name, t.outcome) for t in cell.tests] == [
        ("ends", Outcome.PASS),
        ("hangs", Outcome.FAIL),
        ("is_never_reached", Outcome.NOT_RUN),
    ]
    assert cell.status is Status.FAIL
    assert "killed at its time limit" in cell.reason


@pytest.fixture
def small_disk(mount: Mount) -> Path:
    """A file system with little room."""
    return mount(Path("/var/tmp") / f"boxlite-lab-small-{os.getpid()}", "size=160M,mode=755")


def test_a_disk_that_fills_up_while_building_keeps_nothing(
    small_disk: Path, definitions: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUILD_FREE_BYTES", 0)
    monkeypatch.setattr(debian, "IN_MEMORY", small_disk / "none")
    paths = Paths(cache=small_disk / "cache", state=small_disk / "state")
    with pytest.raises(LabError, match="the disk filled up"):
        store.ensure_image(paths, definitions.guest("debian-13"), UNWATCHED)
    assert store.find_image(paths, definitions.guest("debian-13")) is None
    assert [path for path in paths.images.iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_disk_that_fills_up_under_a_guest_is_an_error_that_says_so(
    small_disk: Path, run_cells: RunCells, definitions: Catalog, paths: Paths, image: BaseImage
) -> None:
    tight = Paths(cache=paths.cache, state=small_disk / "state")
    run = run_cells([definitions.guest("debian-13")], [CHEAP], at=tight)
    [cell] = run.cells
    assert cell.status is Status.ERROR
    # Either a write of the guest fails, or that of its memory into the checkpoint.
    assert "stopped at a failed write" in cell.reason or "no checkpoint of the guest" in cell.reason
    assert "MiB are free" in cell.reason
    assert list(tight.lanes.glob("lab-*")) == []


@pytest.fixture
def two_images(paths: Paths, definitions: Catalog, image: BaseImage) -> None:
    """Of both guests: one whose image is built meanwhile comes up when the other is done."""
    store.ensure_image(paths, definitions.guest("debian-12"), UNWATCHED)


@pytest.mark.parametrize(
    ("signals", "guests"),
    [
        pytest.param([signal.SIGINT], ("debian-12", "debian-13"), marks=pytest.mark.slow),
        pytest.param([signal.SIGTERM], ("debian-12", "debian-13"), marks=pytest.mark.slow),
        ([signal.SIGINT, signal.SIGINT], ("debian-13",)),
        ([signal.SIGKILL], ("debian-13",)),
    ],
)
def test_nothing_is_left_of_a_lab_that_was_ended_under_load_and_its_run_can_be_resumed(
    signals: list[signal.Signals],
    guests: tuple[str, ...],
    home: Path,
    paths: Paths,
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("image" if guests == ("debian-13",) else "two_images")
    last = signals[-1]
    folder = home / f"ended-{len(signals)}-{last.name}"
    words = [word for guest in guests for word in ("-g", guest)]
    words += ["-v", CHEAP, "--build", RELEASE, "-o", str(folder)]
    lanes: set[str] = set()

    def under_load() -> bool:
        """All guests run, and a suite in one of them. A lane that stores its boot has no machine meanwhile."""
        lanes.update(path.name for path in paths.lanes.glob("lab-*"))
        log = folder / "run.log"
        at_work = log.exists() and "running the suite" in log.read_text()
        return at_work and len(domains_of(lanes)) == len(processes_of(lanes)) == len(guests)

    with lab_at_work(home, "matrix", "--no-remedies", *words) as started:
        wait_until(under_load, 400, "the guests and a suite")
        for number in signals:
            started.send_signal(number)
        status = started.wait(60)
    assert status == (-last if last is signal.SIGKILL else 130)
    assert {cell.status for cell in RunResult.read(folder).cells} == {Status.NOT_RUN}
    assert keys_for_all(folder) == keys_for_all(paths.state) == []
    run_lab(home, "clean")

    assert domains_of(lanes) == set()
    wait_until(lambda: processes_of(lanes) == [], 10, "QEMU to be gone")
    assert list(paths.lanes.glob("lab-*")) == []

    if last is signal.SIGKILL:
        run_lab(home, "matrix", "--resume", folder)
        run = RunResult.read(folder)
        assert {cell.status for cell in run.cells} == {Status.XFAIL}
        assert (len(run.run.resumed), run.run.interrupted) == (1, False)


def unpacking(pid: int) -> bool:
    """Whether a process has come so far that dpkg is at work below it."""
    try:
        return any(child.name().startswith("dpkg") for child in psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:  # It ended while it was looked at.
        return False


def test_a_killed_build_is_never_taken_for_whole_or_left_there(home: Path, definitions: Catalog) -> None:
    guest = definitions.guest("debian-12")
    own = Paths(cache=home / "fresh" / "cache", state=home / "fresh" / "state")
    started = lab(home / "fresh", "images", "build", guest.name)
    # Not by the tree: an ordinary user's is elsewhere, and not for that user's eyes.
    wait_until(lambda: unpacking(started.pid), 120, "a tree to grow")
    builders = psutil.Process(started.pid).children(recursive=True)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait(10)
    assert store.find_image(own, guest) is None
    # They are told that the lab has died, and remove what they can.
    psutil.wait_procs(builders, timeout=60)
    # A whole build would take a minute, and only begin with what `lab clean` does.
    run_lab(home / "fresh", "clean")
    assert list(own.images.glob(".partial-*")) == []
    for place in (debian.ON_DISK, debian.IN_MEMORY):
        assert list(scratch.find_abandoned_folders(place, debian.WORKSPACE)) == []
    process.run_command(["rm", "-rf", home / "fresh"], timeout=60)
