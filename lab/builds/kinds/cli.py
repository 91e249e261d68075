"""boxlite's command line program: one executable file. Its suite calls it as a user does."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lab.base.errors import UsageError
from lab.base.files import sha256
from lab.base.paths import Paths
from lab.builds import sandbox, wheels
from lab.builds._base import FILES
from lab.builds.pytest_tests import RUNNER, PytestTests
from lab.catalog import Suite, load_suite
from lab.probes import Facts

PROGRAM = "boxlite"
WHAT = "boxlite's command line program"
# All that the program prints of its version.
VERSION = rf"{PROGRAM} (\d+\.\d+\.\d+[\w.+-]*)\s*\Z"


@dataclass(frozen=True)
class Cli(PytestTests):
    """The program in the local file `path`."""

    form = "cli:FILE"

    path: Path
    suite: Suite = field(kw_only=True, hash=False, default_factory=lambda: load_suite("cli"))

    @classmethod
    def parse(cls, text: str) -> Self:
        path = Path(text).resolve()
        if path.is_file() and not os.access(path, os.X_OK):
            raise UsageError(f"{path}: expected {WHAT}; it is not executable", hint=f"chmod a+x {path}")
        version = sandbox.ask_version(path, WHAT, VERSION, "--version")[1]
        return cls(f"cli-{version}@{sha256(path)[:8]}", version, path)

    @property
    def argument(self) -> str:
        return f"cli:{self.path}"

    def fetch(self, paths: Paths, facts: Facts, say: Callable[[str], None]) -> dict[str, Path]:
        """The program, and the wheels of pytest for whatever Python the guest has."""
        return {PROGRAM: self.path, **wheels.download(paths, RUNNER, facts.python, say)}

    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, "LAB_PROGRAM": f"{FILES}/{PROGRAM}"}

    @property
    def first_use(self) -> str:
        return f'{FILES}/{PROGRAM} --home "$(mktemp -d)" list'
