"""Real guests. Images are the user's own and stay; everything else is in a folder of the test's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lab import builds, catalog, plan
from lab.base import process
from lab.base.paths import Paths
from lab.catalog import Catalog, Guest, Suite
from lab.images import store
from lab.images.store import BaseImage
from lab.machine import leftovers
from lab.machine.budget import Limits
from lab.machine.connection import connection, default_uri
from lab.machine.domain import lane_of
from lab.record import CellResult, RunOptions, RunResult
from lab.run import scheduler, start
from lab.run.observer import Observer

# Pinned, so that a new release does not change what these tests say of the lab.
RELEASE = "0.10.8"
# What the run `tries` has.
ONE_KNOB, TWO_KNOBS = "userns-clone-off", "max-userns-zero+userns-clone-off"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/vm/" in str(item.path):
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def known() -> Catalog:
    return catalog.load()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A LAB_HOME whose cache is the user's own, and whose state nobody else uses."""
    # Not under pytest's own folder: libvirt's QEMU user cannot enter that, and a socket's path is short.
    base = Path("/var/tmp") / f"boxlite-lab-test-{os.getpid()}"
    base.mkdir(mode=0o755)
    own = Paths.default()
    own.make(own.cache)
    (base / "cache").symlink_to(own.cache)
    yield base
    leftovers.reap(Paths(cache=base / "cache", state=base / "state"))
    (base / "cache").unlink()
    subprocess.run(["rm", "-rf", base], check=True)


@pytest.fixture(scope="session")
def paths(home: Path) -> Paths:
    return Paths(cache=home / "cache", state=home / "state")


@pytest.fixture(scope="session")
def image(paths: Paths, known: Catalog) -> BaseImage:
    return store.ensure(paths, known.guest("debian-13"), lambda text: None)


class Recorder:
    """An observer that keeps what it is told, and can act on it."""

    def __init__(self, on_lane: Callable[[str, str], None] = lambda guest, text: None) -> None:
        self.cells: list[CellResult] = []
        self.steps: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._on_lane = on_lane

    def lane(self, lane: str, text: str) -> None:
        self.steps.append((lane, text))
        self._on_lane(lane, text)

    def cell(self, result: CellResult) -> None:
        self.cells.append(result)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def left(self, seconds: float) -> None:
        pass


def run_plan(
    paths: Paths,
    folder: Path,
    cells: list[plan.Cell],
    observer: Observer,
    **options: int,
) -> RunResult:
    """Run cells inside this process: where a test can reach in, or that no command line chooses together."""
    begun = start.begin(folder, cells, command="test", options=RunOptions.model_validate(options), shard=None)
    limits = Limits(jobs=2, processors=os.cpu_count() or 1)
    return scheduler.Scheduler(begun.cells, paths, folder, default_uri(), begun.info, limits, observer).run()


RunCells = Callable[..., RunResult]


@pytest.fixture
def run_cells(paths: Paths, known: Catalog, tmp_path: Path) -> RunCells:
    """Run variants on guests."""

    def run(
        guests: list[Guest],
        variants: list[str],
        *,
        observer: Observer | None = None,
        suite: Suite | None = None,
        at: Paths | None = None,
        **options: int,
    ) -> RunResult:
        build = builds.resolve(RELEASE)
        build = replace(build, suite=suite) if suite else build
        cells = plan.Choice(guests, [known.variant(name) for name in variants]).cells([build])
        return run_plan(
            at or paths,
            tmp_path / "run",
            cells,
            observer or Recorder(),
            # What is broken here stays so: a second try would only take time.
            **{"retries": 0, **options},
        )

    return run


def lab(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab", *arguments],
        env={**os.environ, "LAB_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@contextmanager
def lab_at_work(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """As `lab`, and killed at the end: of a test that failed its guests would be in the way of the next."""
    started = lab(home, *arguments)
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()


def run_matrix(home: Path, folder: Path, *words: str, seconds: float) -> RunResult:
    """Run `lab matrix` in which every cell must come out as expected; `seconds`: when it is given up."""
    started = lab(home, "matrix", *words, "-o", str(folder))
    try:
        output, _ = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # Its own way to end: the guests go with it.
        started.terminate()
        output, _ = started.communicate(timeout=120)
        pytest.fail(f"given up after {seconds:.0f} s:\n{output}")
    result = RunResult.read(folder)
    assert started.returncode == result.exit_status() == 0, output
    return result


@pytest.fixture(scope="session")
def tries_folder(home: Path) -> Path:
    return home / "tries"


@pytest.fixture(scope="session")
def tries(home: Path, tries_folder: Path) -> RunResult:
    """Two cells, blocked by one setting and by two, on which all is tried that can be; minutes each."""
    words = ["-g", "debian-13", "-v", ONE_KNOB, "-v", TWO_KNOBS, "--experiment", "--build", RELEASE]
    return run_matrix(home, tries_folder, *words, seconds=1700)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)


def domains_of(lanes: set[str]) -> set[str]:
    """Which of these lanes have a domain."""
    with connection(default_uri()) as opened:
        return {name for each in opened.listAllDomains() if (name := lane_of(each.XMLDesc())) in lanes}


def processes_of(lanes: set[str], ports: set[int]) -> list[str]:
    """The command lines of QEMU and passt processes that belong to these lanes."""
    marks = [f"guest={lane}," for lane in lanes] + [f"127.0.0.1/{port}:22" for port in ports]
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(mark in line for mark in marks)]


def changed_image(image: BaseImage, folder: Path, commands: list[str]) -> BaseImage:
    """A copy of an image with debugfs commands done to its disk, so that a guest fails in a chosen way."""
    folder.mkdir(parents=True)
    raw = folder / "disk.raw"
    process.run(["qemu-img", "convert", "-O", "raw", image.disk, raw], timeout=120)
    script = folder / "commands"
    script.write_text("\n".join(commands) + "\n")
    process.run(["/usr/sbin/debugfs", "-w", "-f", script, raw], timeout=120)
    process.run(["qemu-img", "convert", "-O", "qcow2", raw, folder / "disk.qcow2"], timeout=120)
    raw.unlink()
    for name in ("vmlinuz", "initrd"):
        (folder / name).symlink_to(getattr(image, {"vmlinuz": "kernel"}.get(name, name)))
    return BaseImage(folder, image.manifest)
