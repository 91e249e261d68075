"""Commands and shells in the state of a cell, and guests that are kept, with a real guest."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lab import causes
from lab.base.paths import Paths
from lab.catalog.debian_packages import load_debian_packages
from lab.causes import evidence
from lab.images.store import BaseImage
from lab.lane import shell
from lab.machine import seed
from lab.record import Confidence
from tests.builders.processes import keys_for_all
from tests.vm import fresh_debian
from tests.vm.conftest import RELEASE, domains_of, processes_of, run_lab, wait_until

# The stored guest with the deployed build is restored; without one, the first command deploys and stores it.
STARTS_IN = 600
Lab = Callable[..., subprocess.CompletedProcess[str]]

# What comes of opening the agent's port, and of sending the agent a signal that does nothing.
OPENS_THE_PORT = """
python3 - <<'PROGRAM'
import errno, glob, os, subprocess
[agent] = map(int, subprocess.run(["pgrep", "-f", "lab-agent.py"], capture_output=True).stdout.split())
[port] = glob.glob("/sys/class/virtio-ports/*")
for attempt in lambda: os.open("/dev/" + os.path.basename(port), os.O_RDWR), lambda: os.kill(agent, 0):
    try:
        attempt()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
PROGRAM
"""

# Prints whether the guest's root reaches a port of the host's loopback.
REACHES_THE_HOST = """
python3 - <<'PROGRAM'
import socket
try:
    socket.create_connection(("{address}", {port}), 2)
    print("reached")
except OSError:
    print("tried")
PROGRAM
"""


@pytest.fixture
def lab(home: Path, image: BaseImage) -> Lab:
    return partial(run_lab, home, seconds=STARTS_IN)


def test_a_command_runs_in_the_state_of_a_cell_and_is_kept(lab: Lab, paths: Paths, tmp_path: Path) -> None:
    state = (
        "cat; id -un; pwd; cat /proc/sys/kernel/unprivileged_userns_clone; echo apart >&2; "
        "mkdir -p /tmp/found/sub; echo evidence >/tmp/found/sub/log; ln -s /etc/passwd /tmp/found/link; "
        "kill -9 $$"
    )
    cell = ["debian-13", "userns-clone-off", "--build", RELEASE]
    ran = lab("exec", *cell, "--keep", "--", "sh", "-c", state, stdin="from this host\n", status=137)
    assert ran.stdout == "from this host\ntester\n/opt/lab/suites/jailer\n0\n"
    told = ran.stderr.splitlines()
    kept = shell.find_kept_guest(paths, None)
    assert told[0] == "apart"
    assert told[-1].startswith(f"kept: {kept.name}; ")

    # A shell is in the same state. The suite's user cannot reach the agent.
    script = f"id -un\n{OPENS_THE_PORT}\ntest -e /tmp/found && exit 5"
    assert lab("attach", kept.name, stdin=script, status=5).stdout == "tester\nEACCES\nEPERM\n"

    # Root is in it, too, but for what confines the tests. A second root does not reach the agent, which has the
    # port already, and none reaches the host.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tries = REACHES_THE_HOST.format(address=seed.GATEWAY, port=listener.getsockname()[1])
        script = f"id -un\n{OPENS_THE_PORT}\n{tries}"
        printed = lab("attach", "--user", "root", stdin=script).stdout.splitlines()
    assert (printed[:2], printed[-1]) == (["root", "EBUSY"], "tried")

    # As root is asked: what the guest's packages bring is so, and what it lacks is in the table.
    table = load_debian_packages()
    fresh = json.loads(lab("attach", "--user", "root", stdin=fresh_debian.SCRIPT).stdout)
    assert all(fresh["brought"].values())
    assert (fresh["sysctls"], fresh["pam"], fresh["units"], fresh["failed"]) == ({}, [], {}, [])
    assert set(table.list_installed("trixie")) <= set(fresh["packages"])
    assert set(fresh["masked"]) >= set(table.list_masked())

    # A second of an emulated guest's clock takes ten real ones.
    begun = time.monotonic()
    lab("attach", stdin="sleep 0.2")
    assert time.monotonic() - begun >= 0.18 / kept.entrance.speed.clock

    out = lab("copy", f"{kept.name}:/tmp/found", tmp_path)
    assert "links and special files left out: 1" in out.stdout
    assert [(file.name, file.read_text()) for file in tmp_path.rglob("*") if not file.is_dir()] == [
        ("log", "evidence\n")
    ]
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(1 << 20))
    lab("copy", sent, f"{kept.name}:")
    digest = hashlib.sha256(sent.read_bytes()).hexdigest()
    assert lab("attach", stdin="sha256sum <~/sent").stdout == f"{digest}  -\n"

    assert keys_for_all(paths.state) == keys_for_all(paths.states) == []
    assert kept.name in lab("clean").stdout
    assert domains_of({kept.name}) == {kept.name}
    lab("attach", kept.name, "--end")
    assert domains_of({kept.name}) == set()
    wait_until(lambda: processes_of({kept.name}) == [], 10, "QEMU to be gone")
    assert list(paths.lanes.glob("lab-*")) == []


# A box without a network, so that boxlite 0.10 puts its shim under the filter, which lacks symlinkat(2). The
# program prints the exit status of the first command and, of the second one, what the shim wrote at its end.
LINKS_IN_A_VOLUME = """
import asyncio, os, tempfile
from pathlib import Path
from boxlite import AdvancedBoxOptions, Boxlite, BoxOptions, NetworkSpec, Options, SecurityOptions

home, volume = tempfile.mkdtemp(), tempfile.mkdtemp()
security = SecurityOptions.standard()
security.network_enabled = False
options = BoxOptions(
    rootfs_path=os.environ["LAB_ROOTFS"], cpus=1, memory_mib=256, volumes=[(volume, "/volume", False)],
    network=NetworkSpec(mode="disabled"), advanced=AdvancedBoxOptions(security=security),
)

async def run(box, *command):
    execution = await asyncio.wait_for(box.exec("busybox", list(command)), 60)
    return (await asyncio.wait_for(execution.wait(), 60)).exit_code

async def main():
    box = await Boxlite(Options(home_dir=home)).create(options)
    await box.start()
    print(await run(box, "touch", "/volume/file"))
    try:
        await run(box, "ln", "-s", "file", "/volume/link")
    finally:
        print(*(file.read_text() for file in Path(home).glob("boxes/*/exit*")))

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_shim_that_boxlites_own_filter_ends_says_so_in_its_boxs_folder(lab: Lab, tmp_path: Path) -> None:
    command = ["debian-13", "--build", RELEASE, "--", "python3", "-"]
    ran = lab("exec", *command, stdin=LINKS_IN_A_VOLUME, status=None)
    status, _, written = ran.stdout.partition("\n")
    assert status == "0", ran.stdout + ran.stderr
    folder = tmp_path / "boxlite" / "box-a" / "boxes" / "B0X"
    folder.mkdir(parents=True)
    (folder / "exit").write_text(written)
    [finding] = causes.diagnose_evidence(evidence.read_evidence(tmp_path))
    assert (finding.name, finding.confidence) == ("shim-seccomp", Confidence.PROVED)


def test_nothing_is_left_of_a_kept_guest_whose_keeper_was_killed(lab: Lab, paths: Paths) -> None:
    lab("shell", "debian-13", "--build", RELEASE, "--keep", stdin="exit 3", status=3)
    kept = shell.find_kept_guest(paths, None)
    os.kill(kept.keeper, signal.SIGKILL)
    # libvirt ends the machine of a lab that is gone; the next command removes the rest.
    wait_until(lambda: domains_of({kept.name}) == set(), 30, "the machine to be gone")
    assert "no guest is kept" in lab("attach", "--list").stdout
    wait_until(lambda: processes_of({kept.name}) == [], 10, "QEMU to be gone")
    assert list(paths.lanes.glob("lab-*")) == []
