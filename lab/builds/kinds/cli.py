"""boxlite's command line program: one executable file. Its suite calls it as a user does."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lab.base import process
from lab.base.activity import Task
from lab.base.architecture import ARCHITECTURES
from lab.base.errors import UsageError
from lab.base.files import hash_file
from lab.base.paths import Paths
from lab.builds import elf, sandbox, wheels
from lab.builds._base import FILES
from lab.builds.pytest_tests import RUNNER, PytestTests
from lab.catalog import Suite, load_suite
from lab.probes import Facts

PROGRAM = "boxlite"
WHAT = "boxlite's command line program"
# All that the program prints of its version.
VERSION = re.compile(rf"{PROGRAM} (\d+\.\d+\.\d[\w.+-]*)\s*\Z", re.ASCII)
# For a program whose processor is not this host's.
UNKNOWN = "unknown"
NOT_ASKED = "the program is for another processor than this host's, so the lab did not ask it for its version"
# It may unpack a runtime first.
VERSION_SECONDS = 60.0


@dataclass(frozen=True)
class Cli(PytestTests):
    """The program in the local file `path`."""

    form = "cli:FILE"
    first_use = f'{FILES}/{PROGRAM} --home "$(mktemp -d)" list'

    path: Path
    suite: Suite = field(kw_only=True, hash=False, default_factory=lambda: load_suite("cli"))

    @classmethod
    def parse(cls, text: str) -> Self:
        path = Path(text).resolve()
        if not path.is_file():
            raise UsageError(f"{path}: expected {WHAT}: no such file")
        if not os.access(path, os.X_OK):
            raise UsageError(f"{path}: expected {WHAT}; it is not executable", hint=f"chmod a+x {path}")
        digest = hash_file(path)[:8]
        if elf.read_processor(path) in {arch.elf for arch in ARCHITECTURES.values() if not arch.is_hosts}:
            return cls(f"cli@{digest}", UNKNOWN, path)
        try:
            with sandbox.make_sandbox_folder() as folder:
                copy = shutil.copy(path, folder / path.name)
                printed = sandbox.run_in_sandbox(folder, [copy, "--version"], timeout=VERSION_SECONDS)
        except process.CommandFailed as error:
            raise UsageError(
                f"{path}: expected {WHAT}, which tells its version: {error}",
                hint="it must start on this host, too, in a sandbox with /usr and no home: check which glibc "
                "it needs",
            ) from error
        if not (version := VERSION.match(printed)):
            raise UsageError(f"{path}: expected {WHAT}, which tells its version; it said {printed[:80]!r}")
        return cls(f"cli-{version[1]}@{digest}", version[1], path)

    @property
    def argument(self) -> str:
        return f"cli:{self.path}"

    @property
    def remarks(self) -> Sequence[str]:
        return (NOT_ASKED,) if self.version == UNKNOWN else ()

    def fetch(self, paths: Paths, facts: Facts, task: Task) -> dict[str, Path]:
        """The program, and the wheels of pytest for whatever Python the guest has."""
        return {PROGRAM: self.path, **wheels.download_wheels(paths, RUNNER, facts.python, facts.arch, task)}

    @property
    def environment(self) -> Mapping[str, str]:
        return {**super().environment, "LAB_PROGRAM": f"{FILES}/{PROGRAM}"}
