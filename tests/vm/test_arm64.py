"""A guest of arm64 that a host of x86-64 emulates: booted, forked, taken up again, and judged."""

import platform
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.record import Confidence, RunResult, Status
from tests.builders import packages
from tests.vm import cloud_disk
from tests.vm.conftest import RELEASE, invoke, own_home, run_lab

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="for a host of x86-64"),
]

GUEST, UBUNTU = "debian-13-arm64", "ubuntu-24.04-arm64"
VARIANTS = ["stock", "userns-clone-off", "apparmor-userns-nocaps"]
CAUSES = ["runtime-library", "userns-sysctl", "apparmor-userns-nocaps"]


def matrix(home: Path, folder: Path, *words: str) -> RunResult:
    more = ["--no-remedies", "--no-experiment", "-o", str(folder)]
    run_lab(home, "matrix", "-g", GUEST, *words, *more, seconds=3000)
    return RunResult.read(folder)


def test_its_cells_are_judged_and_a_second_run_takes_up_its_state_and_says_the_same(
    home: Path, tmp_path: Path
) -> None:
    words = [word for variant in VARIANTS for word in ("-v", variant)] + ["--build", RELEASE]
    first, second = (matrix(home, tmp_path / name, *words) for name in ("first", "second"))
    for run in (first, second):
        assert [(cell.status, cell.cause) for cell in run.cells] == [(Status.XFAIL, cause) for cause in CAUSES]
        stock, *blocked = run.cells
        # In the box without a network boxlite's own filter ends the shim first.
        assert [finding.name for finding in stock.causes] == ["runtime-library", "shim-seccomp"]
        for cell in blocked:
            # What blocks the sandbox is proved, although the control fails, too.
            assert [finding.name for finding in cell.causes] == [cell.cause, "runtime-library"]
            assert cell.verdict.confidence is Confidence.PROVED
            assert cell.suite.fork == "memory"
        assert stock.facts
        assert stock.facts.arch == "aarch64"
    outcomes = [[test.outcome for cell in run.cells for test in cell.tests] for run in (first, second)]
    assert outcomes[0] == outcomes[1]
    [lane] = second.run.lanes
    assert (lane.restored, lane.stored_build) == (True, True)


def test_a_wheel_for_x86_64_is_not_applicable(home: Path, tmp_path: Path) -> None:
    wheel = packages.make_wheel(tmp_path, "boxlite", RELEASE, tags="cp313-cp313-manylinux_2_28_x86_64")
    [cell] = matrix(home, tmp_path / "run", "-v", "stock", "--build", str(wheel)).cells
    assert cell.status is Status.NOT_APPLICABLE
    assert "aarch64" in cell.reason


@pytest.mark.timeout(10800)  # The disk may have to be built.
def test_a_pulled_guest_runs_from_its_own_loader_under_uefi_and_forks_from_a_checkpoint_of_memory(
    home: Path, paths: Paths, tmp_path: Path
) -> None:
    """The small disk of `test_cloud.py`, of Debian's packages for arm64. It says nothing of Ubuntu."""
    built = cloud_disk.ensure(paths, cloud_disk.ARM64)
    with own_home(home / "arm64", paths) as own, cloud_disk.served(built.repository) as repository:
        with cloud_disk.published(built, repository.url, tmp_path, UBUNTU):
            assert invoke("images", "pull", UBUNTU)[0] == 0
            words = ["--no-remedies", "--no-experiment", "-g", UBUNTU, "-v", CAUSES[2], "--build", RELEASE]
            status, output = invoke("matrix", *words, "-o", own.state / "run")
        run = RunResult.read(own.state / "run")
        consoles = [file.read_text() for file in (own.state / "run").rglob("console*.log")]
    [cell] = run.cells
    assert (cell.status, status) == (Status.XFAIL, 0), output
    assert [finding.name for finding in cell.causes] == [CAUSES[2], "runtime-library"]
    assert cell.facts is not None
    assert (cell.facts.os.id, cell.facts.arch) == ("debian", "aarch64")
    # GRUB's word, and what preparing added. The serial console is another one than the loader's entry names.
    assert cell.facts.command_line.startswith("BOOT_IMAGE=/vmlinuz ")
    assert "console=ttyS0" in cell.facts.command_line
    assert "nosoftlockup" in cell.facts.command_line
    assert any("UEFI firmware" in text and "Run /init as init process" in text for text in consoles)
    [lane] = run.run.lanes
    assert (lane.fork, lane.note) == ("memory", "")
