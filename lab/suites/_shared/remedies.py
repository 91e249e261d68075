"""Two remedies change how boxlite is run: with the jailer off, or with a preflight before each jailed box."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

JAILER_OFF = os.environ.get("LAB_JAILER") == "off"
PREFLIGHT = "LAB_PREFLIGHT" in os.environ


def preflight() -> None:
    """Skip the test if bubblewrap cannot create a user namespace, judged by the same probe as boxlite's own."""
    bundled = Path.home().glob(".local/share/boxlite/runtimes/*/bwrap")
    program = shutil.which("bwrap") or str(next(bundled, "bwrap"))
    probe = subprocess.run(
        [program, "--unshare-user", "--ro-bind", "/", "/", "--", "true"], capture_output=True, text=True
    )
    if probe.returncode != 0:
        pytest.skip(f"bubblewrap can make no user namespace on this host: {probe.stderr.strip()}")
