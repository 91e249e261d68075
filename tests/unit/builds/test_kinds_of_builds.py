"""A second kind of build is one new file: it is found, planned, deployed, run and recorded like a wheel."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lab import builds, catalog, plan
from lab.base import process
from lab.base.activity import UNWATCHED
from lab.base.errors import UsageError
from lab.base.files import hash_file
from lab.base.paths import PACKAGE, Paths
from lab.base.wait import ORDINARY
from lab.builds import Build, SuiteOptions, kinds, pytest_tests
from lab.builds.kinds.wheel import Wheel
from lab.catalog import loading
from lab.guest import deploy
from lab.guest import suite as guest_suite
from lab.guest.programs import RemoteFailed
from lab.guest.session import ADMIN, SUITE, Output, User, WriteInput
from lab.guest.suite import SuiteBroken
from lab.plan import Cell
from lab.record import BuildRecord, Outcome, RunOptions, TestResult
from lab.run import start
from tests.builders.facts import executable, facts
from tests.builders.lanes import FakeSession
from tests.conftest import Mount
from tests.unit.test_docs import example

KNOWN = catalog.load_catalog()
STOCK = KNOWN.variant("stock")

# The guide's example: a program without Python, whose suite is a shell script.
MODULE = example("adding-a-build.md", "lab/builds/kinds/program.py")
SUITE_FILES = {
    name: example("adding-a-build.md", f"lab/suites/box/{name}") for name in ("suite.toml", "run.sh")
}

# The program under test. It notes how it was called.
PROGRAM = """#!/bin/sh
echo "$1 $(pwd) $LAB_ROOTFS $EXTRA" >>"${0%/*}/calls"
case $1 in
    warm-up) exit 7 ;;
    isolates)
        [ "$EXTRA" != crash ] || kill -USR1 "$PPID"
        [ "$EXTRA" != hang ] || exec sleep 60
        echo "no namespace"
        exit 1
        ;;
esac
"""


class Guest(FakeSession):
    """A guest that runs each command on this host, with a folder in the place of its root."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.calls: list[tuple[str, User, bool]] = []

    def here(self, text: str) -> str:
        for folder in ("/opt/", "/home/tester"):
            text = text.replace(folder, f"{self.root}{folder}")
        for words in ("sudo -n ", " -o lab", " -o tester"):
            text = text.replace(words, " " if words.startswith(" ") else "")
        return text.replace("zstd", f"{self.root}/zstd")

    def run(
        self,
        command: str,
        *,
        seconds: float,
        user: User = ADMIN,
        check: bool = True,
        name: str = "",
        write_input: WriteInput | None = None,
    ) -> Output:
        self.calls.append((command, user, check))
        stream = BytesIO()
        if write_input:
            write_input(stream)
        done = subprocess.run(
            ["sh", "-c", self.here(command)],
            input=stream.getvalue(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        printed, errors = done.stdout.decode(), done.stderr.decode()
        if check and done.returncode:
            raise RemoteFailed(f"{command}: {printed}{errors}")
        return Output(done.returncode, printed, errors)


def put(guest: Guest, build: Build, files: Mapping[str, Path], rootfs: Path) -> None:
    deploy.deploy_build(guest, build, files, rootfs=rootfs, python="3.13", show=UNWATCHED.show)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the new kind's suite; the lab has the kind and the suite."""
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "program.py").write_text(MODULE)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path / "kinds")])
    monkeypatch.delitem(sys.modules, f"{kinds.__name__}.program", raising=False)
    shutil.copytree(PACKAGE / "suites", tmp_path / "suites")
    monkeypatch.setattr(loading, "PACKAGE", tmp_path)
    monkeypatch.setattr(catalog.definitions, "PACKAGE", tmp_path)
    loading.load_catalog.cache_clear()
    folder = tmp_path / "suites" / "box"
    folder.mkdir()
    for name, text in SUITE_FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return executable(tmp_path / "boxlite", PROGRAM)


# The program of a guest that has it.
ZSTD = f"""#!{sys.executable}
import sys, zstandard
zstandard.ZstdDecompressor().copy_stream(sys.stdin.buffer, sys.stdout.buffer)
"""


@pytest.fixture
def build(box: Path, program: Path) -> Build:
    return builds.resolve_build(f"program:{program}")


@pytest.fixture
def guest(tmp_path: Path) -> Any:
    (tmp_path / "guest").mkdir()
    executable(tmp_path / "guest" / "zstd", ZSTD)
    return Guest(tmp_path / "guest")


@pytest.fixture
def deployed(build: Build, guest: Any, paths: Paths, tmp_path: Path) -> Any:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs" / "index.json").write_text("{}")
    files = build.fetch(paths, facts(), UNWATCHED)
    put(guest, build, files, tmp_path / "rootfs")
    return guest


def test_it_is_named_planned_and_recorded_as_a_wheel_is(build: Build, program: Path) -> None:
    assert set(builds.known_kinds()) == {
        *("checkout", "cli", "nextest", "npm", "program", "test-binary", "wheel")
    }
    argument = f"program:{program}"
    assert build.name == f"program@{hash_file(program)[:8]}"
    assert build.argument == argument
    assert builds.resolve_builds(["0.10.8", argument, argument]) == [Wheel("0.10.8", "0.10.8"), build]
    assert builds.resolve_build("wheel:0.10.8") == Wheel("0.10.8", "0.10.8")
    assert builds.describe_forms().startswith(f"{Wheel.form}, or ")
    assert "program:FILE" in builds.describe_forms().split(", or ")
    # Its cells are planned and run again by its own argument, and its suite is among a run's definitions.
    [cell] = plan.choose_cells(KNOWN, guests=["debian-13"], variants=["stock"]).cells([build])
    assert cell.folder == Path("cells", "debian-13", "stock", build.name)
    assert cell.suite.witness == "isolates"
    assert f" --build {argument} " in cell.rerun(RunOptions())
    cells = [cell, Cell(cell.guest, cell.variant, Wheel("0.10.8", "0.10.8"))]
    assert {"suite box", "suite jailer"} <= start.compute_digests(cells, RunOptions()).keys()
    # A run records it and takes it up again.
    record = build.record({"bin/program": program})
    assert (record.source, record.files) == (argument, {"bin/program": hash_file(program)})
    assert builds.format_argument(record) == argument
    assert builds.resolve_recorded_builds([record], [argument]) == {build.name: build}
    program.write_text("other")
    with pytest.raises(UsageError, match=f"--build {argument} is program@.*, and the run has {build.name}"):
        builds.resolve_recorded_builds([record], [argument])


def test_what_it_cannot_be_made_of_is_wrong_usage(box: Path) -> None:
    with pytest.raises(UsageError, match="--build program:none: no such file"):
        builds.resolve_build("program:none")
    with pytest.raises(UsageError, match=r"no kind of build is called 'programme'\n.*did you mean program\?"):
        builds.resolve_build("programme:x")


@pytest.mark.parametrize(
    ("source", "version"),
    [
        ("cli:FILE", "0.10.8"),
        ("nextest:FILE", "0.10.8"),
        ("checkout:DIR", "0123456789ab"),
        ("npm:FILE", "0.10.8"),
        # A release is what its version says.
        ("PyPI", "cli:FILE"),
    ],
)
def test_no_program_of_this_host_is_executed_because_a_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, version: str
) -> None:
    def run(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a program was executed")

    monkeypatch.setattr(process, "run_command", run)
    monkeypatch.setattr(subprocess, "Popen", run)
    file = tmp_path / "file with a space"
    shutil.copy("/bin/true", file)
    source, version = (
        text.replace("FILE", str(file)).replace("DIR", str(tmp_path)) for text in (source, version)
    )
    record = BuildRecord(name="x", version=version, source=source)
    with pytest.raises(UsageError, match="runs programs of this host") as refused:
        builds.resolve_recorded_builds([record], again="lab matrix --resume run")
    # A release needs no naming.
    release = BuildRecord(name="npm-0.10.0", version="0.10.0", source="npm:0.10.0")
    assert list(builds.resolve_recorded_builds([release])) == ["npm-0.10.0"]
    words = shlex.split(str(refused.value.hint).partition(": ")[2])
    assert words == ["lab", "matrix", "--resume", "run", f"--build={builds.format_argument(record)}"]


def test_its_own_steps_deploy_it_and_a_shell_sees_what_its_tests_see(build: Build, deployed: Any) -> None:
    root = deployed.root
    assert (root / "opt" / "program" / "program").read_text() == PROGRAM
    assert (root / "opt" / "program" / "calls").read_text().startswith("warm-up ")
    assert (root / "opt" / "lab" / "suites" / "box" / "run.sh").read_text() == SUITE_FILES["run.sh"]
    assert (root / "opt" / "lab" / "rootfs" / "index.json").exists()
    # The warm-up failed, which is for the suite to find out.
    assert deployed.calls[-1] == ("/opt/program/program warm-up", SUITE, False)
    command = guest_suite.wrap_command(build, STOCK, "sh -c 'pwd; echo $PROGRAM $LAB_ROOTFS'")
    places = [f"{root}/opt/{name}" for name in ("program", "program/program", "lab/rootfs")]
    assert deployed.run(command, seconds=5).stdout.split() == places


@pytest.mark.parametrize("program", ["zstd", "gzip"])
def test_a_guest_unpacks_a_build_with_the_program_that_it_has(guest: Any, tmp_path: Path, program: str) -> None:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    if program == "gzip":
        (guest.root / "zstd").unlink()
    deploy.send_files(guest, {"build/file": tmp_path / "file"})
    assert (guest.root / "opt" / "lab" / "build" / "file").read_bytes() == bytes(3_000_000)
    assert f"{program} -dc" in guest.calls[-1][0]


def test_a_build_that_does_not_fit_says_so(guest: Any, tmp_path: Path, mount: Mount) -> None:
    mount(guest.root / "opt" / "lab", "size=1m")
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    with pytest.raises(RemoteFailed, match=r"1\.0M +1\.0M +0 +100%") as failed:
        deploy.send_files(guest, {"file": tmp_path / "file"})
    assert (
        failed.value.hint == "if the guest's disk is full, raise disk_gib in its definition: this takes 3 MiB"
    )


def test_suites_share_files(build: Build, box: Path, guest: Any, paths: Paths, tmp_path: Path) -> None:
    (box / "suite.toml").write_text('shared = ["registry.py"]\n' + SUITE_FILES["suite.toml"])
    sharing = replace(build, suite=catalog.load_suite("box"))
    (tmp_path / "index.json").write_text("{}")
    identity = deploy.compute_deploy_digest(sharing, tmp_path)
    (tmp_path / "rootfs").mkdir()
    put(guest, sharing, sharing.fetch(paths, facts(), UNWATCHED), tmp_path / "rootfs")
    suite = guest.root / "opt" / "lab" / "suites" / "box"
    assert sorted(file.name for file in suite.iterdir()) == ["registry.py", "run.sh", "suite.toml"]
    # A stored state does not outlive a change of what is shared.
    with (tmp_path / "suites" / "_shared" / "registry.py").open("a") as stream:
        stream.write("# changed")
    assert deploy.compute_deploy_digest(sharing, tmp_path) != identity


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ("no.py", "expected the name of a file in .*, found 'no.py'"),
        ("run.sh", "has a file 'run.sh' of its own"),
    ],
)
def test_a_shared_file_that_cannot_be_deployed_is_refused(box: Path, shared: str, expected: str) -> None:
    (box.parent / "_shared" / "run.sh").touch()
    (box / "suite.toml").write_text(f"shared = [{shared!r}]\n" + SUITE_FILES["suite.toml"])
    with pytest.raises(UsageError, match=expected):
        catalog.load_suite("box")


@pytest.mark.parametrize(
    ("extra", "cut_short", "failure"),
    [
        ("", "", "no namespace"),
        ("hang", "was killed at its time limit of 3 s", "was running when the suite CUT"),
        ("crash", "was ended by SIGUSR1 (exit status 138)", "was running when the suite CUT"),
    ],
)
def test_its_suite_runs_in_its_folder_and_its_report_is_read_however_it_ends(
    build: Build, deployed: Any, extra: str, cut_short: str, failure: str
) -> None:
    options = SuiteOptions({"EXTRA": extra} if extra else {})
    ran = guest_suite.execute_suite(deployed, build, STOCK, speed=ORDINARY, options=options)
    assert ran.cut_short == cut_short
    late = extra == "hang"
    message = failure.replace("CUT", cut_short)
    assert ran.tests == [
        TestResult(name="starts", outcome=Outcome.PASS, subject="start"),
        TestResult(name="isolates", outcome=Outcome.FAIL, message=message, subject="start", out_of_time=late),
        TestResult(name="stops", outcome=Outcome.NOT_RUN if cut_short else Outcome.PASS, subject="start"),
    ]
    calls = (deployed.root / "opt" / "program" / "calls").read_text().splitlines()
    opt = f"{deployed.root}/opt"
    assert calls[1].rstrip() == f"starts {opt}/program {opt}/lab/rootfs {extra}".rstrip()


def test_every_kind_takes_a_suite_s_options_and_no_test_is_a_fault(build: Build, deployed: Any) -> None:
    options = SuiteOptions({"EXTRA": "a b"}, to_first_failure=True, tests=["isolates", "stops"])
    ran = guest_suite.execute_suite(deployed, build, STOCK, speed=ORDINARY, options=options)
    outcomes = {test.name: test.outcome for test in ran.tests}
    assert outcomes == {"isolates": Outcome.FAIL, "stops": Outcome.NOT_RUN}
    assert (deployed.root / "opt" / "program" / "calls").read_text().endswith("rootfs a b\n")
    # Whatever an earlier run reported.
    (deployed.root / "opt" / "lab" / "suites" / "box" / "run.sh").write_text("echo 'no such runner'; exit 3")
    with pytest.raises(SuiteBroken, match=r"it ended with exit status 3\nno such runner"):
        guest_suite.execute_suite(deployed, build, STOCK, speed=ORDINARY)


def test_a_stored_state_is_of_one_deployment(
    build: Build, box: Path, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "index.json").write_text("{}")
    seen = {deploy.compute_deploy_digest(build, layout)}
    seen.add(deploy.compute_deploy_digest(replace(build, version="2"), layout))
    seen.add(deploy.compute_deploy_digest(replace(build, suite=KNOWN.suite), layout))
    (box / "run.sh").write_text("exit")
    seen.add(deploy.compute_deploy_digest(build, layout))
    (layout / "index.json").write_text("[]")
    seen.add(deploy.compute_deploy_digest(build, layout))
    program.write_text("other")
    seen.add(deploy.compute_deploy_digest(builds.resolve_build(f"program:{program}"), layout))
    assert len(seen) == 6
    # And of one runner of the tests.
    before = deploy.compute_deploy_digest(Wheel("0.10.8", "0.10.8"), layout)
    assert deploy.compute_deploy_digest(Wheel("0.10.8", "0.10.8"), layout) == before
    monkeypatch.setattr(pytest_tests, "RUNNER", ("pytest", "pytest-timeout"))
    assert deploy.compute_deploy_digest(Wheel("0.10.8", "0.10.8"), layout) != before
