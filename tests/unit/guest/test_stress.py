"""Guests under load while their suites run: what makes it, what it changes, and where it is told."""

from pathlib import Path

import pytest

from lab import catalog
from lab.base.wait import ORDINARY, Speed
from lab.builds import SuiteOptions
from lab.builds.kinds.wheel import Wheel
from lab.catalog import Guest
from lab.gate import results
from lab.gate.compare import Difference
from lab.guest import stress
from lab.guest import suite as guest_suite
from lab.guest.session import Output
from lab.guest.stress import StressFailed, stress_guest
from lab.images import store
from lab.lane import prepare_image
from lab.plan import Cell
from lab.record import RunOptions, Status, Stress
from lab.report import junit, markdown
from lab.report.site import one_page
from tests.builders.cells import cell, compared, done
from tests.builders.facts import facts
from tests.builders.guests import base_image
from tests.builders.lanes import FakeSession
from tests.builders.output import printed
from tests.builders.processes import ONE_CELL, RunLab
from tests.builders.runs import run_of

KNOWN = catalog.load_catalog()
STOCK = KNOWN.variant("stock")
RELEASE = Wheel("0.10.8", "0.10.8")
ALL = list(Stress)


# A load that runs until it is stopped.
RUNS = {"is-active": Output(0, "active\n", "")}


def test_the_load_runs_while_the_suite_does_and_no_longer() -> None:
    guest = FakeSession(RUNS)
    with stress_guest(guest, [Stress.CPU, Stress.IO]):
        [begun] = guest.commands
    assert "stress-ng --cpu" in begun
    assert "--hdd" in begun
    assert "--vm" not in begun
    assert f"systemctl stop {stress.UNIT}" in guest.commands[1]
    without = FakeSession(RUNS)
    with stress_guest(without, []):
        pass
    assert without.commands == []
    # It leaves a box more of a slow host.
    for emulated, share in ((False, 75), (True, 25)):
        guest = FakeSession(RUNS, speed=Speed(emulated))
        with stress_guest(guest, ALL):
            assert f"--property=CPUQuota=$(({share} * $(nproc)))%" in guest.commands[0]


ENDED = {"is-active": Output(0, "failed\n", ""), "journalctl": Output(0, "no space left\n", "")}


@pytest.mark.parametrize(
    ("answers", "runs", "message"),
    [
        (
            {"systemd-run": Output(1, "", "Failed to find executable stress-ng: No such file or directory\n")},
            False,
            "could not be started in the guest: .*executable stress-ng",
        ),
        (ENDED, True, "ended before the suite did: no space left"),
        ({"is-active": Output(9, "active\n", "timed out")}, True, "could not be stopped: timed out"),
    ],
)
def test_a_load_that_fails_is_the_lab_s_fault(answers: dict[str, Output], runs: bool, message: str) -> None:
    suites = 0
    with pytest.raises(StressFailed, match=message), stress_guest(FakeSession(RUNS | answers), ALL):
        suites += 1
    assert suites == runs


def test_after_a_fault_of_the_suite_the_load_is_stopped_and_the_fault_is_told() -> None:
    guest = FakeSession({"is-active": Output(9, "active\n", "")})
    with pytest.raises(KeyError), stress_guest(guest, ALL):
        raise KeyError
    assert "systemctl stop" in guest.commands[-1]


def test_the_limits_of_a_suite_are_longer_under_load() -> None:
    calm = guest_suite.build_suite_command(RELEASE, STOCK, speed=ORDINARY)
    loaded = guest_suite.build_suite_command(RELEASE, STOCK, speed=ORDINARY, options=SuiteOptions(stress=ALL))
    suite, test = RELEASE.suite.suite_seconds, RELEASE.suite.test_seconds
    assert f"timeout --kill-after=5 {suite} " in calm
    assert f"timeout --kill-after=5 {suite * 3} " in loaded
    assert f"--timeout={test * 3} " in loaded
    # As after a limit was met: that decides whether boxlite hangs.
    assert SuiteOptions(stress=ALL, stretch=2.0).more_time == 6.0


@pytest.mark.parametrize("name", ["debian-13", "ubuntu-24.04", "fedora-44"])
def test_only_runs_under_load_have_an_image_with_stress_ng(name: str) -> None:
    guest = KNOWN.guest(name)
    calm = Cell(guest, STOCK, RELEASE)
    assert calm.under(RunOptions()).guest is guest
    loaded = calm.under(RunOptions(stress=[Stress.CPU]))
    assert (loaded.name, loaded.guest.image.packages[-1]) == (calm.name, "stress-ng")
    assert digests(loaded.guest) != digests(guest)
    if name != "debian-13":
        # The distribution's own disk is the same.
        assert store.compute_inputs_digest(loaded.guest) == store.compute_inputs_digest(guest)


def digests(guest: Guest) -> tuple[str, str]:
    image = base_image(Path("/store/image"))
    return store.compute_inputs_digest(guest), prepare_image.inputs_digest(guest, image)


def test_a_cell_under_load_is_not_compared_as_one_without() -> None:
    calm, loaded = done(Status.PASS), done(Status.PASS, stress=ALL)
    difference = compared(calm, loaded)
    assert difference.difference is Difference.ENVIRONMENT_CHANGED
    assert list(map(str, difference.environment)) == ["load none -> cpu, memory, io"]
    assert compared(loaded, loaded).difference is Difference.UNCHANGED
    # The environment of a usual cell says nothing of load and order.
    run = run_of(cell(facts=facts()), cell(variant="other", facts=facts(), seed=7))
    usual, shuffled = (results.environment_of(cell, run) for cell in run.cells)
    assert not {"load", "order"} & usual.keys()
    assert shuffled["order"] == "shuffled"


def test_reports_say_under_what_the_suites_ran(tmp_path: Path) -> None:
    loaded = run_of(cell(stress=ALL), options=RunOptions(stress=ALL, shuffle=7))
    for text in (printed(loaded), markdown.render_run(loaded), one_page.render_one_page(loaded, tmp_path)):
        # The line before it: the reports of `test_cells`.
        assert "--shuffle=7" in text
    assert '<property name="load" value="cpu, memory, io"' in junit.render_junit(loaded)
    calm = run_of(cell())
    for text in (printed(calm), markdown.render_run(calm), one_page.render_one_page(calm, tmp_path)):
        assert "load in the guests" not in text


@pytest.mark.parametrize(
    ("given", "again"), [("--stress", " --stress=cpu,memory,io"), ("--stress=io,cpu", " --stress=cpu,io")]
)
def test_the_load_is_in_the_command_to_repeat_it(given: str, again: str, home: Path, run_lab: RunLab) -> None:
    assert again in run_lab(0, *ONE_CELL, "--build", "0.10.8", "--list", given)


@pytest.mark.parametrize("given", ["--stress=gpu", "--stress=", "--shuffle=x", "--shuffle=1234567890"])
def test_a_wrong_value_is_wrong_usage(given: str, home: Path, run_lab: RunLab) -> None:
    assert given.partition("=")[0] in run_lab(2, *ONE_CELL, "--build", "0.10.8", given).err
