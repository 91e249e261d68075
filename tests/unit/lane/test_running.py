"""A lane at work: it boots, deploys its builds and runs its cells, each in a fork."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NoReturn

import pytest

from lab import catalog, causes
from lab.base import wait
from lab.base.activity import Task
from lab.base.errors import LabError, NotApplicable
from lab.base.paths import Paths
from lab.base.wait import DeadlineExpired
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Variant
from lab.causes.evidence import Evidence
from lab.guest import ready
from lab.guest.programs import RemoteFailed
from lab.guest.session import Output
from lab.guest.variant import CellStart, NotInEffect, explain_not_in_effect
from lab.lane.cell import (
    apply_variant,
    diagnose_cell,
    predict_cell,
    predict_without_suite,
    probe_without_build,
    run_cell,
)
from lab.machine.acceleration import Acceleration
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.domain import Network
from lab.machine.lane import LaneDied
from lab.probes import SuiteUser
from lab.record import CellResult, FoundCause, Prediction, Status, SuiteRun
from lab.report.table import format_square
from tests.builders import packages
from tests.builders.evidence import NO_MEMORY
from tests.builders.facts import facts, who
from tests.builders.lanes import (
    EMULATION,
    KVM,
    NEW,
    OLD,
    SEAMS,
    SYSCTLS,
    Bench,
    FakeGuest,
    FakeSession,
    InGuest,
    asked_for,
    cell,
    fails,
)
from tests.builders.runs import run_of


def test_a_guest_that_stays_down_has_its_last_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "wait_ready", lambda *_, **__: fails(DeadlineExpired("waited 30 s"))())
    with pytest.raises(LabError, match=r"debian-13 did not come up: waited 30 s\nits console stayed empty"):
        bench.service(stores=False).start()
    assert bench.lane.did == ["start"]


def test_the_rules_of_the_causes_are_asked_about_the_cells_version_of_boxlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions: list[str] = []

    def diagnose(evidence: Evidence) -> list[FoundCause]:
        versions.append(evidence.boxlite)
        return []

    monkeypatch.setattr(causes, "diagnose_evidence", diagnose)
    assert diagnose_cell(cell(OLD), tmp_path, []) == []
    assert versions == [OLD.version]


def boots_in(bench: Bench, seconds: float) -> None:
    bench.lane.boot_log = f"[ {seconds:.6f}] Run /init as init process"


def test_a_boot_that_was_slower_than_was_measured_stretches_the_limits_that_follow(
    benches: Callable[[Acceleration], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = benches(KVM)
    boots_in(bench, 8.0)
    served = bench.service(stores=False)
    served.start()
    assert (served.session.speed.factor, served.lane.speed.factor) == (16.0, 16.0)
    assert served.record().kernel_seconds == 8.0
    # A later boot that is faster makes no limit shorter.
    boots_in(bench, 0.5)
    assert not served.lane.learn_speed()
    assert served.lane.speed.factor == 16.0


def test_each_build_is_deployed_from_the_same_state_and_its_cells_forked_from_its_own(bench: Bench) -> None:
    served = bench.service(builds=2, stores=False)
    served.start()
    assert bench.lane.did == ["start", "save base"]
    bench.lane.did.clear()
    assert served.deploy(OLD) == {"0.9.0.whl": sha256(b"0.9.0").hexdigest()}
    assert served.deploy(NEW) == {"0.10.8.whl": sha256(b"0.10.8").hexdigest()}
    assert bench.lane.did == [
        *["load base", "deploy 0.9.0", "save build-0"],
        *["load base", "deploy 0.10.8", "save build-1"],
    ]
    bench.lane.did.clear()
    results: list[CellResult] = []
    for build in (OLD, NEW, OLD):
        assert served.deploy(build) is None
        results.append(run_cell(served, cell(build), bench.folder / build.name))
    assert bench.lane.did == [
        *["load build-0", "suite stock"],
        *["load build-1", "suite stock"],
        *["load build-0", "suite stock"],
    ]
    assert [(result.build, result.status, result.suite.fork) for result in results] == [
        (build.name, Status.PASS, "memory") for build in (OLD, NEW, OLD)
    ]


def test_a_build_may_have_nothing_for_the_guest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(build: Wheel, _paths: Paths, _facts: object, _task: object) -> dict[str, Path]:
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
    assert bench.lane.did == ["start", "save base", "load base", "deploy 0.10.8", "save build-0"]
    assert run_cell(served, cell(NEW), bench.folder / "cell").status is Status.PASS


def test_a_build_that_does_not_fit_is_not_deployed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    program = bench.folder / "program"
    program.write_bytes(packages.elf(versions={"libc.so.6": ["GLIBC_2.99"]}))
    monkeypatch.setattr(Wheel, "fetch", lambda *_: {"program": program})
    served = bench.service(stores=False)
    served.start()
    with pytest.raises(NotApplicable, match=r"^program needs glibc 2\.99, and the guest has 2\.41$"):
        served.deploy(NEW)
    assert bench.lane.did == ["start"]


def test_waiting_for_a_build_ends_with_the_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_build: Wheel, _paths: Paths, _facts: object, task: Task) -> NoReturn:
        task.check()
        # As an interrupt does from another thread.
        bench.lane.when["alive?"] = fails(LaneDied("it was given up"))
        task.check()
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

    class CutShort(FakeGuest):
        def run_suite(
            self, build: Build, variant: Variant, *, speed: object, options: SuiteOptions = WHOLE_SUITE
        ) -> SuiteRun:
            return SuiteRun(super().run_suite(build, variant, speed=speed).tests, "was ended by SIGKILL")

        def collect(self, folder: Path, variant: Variant, *, mark: CellStart, full: bool) -> None:
            gathered.append(full)
            (folder / "kernel.log").write_text(kernel)

    served = bench.service(guest=CutShort(bench.lane))
    served.start()
    served.deploy(NEW)
    result = run_cell(served, cell(NEW), bench.folder / "cell")
    assert (result.status, gathered) == (status, [True])
    assert reason in result.reason


def test_a_session_that_does_not_come_up_is_told_with_its_journal(bench: Bench) -> None:
    class WithoutManager(FakeGuest):
        def read_who(self, variant: Variant) -> SuiteUser:
            raise RemoteFailed("`probe` in the guest: exit status 1\nFailed to connect to bus")

    guest = WithoutManager(bench.lane)
    guest.answers["journalctl"] = Output(0, "user@1001.service: Failed with result exit-code.\n", "")
    served = bench.service(guest=guest)
    served.start()
    served.deploy(NEW)
    variants = catalog.load_catalog().variants
    with pytest.raises(NotInEffect, match=r"^variant not in effect: .*\nFailed to connect to bus") as raised:
        apply_variant(served, variants["session-user-scope"])
    assert raised.value.evidence == {"journal.log": "user@1001.service: Failed with result exit-code.\n"}
    [command] = [command for command in guest.commands if "journalctl" in command]
    assert "'--unit=user@*.service'" in command
    # The same of a guest that no unit of systemd starts the suite in is a fault of the lab.
    with pytest.raises(RemoteFailed):
        apply_variant(served, variants["stock"])


def test_a_login_that_is_no_session_in_a_guest_as_installed_is_told_with_its_journal() -> None:
    guest, stock = FakeSession(), catalog.load_catalog().variant("stock")
    guest.answers["journalctl"] = Output(0, "user@1001.service: Start operation timed out.\n", "")
    error = explain_not_in_effect(guest, stock, NotInEffect("variant not in effect: no manager"))
    assert error.evidence == {"journal.log": "user@1001.service: Start operation timed out.\n"}
    [command] = guest.commands
    assert "'--unit=user@*.service' --unit=systemd-logind.service" in command


def test_the_journal_of_cron_is_shown_for_a_job_of_cron_alone() -> None:
    guest, fault = FakeSession(), NotInEffect("variant not in effect: the suite would run in /")
    guest.answers["journalctl"] = Output(0, "cron.service: Failed to start.\n", "")
    variants = catalog.load_catalog().variants
    for name in ("session-init-scope", "session-none"):
        assert explain_not_in_effect(guest, variants[name], fault) is fault
    assert guest.commands == []
    assert explain_not_in_effect(guest, variants["session-cron"], fault).evidence
    assert "--unit=cron.service --unit=crond.service" in guest.commands[0]


def test_a_cold_lane_takes_no_checkpoint_and_runs_its_cell_as_it_is(bench: Bench) -> None:
    bench.lane.network = Network.OPEN
    served = bench.service(cold=True, builds=2, stores=False)
    served.start()
    served.deploy(NEW)
    result = run_cell(served, cell(NEW), bench.folder / "cell")
    assert bench.lane.did == ["start", "deploy 0.10.8", "suite stock"]
    assert (result.suite.fork, served.record().fork, served.record().network) == ("cold", "cold", "open")
    assert (result.facts, result.suite.context) == (asked_for(SYSCTLS), who().context)
    # All that it took to get there is the cell's own.
    assert {"boot", "fetch", "deploy", "apply", "suite", "evidence"} <= set(result.suite.seconds)


# A boot, deploying and the suite keep a processor busy.
@pytest.mark.parametrize(
    ("acceleration", "turns"), [(EMULATION, [1, 1, 1]), (KVM, [])], ids=["emulation", "kvm"]
)
def test_only_emulated_guests_wait_for_processors(
    benches: Callable[[Acceleration], Bench], acceleration: Acceleration, turns: list[int]
) -> None:
    bench = benches(acceleration)
    served = bench.service(stores=False)
    served.start()
    served.deploy(NEW)
    run_cell(served, cell(NEW), bench.folder / "cell")
    assert bench.processors.turns == turns
    # One build needs no state to go back to before it.
    assert bench.lane.did == ["start", "deploy 0.10.8", "save build-0", "suite stock"]
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
    result = run_cell(served, cell(NEW), bench.folder / "cell")
    assert clock.seconds == 300.0
    assert {**served.watch.seconds, **result.suite.seconds}.keys() >= {"boot", "deploy", "suite"}
    assert set(served.watch.seconds.values()) | set(result.suite.seconds.values()) == {0.0}


def test_a_guest_enforces_what_it_promises_unless_the_variant_itself_says_otherwise(bench: Bench) -> None:
    service = bench.service()
    definitions = catalog.load_catalog()
    service.lane.guest = definitions.guest("debian-13-selinux")
    permissive = facts(selinux={"mode": "permissive"})
    bench.guest.shows = permissive
    with pytest.raises(ready.NotAsDefined, match="SELinux is permissive"):
        apply_variant(service, definitions.variant("stock"))
    applied = apply_variant(service, definitions.variant("selinux-permissive"))
    assert applied.facts.selinux == permissive.selinux


@pytest.mark.parametrize(
    "error", [CheckpointFailed("QEMU's snapshot-save: no"), LaneDied("the machine is gone")]
)
def test_a_checkpoint_that_fails_is_a_fault_of_its_lane(bench: Bench, error: LabError) -> None:
    bench.lane.when["save build-0"] = fails(error)
    served = bench.service(stores=False)
    served.start()
    with pytest.raises(type(error)) as failed:
        served.deploy(NEW)
    assert str(error) in str(failed.value)
    assert bench.lane.did[-1] == "save build-0"
    # What QEMU cannot do, a user can go without.
    assert ("--cold" in str(failed.value)) is isinstance(error, CheckpointFailed)


@pytest.mark.parametrize(("module", "function", "method"), SEAMS, ids=[method for *_, method in SEAMS])
def test_a_guest_that_is_not_there_is_asked_as_a_real_one_is(
    module: ModuleType, function: str, method: str
) -> None:
    """Each stand-in takes what the function takes whose place it has, after the session."""
    _session, *taken = signature(getattr(module, function)).parameters.values()
    _self, *stand_in = signature(getattr(InGuest, method)).parameters.values()
    assert [(each.name, each.kind, each.default) for each in stand_in] == [
        (each.name, each.kind, each.default) for each in taken
    ]


def test_a_prediction_needs_neither_a_build_nor_a_suite(bench: Bench) -> None:
    served = bench.service(builds=2, stores=False)
    served.start()
    bench.lane.did.clear()
    results = [predict_without_suite(served, cell(NEW)) for _ in range(2)]
    assert bench.lane.did == ["load base", "load base"]
    for result in results:
        assert (result.status, str(result.prediction)) == (Status.NOT_RUN, "~ works")
        assert result.reason == "--predict: no suite ran"
        assert (result.tests, result.facts) == ([], facts(sysctls=result.facts.sysctls if result.facts else {}))
    assert format_square(results[0]) == "not-run ~ works"
    assert run_of(*results[:1]).exit_status() == 3


def test_the_first_prediction_is_made_before_the_build_is_deployed_and_leaves_no_trace_in_it(
    bench: Bench,
) -> None:
    served = bench.service()
    served.start()
    assert served.has_no_build
    bench.lane.did.clear()
    applied = probe_without_build(served, cell(NEW), served.watch)
    known = predict_cell(cell(NEW), applied)
    assert (str(known), bench.lane.did) == ("~ works", ["save base"])
    bench.lane.did.clear()
    stored: list[set[str]] = []
    bench.lane.when["save build"] = lambda: stored.append(set(bench.lane.tags))
    served.deploy(NEW)
    # The build is deployed in the guest as it booted, and what is stored holds no other checkpoint.
    assert bench.lane.did == ["load base", "deploy 0.10.8", "save build", "suspend", "resume", "save build-0"]
    assert stored == [set()]
    assert not served.has_no_build
    shown: list[Prediction] = []
    result = run_cell(served, cell(NEW), bench.folder / "cell", WHOLE_SUITE, shown.append, known)
    assert (shown, result.prediction, result.status) == ([], known, Status.PASS)
