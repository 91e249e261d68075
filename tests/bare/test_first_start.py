"""setup.sh on a bare machine: a root file system that has what a fresh container of Debian has.

Each is made from Debian's packages, has mounts and processes of its own, no systemd and no /dev/kvm, and shares
this host's network. A step that installs something cannot be forgotten here: nothing is there that hides it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base.paths import PACKAGE

pytestmark = [
    pytest.mark.bare,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a root file system with devices and mounts"),
]
ROOT = PACKAGE.parent
ENTER = Path(__file__).with_name("enter.sh")
# A minute or two for each on a quiet host; most of it is apt's. The tests take 20 to 45 minutes.
SECONDS, TEST_SECONDS = 900.0, 5400.0
# Where this host's certificates are, in that root: the package index may be behind a proxy that has its own.
CERTIFICATES = "/etc/host-certificates.crt"
# What the host's user said of package indexes and proxies, without files of this host.
SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "http_proxy", "https_proxy", "no_proxy")


class Machine:
    """A bare machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {name: os.environ[name] for name in SETTINGS if name in os.environ}
        self.environment |= {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def make(self, suite: str) -> None:
        # The lists of a mirror that is a snapshot may have expired.
        options = ["--quiet", "--variant=minbase", "--aptopt=Acquire::Check-Valid-Until false"]
        subprocess.run(["mmdebstrap", *options, suite, str(self.root)], check=True, timeout=SECONDS)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
        for name in listed.stdout.split("\0")[:-1]:
            file = self.root / "lab" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, file)
        shutil.copy("/etc/resolv.conf", self.root / "etc" / "resolv.conf")
        # As in Docker's images of Debian: installing a package starts no service.
        policy = self.root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        certificates = Path(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"))
        if certificates.exists():
            shutil.copy(certificates, self.root / CERTIFICATES[1:])
            self.environment |= {"PIP_CERT": CERTIFICATES, "SSL_CERT_FILE": CERTIFICATES}

    def setup(
        self, *words: str, who: str = "root", seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run ./setup.sh with these words. Whatever it starts ends with it."""
        enter = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", str(ENTER)]
        environment = self.environment | ({} if who == "root" else {"HOME": f"/home/{who}"})
        settings = [f"{name}={value}" for name, value in environment.items()]
        user = ["setpriv", f"--reuid={who}", f"--regid={who}", "--init-groups"] if who != "root" else []
        command = [*enter, str(self.root), *user, "env", "-i", *settings, "./setup.sh", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)

    def make_clone(self, who: str) -> None:
        """Give it git and a clone instead of the files alone; who is not root is a user with sudo."""
        self.run("apt-get", "-qq", "update")
        self.run("apt-get", "-qq", "install", "--no-install-recommends", "git", "sudo")
        shutil.rmtree(self.root / "lab")
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, self.root / "lab"], check=True)
        if who != "root":
            self.run("useradd", "--create-home", who)
            (self.root / "etc/sudoers.d" / who).write_text(f"{who} ALL=(ALL) NOPASSWD:ALL\n")
            self.run("chown", "-R", f"{who}:", "/lab")

    def run(self, *command: str) -> str:
        """Return what a program prints, without a /proc or a /dev of its own."""
        run = ["chroot", str(self.root), "env", "DEBIAN_FRONTEND=noninteractive", *command]
        return subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS).stdout

    def list_packages(self) -> set[str]:
        return set(self.run("dpkg-query", "-W", "-f", "${Package}\n").split())


@pytest.fixture(params=["trixie", "forky"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    # /tmp may be in memory, and a machine has two gigabytes when all is installed.
    folder = Path("/var/tmp") / f"boxlite-lab-bare-{os.getpid()}"
    folder.mkdir()
    try:
        made = Machine(folder / "root")
        made.make(request.param)
        yield made
    finally:
        shutil.rmtree(folder)


def test_a_bare_machine_is_made_ready_by_what_it_is_asked_for(machine: Machine) -> None:
    """First what needs least: each command finds what the one before has installed, and what that has not."""
    packages = machine.list_packages()
    assert not packages & {"python3", "ca-certificates", "libvirt-daemon"}

    dry = machine.setup("--dry-run", "doctor")
    assert (dry.returncode, dry.stdout.splitlines()[-1]) == (0, "would run: .venv/bin/lab doctor"), dry.stderr
    assert machine.list_packages() == packages
    assert not (machine.root / "lab/.venv").exists()

    # Whoever asks about a host, or reads results, needs no libvirt.
    check = machine.setup("check")
    assert (check.returncode, "on x86_64: blocked" in check.stdout) == (1, True), check.stderr
    assert "libvirt-daemon" not in machine.list_packages()

    cells = machine.setup("matrix", "--list", "--set", "quick")
    assert cells.returncode == 0, cells.stderr
    assert "debian-13  stock " in cells.stdout

    # A start of the machine later: nothing is missing, and the daemons are started again.
    doctor = machine.setup("doctor")
    assert (doctor.returncode, "setup: installing" in doctor.stderr) == (0, False), (
        doctor.stdout + doctor.stderr
    )
    states = dict(line.split()[:2] for line in doctor.stdout.splitlines() if not line.startswith(" "))
    assert {what: states[what] for what in ("libvirt", "machine", "sandbox")} == dict.fromkeys(
        ("libvirt", "machine", "sandbox"), "ok"
    )


@pytest.mark.slow
@pytest.mark.timeout(2 * TEST_SECONDS)
@pytest.mark.parametrize("who", ["root", "plain"])
def test_both_commands_of_the_readme_run_on_a_bare_machine(machine: Machine, who: str) -> None:
    machine.make_clone(who)
    matrix = machine.setup("matrix", "--set", "quick", who=who)
    assert matrix.returncode == 0, matrix.stdout + matrix.stderr
    assert re.search(r"^2 pass, 5 xfail, 1 n/a$", matrix.stdout, re.MULTILINE), matrix.stdout
    tests = machine.setup("test", who=who, seconds=TEST_SECONDS)
    assert tests.returncode == 0, tests.stdout[-20_000:] + tests.stderr[-2_000:]
