"""Boxes that the program `boxlite` starts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import outside
from remedies import JAILER_OFF, PREFLIGHT, preflight

# Long enough for a look at the box from outside, which takes part of a second under emulation.
PAUSE_SECONDS = 3
# How long the program may take to end after its box has. The test's own limit is shorter.
END_SECONDS = 120


class BoxliteFailed(Exception):
    """What the program printed of its failure."""


def boxlite(*words: str) -> str:
    """What the program prints to standard output. Raises BoxliteFailed."""
    command = [os.environ["LAB_PROGRAM"], *words]
    process = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if process.returncode != 0:
        raise BoxliteFailed(process.stderr.strip() or f"boxlite ended with {process.returncode}")
    return process.stdout.strip()


def needs_registry() -> bool:
    """Whether this release makes the system that boots in a box from a registry's image, as 0.9 does."""
    return boxlite("--version").startswith("boxlite 0.9.")


@dataclass
class Program:
    """The program with options that all commands have. `registry` is a HOST:PORT without encryption."""

    home: Path
    registry: str | None

    def options(self) -> list[str]:
        """Options for in front of a command."""
        options = ["--home", str(self.home)]
        if self.registry:
            # The option --registry is for registries with encryption.
            images = {"host": self.registry, "transport": "http", "search": True}
            config = self.home / "lab-config.json"
            config.write_text(json.dumps({"image_registries": [images]}))
            options += ["--config", str(config)]
        return options


def allowed(value: str | None) -> str | None:
    """A value of --security, unless a remedy that is being tried changes it. None: not given."""
    if value != "disable":
        if JAILER_OFF:
            return "disable"
        if PREFLIGHT:
            preflight()
    return value


def security(value: str | None) -> list[str]:
    """The option --security."""
    return [] if value is None else ["--security", value]


def requested(value: str | None) -> dict[str, bool]:
    """What that asks of boxlite, by the name of its option in Python."""
    return {} if value is None else {"jailer_enabled": value == "enable"}


@dataclass
class Boxes:
    """Starts boxes in one home. `record` keeps what was seen of them in the test's result."""

    program: Program
    home: Path
    rootfs: str
    record: Callable[[str, object], None]

    def create(self) -> str:
        """Create a box without any security options and return its ID."""
        return boxlite(*self.program.options(), "create", *self._small())

    def assert_runs(self, value: str | None) -> None:
        """Assert that `boxlite run` prints what a box prints. What confines it is recorded meanwhile."""
        value = allowed(value)
        says = ["sh", "-c", f"echo jailer-test; sleep {PAUSE_SECONDS}"]
        words = [*self.program.options(), "run", "--rm", *security(value), *self._small(), *says]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([os.environ["LAB_PROGRAM"], *words], text=True, **pipes) as process:
            try:
                printed = process.stdout.readline()
                if printed:
                    [folder] = (self.home / "boxes").iterdir()
                    outside.record(self.record, self.home, folder.name, requested(value))
                more, error = process.communicate(timeout=END_SECONDS)
            finally:
                process.kill()
        if process.returncode != 0:
            raise BoxliteFailed(error.strip() or f"boxlite ended with {process.returncode}")
        assert (printed + more).strip() == "jailer-test"

    @contextmanager
    def in_background(self, value: str) -> Iterator[str]:
        """The ID of a box that runs until the block ends. What confines it is recorded."""
        options = self.program.options()
        value = allowed(value)
        run = ["run", "--detach", *security(value), *self._small(), "sleep", "300"]
        box_id = boxlite(*options, *run)
        try:
            yield box_id
            outside.record(self.record, self.home, box_id, requested(value))
        finally:
            boxlite(*options, "rm", "--force", box_id)

    def _small(self) -> list[str]:
        return ["--cpus", "1", "--memory", "256", "--rootfs", self.rootfs]
