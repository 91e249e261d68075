"""What is left out unless it is asked for, small disks, and the browser on a site of records or a real run."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.base.first_process import leave_first_process

if TYPE_CHECKING:  # Tests that need no browser do not wait for its driver.
    from playwright.sync_api import Browser

    from tests.browser.chromium import Visit

# Tests call the lab's own program, which would otherwise leave the tests in the middle of one.
leave_first_process()
# Tests that a shell put into the background ignore it, and the labs that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The marks of tests that take too long for each change. `-m MARK` asks for one of them, `--all` for all.
TOO_LONG = (
    "slow",
    "bare",
    "every_guest",
    "twins",
    "host_guest",
    "runner",
    "rust",
    "program_and_npm",
    "lifecycle",
    "several_hosts",
    "busy",
    "arm64",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run what takes too long for each change, too")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes too long, unless it is asked for."""
    marks = [] if config.option.all else [mark for mark in TOO_LONG if mark not in config.option.markexpr]
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in marks)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


Mount = Callable[[Path, str], Path]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a small file system at a new folder, with options of tmpfs, until the end of the test."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folders: list[Path] = []

    def make(folder: Path, options: str) -> Path:
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        folders.append(folder)
        return folder

    yield make
    for folder in folders:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


Visiting = Callable[..., "Visit"]


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """The distribution's own Chromium, started once."""
    from tests.browser import chromium

    with chromium.running() as started:
        yield started


@pytest.fixture
def visit(browser: "Browser", site: Path) -> Iterator[Visiting]:
    """Open tabs on the site. At the end of the test none of them may have met an error or left the folder."""
    from tests.browser.chromium import Visit

    opened: list[Visit] = []

    def start(**options: Any) -> Visit:
        opened.append(Visit(browser, site, options))
        return opened[-1]

    yield start
    for page in opened:
        page.close()
    for page in opened:
        page.check()
