"""A lane on the bench: its machine and its guest are not there, and note what is done to them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from lab import catalog
from lab.base.paths import Paths
from lab.base.speed import Speed
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.guest import variant
from lab.guest.suite import SuiteRun
from lab.lane.guest import LaneGuest
from lab.lane.running import RunningLane, Work
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.domain import Network
from lab.machine.keys import generate
from lab.machine.lane import BootFailed, Endpoint, LaneDied
from lab.machine.states import Known, States, StoredState
from lab.plan import Cell
from lab.probes import Facts, Probed, SuiteUser
from lab.record import Outcome, TestResult
from tests.unit.examples import base_image, facts, probed, who

KNOWN = catalog.load()
GUEST = KNOWN.guest("debian-13")
OLD, NEW = Wheel("0.9.0", "0.9.0"), Wheel("0.10.8", "0.10.8")
# As a run asks for them: those of the catalog, and one of a variant that was made for the run.
SYSCTLS = [*KNOWN.sysctls(), "user.max_pid_namespaces"]
EMULATION, KVM = Acceleration(False, ""), Acceleration(True, "")

RESTORED = ["adopt", "start paused", "load boot", "resume"]


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
        self.processor_seconds = 1.5
        self.overlay = folder / "overlay.qcow2"
        self.given_up = False
        # On its console.
        self.said = ""
        # Snapshots in the overlay.
        self.tags: set[str] = set()
        self.set_up_disk()
        self.did.clear()

    def do(self, what: str) -> None:
        self.did.append(what)
        self.when.get(what, lambda: None)()

    def set_up_disk(self) -> None:
        self.endpoint = Endpoint(1, generate("client"), generate("host"))
        self.overlay.write_text("empty")
        self.tags = set()
        self.do("set up")

    def adopt(self, stored: StoredState) -> None:
        known = stored.known()
        self.endpoint = Endpoint(1, known.client, known.host)
        self.overlay.write_text("of the store")
        self.tags = {known.tag}
        self.do("adopt")

    def new_overlay(self, backing: Path) -> None:
        self.overlay.write_text("empty")
        self.do(f"overlay on {backing}")

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

    def rewind(self, tag: str) -> None:
        self.do(f"rewind {tag}")

    def wait_until_off(self, _seconds: float) -> None:
        self.do("off")

    def check_alive(self) -> None:
        self.when.get("alive?", lambda: None)()

    def agent_is_open(self) -> bool:
        return True

    def check_wanted(self) -> None:
        if self.given_up:
            raise LaneDied("it was given up")

    def last_words(self) -> str:
        return "its console stayed empty"

    def console_text(self) -> str:
        return self.said

    @property
    def speed(self) -> Speed:
        return self.acceleration.speed


class Snapshot:
    """A checkpoint of memory that notes in its lane what is done."""

    kind, boots = "memory", False

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

    def start_agent(self) -> None:
        pass

    def wait_answering(self) -> None:
        pass

    def snapshot(self, tag: str) -> Any:
        return Snapshot(self.lane, tag)

    def take_snapshot(self, tag: str) -> Any:
        return Snapshot.take(self.lane, tag)

    def power_off(self) -> None:
        self.lane.wait_until_off(0.0)

    def renew_key(self) -> None:
        self.lane.endpoint = replace(self.lane.endpoint, client_key=generate("renewed"))
        self.session.use(self.lane.endpoint)

    def deploy(self, _build: Build, files: Mapping[str, Path], _rootfs: Path, *, python: str) -> None:
        self.lane.do(f"deploy {next(iter(files.values())).stem}")

    def read_facts(self, sysctls: Iterable[str]) -> Facts:
        return asked_for(sysctls)

    def apply(self, _wanted: Variant, _mark: variant.Mark, sysctls: Iterable[str]) -> Facts:
        return self.shows or asked_for(sysctls)

    def run_suite(self, build: Build, wanted: Variant, _options: object = None) -> SuiteRun:
        self.lane.do(f"suite {wanted.name}")
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


class Turns(Processors):
    """Processors that remember how many were wanted."""

    def __init__(self) -> None:
        super().__init__(16)
        self.wanted: list[int] = []

    @contextmanager
    def hold(self, count: int, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        self.wanted.append(count)
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
            paths, libvirt, guest=GUEST, image=self.machine.image, acceleration=self.machine.acceleration
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
            rootfs,
            self.processors,
            build if builds == 1 else None,
            SYSCTLS,
            cold=cold,
            agent=not cold,
        )
        lane: Any = self.machine
        guest = Guest(lane, self.processors, lambda text: None)
        return RunningLane(work, guest, self.states if stores else None)

    def store(self) -> StoredState:
        """Let there be a stored boot, as another lane left it."""
        overlay = self.folder / "another.qcow2"
        overlay.touch()
        stored = self.states.keep(overlay, Known("boot", generate("stored"), generate("stored")))
        assert stored is not None
        return stored


def fails(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def cell(build: Build, name: str = "stock") -> Cell:
    return Cell(GUEST, KNOWN.variant(name), build)
