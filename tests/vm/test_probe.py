"""The probe script, live: on a guest it says what the lab's own programs say of it, in the same fork."""

from pathlib import Path

import pytest

from lab import catalog
from lab.causes import evidence
from lab.check import judge_host, published
from lab.probes import ProbedUser
from lab.probes.report import HostReport, read_host_report
from lab.record import CellResult, RunResult
from tests.builders.probe_script import differences
from tests.vm import test_causes
from tests.vm.conftest import RELEASE
from tests.vm.shared import SharedRun
from tests.vm.test_causes import DOCKER, MORE, PLAIN, PODMAN, SELINUX

GUESTS = catalog.load_catalog().sets["built"].guests
# Every guest that the lab builds itself, in a cell that fails, so that its evidence is gathered.
BUILT = SharedRun(
    "every-built-guest",
    [
        *(word for guest in GUESTS for word in ("-g", guest)),
        *["-v", "max-userns-zero", "--build", RELEASE, "--no-remedies", "--no-experiment"],
    ],
    guests=GUESTS,
    seconds=900,
    limit_seconds=3600,
)
# Only root reads this sysctl.
OF_ROOT = "kernel.apparmor_restrict_unprivileged_unconfined"
# The home of the suite's user, by the variant.
HOMES = {"as-root": "/root"}


def told(run: RunResult, folder: Path) -> list[tuple[CellResult, HostReport, ProbedUser]]:
    """Each cell that failed, what the script printed there, and what the lab's own program printed."""
    cells = []
    for cell in run.cells:
        script = folder / cell.folder / evidence.SCRIPT_FILE
        if script.exists():
            report = read_host_report(script.read_text())
            assert report is not None, script.read_text()
            probed = ProbedUser.model_validate_json((script.parent / evidence.PROBES_FILE).read_bytes())
            cells.append((cell, report, probed))
    return cells


def agrees(run: RunResult, folder: Path) -> list[str]:
    """The cells in which the script and the lab's programs agree, as `guest/variant`. Fails if one does not."""
    names = []
    for cell, report, probed in told(run, folder):
        assert cell.facts is not None
        home = HOMES.get(cell.variant, "/home/tester")
        differing = differences(report, cell.facts, probed, home)
        if probed.probes.bwrap_user.status is None:
            # The facts are read by root, whom nothing confines.
            differing.pop("facts.bubblewrap.version", None)
        if probed.container:
            # Root reads the facts on the host, which has systemd; the script runs in the container.
            differing.pop("facts.systemd", None)
        if probed.probes.service_unrestricted.failed or probed.container == "docker":
            # Nor is what reads them in the service or behind Docker's volumes, with other devices and mounts.
            differing = {
                name: pair
                for name, pair in differing.items()
                if not name.startswith(("facts.kvm", "facts.mounts."))
            }
        assert differing == {}, (cell.guest, cell.variant)
        names.append(f"{cell.guest}/{cell.variant}")
    return names


@test_causes.reads(PLAIN, MORE, PODMAN, DOCKER, SELINUX)
def test_the_script_says_what_the_labs_own_programs_say(name: str, run: RunResult, folder: Path) -> None:
    expected = [f"{test_causes.GUESTS[name]}/{variant}" for variant in test_causes.blocked(name)]
    assert sorted(agrees(run, folder)) == sorted(expected)
    if name == SELINUX:
        # Its policy's modules are in a folder of root's, and an ordinary user is told so.
        assert all("selinux.modules" in report.unreadable for _, report, _ in told(run, folder))


@test_causes.reads(PLAIN, MORE)
def test_from_the_output_alone_the_host_is_called_blocked(name: str, run: RunResult, folder: Path) -> None:
    loaded = published.load_published([str(folder)], folder)
    for cell, report, _ in told(run, folder):
        assert cell.facts is not None
        # What the user may not read is told as such; without AppArmor the kernel has no such sysctl.
        there = cell.facts.sysctls[OF_ROOT] is not None
        assert (f"sysctls.{OF_ROOT}" in report.unreadable) == there, cell.variant
        assert report.knows("apparmor.profiles"), cell.variant
        answer = judge_host(report, loaded.published)
        # The script does not try boxlite's own bubblewrap.
        assert answer.outcome == ("not known" if cell.cause == "bwrap-exec-denied" else "blocked"), cell.variant
        proved = {finding.name for finding in cell.causes}
        assert {finding.name for finding in answer.findings} <= proved, cell.variant


@pytest.mark.every_guest
@pytest.mark.timeout(4000)
@pytest.mark.shared(BUILT)
def test_the_script_says_it_on_every_built_guest(run: RunResult, folder: Path) -> None:
    ran = {cell.guest for cell in run.cells if not cell.status.could_not_run}
    assert {name.partition("/")[0] for name in agrees(run, folder)} == ran
    assert {cell.guest for cell in run.cells} == set(GUESTS)
