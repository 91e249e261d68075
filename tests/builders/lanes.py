"""A lane on the bench: the lab's own code on a machine and a guest that are not there.

A stand-in is the lab's own class, of which only the edge is replaced: what talks to libvirt, to QEMU or to the
guest. For what the lab does in a guest there is one Protocol, `InGuest`, and one fake, `FakeGuest`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn, Protocol

import pytest

from lab import catalog
from lab.base.activity import UNWATCHED, ShowProgress
from lab.base.paths import Paths
from lab.base.wait import ORDINARY, Deadline, Speed
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.catalog.remedies import Remedy
from lab.guest import collect, deploy, ready, remedy_script, suite, variant
from lab.guest.remedy_script import ScriptRuns
from lab.guest.session import Output, Session, WriteInput
from lab.guest.variant import CellStart
from lab.lane import running
from lab.lane.running import RunningLane, Work
from lab.machine import states
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.lane import BootFailed, Endpoint, Lane, LaneDied
from lab.machine.seed import make_keys
from lab.machine.states import StateInfo, States, StoredState
from lab.plan import Cell
from lab.probes import Facts, ProbedSuiteUser, ProbedUser, Probes, SuiteUser
from lab.record import Outcome, SuiteRun, TestResult
from tests.builders.facts import ALL_WORK, facts, probed, who
from tests.builders.guests import base_image

KNOWN = catalog.load_catalog()
GUEST = KNOWN.guest("debian-13")
SUITE = KNOWN.suite
OLD, NEW = Wheel("0.9.0", "0.9.0"), Wheel("0.10.8", "0.10.8")
# As a run asks for them: those of the catalog, and one of a variant that was made for the run.
SYSCTLS = [*KNOWN.sysctls(), "user.max_pid_namespaces"]
EMULATION, KVM = Acceleration(False, ""), Acceleration(True, "")
# To make a key takes time.
CLIENT_KEY, HOST_KEY = make_keys("client"), make_keys("host")
RESTORED = ["adopt", "start paused", "load boot", "resume"]


def asked_for(sysctls: Iterable[str]) -> Facts:
    """The facts of a guest whose kernel has none of the sysctls that it was asked for."""
    return facts(sysctls=dict.fromkeys(sysctls))


class FakeLane(Lane):
    """A lane that notes what is done to its machine in `did`; `when` holds what else happens then.

    `boot_log` is what its console shows, `tags` are the snapshots in its overlay.
    """

    def __init__(self, folder: Path, acceleration: Acceleration) -> None:
        folder.mkdir(exist_ok=True)
        libvirt: Any = SimpleNamespace(
            getCapabilities=lambda: "<capabilities/>", getVersion=lambda: 1, getLibVersion=lambda: 1
        )
        super().__init__(libvirt, GUEST, base_image(Path("base")), acceleration, folder, 1)
        self.did: list[str] = []
        self.when: dict[str, Callable[[], object]] = {}
        self.given_up = False
        self.boot_log = ""
        self.tags: set[str] = set()
        self.port_of_agent: Path | None = None
        self.set_up_disk()
        self.did.clear()

    def do(self, what: str) -> None:
        self.did.append(what)
        self.when.get(what, lambda: None)()

    @property
    def agent(self) -> Path | None:
        return self.port_of_agent

    @property
    def processor_seconds(self) -> float:
        return 1.5

    def set_up_disk(self) -> None:
        self.endpoint = Endpoint(1, make_keys("client"), make_keys("host"))
        self.overlay.write_text("empty")
        self.tags = set()
        self.do("set up")

    def adopt(self, stored: StoredState) -> None:
        state = stored.info()
        self.endpoint = Endpoint(1, state.client, state.host)
        self.overlay.write_text("of the store")
        self.tags = {state.tag}
        self.do("adopt")

    def start(self, *, paused: bool = False, may_restart: bool = False) -> None:
        self.do(f"start{' paused' if paused else ''}{', may restart' if may_restart else ''}")
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

    def wait_until_off(self, seconds: float) -> None:
        self.do("off")

    def check_alive(self) -> None:
        self.when.get("alive?", lambda: None)()

    def die(self) -> NoReturn:
        """Let its machine be gone from here on."""
        gone = LaneDied("the machine is gone\nits console stayed empty")
        self.when["alive?"] = fails(gone)
        raise gone

    def check_wanted(self) -> None:
        if self.given_up:
            raise LaneDied("it was given up")

    def console_text(self) -> str:
        return self.boot_log


class FakeCheckpoint:
    """A checkpoint of memory that notes in its lane what is done."""

    def __init__(self, lane: FakeLane, tag: str) -> None:
        self.lane, self.tag = lane, tag

    @classmethod
    def take(cls, lane: FakeLane, tag: str) -> "FakeCheckpoint":
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


class InGuest(Protocol):
    """What the lab does in a guest. Each method has the parameters of its function in SEAMS but the session."""

    def read_facts(self, sysctls: Iterable[str]) -> Facts: ...

    def begin(self, variant: Variant, *, mark: CellStart, sysctls: Iterable[str]) -> Facts: ...

    def read_who(self, variant: Variant) -> SuiteUser: ...

    def probe_who(self, variant: Variant) -> ProbedSuiteUser: ...

    def probe(self, variant: Variant) -> ProbedUser: ...

    def probe_as_user_does(self, variant: Variant, sysctls: Iterable[str]) -> str: ...

    def deploy(
        self,
        build: Build,
        files: Mapping[str, Path],
        *,
        rootfs: Path,
        python: str,
        show: ShowProgress,
    ) -> None: ...

    def run_suite(
        self, build: Build, variant: Variant, *, speed: Any, options: SuiteOptions = WHOLE_SUITE
    ) -> SuiteRun: ...

    def collect(self, folder: Path, variant: Variant, *, mark: CellStart, full: bool) -> None: ...

    def run_remedy(self, remedy: Remedy, *, undo: bool = False) -> ScriptRuns: ...


# The functions that act in a guest, and the methods that stand for them.
SEAMS: Sequence[tuple[ModuleType, str, str]] = [
    (variant, "read_facts", "read_facts"),
    (variant, "begin_cell", "begin"),
    (variant, "read_suite_user", "read_who"),
    (variant, "probe_suite_user", "probe_who"),
    (variant, "probe_user", "probe"),
    (variant, "run_probe_script", "probe_as_user_does"),
    (deploy, "deploy_build", "deploy"),
    (suite, "execute_suite", "run_suite"),
    (collect, "collect_evidence", "collect"),
    (remedy_script, "run_script", "run_remedy"),
]


class FakeSession(Session):
    """A session with a guest that is not there.

    `commands` are those that it was to run. `answers` has what they print, by words that are in a command: the
    first that fits counts, and without one a command prints nothing.
    """

    def __init__(self, answers: Mapping[str, Output] | None = None, *, speed: Speed = ORDINARY) -> None:
        super().__init__(Endpoint(1, CLIENT_KEY, HOST_KEY), alive=lambda: None, speed=speed)
        self.answers = dict(answers or {})
        self.commands: list[str] = []

    def log_in(self, user: object) -> Any:
        return None

    def execute(
        self, transport: object, command: str, deadline: Deadline, write_input: WriteInput | None = None
    ) -> Output:
        self.commands.append(command)
        return next((answer for words, answer in self.answers.items() if words in command), Output(0, "", ""))

    def wait_open(self, seconds: float, *, listens: Callable[[], bool] = lambda: True) -> None:
        listens()


def prints(text: str, status: int = 0) -> dict[str, Output]:
    """The answers of a guest that prints this, whatever it is asked."""
    return {"": Output(status, text, "")}


class FakeGuest(FakeSession, InGuest):
    """A guest in which all goes well, and which notes in its lane what is done in it.

    `shows` are its facts, if not the usual ones. `probes` all work. `endpoint` is how to log in to it. Tests
    replace what it does in classes of their own.
    """

    probes = Probes(**ALL_WORK)

    def __init__(self, lane: FakeLane, shows: Facts | None = None) -> None:
        super().__init__(speed=lane.speed)
        self.use(lane.endpoint)
        self.alive, self.lane, self.shows = lane.check_alive, lane, shows

    def renew_key(self) -> Endpoint:
        self.endpoint = replace(self.lane.endpoint, client_key=make_keys("renewed"))
        return self.endpoint

    def read_facts(self, sysctls: Iterable[str]) -> Facts:
        return self.shows or asked_for(sysctls)

    def begin(self, variant: Variant, *, mark: CellStart, sysctls: Iterable[str]) -> Facts:
        return self.shows or asked_for(sysctls)

    def read_who(self, variant: Variant) -> SuiteUser:
        return who()

    def probe_who(self, variant: Variant) -> ProbedSuiteUser:
        return ProbedSuiteUser(**dict(self.read_who(variant)), probes=self.probes)

    def probe(self, variant: Variant) -> ProbedUser:
        return probed({})

    def probe_as_user_does(self, variant: Variant, sysctls: Iterable[str]) -> str:
        return f"asked for {len(list(sysctls))} sysctls\n"

    def deploy(
        self,
        build: Build,
        files: Mapping[str, Path],
        *,
        rootfs: Path,
        python: str,
        show: ShowProgress,
    ) -> None:
        self.lane.do(f"deploy {next(iter(files.values())).stem}")

    def run_suite(
        self, build: Build, variant: Variant, *, speed: Any, options: SuiteOptions = WHOLE_SUITE
    ) -> SuiteRun:
        self.lane.do(f"suite {variant.name}")
        return SuiteRun([TestResult(name=name, outcome=Outcome.PASS) for name in build.suite.tests])

    def collect(self, folder: Path, variant: Variant, *, mark: CellStart, full: bool) -> None:
        pass

    def run_remedy(self, remedy: Remedy, *, undo: bool = False) -> ScriptRuns:
        raise NotImplementedError


def put_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lanes have checkpoints and guests that are not there, and a disk with room for stored states."""

    def in_guest(method: str) -> Callable[..., Any]:
        return lambda session, *values, **named: getattr(session, method)(*values, **named)

    for module, function, method in SEAMS:
        monkeypatch.setattr(module, function, in_guest(method))
    monkeypatch.setattr(running, "Checkpoint", FakeCheckpoint)
    monkeypatch.setattr(states, "FREE_GIB", 0.0)
    monkeypatch.setattr(ready, "wait_ready", lambda session, check, **_more: None)


def trust_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every variant to be in effect, for tests of what follows from that."""
    monkeypatch.setattr(variant, "check_variant", lambda *_: None)


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
    """A machine with a store of boots, and the lanes at work on it. `guest` is that of the newest one."""

    guest: FakeGuest

    def __init__(self, paths: Paths, folder: Path, acceleration: Acceleration) -> None:
        self.paths, self.folder = paths, folder
        self.lane = FakeLane(folder, acceleration)
        self.processors = Turns()
        self.states = States(
            paths, self.lane.connection, guest=GUEST, image=self.lane.image, hardware=self.lane.hardware
        )

    def service(
        self,
        *,
        cold: bool = False,
        builds: int = 1,
        build: Build = NEW,
        stores: bool = True,
        guest: FakeGuest | None = None,
        show: ShowProgress = UNWATCHED.show,
        folder: Path | None = None,
    ) -> RunningLane:
        """A lane at work, not started yet. `folder` is the run's."""
        rootfs = self.folder / "rootfs"
        rootfs.mkdir(exist_ok=True)
        (rootfs / "index.json").write_text("{}")
        work = Work(
            self.paths,
            folder or self.folder,
            {"x86_64": rootfs},
            self.processors,
            build if builds == 1 else None,
            SYSCTLS,
            checkpoints=not cold,
            cold=cold,
        )
        self.guest = guest or FakeGuest(self.lane)
        return RunningLane(work, self.lane, self.guest, show, self.states if stores else None)

    def deployed(self, guest: FakeGuest, *, folder: Path | None = None) -> RunningLane:
        """A fresh lane in which a build is deployed, so that cells are forked; `folder` is the run's."""
        self.lane.set_up_disk()
        served = self.service(stores=False, guest=guest, folder=folder)
        served.start()
        served.deploy(NEW)
        self.lane.did.clear()
        return served

    def store(self) -> StoredState:
        """Let there be a stored boot, as another lane left it."""
        overlay = self.folder / "another.qcow2"
        overlay.touch()
        stored = self.states.keep(overlay, StateInfo("boot", make_keys("stored"), make_keys("stored")))
        assert stored is not None
        return stored


def fails(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def cell(build: Build, name: str = "stock") -> Cell:
    return Cell(GUEST, KNOWN.variant(name), build)
