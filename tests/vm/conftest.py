"""Real guests. Images are the user's own and stay; everything else is in folders of the tests'."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import libvirt
import psutil
import pytest
from click.testing import CliRunner

from lab import builds, catalog, plan
from lab.base import process
from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from lab.base.wait import Deadline, wait_for
from lab.catalog import Catalog, Guest, Suite
from lab.cli import cli
from lab.images import store
from lab.images.store import BaseImage
from lab.machine import leftovers
from lab.machine.budget import HostLimits
from lab.machine.connection import get_default_uri, hold_connection
from lab.machine.domain import find_lane_name
from lab.record import RunOptions, RunResult
from lab.run import scheduler, start
from lab.run.observer import Observer
from tests.builders.runs import Told
from tests.vm import shared
from tests.vm.shared import SharedRun, SharedRuns

# Pinned, so that a new release does not change what these tests say of the lab.
RELEASE = "0.10.8"

ONE_KNOB, TWO_KNOBS = "userns-clone-off", "max-userns-zero+userns-clone-off"
# Cells blocked by one setting and by two. All remedies are tried on both; on the second an experiment is made.
TRIES = {
    ONE_KNOB: SharedRun(
        "one-knob",
        ["-g", "debian-13", "-v", ONE_KNOB, "--remedies", "--no-experiment", "--build", RELEASE],
        guests=["debian-13"],
        seconds=240,
        # A test wants it to find the deployed build of an earlier run.
        after=["matrix"],
    ),
    TWO_KNOBS: SharedRun(
        "two-knobs",
        ["-g", "debian-13", "-v", TWO_KNOBS, "--remedies", "--experiment", "--build", RELEASE],
        guests=["debian-13"],
        seconds=330,
    ),
}
SHARED = pytest.StashKey[SharedRuns]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what boots guests; what reads a shared run comes last, when the run has had time to be made."""
    for item in items:
        if "/vm/" in str(item.path):
            item.add_marker(pytest.mark.vm)
    place = {run.name: number for number, run in enumerate(_shared_runs(items), start=1)}
    items.sort(key=lambda item: max((place[run.name] for run in _shared_runs([item])), default=0))


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Make the shared runs of the chosen tests while the other tests run."""
    chosen = [item for item in session.items if item.get_closest_marker("vm")]
    if not chosen or session.config.option.collectonly or session.testsfailed:
        return (yield)
    runs = _shared_runs(chosen)
    making = SharedRuns(_test_home("-shared"), runs, _builds(chosen, runs))
    session.config.stash[SHARED] = making
    with _sigterm_is_an_interrupt(session), making:
        return (yield)


def _shared_runs(items: Sequence[pytest.Item]) -> list[SharedRun]:
    """The runs that these tests read, each once. A long one that is begun last is waited for alone."""
    marks = [mark for item in items for mark in item.iter_markers("shared")]
    runs = {run.name: run for mark in marks for run in mark.args}.values()
    return sorted(runs, key=lambda run: -run.seconds)


def _builds(items: Sequence[pytest.Item], runs: Sequence[SharedRun]) -> list[list[str]]:
    """The commands that build what these tests and runs will need."""
    cloud = any("published" in getattr(item, "fixturenames", ()) for item in items)
    guests = list(dict.fromkeys(guest for run in runs for guest in run.guests))
    commands = [["-m", "tests.vm.cloud_disk"]] if cloud else []
    commands += [["-m", "lab", "images", "build", *guests]] if guests else []
    return [[sys.executable, *command] for command in commands]


@contextmanager
def _sigterm_is_an_interrupt(session: pytest.Session) -> Iterator[None]:
    """End the tests as Ctrl-C does, with every guest taken down, when their time is up."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        # Even if something takes the interrupt for its own.
        session.shouldstop = "SIGTERM"
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _test_home(suffix: str = "") -> Path:
    # Not under pytest's own folder: libvirt's QEMU user cannot enter that, and a socket's path is short.
    return Path("/var/tmp") / f"boxlite-lab-test-{os.getpid()}{suffix}"


@pytest.fixture(scope="session")
def definitions() -> Catalog:
    return catalog.load_catalog()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A LAB_HOME whose cache is the user's own, and whose state nobody else uses."""
    base = _test_home()
    shared.make_home(base)
    yield base
    shared.remove_home(base)


@pytest.fixture(scope="session")
def paths(home: Path) -> Paths:
    return Paths(cache=home / "cache", state=home / "state")


@contextmanager
def own_home(base: Path, paths: Paths) -> Iterator[Paths]:
    """A LAB_HOME of some tests' own, for the labs in this process; nothing of it is left.

    It knows whether KVM works on this host, if that was found out: some kernels hang under a KVM that does not
    work, and the lab gives them two minutes.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LAB_HOME", str(base))
        made = Paths.default()
        if paths.acceleration.exists():
            shutil.copy(paths.acceleration, made.make(made.cache))
        yield made
    leftovers.reap_dead_lanes(Paths(cache=base / "cache", state=base / "state"))
    process.run_command(["rm", "-rf", base], timeout=60)


def invoke(*arguments: str | Path) -> tuple[int, str]:
    """Run a command line in this process, with the definitions of the test; its exit status and output."""
    done = CliRunner().invoke(cli, [str(word) for word in arguments], standalone_mode=False)
    assert done.exception is None, done.output
    assert isinstance(done.return_value, int)
    return done.return_value, done.output


@pytest.fixture(scope="session")
def shared_runs(pytestconfig: pytest.Config) -> SharedRuns:
    """The runs made in the background: those that a chosen test names in its mark `shared`."""
    return pytestconfig.stash[SHARED]


@pytest.fixture
def run(request: pytest.FixtureRequest, shared_runs: SharedRuns) -> RunResult:
    """The results of the shared run that the test reads, of the longest if there are several."""
    return shared_runs.result(_shared_runs([request.node])[0])


@pytest.fixture
def folder(request: pytest.FixtureRequest, shared_runs: SharedRuns) -> Path:
    """The folder of that run."""
    return shared_runs.folder(_shared_runs([request.node])[0])


@pytest.fixture(scope="session")
def image(paths: Paths, definitions: Catalog) -> BaseImage:
    return store.ensure_image(paths, definitions.guest("debian-13"), UNWATCHED)


RunCells = Callable[..., RunResult]


@pytest.fixture
def run_cells(paths: Paths, definitions: Catalog, tmp_path: Path) -> RunCells:
    """Run variants on guests inside this process, where a test can reach in."""

    def run(
        guests: list[Guest],
        variants: list[str],
        *,
        observer: Observer | None = None,
        suite: Suite | None = None,
        at: Paths | None = None,
        processors: int | None = None,
        **options: int,
    ) -> RunResult:
        build = builds.resolve_build(RELEASE)
        build = replace(build, suite=suite) if suite else build
        cells = plan.Choice(guests, [definitions.variant(name) for name in variants]).cells([build])
        folder = tmp_path / "run"
        # What is broken here stays so: a second try would only take time.
        run_options = RunOptions.model_validate({"retries": 0, **options})
        begun = start.begin_run(folder, cells, command="test", options=run_options)
        limits = HostLimits(jobs=2, processors=processors or os.cpu_count() or 1)
        return scheduler.Scheduler(begun, at or paths, get_default_uri(), limits, observer or Told()).run()

    return run


def lab(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line in a process group of its own."""
    return shared.start(home, [sys.executable, "-m", "lab", *arguments])


def run_lab(
    home: Path, *arguments: str | Path, stdin: str = "", status: int | None = 0, seconds: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end with this exit status; None: whatever it is."""
    done = subprocess.run(
        [sys.executable, "-m", "lab", *arguments],
        env={**shared.ENVIRONMENT, "LAB_HOME": str(home)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert status in (None, done.returncode), done.stdout + done.stderr
    return done


@contextmanager
def lab_at_work(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """As `lab`, and killed at the end: the guests of a test that failed would be in the way of the next."""
    started = lab(home, *arguments)
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    wait_for(lambda: condition() or None, Deadline(seconds, what))


def domains_of(lanes: set[str]) -> set[str]:
    """Which of these lanes have a domain."""
    names = set()
    with hold_connection(get_default_uri()) as opened:
        for domain in opened.listAllDomains():
            with suppress(libvirt.libvirtError):  # It may end while its XML is read.
                names.add(find_lane_name(domain.XMLDesc()))
    return {name for name in names if name in lanes}


def processes_of(lanes: set[str]) -> list[psutil.Process]:
    """These lanes' QEMU processes."""
    marks = [f"guest={lane}," for lane in lanes]
    processes = psutil.process_iter(["cmdline"])
    return [own for own in processes if any(mark in " ".join(own.info["cmdline"] or []) for mark in marks)]


def changed_image(image: BaseImage, folder: Path, commands: list[str]) -> BaseImage:
    """A copy of an image with debugfs commands done to its disk, so that a guest fails in a chosen way."""
    folder.mkdir(parents=True)
    raw = folder / "disk.raw"
    process.run_command(["qemu-img", "convert", "-O", "raw", image.disk, raw], timeout=120)
    script = folder / "commands"
    script.write_text("\n".join(commands) + "\n")
    process.run_command(["/usr/sbin/debugfs", "-w", "-f", script, raw], timeout=120)
    process.run_command(["qemu-img", "convert", "-O", "qcow2", raw, folder / "disk.qcow2"], timeout=120)
    raw.unlink()
    for name in ("vmlinuz", "initrd"):
        (folder / name).symlink_to(getattr(image, {"vmlinuz": "kernel"}.get(name, name)))
    return BaseImage(folder, image.manifest)
