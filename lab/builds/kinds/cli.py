"""boxlite's command line program: one executable file. Its suite calls it as a user does."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lab.base import process
from lab.base.errors import UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds import elf, sandbox
from lab.builds._base import FILES
from lab.builds.pytest_tests import PytestTests, runner
from lab.catalog import Suite, load_suite
from lab.probes import Facts

PROGRAM = "boxlite"
# What the program prints of its version.
SAID = re.compile(rf"{PROGRAM} (\d+\.\d+\.\d+[\w.+-]*)", re.ASCII)
# It may unpack its runtime first.
SECONDS = 60.0


@dataclass(frozen=True)
class Cli(PytestTests):
    """The program in the local file `path`."""

    form = "cli:FILE"

    path: Path
    suite: Suite = field(kw_only=True, hash=False, default_factory=lambda: load_suite("cli"))

    @classmethod
    def parse(cls, text: str) -> Self:
        path = Path(text).resolve()
        what = "boxlite's command line program"
        if not path.is_file():
            raise UsageError(f"--build cli:{text}: no such file", hint=f"name {what}: ~/.local/bin/boxlite")
        elf.check_program(path, what)
        if not os.access(path, os.X_OK):
            raise UsageError(f"{path}: expected {what}; it is not executable", hint=f"chmod a+x {path}")
        try:
            printed = sandbox.ask(path, "--version", timeout=SECONDS).strip()
        except process.CommandFailed as error:
            raise UsageError(
                f"{path}: expected {what}, which tells its version: {error}",
                hint="it has to start on this host, too, in a sandbox with /usr and no home: is its glibc new "
                "enough?",
            ) from error
        version = SAID.fullmatch(printed)
        if version is None:
            raise UsageError(
                f"{path}: expected {what}, which says `{PROGRAM} VERSION`; it said {printed[:80]!r}"
            )
        return cls(f"cli-{version[1]}@{sha256(path)[:8]}", version[1], path)

    @property
    def argument(self) -> str:
        return f"cli:{self.path}"

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        """The program, and the wheels of pytest for whatever Python the guest has."""
        return {PROGRAM: self.path, **{wheel.name: wheel for wheel in runner(paths, facts.python, say)}}

    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, "LAB_PROGRAM": f"{FILES}/{PROGRAM}"}

    @property
    def first_use(self) -> str:
        return f'{FILES}/{PROGRAM} --home "$(mktemp -d)" list'
