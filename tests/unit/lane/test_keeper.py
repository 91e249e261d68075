"""Guests that outlive the command that brought them up, with lanes that have no machine."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths
from lab.lane import shell
from lab.lane.shell import MARK, KeptGuest
from lab.machine import leftovers
from tests.builders.processes import IGNORING_SIGINT, wait_until_ended

# Keeps a guest without a machine: it is up at once, and dead when its lane's folder has the file `dead`.
# Arguments: the lab's home, and what happens instead of its coming up.
PROGRAM = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from lab import catalog
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.paths import Paths
from lab.base.activity import Progress
from lab.base.wait import ORDINARY
from lab.builds.kinds.wheel import Wheel
from lab.lane import shell
from lab.machine import leftovers
from lab.machine.seed import make_keys
from lab.machine.lane import Endpoint, LaneDied
from lab.plan import Cell

base, event = Path(sys.argv[1]), sys.argv[2]
paths = Paths(cache=base / "cache", state=base / "state")
leftovers.FIRST_PORT, leftovers.LAST_PORT = 23250, 23299
definitions = catalog.load_catalog()
cell = Cell(definitions.guest("debian-13"), definitions.variant("stock"), Wheel("0.10.8", "0.10.8"))
shell.WATCH_SECONDS = 0.05

class Lane:
    def __init__(self, folder):
        self.folder, self.name = folder, folder.name

    def check_alive(self):
        if (self.folder / "dead").exists():
            raise LaneDied("the machine is gone")

@contextmanager
def ready(cell, paths, uri, task, *, own_rootfs=None):
    with leftovers.make_lane_folder(paths, guest="debian-13", uri="test:///default") as (folder, port):
        task.show(Progress("booting"))
        if event == "error":
            raise UsageError("no such thing", hint="name another")
        if event == "n/a":
            raise NotApplicable("no AppArmor")
        if event == "bug":
            raise ZeroDivisionError("of the lab's own")
        while event == "hang":
            time.sleep(0.05)
            task.check()
        endpoint = Endpoint(port, make_keys("client"), make_keys("host"))
        yield shell.EnteredGuest(Lane(folder), shell.make_entrance(endpoint, folder, cell, speed=ORDINARY))

shell.enter_guest = ready
starting = shell.start_keeper(cell, paths, "test:///default")
print(starting.keeper, flush=True)
try:
    print(starting.wait(lambda progress: print(progress.text, flush=True)).name)
except NotApplicable as reason:
    print("n/a", reason)
except LabError as error:
    print(error.exit_status, error)
"""


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    made = Paths(cache=tmp_path / "cache", state=tmp_path / "state")
    yield made
    for kept in shell.list_kept_guests(made):
        os.kill(kept.keeper, signal.SIGKILL)


def command(paths: Paths, event: str = "") -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(paths.cache.parent), event]


def keep(paths: Paths, *started_by: str) -> KeptGuest:
    """Keep a guest; the process that did has ended."""
    done = subprocess.run(
        [*started_by, *command(paths)], capture_output=True, text=True, timeout=60, check=True
    )
    return shell.find_kept_guest(paths, done.stdout.splitlines()[-1])


def nothing_is_left(paths: Paths) -> bool:
    return not leftovers.list_lanes(paths)


def test_a_kept_guest_outlives_its_command_and_its_end_leaves_nothing(paths: Paths) -> None:
    # `keep` reads the pipe of standard output until all who have it closed it: this would hang otherwise.
    kept = keep(paths)
    folder = kept.entrance.folder
    assert shell.list_kept_guests(paths) == [kept]
    assert (kept.name, kept.cell) == (folder.name, "debian-13/stock/0.10.8")
    kept.check_alive()
    # Only its owner can read the way into it, and it has left the command's terminal and pipes.
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in (MARK, "key")] == [0o600, 0o600]
    assert os.getsid(kept.keeper) == kept.keeper
    streams = [Path(f"/proc/{kept.keeper}/fd/{number}").resolve() for number in (0, 1, 2)]
    assert streams == [Path("/dev/null")] * 3
    # It belongs to a lab that is alive: no command removes it.
    assert leftovers.reap_dead_lanes(paths) == []
    shell.end_kept_guest(kept)
    assert nothing_is_left(paths)
    wait_until_ended(kept.keeper)
    with pytest.raises(LabError, match="is gone"):
        kept.check_alive()


def test_a_keeper_obeys_signals_that_what_started_it_ignores(paths: Paths) -> None:
    kept = keep(paths, *IGNORING_SIGINT)
    os.kill(kept.keeper, signal.SIGINT)
    wait_until_ended(kept.keeper)
    assert nothing_is_left(paths)


def test_a_keeper_whose_machine_died_ends_by_itself_and_one_that_is_killed_is_swept(paths: Paths) -> None:
    kept, killed = keep(paths), keep(paths)
    (kept.entrance.folder / "dead").touch()
    wait_until_ended(kept.keeper)
    os.kill(killed.keeper, signal.SIGKILL)
    wait_until_ended(killed.keeper)
    assert shell.list_kept_guests(paths) == []
    assert leftovers.reap_dead_lanes(paths) == [killed.name]
    assert nothing_is_left(paths)


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        ("error", 0, "2 no such thing\n  next: name another\n"),
        ("n/a", 0, "n/a no AppArmor\n"),
        # With its traceback.
        ("bug", 1, "ZeroDivisionError: of the lab's own"),
    ],
)
def test_why_a_kept_guest_does_not_come_up_is_told(paths: Paths, event: str, status: int, message: str) -> None:
    done = subprocess.run(command(paths, event), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert message in (done.stderr if status else done.stdout)
    assert nothing_is_left(paths)


@contextmanager
def booting(paths: Paths) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A command whose guest does not come up, and the process id of the keeper."""
    started = subprocess.Popen(
        command(paths, "hang"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    keeper_id = int(started.stdout.readline())
    assert started.stdout.readline() == "booting\n"
    yield started, keeper_id
    started.kill()
    started.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_command_keeps_no_guest(paths: Paths, number: signal.Signals) -> None:
    with booting(paths) as (started, keeper_id):
        started.send_signal(number)
        started.communicate(timeout=30)
        wait_until_ended(keeper_id)
    assert nothing_is_left(paths)


def test_a_kept_guest_is_found_by_its_name_or_because_it_is_the_only_one(paths: Paths) -> None:
    with pytest.raises(UsageError, match="no guest is kept"):
        shell.find_kept_guest(paths, None)
    first = keep(paths)
    assert shell.find_kept_guest(paths, None) == first
    second = keep(paths)
    assert shell.find_kept_guest(paths, second.name) == second
    with pytest.raises(UsageError, match="several guests are kept") as several:
        shell.find_kept_guest(paths, None)
    assert f"{first.name}, {second.name}" in str(several.value)
    with pytest.raises(UsageError, match="no kept guest is called 'lab-debian-13'"):
        shell.find_kept_guest(paths, "lab-debian-13")
