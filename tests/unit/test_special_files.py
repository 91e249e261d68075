"""A pipe, a device or a folder where a file is expected: every reader says so, and none waits for it."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import catalog
from lab.base.errors import LabError, UsageError
from lab.builds import rootfs
from lab.catalog import load_pins, toml
from lab.causes import evidence
from lab.cli.repro import read_content
from lab.fleet import inventory
from lab.gate import baseline, expectations
from lab.report.site import page, publish
from lab.verdict import words
from tests.builders.runs import KNOWN
from tests.unit.catalog.test_catalog import SET, SET_FILE, VARIANT, VARIANT_FILE
from tests.unit.cli.test_gate import entry
from tests.unit.gate.test_compare import RESULTS

# A reader that waits for a pipe is ended, and has failed.
pytestmark = pytest.mark.timeout(60)
KINDS = ["pipe", "device", "folder", "link to a pipe"]


def put(kind: str, path: Path) -> Path:
    """Put something at a path that is no regular file. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(path.with_name("pipe"))
            path.symlink_to("pipe")
    return path


def load_definitions(file: Path) -> None:
    """Load definitions in which the only guest is this file."""
    root = file.parents[1]
    for name, text in ((VARIANT_FILE, VARIANT), (SET_FILE, SET)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    catalog.load_catalog(root)


# Where the file is, and what reads it.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a guest's definition": ("images/debian-13.toml", load_definitions),
    "a variant of a run": ("variants/report.toml", lambda file: KNOWN.with_variants(file.parent)),
    "pins": ("pins.toml", load_pins),
    "an inventory": ("hosts.toml", inventory.load_inventory),
    "expectations": ("expected.toml", expectations.read_expectations),
    "expectations to rewrite": ("expected.toml", lambda file: expectations.rewrite_expectations(file, [])),
    "a baseline": ("baseline.toml", baseline.read),
    "a baseline to replace": ("baseline.toml", lambda file: baseline.write_baseline(RESULTS, file)),
    "the index of a root file system": ("index.json", lambda file: rootfs.read_index(file.parent)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_says_that_it_is_no_regular_file(tmp_path: Path, name: str, kind: str) -> None:
    place, read = READERS[name]
    file = put(kind, tmp_path / place)
    with pytest.raises(UsageError, match="this is not a regular file") as refused:
        read(file)
    assert str(file) in str(refused.value)


def test_so_much_of_a_definition_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "expected.toml"
    file.write_text(entry())
    monkeypatch.setattr(toml, "MOST_BYTES", file.stat().st_size)
    assert expectations.read_expectations(file).expect
    file.write_text(f"{entry()}#")
    with pytest.raises(UsageError, match=r"expected\.toml: larger than .* MiB, the most that the lab reads"):
        expectations.read_expectations(file)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "expected.toml"
    file.write_bytes(entry().encode() + b"# \xff\n")
    for read in (expectations.read_expectations, lambda at: expectations.rewrite_expectations(at, [])):
        with pytest.raises(UsageError, match=r"expected\.toml: not valid TOML: 'utf-8' codec can't decode"):
            read(file)


def test_a_file_with_line_ends_of_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "expected.toml"
    file.write_bytes(entry().replace("\n", "\r\n").encode())
    assert len(expectations.read_expectations(file).expect) == 1
    assert expectations.rewrite_expectations(file, []).old == entry()


def test_a_report_may_come_from_a_pipe(tmp_path: Path) -> None:
    # As `lab repro <(gh issue view 1)` gives it.
    os.mkfifo(tmp_path / "report")
    with ThreadPoolExecutor() as threads:
        threads.submit((tmp_path / "report").write_bytes, b"a report")
        assert read_content(str(tmp_path / "report")) == b"a report"


# -- what took the place of a run's file after it was looked at


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of evidence was a regular one when it was looked at."""
    monkeypatch.setattr(evidence, "explain_unreadable", lambda *_: "")


LOG = "boxlite/home/logs/boxlite.log"


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_evidence_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    put(kind, tmp_path / evidence.KERNEL_FILE)
    with pytest.raises(LabError, match=r"kernel\.log is not read: this is not a regular file"):
        evidence.read_evidence_text(tmp_path, evidence.KERNEL_FILE)
    put(kind, tmp_path / LOG)
    with pytest.raises(OSError, match="not a regular file"):
        words.read(tmp_path, [])
    with pytest.raises(OSError, match="not a regular file"):
        evidence.read_beginning(tmp_path / LOG)


def test_so_much_of_a_file_of_evidence_is_read(tmp_path: Path) -> None:
    (tmp_path / evidence.KERNEL_FILE).write_text("x" * 10)
    assert evidence.read_evidence_text(tmp_path, evidence.KERNEL_FILE, most=10) == "x" * 10
    with pytest.raises(LabError, match=r"kernel\.log is not read: larger than"):
        evidence.read_evidence_text(tmp_path, evidence.KERNEL_FILE, most=9)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_site_copies_no_pipe_and_follows_no_link(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "kernel.log"
    (tmp_path / "secret").write_text("secret")
    put("pipe", source) if kind == "pipe" else source.symlink_to("secret")
    shown = publish.render_output(lambda _: "", page.Copy("kernel.log.txt", source, 100, "kernel.log"))
    assert shown.startswith(b"could not be shown: OSError: ")
