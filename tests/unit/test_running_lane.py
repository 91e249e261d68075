"""A lane at work, with a machine that is not there."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from lab import catalog
from lab.base import process, stopwatch
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import Paths
from lab.base.wait import DeadlineExpired
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.guest import ready, variant
from lab.guest.suite import SuiteRun
from lab.lane.cell import CellRunner
from lab.lane.guest import LaneGuest
from lab.lane.running import RunningLane, Work
from lab.machine import states
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.keys import generate
from lab.machine.lane import BootFailed, Endpoint, LaneDied
from lab.machine.states import Known, States, StoredState
from lab.plan import Cell
from lab.probes import Facts, Probed, SuiteUser
from lab.record import CellResult, Outcome, Status, TestResult
from tests.unit.examples import base_image, facts, probed, who
from tests.unit.test_evidence import NO_MEMORY

KNOWN = catalog.load()
GUEST = KNOWN.guest("debian-13")
OLD, NEW = Wheel("0.9.0", "0.9.0"), Wheel("0.10.8", "0.10.8")
# As a run asks for them: those of the catalog, and one of a variant that was made for the run.
SYSCTLS = [*KNOWN.sysctls(), "user.max_pid_namespaces"]
EMULATION, KVM = Acceleration(False, ""), Acceleration(True, "")


def asked_for(sysctls: Iterable[str]) -> Facts:
    """The facts of a guest whose kernel has none of the sysctls that it was asked for."""
    return facts(sysctls=dict.fromkeys(sysctls))


class Machine:
    """A lane that notes what is done to it; `when` holds what else happens then."""

    def __init__(self, folder: Path, acceleration: Acceleration) -> None:
        self.did: list[str] = []
        self.when: dict[str, Callable[[], object]] = {}
        self.acceleration = acceleration
        self.guest = GUEST
        self.name = "lab-debian-13-000000"
        self.image = base_image(Path("base"))
        self.folder = folder
        self.overlay = folder / "overlay.qcow2"
        self.given_up = False
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

    def stop(self) -> None:
        self.do("stop")

    def rewind(self, tag: str) -> None:
        self.do(f"rewind {tag}")

    def wait_until_off(self, _seconds: float) -> None:
        self.do("off")

    def check_alive(self) -> None:
        self.when.get("alive?", lambda: None)()

    def check_wanted(self) -> None:
        if self.given_up:
            raise LaneDied("it was given up")

    def last_words(self) -> str:
        return "its console stayed empty"

    def console_text(self) -> str:
        return ""


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

    def deploy(self, _build: Build, files: Mapping[str, Path], _rootfs: Path) -> None:
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


@pytest.fixture
def benches(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Acceleration], Bench]:
    made: list[Bench] = []

    def fetch(build: Wheel, _paths: Paths, _facts: object, _say: object) -> dict[str, Path]:
        file = tmp_path / f"{build.name}.whl"
        file.write_text(build.name)
        return {file.name: file}

    monkeypatch.setattr(states, "FREE_GIB", 0.0)
    monkeypatch.setattr(ready, "wait_ready", lambda session, factor: None)
    monkeypatch.setattr(Wheel, "fetch", fetch)

    def make(acceleration: Acceleration) -> Bench:
        made.append(Bench(paths, tmp_path / "lane", acceleration))
        return made[-1]

    return make


@pytest.fixture
def bench(benches: Callable[[Acceleration], Bench]) -> Bench:
    return benches(EMULATION)


def fails(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def dies(machine: Machine, times: int) -> Callable[[], None]:
    """Dies at its first boots, as often as it is told."""

    def die() -> None:
        if machine.did.count("start") <= times:
            raise LaneDied("stopped at once\nits console stayed empty")

    return die


def cell(build: Build, name: str = "stock") -> Cell:
    return Cell(GUEST, KNOWN.variant(name), build)


RESTORED = ["adopt", "start paused", "load boot", "resume"]


def test_a_machine_that_dies_while_booting_is_booted_again_from_a_new_overlay(bench: Bench) -> None:
    bench.machine.when["start"] = dies(bench.machine, 1)
    served = bench.service(stores=False)
    served.start()
    assert bench.machine.did == ["start", "stop", "overlay on base/disk.qcow2", "start"]
    assert served.record().note == "booted twice: stopped at once"


def test_a_machine_that_dies_twice_is_given_up(bench: Bench) -> None:
    bench.machine.when["start"] = dies(bench.machine, 2)
    with pytest.raises(LaneDied):
        bench.service(stores=False).start()
    assert bench.machine.did.count("start") == 2


def test_a_stored_boot_is_restored_and_gets_a_new_client_key(bench: Bench) -> None:
    known = bench.store().known()
    served = bench.service()
    served.start()
    assert bench.machine.did == RESTORED
    assert served.record().restored
    assert bench.machine.endpoint.host_key == known.host
    # Whoever can read the store must not get into this lane.
    assert bench.machine.endpoint.client_key != known.client
    assert served.guest.session._endpoint is bench.machine.endpoint
    assert bench.states.find() is not None


@pytest.mark.parametrize(
    ("at", "error", "refused"),
    [
        ("load boot", CheckpointFailed("QEMU's snapshot-load: no such device\nand so on"), True),
        ("resume", DeadlineExpired("waited 30 s"), True),
        ("start paused", BootFailed("libvirt could not start it"), False),
        ("load boot", LaneDied("the machine is gone"), False),
        ("adopt", process.CommandFailed(["cp"], "exit status 1", "No space left on device"), False),
        ("adopt", OSError(28, "No space left on device"), False),
    ],
    ids=["cannot be loaded", "does not answer", "cannot be started", "dies", "cannot be copied", "disk full"],
)
def test_a_guest_whose_stored_boot_cannot_be_used_is_booted(
    bench: Bench, at: str, error: Exception, refused: bool
) -> None:
    stored = bench.store()
    bench.machine.when[at] = fails(error)
    served = bench.service()
    served.start()
    until = RESTORED.index(at) + 1
    assert bench.machine.did == [*RESTORED[:until], "stop", "set up", "start"]
    assert bench.machine.endpoint.host_key != stored.known().host
    assert served.guest.session._endpoint is bench.machine.endpoint
    record = served.record()
    assert not record.restored
    assert record.note == f"a stored state could not be used: {str(error).splitlines()[0]}"
    # A state that is bad is dropped for good; a fault of that moment says nothing about it.
    assert (bench.states.find() is None) is refused
    assert (stored.folder / "refused.txt").exists() is refused
    assert bench.states.wanted() is False


def test_a_guest_whose_stored_keys_are_damaged_is_booted(bench: Bench) -> None:
    # As after a power failure: the folder has its name, and a file in it has no content yet.
    (bench.store().folder / "known.json").write_text("")
    served = bench.service()
    served.start()
    assert bench.machine.did[-1] == "start"
    assert not served.record().restored


def test_a_lane_that_is_given_up_while_it_is_restored_is_not_booted_and_refuses_nothing(bench: Bench) -> None:
    bench.store()

    def interrupt() -> NoReturn:
        bench.machine.given_up = True
        raise CheckpointFailed("QEMU's snapshot-load: the machine went away")

    bench.machine.when["load boot"] = interrupt
    with pytest.raises(LaneDied, match="given up"):
        bench.service().start()
    assert "start" not in bench.machine.did
    assert bench.states.find() is not None


def test_a_boot_is_stored_and_the_lane_goes_on_from_what_it_stored(bench: Bench) -> None:
    host = bench.machine.endpoint.host_key
    client = bench.machine.endpoint.client_key
    served = bench.service()
    served.start()
    assert bench.machine.did == ["start", "save boot", "stop", *RESTORED]
    # It did boot, whatever it went on from.
    assert not served.record().restored
    stored = bench.states.find()
    assert stored is not None
    assert stored.known() == Known("boot", client, host)
    assert (stored.folder / "state.qcow2").read_text() == "empty"


def test_a_stored_boot_that_cannot_be_used_at_once_is_refused_and_not_stored_again(bench: Bench) -> None:
    bench.machine.when["load boot"] = fails(CheckpointFailed("QEMU's snapshot-load: no"))
    bench.service().start()
    assert bench.machine.did[-3:] == ["stop", "set up", "start"]
    assert (bench.states.find(), bench.states.wanted()) == (None, False)
    bench.machine.did.clear()
    bench.service().start()
    assert bench.machine.did == ["start"]


def test_a_machine_whose_state_cannot_be_saved_serves_all_the_same(bench: Bench) -> None:
    bench.machine.when["save boot"] = fails(CheckpointFailed("QEMU's snapshot-save: no"))
    served = bench.service()
    served.start()
    assert bench.machine.did == ["start", "save boot"]
    assert served.facts == asked_for(SYSCTLS)
    assert bench.states.find() is None


def test_a_boot_that_the_store_does_not_take_is_booted_anew(bench: Bench) -> None:
    # Another lab stored this boot meanwhile, and refused it: the name is taken, and there is no state.
    bench.machine.when["save boot"] = lambda: bench.store().refuse("no")
    served = bench.service()
    served.start()
    assert bench.machine.did[:2] == ["start", "save boot"]
    assert bench.machine.did[-3:] == ["stop", "set up", "start"]
    assert served.guest.session._endpoint is bench.machine.endpoint


def served_lane(bench: Bench) -> RunningLane:
    """A lane that came to its end with one cell."""
    served = bench.service()
    served.start()
    served.deploy(NEW)
    CellRunner(served).run(cell(NEW), bench.folder / "cell")
    bench.machine.did.clear()
    return served


def test_a_deployed_build_is_stored_when_its_lane_is_done_and_taken_up_by_the_next(bench: Bench) -> None:
    first = served_lane(bench)
    first.store_deployment()
    # What its cells wrote is not for the next.
    assert bench.machine.did == ["stop", "rewind build-0"]
    host = bench.machine.endpoint.host_key
    client = bench.machine.endpoint.client_key
    bench.machine.did.clear()
    bench.machine.set_up_disk()
    second = bench.service()
    second.start()
    assert second.deploy(NEW) == {"0.10.8.whl": sha256(b"0.10.8").hexdigest()}
    CellRunner(second).run(cell(NEW), bench.folder / "cell")
    assert bench.machine.did == [
        *["set up", "adopt", "start paused", "load build-0", "resume"],
        *["save build-0", "load build-0", "suite stock"],
    ]
    assert (bench.machine.endpoint.host_key, bench.machine.endpoint.client_key == client) == (host, False)
    assert (second.record().restored, second.record().stored_build) == (True, True)
    bench.machine.did.clear()
    second.store_deployment()
    assert bench.machine.did == []


def test_a_deployed_build_is_not_for_a_run_with_another_one_or_with_several(bench: Bench) -> None:
    served_lane(bench).store_deployment()
    bench.machine.did.clear()
    bench.service(builds=2).start()
    assert bench.machine.did == [*RESTORED, "save base"]
    bench.machine.did.clear()
    other = bench.service(build=OLD)
    other.start()
    assert other.deploy(OLD) is not None
    assert bench.machine.did == [*RESTORED, "deploy 0.9.0", "save build-0"]


def test_a_deployed_build_that_cannot_be_loaded_leaves_the_stored_boot(bench: Bench) -> None:
    served_lane(bench).store_deployment()
    bench.machine.did.clear()
    bench.machine.when["load build-0"] = fails(CheckpointFailed("QEMU's snapshot-load: no"))
    served = bench.service()
    served.start()
    assert bench.machine.did == [
        *["adopt", "start paused", "load build-0", "stop", "set up"],
        *RESTORED,
    ]
    assert served.deploy(NEW) is not None
    assert (served.record().restored, served.record().stored_build) == (True, False)
    served.store_deployment()
    assert bench.machine.did[-1] == "save build-0"


@pytest.mark.parametrize(
    ("at", "error"),
    [
        ("alive?", LaneDied("the machine is gone\nits console stayed empty")),
        ("rewind build-0", process.CommandFailed(["qemu-img"], "exit status 1", "No space left on device")),
        ("stop", OSError(5, "Input/output error")),
    ],
)
def test_what_keeps_a_build_from_being_stored_is_told_and_costs_nothing_else(
    bench: Bench, at: str, error: Exception
) -> None:
    served = served_lane(bench)
    bench.machine.when[at] = fails(error)
    # A fault here would be one of cells that wait for another lane.
    served.store_deployment()
    assert not list(bench.paths.states.glob("*-*-*-*"))
    assert served.record().note == f"the deployed build was not stored: {str(error).splitlines()[0]}"


def test_a_lane_that_forks_from_its_disk_stores_no_build(bench: Bench) -> None:
    bench.machine.when["save build-0"] = fails(CheckpointFailed("QEMU's snapshot-save: no"))
    served_lane(bench).store_deployment()
    assert bench.machine.did == []


def test_without_a_store_a_guest_is_only_booted(bench: Bench) -> None:
    bench.store()
    bench.service(stores=False).start()
    assert bench.machine.did == ["start"]


def test_each_build_is_deployed_from_the_same_state_and_its_cells_forked_from_its_own(bench: Bench) -> None:
    served = bench.service(builds=2, stores=False)
    served.start()
    assert bench.machine.did == ["start", "save base"]
    bench.machine.did.clear()
    assert served.deploy(OLD) == {"0.9.0.whl": sha256(b"0.9.0").hexdigest()}
    assert served.deploy(NEW) == {"0.10.8.whl": sha256(b"0.10.8").hexdigest()}
    assert bench.machine.did == [
        *["load base", "deploy 0.9.0", "save build-0"],
        *["load base", "deploy 0.10.8", "save build-1"],
    ]
    bench.machine.did.clear()
    results: list[CellResult] = []
    for build in (OLD, NEW, OLD):
        assert served.deploy(build) is None
        results.append(CellRunner(served).run(cell(build), bench.folder / build.name))
    assert bench.machine.did == [
        *["load build-0", "suite stock"],
        *["load build-1", "suite stock"],
        *["load build-0", "suite stock"],
    ]
    assert [(each.build, each.status, each.fork) for each in results] == [
        (build.name, Status.PASS, "memory") for build in (OLD, NEW, OLD)
    ]


@pytest.mark.parametrize(
    ("kernel", "status", "reason"),
    [
        ("", Status.FAIL, "the suite was ended by SIGKILL"),
        (NO_MEMORY, Status.ERROR, "the guest had no memory left, and its kernel killed python3"),
    ],
    ids=["boxlite may have done it", "its guest was too small"],
)
def test_a_suite_that_was_cut_short_has_all_evidence_and_has_not_passed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kernel: str, status: Status, reason: str
) -> None:
    gathered: list[bool] = []

    def run_suite(_guest: Guest, build: Build, _wanted: Variant, _options: object = None) -> SuiteRun:
        tests = [TestResult(name=name, outcome=Outcome.PASS) for name in build.suite.tests]
        return SuiteRun(tests, "was ended by SIGKILL")

    def collect(_guest: Guest, folder: Path, _wanted: Variant, *, mark: variant.Mark, full: bool) -> None:
        gathered.append(full)
        (folder / "kernel.log").write_text(kernel)

    monkeypatch.setattr(Guest, "run_suite", run_suite)
    monkeypatch.setattr(Guest, "collect", collect)
    served = bench.service()
    served.start()
    served.deploy(NEW)
    result = CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert (result.status, gathered) == (status, [True])
    assert reason in result.reason


def test_one_build_needs_no_state_to_go_back_to_before_it(bench: Bench) -> None:
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert bench.machine.did == ["start", "deploy 0.10.8", "save build-0", "load build-0", "suite stock"]


def test_a_build_that_has_nothing_for_the_guest_leaves_the_lane_to_the_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(build: Wheel, _paths: Paths, _facts: object, _say: object) -> dict[str, Path]:
        if build == OLD:
            raise NotApplicable("boxlite has no wheels for Python 3.13")
        return {f"{build.name}.whl": bench.folder / f"{build.name}.whl"}

    (bench.folder / "0.10.8.whl").touch()
    monkeypatch.setattr(Wheel, "fetch", fetch)
    served = bench.service(builds=2, stores=False)
    served.start()
    with pytest.raises(NotApplicable):
        served.deploy(OLD)
    served.deploy(NEW)
    assert bench.machine.did == ["start", "save base", "load base", "deploy 0.10.8", "save build-0"]
    assert CellRunner(served).run(cell(NEW), bench.folder / "cell").status is Status.PASS


def test_waiting_for_a_build_to_be_fetched_ends_with_the_machine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(_build: Wheel, _paths: Paths, _facts: object, say: Callable[[str], None]) -> NoReturn:
        say("waiting for a build to be fetched")
        # As an interrupt does from another thread.
        bench.machine.when["alive?"] = fails(LaneDied("it was given up"))
        say("waiting for a build to be fetched")
        raise AssertionError("the wait went on")

    monkeypatch.setattr(Wheel, "fetch", fetch)
    served = bench.service(stores=False)
    served.start()
    with pytest.raises(LaneDied, match="it was given up"):
        served.deploy(NEW)


@pytest.mark.parametrize("count", [1, 2])
def test_a_cold_lane_takes_no_checkpoint_and_runs_its_cell_as_it_is(bench: Bench, count: int) -> None:
    served = bench.service(cold=True, builds=count, stores=False)
    served.start()
    served.deploy(NEW)
    result = CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert bench.machine.did == ["start", "deploy 0.10.8", "suite stock"]
    assert (result.fork, served.record().fork) == ("cold", "cold")
    assert (result.facts, result.context) == (asked_for(SYSCTLS), who().context)
    # All that it took to get there is the cell's own.
    assert {"boot", "fetch", "deploy", "apply", "suite", "evidence"} <= set(result.seconds)


def test_a_lane_without_checkpoints_of_memory_forks_from_its_disk_and_says_why(bench: Bench) -> None:
    bench.machine.when["save build-0"] = fails(CheckpointFailed("QEMU's snapshot-save: no"))
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    result = CellRunner(served).run(cell(NEW), bench.folder / "cell")
    deployed = bench.folder / "build-0.qcow2"
    assert bench.machine.did == [
        *["start", "deploy 0.10.8", "save build-0", "off"],
        *["stop", f"overlay on {deployed}", "start", "suite stock"],
    ]
    assert (result.fork, served.record().fork) == ("disk", "disk")
    assert served.record().note.startswith("no checkpoint of memory (QEMU's snapshot-save: no)")


def test_a_lane_that_dies_at_its_checkpoint_is_not_gone_on_with(bench: Bench) -> None:
    bench.machine.when["save build-0"] = fails(LaneDied("the machine is gone"))
    served = bench.service(stores=False)
    served.start()
    with pytest.raises(LaneDied):
        served.deploy(NEW)
    assert bench.machine.did[-1] == "save build-0"


# A boot keeps all processors of its guest busy; deploying and the suite one each.
@pytest.mark.parametrize(
    ("acceleration", "wanted"), [(EMULATION, [GUEST.cpus, 1, 1]), (KVM, [])], ids=["emulation", "kvm"]
)
def test_only_emulated_guests_wait_for_processors(
    benches: Callable[[Acceleration], Bench], acceleration: Acceleration, wanted: list[int]
) -> None:
    bench = benches(acceleration)
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert bench.processors.wanted == wanted
    # All turns have ended.
    with bench.processors.hold(16, fails(AssertionError("a processor was kept"))):
        pass


def test_a_restored_boot_takes_no_turn(bench: Bench) -> None:
    bench.store()
    bench.service().start()
    assert bench.processors.wanted == []


def test_an_error_while_a_guest_waits_for_its_machine_is_told_with_its_last_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "wait_ready", lambda session, factor: fails(DeadlineExpired("waited 30 s"))())
    with pytest.raises(LabError, match=r"debian-13 did not come up: waited 30 s\nits console stayed empty"):
        bench.service(stores=False).start()


def test_what_a_step_took_holds_no_waiting_for_a_processor(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = bench.service(stores=False)
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: clock.seconds))

    @contextmanager
    def late(_count: int, on_wait: Callable[[], None]) -> Iterator[None]:
        clock.seconds += 100.0
        yield

    monkeypatch.setattr(bench.processors, "hold", late)
    served.start()
    served.deploy(NEW)
    result = CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert clock.seconds == 300.0
    assert {**served.guest.watch.seconds, **result.seconds}.keys() >= {"boot", "deploy", "suite"}
    assert set(served.guest.watch.seconds.values()) | set(result.seconds.values()) == {0.0}


def test_a_guest_enforces_what_it_promises_unless_the_variant_itself_says_otherwise(bench: Bench) -> None:
    service = bench.service()
    known = catalog.load()
    service.lane.guest = known.guest("debian-13-selinux")
    shown = facts(selinux={"mode": "permissive"})
    assert isinstance(service.guest, Guest)
    service.guest.shows = shown
    with pytest.raises(ready.NotAsDefined, match="SELinux is permissive"):
        CellRunner(service).apply(known.variant("stock"))
    applied = CellRunner(service).apply(known.variant("selinux-permissive"))
    assert applied.facts.selinux == shown.selinux
