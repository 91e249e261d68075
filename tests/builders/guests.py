"""Guests that are not there: a lane on the bench, a runner of cells without one, and images in a store."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from lab import catalog
from lab.base import process
from lab.base.architecture import X86_64
from lab.base.paths import Paths
from lab.base.wait import Speed
from lab.builds import Build, SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Firmware, Variant
from lab.guest import ready, variant
from lab.guest.session import Session
from lab.images import store
from lab.images.store import DISK, BaseImage, Manifest, StoredFile
from lab.lane import prepare_image, running
from lab.lane.cell import Applied
from lab.lane.guest import LaneGuest
from lab.lane.running import RunningLane, Work
from lab.machine import states
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.domain import FirmwareBoot, Hardware, Network
from lab.machine.lane import BootFailed, Endpoint, LaneDied
from lab.machine.seed import new_keys
from lab.machine.states import StateInfo, States, StoredState
from lab.plan import Cell
from lab.probes import Facts, Probed, SuiteUser
from lab.record import Finding, Outcome, SuiteRun, TestResult
from tests.builders.facts import facts, probed, who

KNOWN = catalog.load()
GUEST = KNOWN.guest("debian-13")
OLD, NEW = Wheel("0.9.0", "0.9.0"), Wheel("0.10.8", "0.10.8")
# As a run asks for them: those of the catalog, and one of a variant that was made for the run.
SYSCTLS = [*KNOWN.sysctls(), "user.max_pid_namespaces"]
EMULATION, KVM = Acceleration(False, ""), Acceleration(True, "")

RESTORED = ["adopt", "start paused", "load boot", "resume"]


SUITE = KNOWN.suite
# Two chunks, and a piece of a third one.
INITRD_BYTES = (8 << 20) + 5


def base_image(folder: Path, firmware: Firmware | None = None) -> BaseImage:
    disk = StoredFile(sha256="1" * 64, size=1, modified_ns=1)
    manifest = Manifest(
        guest="debian-13",
        inputs="0" * 64,
        disk_sha256=disk.sha256,
        built="today",
        seconds=1.0,
        source="built",
        files={DISK: disk},
    )
    return BaseImage(folder, manifest, firmware)


def no_say(_text: str) -> None:
    """Whoever is told nothing."""


def put_image(paths: Paths, guest: catalog.Guest, *, kib: int = 1024) -> BaseImage:
    """Store an image as if it had been built from the guest's definition; another size is another image."""

    def fill(folder: Path) -> float:
        make_disk(folder / DISK, kib)
        (folder / "vmlinuz").write_text(f"a kernel of {guest.name}, {kib}")
        (folder / "initrd").write_bytes(b"1" * INITRD_BYTES)
        return 1.0

    inputs = store.inputs_digest(guest)
    folder = paths.make(paths.images) / f"{guest.name}-{inputs[:16]}"
    return store.place(folder, guest.name, inputs, "built for a test", fill)


def make_disk(file: Path, kib: int = 1024) -> None:
    command: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", file]
    process.run([*command, f"{kib}K"], timeout=60)


def put_published(paths: Paths, guest: catalog.Guest, *, kib: int = 1024) -> BaseImage:
    """Store a disk as if a cloud guest's distribution had published it."""
    file = paths.make(paths.downloads) / "published.qcow2"
    make_disk(file, kib)
    return store.import_file(paths, guest, file, lambda _text: None)


def put_prepared(paths: Paths, guest: catalog.Guest, base: BaseImage, *, kib: int = 512) -> BaseImage:
    """Store an image as if it had been prepared from a published one."""

    def fill(folder: Path) -> float:
        make_disk(folder / DISK, kib)
        (folder / "changes.json").write_text("{}\n")
        return 1.0

    inputs = prepare_image.inputs_digest(guest, base)
    folder = paths.make(paths.images) / f"{prepare_image.PREPARED}{guest.name}-{inputs[:16]}"
    disk = base.manifest.disk_sha256
    return store.place(folder, guest.name, inputs, "prepared for a test", fill, base=disk)


class TwoLabs:
    """Two labs that want the same image at once; it is `made` by the first, for which the second waits."""

    def __init__(self, made: str) -> None:
        self.wait = f"waiting for this image to be {made}"
        self._at_work, self._waiting = threading.Event(), threading.Event()

    def work(self) -> None:
        """To be called by what only one of them does."""
        self._at_work.set()
        assert self._waiting.wait(30)

    def run(self, ensure: Callable[[Callable[[str], None]], BaseImage]) -> list[BaseImage]:
        def say(text: str) -> None:
            if text == self.wait:
                self._waiting.set()

        images: list[BaseImage] = []
        first = threading.Thread(target=lambda: images.append(ensure(no_say)))
        first.start()
        assert self._at_work.wait(30)
        images.append(ensure(say))
        first.join(30)
        return images


def asked_for(sysctls: Iterable[str]) -> Facts:
    """The facts of a guest whose kernel has none of the sysctls that it was asked for."""
    return facts(sysctls=dict.fromkeys(sysctls))


class Machine:
    """A lane that notes what is done to it; `when` holds what else happens then."""

    def __init__(self, folder: Path, acceleration: Acceleration) -> None:
        self.did: list[str] = []
        self.when: dict[str, Callable[[], object]] = {}
        self.acceleration = acceleration
        self.network = Network.CLOSED
        self.guest = GUEST
        self.name = "lab-debian-13-000000"
        self.image = base_image(Path("base"))
        self.folder = folder
        self.agent: Path | None = None
        self.hardware = Hardware(acceleration.kvm, 2048, 2, FirmwareBoot(), X86_64)
        self.processor_seconds = 1.5
        self.overlay = folder / "overlay.qcow2"
        self.given_up = False
        # On its console.
        self.console = ""
        # Snapshots in the overlay.
        self.tags: set[str] = set()
        self.set_up_disk()
        self.did.clear()

    def do(self, what: str) -> None:
        self.did.append(what)
        self.when.get(what, lambda: None)()

    def set_up_disk(self) -> None:
        self.endpoint = Endpoint(1, new_keys("client"), new_keys("host"))
        self.overlay.write_text("empty")
        self.tags = set()
        self.do("set up")

    def adopt(self, stored: StoredState) -> None:
        state = stored.info()
        self.endpoint = Endpoint(1, state.client, state.host)
        self.overlay.write_text("of the store")
        self.tags = {state.tag}
        self.do("adopt")

    def start(self, *, paused: bool = False) -> None:
        self.do("start paused" if paused else "start")
        if not self.overlay.exists():
            raise BootFailed("libvirt could not start it: there is no overlay")

    def resume(self) -> None:
        self.do("resume")

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        self.do("suspend")
        yield
        self.do("resume")

    def stop(self) -> None:
        self.do("stop")

    def check_alive(self) -> None:
        self.when.get("alive?", lambda: None)()

    def check_wanted(self) -> None:
        if self.given_up:
            raise LaneDied("it was given up")

    def last_words(self) -> str:
        return "its console stayed empty"

    def console_text(self) -> str:
        return self.console

    @property
    def speed(self) -> Speed:
        return self.acceleration.speed


class Snapshot:
    """A checkpoint of memory that notes in its lane what is done."""

    def __init__(self, lane: Machine, tag: str) -> None:
        self.lane, self.tag = lane, tag

    @classmethod
    def take(cls, lane: Machine, tag: str) -> "Snapshot":
        if tag in lane.tags:
            raise CheckpointFailed(f"QEMU's snapshot-save: Snapshot '{tag}' already exists")
        lane.do(f"save {tag}")
        lane.tags.add(tag)
        return cls(lane, tag)

    def fork(self) -> None:
        self.lane.do(f"load {self.tag}")
        assert self.tag in self.lane.tags

    def drop(self) -> None:
        self.lane.tags.remove(self.tag)


class Guest(LaneGuest):
    """A guest that notes in its machine what is done in it. `shows` are its facts, if not the usual ones."""

    lane: Any
    shows: Facts | None = None

    def renew_key(self) -> None:
        self.lane.endpoint = replace(self.lane.endpoint, client_key=new_keys("renewed"))
        self.session.use(self.lane.endpoint)

    def deploy(self, _build: Build, files: Mapping[str, Path], _rootfs: Path, *, python: str) -> None:
        self.lane.do(f"deploy {next(iter(files.values())).stem}")

    def read_facts(self, sysctls: Iterable[str]) -> Facts:
        return asked_for(sysctls)

    def apply(self, _wanted: Variant, _mark: variant.Mark, sysctls: Iterable[str]) -> Facts:
        return self.shows or asked_for(sysctls)

    def run_suite(self, build: Build, variant: Variant, _options: object = None) -> SuiteRun:
        self.lane.do(f"suite {variant.name}")
        tests = [TestResult(name=name, outcome=Outcome.PASS) for name in build.suite.tests]
        return SuiteRun(tests)

    def collect(self, _folder: Path, _wanted: Variant, *, mark: variant.Mark, full: bool) -> None:
        pass

    def probe(self, _wanted: Variant) -> Probed:
        return probed({})

    def probe_as_user_does(self, _wanted: Variant, sysctls: Iterable[str]) -> str:
        return f"asked for {len(list(sysctls))} sysctls\n"

    def read_who(self, _wanted: Variant) -> SuiteUser:
        return who()


def without_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lanes have checkpoints and guests that are not there, and a disk with room for stored states."""
    monkeypatch.setattr(running, "Checkpoint", Snapshot)
    monkeypatch.setattr(states, "FREE_GIB", 0.0)
    monkeypatch.setattr(ready, "wait_ready", lambda session, check, **_more: None)
    monkeypatch.setattr(Session, "wait_open", lambda *_: None)


class Turns(Processors):
    """Processors that remember how many were held at a time."""

    def __init__(self) -> None:
        super().__init__(16)
        self.turns: list[int] = []

    @contextmanager
    def hold(self, count: int, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        self.turns.append(count)
        with super().hold(count, on_wait):
            yield


class Bench:
    """A machine with a store of boots, and services for it."""

    def __init__(self, paths: Paths, folder: Path, acceleration: Acceleration) -> None:
        self.paths, self.folder = paths, folder
        folder.mkdir()
        self.machine = Machine(folder, acceleration)
        self.processors = Turns()
        libvirt: Any = SimpleNamespace(
            getCapabilities=lambda: "<capabilities/>", getVersion=lambda: 1, getLibVersion=lambda: 1
        )
        self.states = States(
            paths, libvirt, guest=GUEST, image=self.machine.image, hardware=self.machine.hardware
        )

    def service(
        self, *, cold: bool = False, builds: int = 1, build: Build = NEW, stores: bool = True
    ) -> RunningLane:
        rootfs = self.folder / "rootfs"
        rootfs.mkdir(exist_ok=True)
        (rootfs / "index.json").write_text("{}")
        work = Work(
            self.paths,
            self.folder,
            {"x86_64": rootfs},
            self.processors,
            build if builds == 1 else None,
            SYSCTLS,
            checkpoints=not cold,
            cold=cold,
        )
        lane: Any = self.machine
        guest = Guest(lane, self.processors, lambda text: None)
        return RunningLane(work, guest, self.states if stores else None)

    def store(self) -> StoredState:
        """Let there be a stored boot, as another lane left it."""
        overlay = self.folder / "another.qcow2"
        overlay.touch()
        stored = self.states.keep(overlay, StateInfo("boot", new_keys("stored"), new_keys("stored")))
        assert stored is not None
        return stored


def fails(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def cell(build: Build, name: str = "stock") -> Cell:
    return Cell(GUEST, KNOWN.variant(name), build)


class FakeRunner:
    """A runner of cells, its lane and its guest in one; tests say what a suite shows.

    `facts` are those of the guest at the lane's start.
    """

    session = None
    is_emulated = True
    speed = Speed(emulated=True)
    alone = False

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self.facts = facts
        self.alive = True
        self.given_up = False
        self.running: Any = self
        self.guest: Any = self
        self.lane: Any = self

    @property
    def is_alive(self) -> bool:
        return self.alive

    def check_alive(self) -> None:
        if not self.alive:
            raise LaneDied("the machine is gone\nits console stayed empty")

    def check_wanted(self) -> None:
        if self.given_up:
            raise LaneDied("it was given up")

    def say(self, text: str) -> None:
        pass

    def why_not(self, cell: Cell) -> str | None:
        return variant.why_not_applicable(cell.variant, self.facts)

    def fork(self, build: Build) -> None:
        pass

    def apply(self, applied: Variant) -> Applied:
        return Applied(self.facts, who(), variant.Mark("begins"))

    def run_suite(self, cell: Cell, _watch: object, options: SuiteOptions) -> SuiteRun:
        raise NotImplementedError

    def gather(self, _cell: Cell, folder: Path, *, mark: variant.Mark, full: bool) -> None:
        (folder / "suite.log").write_text("ran")
        if full:
            (folder / "kernel.log").write_text("DENIED")

    def diagnose(self, _cell: Cell, _folder: Path, tests: list[TestResult]) -> list[Finding]:
        raise NotImplementedError
