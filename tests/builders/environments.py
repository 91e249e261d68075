"""Environments of Python that have what this one has, but for what a test leaves out."""

import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

# What the extra `run` brings, with what only that needs.
EXTRA = ("libvirt-python", "paramiko", "fabric", "invoke", "pycdlib")


def make_environment(folder: Path, lacking: Iterable[str]) -> Path:
    """The Python of a new environment without these distributions; it has links to all others of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    left_out = {Path(str(file)).parts[0] for name in lacking for file in distribution(name).files or ()}
    for entry in Path(sysconfig.get_path("platlib")).iterdir():
        if entry.name not in left_out and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"
