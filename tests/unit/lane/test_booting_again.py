"""A suite whose tests are run before and after a boot of their guest, within one cell."""

from collections.abc import Iterable

import pytest

from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.catalog import Variant
from lab.guest.variant import CellStart
from lab.lane.cell import find_obstacle, run_cell
from lab.lane.running import RunningLane
from lab.machine.domain import Device
from lab.probes import Facts
from lab.record import Outcome, Status, SuiteRun
from tests.builders.lanes import NEW, Bench, FakeGuest, cell

BUILD = NEW.with_suite("reboot")
BOX, DETACHED, STOPPED = BUILD.suite.tests


class Rebooting(FakeGuest):
    """A guest in which each test takes 2 s, and one fails: `failing`, in the run of this number."""

    failing: tuple[str, int] = ("", 0)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.lane)
        self.seen: list[dict[str, str]] = []
        self.marks: list[CellStart] = []

    def begin(self, variant: Variant, *, mark: CellStart, sysctls: Iterable[str]) -> Facts:
        self.marks.append(mark)
        return super().begin(variant, mark=mark, sysctls=sysctls)

    def run_suite(
        self, build: Build, variant: Variant, *, speed: object, options: SuiteOptions = WHOLE_SUITE
    ) -> SuiteRun:
        self.seen.append(dict(options.environment))
        done = super().run_suite(build, variant, speed=speed, options=options)
        outcomes = {self.failing[0]: Outcome.FAIL} if self.failing[1] == len(self.seen) else {}
        return SuiteRun(
            [
                test.with_values(seconds=2.0, outcome=outcomes.get(test.name, Outcome.PASS))
                for test in done.tests
            ]
        )


@pytest.fixture
def guest(bench: Bench) -> Rebooting:
    return Rebooting(bench)


@pytest.fixture
def served(bench: Bench, guest: Rebooting) -> RunningLane:
    served = bench.service(build=BUILD, stores=False, guest=guest)
    served.start()
    served.deploy(BUILD)
    bench.lane.did.clear()
    return served


def test_a_suite_is_run_again_after_its_guest_was_booted_from_its_disk(
    bench: Bench, guest: Rebooting, served: RunningLane
) -> None:
    lane = bench.lane
    lane.when["stop"] = lambda: guest.seen.append({"synced": str("sync" in guest.commands)})
    result = run_cell(served, cell(BUILD), bench.folder / "cell")
    # Nothing takes the overlay back to the image, so the guest has what it wrote.
    assert lane.did == ["suite stock", "stop", "start", "suite stock"]
    assert guest.seen == [{}, {"synced": "True"}, {"LAB_BOOTED_AGAIN": "1"}]
    assert (result.status, [test.seconds for test in result.tests]) == (Status.PASS, [4.0] * 3)
    # The kernel's new log has the mark, too, and the clock is set.
    before, after = guest.marks
    assert before.text == after.text
    assert before.clock < after.clock
    # The next cell is forked as if there had been no boot.
    lane.did.clear()
    run_cell(served, cell(BUILD), bench.folder / "next")
    assert lane.did[0] == "load build-0"


def test_the_seed_of_another_boot_has_the_keys_that_the_guest_knows(bench: Bench, served: RunningLane) -> None:
    lane = bench.lane
    lane.endpoint = served.session.renew_key()
    served.boot_again()
    assert lane.endpoint.client_key.public.encode() in (lane.folder / Device.SEED).read_bytes()


def test_a_guest_in_which_a_test_failed_is_not_booted_again(
    bench: Bench, guest: Rebooting, served: RunningLane
) -> None:
    guest.failing = DETACHED, 1
    result = run_cell(served, cell(BUILD), bench.folder / "cell")
    assert bench.lane.did == ["suite stock"]
    assert (result.status, len(guest.seen)) == (Status.FAIL, 1)


def test_a_test_that_failed_after_the_boot_has_failed(
    bench: Bench, guest: Rebooting, served: RunningLane
) -> None:
    guest.failing = STOPPED, 2
    result = run_cell(served, cell(BUILD), bench.folder / "cell")
    failed = [test.name for test in result.tests if test.outcome is Outcome.FAIL]
    assert (result.status, failed) == (Status.FAIL, [STOPPED])


@pytest.mark.parametrize(
    ("variant", "makes_sense"),
    [("stock", True), ("session-user-scope", True), ("as-root", True), ("nofile-256", False)],
)
def test_what_is_set_in_a_running_guest_is_lost_at_a_boot(
    served: RunningLane, variant: str, makes_sense: bool
) -> None:
    obstacle = find_obstacle(served, cell(BUILD, variant))
    assert (obstacle is None or "boots the guest again" not in obstacle) is makes_sense
    assert "boots the guest again" not in (find_obstacle(served, cell(NEW, variant)) or "")
