"""Boxes that `box.mjs` starts under Node."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outside
from remedies import JAILER_OFF, PREFLIGHT, preflight

PROGRAM = Path(__file__).with_name("box.mjs")
MANIFEST = Path("/opt/lab/node_modules/@boxlite-ai/boxlite/package.json")
# Releases of 0.9 make the system that boots in a box from an image of a registry, even if `rootfsPath` is set.
NEEDS_REGISTRY = MANIFEST.exists() and json.loads(MANIFEST.read_text())["version"].startswith("0.9.")

Security = dict[str, bool] | None
# The names of boxlite's options in Python, by those in JavaScript.
NAMES = {"jailerEnabled": "jailer_enabled", "seccompEnabled": "seccomp_enabled"}
JAILED = {"jailerEnabled": True, "seccompEnabled": True}
UNJAILED = {"jailerEnabled": False, "seccompEnabled": False}
# How long Node may take to end after its box has stopped. The test's own limit is shorter.
END_SECONDS = 120


class BoxFailed(Exception):
    """What boxlite told the program."""


def run(step: str, **options: Any) -> list[dict[str, Any]]:
    """What `box.mjs` says, up to this step. Raises BoxFailed."""
    command = ["node", str(PROGRAM), step, json.dumps(options)]
    process = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if process.returncode != 0:
        raise BoxFailed(process.stderr.strip() or f"node ended with {process.returncode}")
    return [json.loads(line) for line in process.stdout.splitlines()]


def allowed(security: Security) -> Security:
    """Security options, unless a remedy that is being tried changes them."""
    if security == UNJAILED:
        return security
    if JAILER_OFF:
        return UNJAILED
    if PREFLIGHT:
        preflight()
    return security


@dataclass
class Boxes:
    """Starts boxes in one home. `record` keeps what was seen of them in the test's result."""

    home: Path
    rootfs: str
    registry: str | None
    record: Callable[[str, object], None]

    def create(self) -> str:
        """Create a box without any security options and return its ID."""
        *_, created = run("create", **self._options(None))
        return created["id"]

    @contextmanager
    def started(self, security: Security) -> Iterator[str]:
        """The ID of a box that runs and has run `echo`. What confines it is recorded at the end."""
        security = allowed(security)
        requested = {NAMES[name]: value for name, value in (security or {}).items()}
        command = ["node", str(PROGRAM), "start", json.dumps(self._options(security))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:
            try:
                steps = [json.loads(process.stdout.readline() or "null") for _ in range(3)]
                if steps[-1] is None:
                    error = process.communicate(timeout=END_SECONDS)[1].strip()
                    raise BoxFailed(error or f"node ended with {process.returncode}")
                assert steps[-1] == {"exitCode": 0, "output": "jailer-test"}
                yield steps[1]["id"]
                outside.record(self.record, self.home, steps[1]["id"], requested)
                error = process.communicate(timeout=END_SECONDS)[1].strip()
                assert process.returncode == 0, error
            finally:
                process.kill()

    def _options(self, security: Security) -> dict[str, Any]:
        return {
            "home": str(self.home),
            "rootfs": self.rootfs,
            "registry": self.registry,
            "security": security,
        }
