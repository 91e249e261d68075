"""A link that is cut and comes back, and a host whose disk is full."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from lab.record import RunResult, Status
from tests.fleet.cable import NEAR, NoNamespaces, laid
from tests.fleet.command import Command
from tests.fleet.examples import Fleet, running
from tests.fleet.link import Link
from tests.fleet.small_disk import NoMounts, mounted
from tests.unit.run_examples import PLAN, SMALL

pytestmark = pytest.mark.timeout(900)
ONE_GUEST = [cell for cell in PLAN if cell.guest.name == "debian-13"]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_link_that_is_cut_costs_a_second_try_and_its_host_joins_again(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.fleet.engine.LOST_SECONDS", 6.0)
    monkeypatch.setattr("lab.fleet.engine.SILENT_SECONDS", 2.0)
    with running(fleet, tmp_path / "run", ONE_GUEST) as run:
        link = Link(int(run.address.rpartition(":")[2]))
        try:
            one = fleet.start("one", link.address, seconds=60)
            run.told.wait(lambda: run.told.lanes)
            link.cut()
            run.told.wait(lambda: run.told.noted("one has not answered for"))
            run.told.wait(lambda: run.told.noted("one has gone, in the middle of a part"))
            link.mend()
            one.does()
            run.told.wait(lambda: sum("one joined" in note for note in run.told.notes) == 2)
            result = run.finish()
        finally:
            link.close()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert {tuple(cell.retried) for cell in result.cells} == {("one was lost",)}
        assert len(run.told.cells) == len(ONE_GUEST)
        assert "has gone" in one.said()


def test_a_pulled_cable_costs_a_second_try_and_its_host_joins_again(fleet: Fleet, tmp_path: Path) -> None:
    """As above, between network namespaces, and through the command line."""
    folder = tmp_path / "run"
    with ExitStack() as stack:
        try:
            cable = stack.enter_context(laid())
        except NoNamespaces as error:
            pytest.skip(f"no network namespaces for this user: {error}")
        stack.callback(fleet.end)
        near = cable.near.within
        plan = ["-g", "debian-13", "-v", "stock", "-v", "userns-clone-off", "--build", "0.10.8"]
        command = Command(
            fleet, *plan, "--no-remedies", "-o", str(folder), within=near, host=NEAR, impatient=True
        )
        one = fleet.start("one", command.address, within=cable.far.within, seconds=60)
        command.wait_for("one: debian-13: stock")
        cable.cut()
        command.wait_for("one has not answered for")
        command.wait_for("one has gone, in the middle of a part")
        one.does()
        cable.mend()
        command.wait_for("one joined", times=2)
        assert command.ends() == 0, command.said()
        assert "has gone" in one.said()
        assert "refused" not in command.said()
    run = RunResult.read(folder)
    assert [(cell.status, cell.retried) for cell in run.cells] == [(Status.PASS, ["one was lost"])] * 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with mounted(tmp_path / "small") as folder:
            yield folder
    except NoMounts as error:
        pytest.skip(str(error))


def test_a_host_whose_disk_is_full_is_told_and_another_one_goes_on(
    fleet: Fleet, tmp_path: Path, small_disk: Path
) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        run.start_host("two", seconds=3)
        run.told.wait(lambda: run.told.lanes)
        fleet.start("one", run.address, temporary=small_disk, bulk=200_000)
        run.told.wait(lambda: run.told.noted("No space left on device"))
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert {cell.lane.partition(":")[0] for cell in result.cells} == {"two"}
        assert ["No space left on device" in "".join(cell.retried) for cell in result.cells].count(True) == 2


def test_a_host_whose_disk_is_full_rests_and_another_one_that_joins_runs_everything(
    fleet: Fleet, tmp_path: Path, small_disk: Path
) -> None:
    with running(fleet, tmp_path / "run", SMALL) as run:
        fleet.start("one", run.address, temporary=small_disk, bulk=200_000)
        run.told.wait(lambda: run.told.noted("No space left on device"))
        run.start_host("two")
        result = run.finish()
        assert {cell.status for cell in result.cells} == {Status.PASS}
        assert {cell.lane.partition(":")[0] for cell in result.cells} == {"two"}
        assert any(host.name == "one" and host.rests_after for now in run.told.now for host in now.hosts)
