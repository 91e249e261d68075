"""The twin of Ubuntu 24.04 plays a runner of GitHub's, with a guest within it for one blocked cell.

Its packages are Debian's of the names in Ubuntu's column of `hosts.table`. It shows that setup.sh, the action
and, with stand-ins for machines, the whole workflows take their way there, and says nothing of Ubuntu's own
packages and kernel.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.base import process
from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from lab.images.store import BaseImage
from tests.vm import host_guest, runner
from tests.vm.conftest import RELEASE
from tests.vm.host_guest import CLONE, ROOT, WHEELS, Host, Who

pytestmark = [pytest.mark.runner, pytest.mark.timeout(4800)]

# The action's folder, and a clone as a newcomer has it: the runner's user can write to it.
OWN_CLONE = "/var/tmp/clone"
# The README's first command.
FIRST = "matrix --set quick"
ONE_CELL = f"matrix -g debian-13 -v kvm-denied --build {RELEASE} --no-remedies --no-experiment"
# What runs the workflows' tests in the runner, beside the lab's libraries.
OF_TESTS = ("pytest", "pytest-timeout", "ruamel.yaml")
# As of KVM. All of these tests take 133 s on a host.
WORKFLOW_SECONDS = 300.0


@pytest.fixture(scope="module")
def twin(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The runner as a job finds it, with a clone of the lab; no library of the lab is installed."""
    wheels = tmp_path_factory.mktemp("wheels")
    host_guest.download_wheels(wheels)
    versions = str(ROOT / "requirements" / "test.txt")
    options = ["--quiet", "-c", versions, "-d", str(wheels)]
    process.run_command([sys.executable, "-m", "pip", "download", *options, *OF_TESTS], timeout=600)
    with host_guest.host(paths, runner.define_twin(), UNWATCHED, runner.ensure_twin(paths)) as host:
        runner.bring_lab(host, wheels)
        host.run(f"cp -r {CLONE} {OWN_CLONE}", who="lab")
        yield host


def set_up(host: Host, words: str, seconds: float = runner.STEP_SECONDS) -> str:
    """What `./setup.sh WORDS...` prints for the runner's user, whatever its status is."""
    command = f"cd {OWN_CLONE} && PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} ./setup.sh {words}"
    return host.run(command, who="lab", seconds=seconds, check=False).stdout


def test_setup_takes_it_for_ubuntu_and_would_install_libraries_alone(twin: Host) -> None:
    printed = set_up(twin, f"--dry-run {FIRST}")
    assert printed.startswith("dry run for Ubuntu 24.04: nothing is changed\n"), printed
    would = [line.removeprefix("would run: ") for line in printed.splitlines() if "would run: " in line]
    # A package that Debian has under another name, or that is not installed, would come from apt.
    assert not [line for line in would if "apt-get" in line], printed
    assert would[-1] == f".venv/bin/lab {FIRST}"


def test_the_first_steps_of_the_action_run(twin: Host) -> None:
    assert twin.run("test -w /dev/kvm", who="lab", check=False).returncode
    for step, inputs in (("kvm", {}), ("key", {"LAB_SET": "quick", "LAB_SHARD": "1/8"}), ("verify", {})):
        done = runner.run_step(twin, OWN_CLONE, step, inputs)
        assert done.returncode == 0, done.stdout
    assert twin.run("test -w /dev/kvm", who="lab", check=False).returncode == 0
    assert "key=lab-x86_64-" in twin.run(f"cat {runner.OUTPUT}").stdout


def test_a_program_under_test_gets_its_sandbox(twin: Host) -> None:
    refused = runner.make_sandbox(twin)
    assert refused.returncode
    assert "bwrap: " in refused.stdout
    listed = runner.list_program(twin, OWN_CLONE)
    assert listed.returncode == 0, listed.stdout
    assert "bwrap-profile: " in listed.stdout
    allowed = runner.make_sandbox(twin)
    assert allowed.returncode == 0, allowed.stdout


def test_the_first_command_of_the_readme_plans_its_cells_there(twin: Host) -> None:
    printed = set_up(twin, f"{FIRST} --list")
    assert "guests: 2 (debian-12, debian-13)" in printed, printed


def test_doctor_starts_a_machine_there(twin: Host) -> None:
    printed = set_up(twin, "doctor")
    [machine] = [line for line in printed.splitlines() if line.startswith("machine ")]
    assert machine.split()[1] == "ok", printed


def test_the_first_command_of_the_readme_decides_a_cell_there(
    twin: Host, paths: Paths, image: BaseImage
) -> None:
    """Of a variant in which no box starts: that would be a third machine within two others."""
    host_guest.fill_cache(twin, paths, image, "lab")
    assert runner.run_step(twin, OWN_CLONE, "kvm", {}).returncode == 0
    printed = set_up(twin, f"{ONE_CELL} -o /var/tmp/run", host_guest.MATRIX_SECONDS)
    results = json.loads(twin.run("cat /var/tmp/run/results.json", check=False).stdout or "{}")
    assert results, printed
    [cell] = results["cells"]
    assert (cell["verdict"]["status"], cell["verdict"]["cause"]) == ("xfail", "kvm-denied"), printed


@pytest.fixture(scope="module")
def tester(twin: Host) -> Host:
    """The runner with what its tests need, in the environment that setup.sh made."""
    set_up(twin, "--version")
    install = f"--no-index --find-links {WHEELS} {' '.join(OF_TESTS)}"
    twin.run(f"cd {OWN_CLONE} && .venv/bin/python -m pip install --quiet {install}", who="lab", seconds=60)
    return twin


def run_workflows(host: Host, words: str, who: Who) -> subprocess.CompletedProcess[str]:
    """Run tests of `unit/test_workflow_runs.py` in the runner, chosen by words of their names."""
    options = f"-q -rs -p no:cacheprovider --timeout=0 -m 'slow or not slow' -k '{words}'"
    command = f"cd {OWN_CLONE} && .venv/bin/python -m pytest {options} tests/unit/test_workflow_runs.py"
    return host.run(command, who=who, seconds=WORKFLOW_SECONDS, check=False)


@pytest.mark.parametrize(
    ("words", "who", "count"),
    [
        ("pull_request", "lab", 2),
        ("a_release or without_wheels", "lab", 2),
        ("each_week", "lab", 1),
        # Only root can mount a small disk.
        ("disk_has_2_gib", "root", 1),
    ],
    ids=["pull-request", "before-a-release", "weekly", "full-disk"],
)
def test_the_workflows_run_there_with_stand_ins_for_machines(
    tester: Host, words: str, who: Who, count: int
) -> None:
    done = run_workflows(tester, words, who)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{count} passed"), done.stdout
