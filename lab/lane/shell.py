"""A guest in the state that a cell's tests see: brought there as a cell's guest is, for one command or kept.

A kept guest has a keeper, a process that brings it up and holds its lane until told to end. To the rest of the
lab a keeper is a lab at work with one lane. It holds the lane's lock, its port and the connection to libvirt.
When it dies, libvirt ends the machine, and the next command removes the lane's folder.
"""

import os
import select
import shlex
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict

from lab.base import scratch
from lab.base.activity import CancelToken, Progress, ShowProgress, Task
from lab.base.data import SMALL_FILE, read_model
from lab.base.errors import LabError, NotApplicable, UsageError, make_unknown_name_error
from lab.base.files import write_atomically
from lab.base.locks import is_locked
from lab.base.paths import Paths
from lab.base.wait import Deadline, Speed, wait_for
from lab.builds import SuiteOptions, rootfs
from lab.guest import suite, variant
from lab.guest.session import ADMIN, User
from lab.guest.transfer import AS_ROOT
from lab.images import store
from lab.lane import prepare_image
from lab.lane.cell import apply_variant, find_obstacle
from lab.lane.prepare_image import Preparation
from lab.lane.running import Work, open_running_lane
from lab.machine import acceleration
from lab.machine.budget import Processors
from lab.machine.connection import hold_lane_connection
from lab.machine.lane import Endpoint, Lane
from lab.machine.leftovers import FOLDERS, LOCK
from lab.plan import Cell

LoginName = Literal["tester", "root"]
SUITE_USER: LoginName = "tester"

# The lane's own files, beside its overlay: of each entrance, and the mark of a kept guest.
KEY, KNOWN_HOSTS, MARK = "key", "known_hosts", "kept.json"
# The signals that end a keeper.
ENDING = (signal.SIGTERM, signal.SIGINT)
# How often a keeper looks whether its machine still runs.
WATCH_SECONDS = 2.0
# Taking a lane down takes a second; a loaded host needs longer.
END_SECONDS = 60.0


# -- the way in


class Entrance(BaseModel):
    """How to get into one guest, and how commands run there in the state that the cell's tests see.

    `folder` is the lane's, `speed` that of its machine. `tests_login` logs in to become the suite's
    user. `state` is a shell script that lacks its end: the command that is to run in that state;
    `state_with_stdin` is the same for a command that gets standard input. `suite` runs the whole suite there as
    a cell does, `one_test` one test of it.
    """

    model_config = ConfigDict(frozen=True)

    endpoint: Endpoint
    folder: Path
    speed: Speed
    tests_login: User
    state: str
    state_with_stdin: str
    working_folder: str
    suite: str
    one_test: str

    def command(self, words: Sequence[str], *, user: LoginName = SUITE_USER, stdin: bool = False) -> list[str]:
        """Run a command and give its exit status, 128 + N if signal N ended it.

        `root` is not confined as the tests are. Without `stdin` the command's standard input is empty.
        """
        state = self.state_with_stdin if stdin else self.state
        return self._ssh([] if stdin else ["-n"], state, shlex.join(words), user)

    def shell(self, *, user: LoginName = SUITE_USER, terminal: bool = True) -> list[str]:
        """A shell that gives its exit status. Without a terminal it reads its commands from standard input."""
        if not terminal:
            return self._ssh([], self.state_with_stdin, "bash", user)
        if user == "root":
            return self._ssh(["-t"], self.state, "bash -i", user)
        # The variable is gone before the first command is typed: what that starts does not see it.
        first = f"history -s {shlex.quote(self.one_test)}; history -s {shlex.quote(self.suite)}"
        variable = f"PROMPT_COMMAND={shlex.quote(f'{first}; unset PROMPT_COMMAND')}"
        return self._ssh(["-t"], self.state, f"env {variable} bash -i", user)

    def logs_in_as(self, user: LoginName) -> tuple[User, bool]:
        """Who logs in to become this user, and whether that is by sudo."""
        return (ADMIN, True) if user == "root" else (self.tests_login, self.tests_login == ADMIN)

    def sftp(self, user: LoginName) -> list[str]:
        """OpenSSH's `sftp`, which reads its commands from standard input, for a user's files."""
        login, as_root = self.logs_in_as(user)
        server = ["-s", AS_ROOT] if as_root else []
        return ["sftp", "-b", "-", *self._options(), *server, f"{login}@{self.endpoint.host}"]

    def _options(self) -> list[str]:
        """What `ssh` and `sftp` both take."""
        settings = {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.folder / KNOWN_HOSTS),
            "GlobalKnownHostsFile": os.devnull,
            "LogLevel": "ERROR",
            "Port": str(self.endpoint.port),
        }
        words = ["-F", os.devnull, "-i", str(self.folder / KEY)]
        return [*words, *(word for item in settings.items() for word in ("-o", "=".join(item)))]

    def _ssh(self, options: Sequence[str], state: str, command: str, user: LoginName) -> list[str]:
        login, as_root = self.logs_in_as(user)
        prefix = f"cd {self.working_folder} && exec" if user == "root" else state
        # A shell waits for the command, because ssh does not tell which signal ended it; the shell's own words
        # about that are dropped.
        waiting = f"exec 3>&2 2>/dev/null; (exec 2>&3 3>&-; {prefix} {command}); exit $?"
        remote = f"sudo -n -H sh -c {shlex.quote(waiting)}" if as_root else waiting
        return ["ssh", *options, *self._options(), f"{login}@{self.endpoint.host}", remote]


def make_entrance(endpoint: Endpoint, folder: Path, cell: Cell, *, speed: Speed) -> Entrance:
    """The entrance of a lane's guest that is in the cell's state; its key is written to the lane's folder."""
    key = folder / KEY
    key.touch(0o600)
    key.write_text(endpoint.client_key.private)
    host_key = f"[{endpoint.host}]:{endpoint.port} {endpoint.host_key.public}\n"
    (folder / KNOWN_HOSTS).write_text(host_key)
    build = cell.build
    one = SuiteOptions(tests=build.suite.telling[:1])
    return Entrance(
        endpoint=endpoint,
        folder=folder,
        speed=speed,
        tests_login=variant.choose_login(cell.variant),
        state=suite.wrap_command(build, cell.variant, "").rstrip(),
        state_with_stdin=suite.wrap_command(build, cell.variant, "", stdin=True).rstrip(),
        working_folder=build.working_folder,
        suite=suite.build_suite_command(build, cell.variant, speed=speed),
        one_test=suite.build_suite_command(build, cell.variant, speed=speed, options=one),
    )


# -- bringing a guest there


@dataclass(frozen=True)
class EnteredGuest:
    """A lane whose guest is in the state of a cell, and the way into it."""

    lane: Lane
    entrance: Entrance

    def check_alive(self) -> None:
        """Raise LaneDied if the guest's machine is gone."""
        self.lane.check_alive()


@contextmanager
def enter_guest(
    cell: Cell, paths: Paths, uri: str, task: Task, *, own_rootfs: Path | None = None
) -> Iterator[EnteredGuest]:
    """Bring a guest into the state that the cell's tests see; nothing of it is left after the block.

    The boxes boot from `own_rootfs`, or from the lab's own layout. Raises LabError, or NotApplicable if the
    variant makes no sense on the guest.
    """
    with hold_lane_connection(uri) as connection, scratch.make_temporary_folder() as folder:
        image = store.ensure_image(paths, cell.guest, task)
        guest_acceleration = acceleration.decide_acceleration(connection, paths, image, task)
        processors = Processors(os.cpu_count() or 1)
        preparation = Preparation(connection, paths, guest_acceleration, task, processors)
        image = prepare_image.ensure_prepared_image(preparation, cell.guest, image)
        work = Work(
            paths=paths,
            folder=folder,
            rootfs={cell.guest.arch: own_rootfs}
            if own_rootfs
            else rootfs.make_layouts(folder / "rootfs", paths, [cell.guest.architecture]),
            processors=processors,
            build=cell.build,
            sysctls=cell.variant.sysctls,
            # A lane for one cell gains nothing from a checkpoint.
            checkpoints=False,
        )
        with open_running_lane(
            connection, work, machine=cell.machine, image=image, acceleration=guest_acceleration, task=task
        ) as running:
            running.start()
            if reason := find_obstacle(running, cell):
                raise NotApplicable(reason)
            running.deploy(cell.build)
            apply_variant(running, cell.variant)
            running.session.disconnect()
            lane = running.lane
            yield EnteredGuest(lane, make_entrance(lane.endpoint, lane.folder, cell, speed=lane.speed))


# -- kept guests


class KeptGuest(BaseModel):
    """A guest that is kept. `keeper` is the id of the process that holds its lane."""

    cell: str
    since: datetime
    keeper: int
    entrance: Entrance

    @property
    def name(self) -> str:
        return self.entrance.folder.name

    @property
    def is_there(self) -> bool:
        """Whether its keeper lives. Meanwhile no other process has the keeper's number."""
        return is_locked(self.entrance.folder / LOCK)

    def check_alive(self) -> None:
        """Raise LabError if the guest is gone."""
        if not self.is_there:
            raise LabError(f"{self.name} is gone", hint="lab attach --list names the guests that are kept")


def list_kept_guests(paths: Paths) -> list[KeptGuest]:
    """The guests that are kept, the oldest first."""
    marks = [read_kept(folder) for folder in paths.lanes.glob(FOLDERS)]
    return sorted((guest for guest in marks if guest and guest.is_there), key=lambda guest: guest.since)


def read_kept(folder: Path) -> KeptGuest | None:
    """What the mark of a kept guest says; None if the lane is another one."""
    try:
        return read_model(KeptGuest, folder / MARK, SMALL_FILE)
    except (OSError, ValueError):
        return None


def find_kept_guest(paths: Paths, name: str | None) -> KeptGuest:
    """The kept guest of this name, or the only one there is. Raises UsageError."""
    guests = {guest.name: guest for guest in list_kept_guests(paths)}
    if not guests:
        raise UsageError("no guest is kept", hint="keep one: lab shell GUEST [VARIANT] --keep")
    if name is None:
        if len(guests) > 1:
            raise UsageError("several guests are kept", hint=f"name one of {', '.join(guests)}")
        return next(iter(guests.values()))
    if name not in guests:
        raise make_unknown_name_error("kept guest", name, guests)
    return guests[name]


def end_kept_guest(guest: KeptGuest) -> None:
    """Have a keeper take its lane down, and wait until it has. Raises DeadlineExpired."""
    if not guest.is_there:
        return
    with suppress(psutil.NoSuchProcess):
        keeper = psutil.Process(guest.keeper)
        keeper.terminate()

        def has_ended() -> bool | None:
            # One whose parent has not noticed its end is a zombie.
            return None if keeper.is_running() and keeper.status() != psutil.STATUS_ZOMBIE else True

        wait_for(has_ended, Deadline(END_SECONDS, f"the end of {guest.name}"))


@dataclass(frozen=True)
class KeeperStart:
    """A keeper whose guest is not up yet.

    Its `messages` are its progress, and at the end the kept guest, or the error that there is none.
    """

    keeper: int
    messages: Connection

    def wait(self, show: ShowProgress) -> KeptGuest:
        """Wait until the guest is in the cell's state. Raises as `enter_guest` does; the keeper ends then."""
        try:
            with self.messages:
                while True:
                    message = self.messages.recv()
                    if isinstance(message, BaseException):
                        raise message
                    if isinstance(message, KeptGuest):
                        return message
                    show(message)
        except BaseException as error:
            os.kill(self.keeper, signal.SIGTERM)
            os.waitpid(self.keeper, 0)
            if isinstance(error, EOFError):
                raise LabError("the guest's keeper died before the guest was up") from None
            raise


class StarterToken(CancelToken):
    """Cancelled when the process that waits for a kept guest is gone. Once that has the guest, it never is."""

    def __init__(self, messages: Connection) -> None:
        super().__init__()
        self._messages = messages

    @property
    def is_cancelled(self) -> bool:
        if self._messages.closed:
            return False
        poller = select.poll()
        # Asked for nothing, it still reports an error: a pipe has one for its writer when nobody can read it.
        poller.register(self._messages, 0)
        return bool(poller.poll(0))

    def show(self, progress: Progress) -> None:
        """Tell the process what is being done, if it is still there."""
        with suppress(OSError):
            self._messages.send(progress)


def start_keeper(cell: Cell, paths: Paths, uri: str, *, own_rootfs: Path | None = None) -> KeeperStart:
    """Start a keeper. This process must have one thread, and no connection to libvirt."""
    receiving, sending = Pipe(duplex=False)
    keeper = os.fork()
    if keeper == 0:
        try:
            receiving.close()
            token = StarterToken(sending)
            task = Task(token.show, token.check)
            _keep(sending, enter_guest(cell, paths, uri, task, own_rootfs=own_rootfs), cell.name)
        finally:
            os._exit(0)  # It never returns to what started it.
    sending.close()
    return KeeperStart(keeper, receiving)


def _keep(messages: Connection, guest: AbstractContextManager[EnteredGuest], cell: str) -> None:
    """Bring a guest up, say so or why not, and hold it until its machine dies or this process is ended."""

    def end(_number: int, _frame: FrameType | None) -> None:
        # A second signal must not stop the taking down.
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    error: BaseException
    try:
        # Leave the terminal and the files of the process that started this one.
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        os.chdir("/")
        # What started it may ignore SIGINT, as nohup does. What it starts itself must not inherit that.
        for each in ENDING:
            signal.signal(each, end)
        with guest as ready_guest:
            folder = ready_guest.lane.folder
            mark = KeptGuest(
                cell=cell, since=datetime.now(UTC), keeper=os.getpid(), entrance=ready_guest.entrance
            )
            # The mark is written in one step. Only its owner may read it: it holds the key to the guest.
            write_atomically(folder / MARK, mark.model_dump_json() + "\n", mode=0o600)
            messages.send(mark)
            messages.close()
            while True:
                ready_guest.lane.check_alive()
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return
    except NotApplicable as reason:
        error = reason
    except LabError as fault:
        # Not as it is: not every kind of error can be sent.
        error = LabError(fault.args[0], hint=fault.hint)
        error.exit_status = fault.exit_status
    except BaseException:
        error = RuntimeError(f"the keeper failed:\n{traceback.format_exc()}")
    # Whoever started it has been told before that the guest is up, or has gone.
    with suppress(OSError):
        messages.send(error)
