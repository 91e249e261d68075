"""The twin of Ubuntu 24.04 plays a runner of GitHub's, as far as that takes no guest within it.

Its packages are Debian's of the names in Ubuntu's column of `hosts.table`. It shows that setup.sh and the
action take their way there, and says nothing of Ubuntu's own packages and kernel.
"""

from collections.abc import Iterator

import pytest

from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from tests.vm import host_guest, runner
from tests.vm.host_guest import CLONE, WHEELS, Host

pytestmark = [pytest.mark.runner, pytest.mark.timeout(2400)]

# The action's folder, and a clone as a newcomer has it: the runner's user can write to it.
OWN_CLONE = "/var/tmp/clone"
# The README's first command.
FIRST = "matrix --set quick"


@pytest.fixture(scope="module")
def twin(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The runner as a job finds it, with a clone of the lab; no library of the lab is installed."""
    wheels = tmp_path_factory.mktemp("wheels")
    host_guest.download_wheels(wheels)
    with host_guest.host(paths, runner.define_twin(), UNWATCHED, runner.ensure_twin(paths)) as host:
        runner.bring_lab(host, wheels)
        host.run(f"cp -r {CLONE} {OWN_CLONE}", who="lab")
        yield host


def set_up(host: Host, words: str) -> str:
    """What `./setup.sh WORDS...` prints for the runner's user, whatever its status is."""
    command = f"cd {OWN_CLONE} && PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} ./setup.sh {words}"
    return host.run(command, who="lab", seconds=runner.STEP_SECONDS, check=False).stdout


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
