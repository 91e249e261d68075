"""Which host gets which part: hosts that dial in, so that no part has to be waited for."""

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

pytest.importorskip("distributed")

from lab import plan
from lab.base.architecture import AARCH64, Architecture
from lab.base.errors import LabError
from lab.base.wait import Deadline, wait_for
from lab.fleet import host, images, roster
from lab.fleet.part import Part
from lab.machine import domain
from lab.record import Status
from tests.builders.processes import SECONDS
from tests.builders.runs import KNOWN, RELEASE, SMALL, VARIANTS
from tests.fleet.dialled import OFFERS, decides, dialling
from tests.fleet.examples import Fleet
from tests.fleet.fake_dask import FakeFuture, faking

pytestmark = pytest.mark.timeout(300)
BOTH = plan.choose_cells(KNOWN, guests=["debian-13", "debian-13-arm64"], variants=VARIANTS[:2]).cells([RELEASE])


def balance(dask_scheduler: Any) -> int:
    """Have dask move what waits from busy workers to idle ones; what it still waits for."""
    stealing = dask_scheduler.extensions["stealing"]
    stealing.balance()
    return len(stealing.in_flight)


def test_a_part_does_not_go_back_to_an_idle_host_whose_lab_failed_with_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dask balances the load of its workers: a host whose lab fails at once is always idle."""
    is_over = threading.Event()

    def good(sent: Part, tell: Callable[[Any], None]) -> Any:
        is_over.wait(SECONDS)
        return decides("good")(sent, tell)

    def bad(_sent: Part, _tell: Callable[[Any], None]) -> NoReturn:
        raise LabError("its lab fails")

    with dialling(fleet, monkeypatch, SMALL) as hosts, hosts.client() as client:
        hosts.add("good", good)
        hosts.run.told.wait(lambda: hosts.run.told.noted("good joined"))
        wait_for(lambda: hosts.began or None, Deadline(SECONDS, "good to begin"), interval=0.05)
        hosts.add("bad", bad)
        hosts.run.told.wait(lambda: hosts.run.told.noted("its lab fails"))

        def waits() -> bool | None:
            """Whether the part that failed was given to a host again."""
            return sum(len(keys) for keys in client.processing().values()) == 2 or None

        wait_for(waits, Deadline(SECONDS, "the part to be given again"), interval=0.05)
        for _ in range(3):
            client.run_on_scheduler(balance)
            wait_for(
                lambda: not client.run_on_scheduler(balance) or None,
                Deadline(SECONDS, "dask to balance"),
                interval=0.1,
            )
        is_over.set()
        run = hosts.run.finish()
        assert [name for name, _ in hosts.began].count("bad") == 1
    assert sorted(len(cell.history.retried) for cell in run.cells) == [0, 0, 1, 1]


def test_a_part_whose_only_host_has_gone_is_given_to_another(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab of one host failed with it, and the other one leaves before it begins."""
    is_over = threading.Event()

    def bad_at_first(sent: Part, tell: Callable[[Any], None]) -> Any:
        return decides("first")(sent, tell) if is_over.is_set() else None

    def leaving(_sent: Part, _tell: Callable[[Any], None]) -> Any:
        is_over.wait(SECONDS)

    with dialling(fleet, monkeypatch, SMALL) as hosts:
        hosts.add("second", leaving)
        wait_for(lambda: hosts.began or None, Deadline(SECONDS, "second to begin"), interval=0.05)
        hosts.add("first", bad_at_first)
        hosts.run.told.wait(lambda: hosts.run.told.noted("cannot be used"))
        is_over.set()
        hosts.leave("second")
        run = hosts.run.finish()
    assert {(cell.status, cell.history.lane.partition(":")[0]) for cell in run.cells} == {
        (Status.PASS, "first")
    }


def test_a_part_goes_only_to_a_host_that_can_run_guests_of_its_architecture(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dialling(fleet, monkeypatch, BOTH, most_seconds=1.0) as hosts:
        hosts.add("both", decides("both"), OFFERS | {"aarch64": 1.0})
        hosts.add("one", decides("one"))
        run = hosts.run.finish()
    assert {cell.status for cell in run.cells} == {Status.PASS}
    arm = {cell.history.lane.partition(":")[0] for cell in run.cells if cell.guest == "debian-13-arm64"}
    assert arm == {"both"}


def test_cells_of_an_architecture_that_no_host_can_run_are_not_run_and_say_so(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dialling(fleet, monkeypatch, BOTH) as hosts:
        hosts.add("one", decides("one"))
        run = hosts.run.finish()
    reasons = {(cell.guest, cell.status, cell.reason) for cell in run.cells}
    assert reasons == {
        ("debian-13", Status.PASS, ""),
        ("debian-13-arm64", Status.NOT_RUN, "no host of the run can run guests of aarch64: one"),
    }


def test_a_host_offers_the_architectures_that_its_qemu_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CONNECT", "test:///default")
    assert host.architectures() == ["x86_64", "aarch64"]

    def lacks_arm(_connection: object, architecture: Architecture) -> None:
        if architecture is AARCH64:
            raise LabError("this host has no QEMU for guests of aarch64")

    monkeypatch.setattr(domain, "check_emulator", lacks_arm)
    assert host.architectures() == ["x86_64"]
    monkeypatch.setenv("LAB_CONNECT", "nowhere:///")
    assert host.architectures() == []


@pytest.mark.parametrize("is_told", [True, False], ids=["nonsense is told", "a result is damaged"])
def test_no_host_is_blamed_for_what_another_one_did_to_its_part(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    """A host is shut out while its results are on the way, and dask gives their parts to another one."""
    monkeypatch.setattr(roster, "FAILURES_OF_A_HOST", 1)
    with faking(fleet, monkeypatch, "bad", "good") as (dask, run):
        dask.wait_for("part-1")
        dask.tell("bad", "begins", part=1)
        if is_told:
            dask.tell("bad", "lane", part=1)  # It says of no lane what that does.
        dask.tell("good", "begins", part=1)
        dask.futures["part-1"].end(b"damaged")
        dask.wait_for("part-3")  # The same cells again.
        refused = [note for note in run.told.notes if "gets no more parts" in note]
        assert [note.split()[0] for note in refused] == ["bad"] * is_told


def test_what_cannot_be_read_is_fetched_with_nothing_else(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dask's client fetches together what is asked for at the same time."""
    fetching, overlaps, fetched = threading.Lock(), list[bool](), list[FakeFuture]()

    def fetch(future: FakeFuture) -> bytes:
        overlaps.append(not fetching.acquire(blocking=False))
        if not overlaps[-1]:
            threading.Event().wait(0.5)  # Time for the other one to ask.
            fetching.release()
        fetched.append(future)
        return b"damaged"

    with faking(fleet, monkeypatch, "one", "two") as (dask, _run):
        monkeypatch.setattr(FakeFuture, "result", fetch)
        for key in ("part-1", "part-2"):
            dask.wait_for(key)
        for key in ("part-1", "part-2"):
            dask.futures[key].end(None)
        wait_for(lambda: len(fetched) >= 2 or None, Deadline(SECONDS, "both results"), interval=0.05)
    assert overlaps[:2] == [False, False]


def test_a_part_that_the_run_no_longer_has_waits_for_no_image(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dask starts a part again whose result went with its host just after the coordinator had fetched it."""
    with faking(fleet, monkeypatch, "bad", "good") as (dask, _run):
        dask.wait_for("part-1")
        dask.tell("bad", "begins", part=1)
        dask.futures["part-1"].end(b"damaged")
        dask.wait_for("part-3")
        dask.tell("good", "begins", part=1)
        dask.tell("good", "lacks image", part=1, folder="/store/.partial-x")
        reason = "the run has no part 1 any more"
        call = ("tls://good", images.report_failure, "/store/.partial-x", reason)
        wait_for(lambda: call in dask.calls or None, Deadline(SECONDS, "an answer"), interval=0.05)
