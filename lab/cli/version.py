"""What `lab --version` prints: the version, and the commit that this lab was made from, if that is known."""

import json
import subprocess

import click

from lab import __version__
from lab.base.paths import APP, PACKAGE

# Seconds; git answers in less than one, and without it the version alone is printed.
GIT_LIMIT = 10


def print_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    """Print the version and end, if `--version` was given."""
    if asked and not context.resilient_parsing:
        commit = find_commit()
        click.echo(f"lab, version {__version__}{f' (commit {commit})' if commit else ''}")
        context.exit()


def find_commit() -> str:
    """Return the commit of the checkout, with `-dirty` if its files were changed, or that which pip installed.

    Empty if there is none, as in a release, or if git cannot tell it.
    """
    folder = PACKAGE.parent
    if not (folder / ".git").exists():
        return _installed_commit()
    # Without a name: a tag says what the version says.
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    # A monitor of files is a program that the checkout's configuration names.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *describe]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=GIT_LIMIT
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _installed_commit() -> str:
    """The commit in the record of an installation from a repository: direct_url.json, as PEP 610 has it."""
    from importlib import metadata  # Every command imports this module, and few ask for a commit.

    try:
        origin = json.loads(metadata.distribution(APP).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return ""
    return str(origin.get("vcs_info", {}).get("commit_id", ""))[:12]
