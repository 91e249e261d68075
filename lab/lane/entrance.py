"""The way into a guest that is in the state of a cell: command lines of OpenSSH's client."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lab.base.speed import Speed
from lab.builds import SuiteOptions
from lab.guest import suite, variant
from lab.guest.session import ADMIN, User
from lab.machine.lane import Endpoint
from lab.plan import Cell

Who = Literal["tester", "root"]
SUITE_USER: Who = "tester"

# The lane's own files, beside its overlay.
KEY, KNOWN_HOSTS = "key", "known_hosts"


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

    def command(self, words: Sequence[str], *, user: Who = SUITE_USER, stdin: bool = False) -> list[str]:
        """Run a command and give its exit status, 128 + N if signal N ended it.

        `root` is not confined as the tests are. Without `stdin` the command's standard input is empty.
        """
        state = self.state_with_stdin if stdin else self.state
        return self._ssh([] if stdin else ["-n"], state, shlex.join(words), user)

    def shell(self, *, user: Who = SUITE_USER, terminal: bool = True) -> list[str]:
        """A shell that gives its exit status. Without a terminal it reads its commands from standard input."""
        if not terminal:
            return self._ssh([], self.state_with_stdin, "bash", user)
        if user == "root":
            return self._ssh(["-t"], self.state, "bash -i", user)
        # The variable is gone before the first command is typed: what that starts does not see it.
        first = f"history -s {shlex.quote(self.one_test)}; history -s {shlex.quote(self.suite)}"
        variable = f"PROMPT_COMMAND={shlex.quote(f'{first}; unset PROMPT_COMMAND')}"
        return self._ssh(["-t"], self.state, f"env {variable} bash -i", user)

    def logs_in_as(self, user: Who) -> tuple[User, bool]:
        """Who logs in to become this user, and whether that is by sudo."""
        return (ADMIN, True) if user == "root" else (self.tests_login, self.tests_login == ADMIN)

    def _ssh(self, options: Sequence[str], state: str, command: str, user: Who) -> list[str]:
        settings = {
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.folder / KNOWN_HOSTS),
            "GlobalKnownHostsFile": os.devnull,
            "LogLevel": "ERROR",
        }
        words = ["ssh", *options, "-F", os.devnull, "-i", str(self.folder / KEY), "-p", str(self.endpoint.port)]
        words += [word for item in settings.items() for word in ("-o", "=".join(item))]
        login, as_root = self.logs_in_as(user)
        before = f"cd {self.working_folder} && exec" if user == "root" else state
        # A shell waits for the command, because ssh does not tell which signal ended it; the shell's own words
        # about that are dropped.
        waiting = f"exec 3>&2 2>/dev/null; (exec 2>&3 3>&-; {before} {command}); exit $?"
        remote = f"sudo -n -H sh -c {shlex.quote(waiting)}" if as_root else waiting
        return [*words, f"{login}@{self.endpoint.host}", remote]


def make(endpoint: Endpoint, folder: Path, cell: Cell, *, speed: Speed) -> Entrance:
    """The entrance of a lane's guest that is in the cell's state; its key is written to the lane's folder."""
    key = folder / KEY
    key.touch(0o600)
    key.write_text(endpoint.client_key.private)
    known = f"[{endpoint.host}]:{endpoint.port} {endpoint.host_key.public}\n"
    (folder / KNOWN_HOSTS).write_text(known)
    build, wanted = cell.build, cell.variant
    one = SuiteOptions(tests=build.suite.telling[:1])
    return Entrance(
        endpoint=endpoint,
        folder=folder,
        speed=speed,
        tests_login=variant.login(wanted),
        state=suite.in_state_of_tests(build, wanted, "").rstrip(),
        state_with_stdin=suite.in_state_of_tests(build, wanted, "", stdin=True).rstrip(),
        working_folder=build.working_folder,
        suite=suite.command(build, wanted, speed=speed),
        one_test=suite.command(build, wanted, speed=speed, options=one),
    )
