"""The lab on another host: a guest plays it, with KVM and without, for root and for a user with sudo.

The guest is emulated, so KVM in it is about as slow as emulation, and what runs there is at least ten times as
slow again. boxlite gives a box 30 s to start, which a box in a guest of this guest does not meet.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from lab.images.store import BaseImage
from lab.machine.checkpoint import Checkpoint
from tests.vm import host_guest
from tests.vm.conftest import RELEASE
from tests.vm.host_guest import Host, Who

pytestmark = [pytest.mark.host_guest, pytest.mark.timeout(7200)]

USERS: tuple[Who, ...] = ("lab", "root")
CELLS = ["-g", "debian-13", "-v", "kvm-denied", "--build", RELEASE, "--no-remedies", "--no-experiment"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    host_guest.download_wheels(folder)
    return folder


@pytest.fixture(scope="module")
def ready(paths: Paths, image: BaseImage, wheels: Path) -> Iterator[tuple[Host, Checkpoint]]:
    """A host on which the user may use KVM, and what it was when both had run `./setup.sh doctor`."""
    with host_guest.host(paths, host_guest.definition(), UNWATCHED) as host:
        host_guest.move_in(host, paths, image, wheels)
        host.run("usermod -aG kvm lab")
        host.session.close()  # A login has the groups of its beginning.
        for who in USERS:
            host.first[who] = host.lab("doctor", who=who)
        yield host, Checkpoint.take(host.lane, "ready")


@pytest.fixture
def host(ready: tuple[Host, Checkpoint]) -> Host:
    """The host as it was then."""
    made, checkpoint = ready
    made.fork(checkpoint)
    return made


def line_of(what: str, printed: str) -> str:
    """What `lab doctor` says of one requirement, with its state."""
    [line] = [line for line in printed.splitlines() if line.startswith(f"{what} ")]
    return line.removeprefix(what).strip()


@pytest.mark.parametrize("who", USERS)
def test_doctor_proves_kvm_and_that_machines_start(ready: tuple[Host, Checkpoint], who: Who) -> None:
    printed = ready[0].first[who].stdout
    assert line_of("acceleration", printed).startswith("ok  ")
    assert "KVM: a guest kernel ran under KVM" in printed
    assert line_of("machine", printed).startswith("ok  ")
    assert "QEMU opens its port on 127.0.0.1" in printed
    uri = {"root": "qemu:///system", "lab": "qemu:///session"}[who]
    assert line_of("libvirt", printed).endswith(uri)
    assert ready[0].first[who].returncode == 0
    # The libraries are installed once for all users of the clone.
    assert ("installing the lab's libraries" in printed) == (who == USERS[0])


def test_a_user_who_may_not_open_kvm_is_told_and_gets_emulation(host: Host) -> None:
    host.run("gpasswd -d lab kvm")
    host.session.close()
    printed = host.lab("doctor", who="lab").stdout
    assert line_of("acceleration", printed).startswith("slow  ")
    assert "/dev/kvm may not be opened by this user (join the group kvm)" in printed


def test_without_nested_virtualization_guests_are_emulated(host: Host) -> None:
    module = host.run("lsmod | awk '$1 ~ /^kvm_(amd|intel)$/ {print $1}'").stdout.strip()
    host.run(f"modprobe -r {module} && modprobe {module} nested=0")
    printed = host.lab("doctor").stdout
    assert line_of("acceleration", printed).startswith("slow  ")
    assert "KVM works, but without nested virtualization" in printed
    assert "nested=1" in printed


def test_a_daemon_that_was_killed_is_started_again(host: Host) -> None:
    """The file of its process id is still there, and its sockets are not."""
    host.run("systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket; pkill -9 -x libvirtd")
    printed = host.lab("doctor").stdout
    assert line_of("libvirt", printed).endswith("qemu:///system")


@pytest.mark.parametrize("who", USERS)
def test_cells_fork_under_kvm_and_a_blocked_one_is_named(host: Host, who: Who) -> None:
    ran = host.lab("matrix", *CELLS, "-o", "/tmp/run", who=who, check=False)
    results = json.loads(host.run("cat /tmp/run/results.json", who=who).stdout)
    # A machine of a guest of this guest may be reset, and then its cell goes to a second lane.
    assert {lane["host"]["acceleration"] for lane in results["run"]["lanes"]} == {"kvm"}, ran.stdout
    [cell] = results["cells"]
    verdict = cell["verdict"]
    assert (verdict["status"], verdict["cause"]) == ("xfail", "kvm-denied"), ran.stdout


def test_consoles_that_selinux_denies_are_told_and_mended(paths: Paths, image: BaseImage, wheels: Path) -> None:
    """Debian's policy also denies libvirt the disks of images, which no rule mends."""
    with host_guest.host(paths, host_guest.definition(selinux=True), UNWATCHED) as host:
        host_guest.move_in(host, paths, image, wheels)
        assert host.run("getenforce").stdout.strip() == "Enforcing"
        denied = host.lab("doctor", check=False)
        assert denied.returncode == 3
        assert line_of("machine", denied.stdout).startswith("broken  "), denied.stdout
        # Of KVM nothing is known, because no machine starts.
        assert line_of("acceleration", denied.stdout).startswith("not known  "), denied.stdout
        assert take_denials(host), denied.stdout
        assert "./setup.sh --allow=consoles doctor" in denied.stdout
        mended = host.lab("--allow=consoles", "doctor", check=False).stdout
        assert take_denials(host) == [], mended
        assert "disk.qcow2': Permission denied" in line_of("machine", mended)
        assert ":virt_log_t:" in host.run("ls -dZ /var/lib/boxlite-lab").stdout
        again = host.lab("--forbid=consoles", "doctor", check=False).stdout
        assert take_denials(host), again


def take_denials(host: Host) -> list[str]:
    """What the host's log says that virtlogd was denied since this was last asked."""
    log = "/var/log/audit/audit.log"
    lines = host.run(f"cat {log} && truncate --size=0 {log}").stdout.splitlines()
    return [line for line in lines if ":virtlogd_t:" in line and "avc:  denied" in line]
