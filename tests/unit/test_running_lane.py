"""A lane at work: it boots, deploys its builds and runs its cells, each in a fork."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from lab import catalog
from lab.base import wait
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import Paths
from lab.base.wait import DeadlineExpired
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.guest import ready, variant
from lab.guest.session import Session
from lab.guest.suite import SuiteRun
from lab.lane.cell import CellRunner
from lab.machine.acceleration import Acceleration
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.domain import Network
from lab.machine.lane import LaneDied, WriteFailed
from lab.record import CellResult, Outcome, Status, TestResult
from tests.builders import packages
from tests.builders.evidence import NO_MEMORY
from tests.builders.facts import facts, who
from tests.builders.guests import (
    EMULATION,
    KVM,
    NEW,
    OLD,
    SYSCTLS,
    Bench,
    Guest,
    asked_for,
    cell,
    fails,
)

AT_ONCE = LaneDied("stopped at once\nits console stayed empty")


@pytest.mark.parametrize(
    ("error", "deaths", "boots"),
    [
        (AT_ONCE, 1, ["start", "stop", "overlay on base/disk.qcow2", "start"]),
        (AT_ONCE, 2, ["start", "stop", "overlay on base/disk.qcow2", "start"]),
        # A full disk would end the second boot, too.
        (WriteFailed("the machine stopped at a failed write: 0 MiB are free"), 1, ["start"]),
    ],
    ids=["dies once", "dies twice", "full disk"],
)
def test_a_machine_that_dies_while_booting_is_booted_once_more(
    bench: Bench, error: LaneDied, deaths: int, boots: list[str]
) -> None:
    def die() -> None:
        if bench.machine.did.count("start") <= deaths:
            raise error

    bench.machine.when["start"] = die
    served = bench.service(stores=False)
    if deaths < boots.count("start"):
        served.start()
        assert served.record().note == "booted twice: stopped at once"
    else:
        with pytest.raises(type(error)):
            served.start()
    assert bench.machine.did == boots


def test_an_error_has_the_machine_s_last_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "wait_ready", lambda *_, **__: fails(DeadlineExpired("waited 30 s"))())
    with pytest.raises(LabError, match=r"debian-13 did not come up: waited 30 s\nits console stayed empty"):
        bench.service(stores=False).start()


def boots_in(bench: Bench, seconds: float) -> None:
    bench.machine.said = f"[ {seconds:.6f}] Run /init as init process"


def test_a_boot_that_was_slower_than_was_measured_stretches_the_limits_that_follow(
    benches: Callable[[Acceleration], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = benches(KVM)
    boots_in(bench, 8.0)
    served = bench.service(stores=False)
    served.start()
    assert (served.guest.session.speed.factor, served.lane.speed.factor) == (16.0, 16.0)
    assert served.record().kernel_seconds == 8.0
    # A later boot that is faster makes no limit shorter.
    boots_in(bench, 0.5)
    served.guest.wait_up()
    assert served.lane.speed.factor == 16.0


def test_a_boot_that_shows_itself_slow_is_waited_for_and_stretches_what_follows(
    benches: Callable[[Acceleration], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = benches(KVM)
    waits: list[float] = []

    def wait(session: Session, listens: Callable[[], bool], *, cloud_init: bool) -> None:
        waits.append(session.speed.factor)
        if len(waits) == 1:
            boots_in(bench, 8.0)
            listens()
            raise DeadlineExpired("waited 30 s")

    monkeypatch.setattr(ready, "wait_ready", wait)
    served = bench.service(stores=False)
    served.start()
    assert (waits, served.guest.session.speed.factor) == ([1.0, 1.0], 16.0)


def test_a_boot_that_stands_still_is_given_up(
    benches: Callable[[Acceleration], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = benches(Acceleration(True, "", 8.0))
    boots_in(bench, 8.0)
    monkeypatch.setattr(ready, "wait_ready", lambda *_, **__: fails(DeadlineExpired("waited 480 s"))())
    with pytest.raises(LabError, match="waited 480 s"):
        bench.service(stores=False).start()
    assert bench.machine.did.count("start") == 1


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


def test_one_build_needs_no_state_to_go_back_to_before_it(bench: Bench) -> None:
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    CellRunner(served).run(cell(NEW), bench.folder / "cell")
    assert bench.machine.did == ["start", "deploy 0.10.8", "save build-0", "load build-0", "suite stock"]


def test_a_build_may_have_nothing_for_the_guest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_build_that_does_not_fit_is_not_deployed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    program = bench.folder / "program"
    program.write_bytes(packages.elf(versions={"libc.so.6": ["GLIBC_2.99"]}))
    monkeypatch.setattr(Wheel, "fetch", lambda *_: {"program": program})
    served = bench.service(stores=False)
    served.start()
    with pytest.raises(NotApplicable, match=r"^program needs glibc 2\.99, and the guest has 2\.41$"):
        served.deploy(NEW)
    assert bench.machine.did == ["start"]


def test_waiting_for_a_build_ends_with_the_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("network", list(Network))
def test_a_lane_records_the_network_that_its_guest_had(bench: Bench, network: Network) -> None:
    bench.machine.network = network
    served = bench.service(cold=True, builds=1, stores=False)
    served.start()
    assert served.record().network == str(network)


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


# A boot, deploying and the suite keep a processor busy.
@pytest.mark.parametrize(
    ("acceleration", "wanted"), [(EMULATION, [1, 1, 1]), (KVM, [])], ids=["emulation", "kvm"]
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


def test_a_step_s_time_has_no_waiting_in_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    served = bench.service(stores=False)
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(wait, "time", SimpleNamespace(monotonic=lambda: clock.seconds))

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
