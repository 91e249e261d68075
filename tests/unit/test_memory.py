"""Bad data of others costs little memory, and whatever is no regular file is refused at once."""

import gzip
import io
import json
import multiprocessing
import os
import re
import resource
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lab.base import files
from lab.base.activity import Activity
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds.kinds import nextest, npm
from lab.builds.pytest_tests import read_reportlog
from lab.catalog import load_pins
from lab.causes import evidence
from lab.check import published
from lab.fleet import results
from lab.gate import baseline
from lab.guest import programs, ready
from lab.guest.remedy_script import ScriptRuns
from lab.images import store
from lab.lane import shell
from lab.machine import acceleration, leftovers, states
from lab.probes import Facts, ProbedUser, script, show
from lab.probes import report as probe_report
from lab.record import (
    DECIDED_FILE,
    RESULTS_FILE,
    CellResult,
    Experiment,
    ExperimentTrial,
    LaneStep,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    RunResult,
    Status,
    TestRate,
    TestResult,
    TrialOutcome,
    format_continuation,
)
from lab.record.run import MOST_BYTES
from lab.report.site.model import read_history
from lab.repro import source
from tests.builders.cells import blocked, box
from tests.builders.facts import facts
from tests.builders.lanes import FakeSession, prints
from tests.builders.runs import SMALL, run_of
from tests.unit.record.test_results import full_run

# The most that a reader may add to what its process takes.
MOST_MIB = 200
# Beyond these a reader of a broken lab is ended.
GUARD_BYTES, LIMIT_SECONDS = 2 << 30, 100.0
MB = 1_000_000

Files = Mapping[str, bytes]


def many(element: str, size: int, *, each: int = 0) -> str:
    """A list of so many bytes in which each element is the same, padded with spaces to `each` bytes."""
    padded = f"{element},".ljust(each)
    return f"[{padded * (size // len(padded))}{element}]"


def keys(count: int, value: str = "1") -> str:
    """An object of so many keys. They have spaces between them, as many as JSON of any size may have."""
    return f"{{{','.join(f'"{number:06x}":{value}      ' for number in range(count))}}}"


def record(**values: str) -> bytes:
    """A `results.json` in which some texts of JSON stand for what the keys have, for example `cells`."""
    tree = json.loads(full_run().model_dump_json(by_alias=True))
    for name in values:
        at = tree
        *path, last = name.split("__")
        for key in path:
            at = at[int(key) if key.isdecimal() else key]
        at[int(last) if last.isdecimal() else last] = f"\0{name}"
    text = json.dumps(tree)
    for name, value in values.items():
        text = text.replace(json.dumps(f"\0{name}"), value)
    return text.encode()


def ended(end: bytes) -> Files:
    """The files of a part with a good record of its cells; `end` says how it ended."""
    record = run_of(*(cell.result(Status.NOT_RUN) for cell in SMALL))
    return {RESULTS_FILE: record.model_dump_json(by_alias=True).encode(), results.END_FILE: end}


def part(files: Files, **header: Any) -> Files:
    """The archive of a part; `header` adds a member of a kind of its own."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in header.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(content))
    return {"part": zstandard.compress(packed.getvalue())}


def package(text: str) -> Files:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    return {"boxlite.tgz": gzip.compress(packed.getvalue())}


def output_of_probe(document: str) -> str:
    begin = f"===== {script.BEGIN} {show.VERSION} ====="
    end = f"===== {script.END} {show.VERSION}: {len(document)} characters ====="
    return f"{begin}\n{document}\n{end}\n"


def _answered(program: str, kind: Any) -> Callable[[Path], object]:
    """Reads what a program in a guest printed, as an agent sends it."""

    def read(folder: Path) -> object:
        answer = programs.ProgramReply([(program, {})])
        answer.take((folder / "answer").read_bytes())
        return programs.check_reply(program, kind, answer.results[0])

    return read


def _over_ssh(folder: Path) -> object:
    """Reads what a program printed, without an agent."""
    return FakeSession(prints((folder / "answer").read_text())).program("facts", {}, seconds=1)


def _cloud_init(folder: Path) -> None:
    session = FakeSession(prints((folder / "answer").read_text()))
    ready.wait_ready(session, lambda: True, cloud_init=True)


def _report_of_suite(read: Callable[[str], object]) -> Callable[[Path], object]:
    return lambda folder: read((folder / "report").read_text())


def _definition(folder: Path) -> object:
    return load_pins(folder / "pins.toml")


def _part(folder: Path) -> object:
    cells, builds = [cell.folder for cell in SMALL], [cell.build.name for cell in SMALL]
    return results.unpack_part((folder / "part").read_bytes(), folder / "to", cells, builds)


def _acceleration(folder: Path) -> object:
    return acceleration.read_verdict(Paths(folder, folder))


def _site(folder: Path) -> object:
    return published.load_published([str(folder)], folder)


def _npm(folder: Path) -> object:
    return npm.read_manifest(folder / "boxlite.tgz")


LONG_NAME = tarfile.GNUTYPE_LONGNAME
METADATA = "target/nextest/cargo-metadata.json"


@dataclass(frozen=True)
class Bad:
    """Files of others, what reads them, and the error that it raises; no error: it returns None."""

    name: str
    files: Callable[[], Files]
    read: Callable[[Path], object]
    error: str = ""


def _decided(name: str, lines: Callable[[], str], error: str) -> Bad:
    content = full_run().model_dump_json(by_alias=True, indent=2).encode()

    def files() -> Files:
        return {RESULTS_FILE: content, DECIDED_FILE: format_continuation(content) + lines().encode()}

    return Bad(f"{DECIDED_FILE}: {name}", files, RunResult.read, error)


def _results(name: str, content: Callable[[], bytes], error: str) -> Bad:
    return Bad(f"{RESULTS_FILE}: {name}", lambda: {RESULTS_FILE: content()}, RunResult.read, error)


def _file(
    path: str, name: str, text: Callable[[], str], read: Callable[[Path], object], error: str = ""
) -> Bad:
    return Bad(f"{Path(path).name}: {name}", lambda: {path: text().encode()}, read, error)


def _answer(name: str, text: Callable[[], str], error: str, program: str = "facts", kind: Any = Facts) -> Bad:
    read = _answered(program, kind)
    return _file("answer", f"{name} of a guest", lambda: f'{{"results":[{text()}]}}', read, error)


def _known(folder: Path) -> object:
    return states.StoredState(folder).info()


def _issue(folder: Path) -> object:
    return source.read_lines((folder / "text").read_bytes())


def _baseline(folder: Path) -> object:
    return baseline.read(folder / "a.toml")


def _probe_output(folder: Path) -> object:
    return probe_report.read_host_report((folder / "text").read_text())


def _toml_keys(count: int) -> str:
    return "".join(f"{number:x}=1\n" for number in range(count))


def dense(megabytes: float) -> str:
    """As many elements as fit."""
    return many("{}", int(megabytes * MB))


def sparse(megabytes: float) -> str:
    """As many elements as JSON of any size may have, each of which lacks all fields."""
    return many("{}", int(megabytes * MB), each=34)


read_pytest, read_nextest = _report_of_suite(read_reportlog), _report_of_suite(nextest.read_results)
HIDDEN = f'"{"ab\x7f" * 4_000_000}"'  # a text of many pieces between hidden characters
TOO_MANY, FIELD = "expected at most", "Field required"
# fmt: off
BAD = [
    _results("1 MB of cells", lambda: record(cells=dense(1)), TOO_MANY),
    _results("10 MB of cells", lambda: record(cells=dense(10)), TOO_MANY),
    _results("sparse cells", lambda: record(cells=sparse(20)), "cells.0.guest: Field"),
    _results("sparse steps", lambda: record(run__steps=sparse(20)), "run.steps.0.lane: Field"),
    _results("modules", lambda: record(cells__1__suite__facts__lsm=many("1", 10 * MB, each=17)), "lsm.0"),
    _results("keys", lambda: record(run=keys(400_000)), "run: Value error, expected at most 100 keys"),
    _results("definitions", lambda: record(run__definitions=keys(400_000)), "definitions.000000: Input"),
    _results(
        "hidden", lambda: record(cells__1__verdict__reason=HIDDEN, cells__1__history__lane="1"), "lane: Input"
    ),
    _decided("1 MB of lanes", lambda: f'{{"lanes":{dense(1)}}}\n', TOO_MANY),
    _decided("sparse steps", lambda: f'{{"steps":{sparse(9)}}}\n', FIELD),
    _decided("lines", lambda: "\n" * 30 * MB, "Invalid JSON"),
    _file(published.FILE, "1 MB", lambda: f'{{"distributions":{dense(1)}}}', _site, TOO_MANY),
    _file(published.FILE, "sparse", lambda: f'{{"distributions":{sparse(9)}}}', _site, "distributions.0.name"),
    _file("history.json", "1 MB", lambda: f'{{"shown":{dense(1)}}}', read_history, TOO_MANY),
    _file("history.json", "sparse", lambda: f'{{"shown":{sparse(8)}}}', read_history, "shown.0.guest: Field"),
    _file("history.json", "keys", lambda: keys(400_000), read_history, "expected at most 100 keys"),
    _file("probes.json", "groups", lambda: f'{{"groups":{dense(1)}}}', evidence.read_evidence, TOO_MANY),
    _answer("16 MB of modules", lambda: f'{{"lsm":{many("1", 16 * MB)}}}', TOO_MANY),
    _answer("modules", lambda: f'{{"lsm":{many("1", 16 * MB, each=17)}}}', f"os: {FIELD}"),
    _answer("profiles", lambda: f'{{"apparmor":{{"profiles":{keys(800_000)}}}}}', "and 20 more"),
    _answer("keys", lambda: keys(800_000), "expected at most 100 keys"),
    _answer("the user", lambda: f'{{"groups":{sparse(16)}}}', "groups.0: Input", "probe", ProbedUser),
    _answer("a script", lambda: f'{{"runs":{sparse(16)}}}', "runs.0.command", "run_script", ScriptRuns),
    _file("answer", "no JSON", lambda: "ab\x00" * 5 * MB, _answered("facts", Facts), "printed no JSON"),
    _file("answer", "lines", lambda: "ab\n" * 5 * MB, _over_ssh, "printed no JSON"),
    _file("answer", "cloud-init", lambda: f'{{"v1":{{"errors":{dense(16)}}}}}', _cloud_init, TOO_MANY),
    _file("report", "of pytest", lambda: dense(7), read_pytest, TOO_MANY),
    _file("report", "lines", lambda: "ab\n" * 2 * MB, read_pytest, "Expecting value"),
    _file("report", "of nextest", lambda: dense(7), read_nextest, TOO_MANY),
    _file("report", "a name", lambda: f'{{"type":"test","name":{HIDDEN}}}', read_nextest, "more characters"),
    _file("known.json", "files", lambda: f'{{"files":{keys(400_000)}}}', _known, FIELD),
    _file("manifest.json", "files", lambda: f'{{"files":{keys(400_000, "{}")}}}', store.read_image),
    Bad("part: a record", lambda: part({RESULTS_FILE: record(cells=dense(3))}), _part, TOO_MANY),
    Bad("part: a large record", lambda: part({RESULTS_FILE: bytes(50 * MB)}), _part, "Invalid JSON"),
    Bad("part: its end", lambda: part(ended(dense(15).encode())), _part, "larger than"),
    Bad("part: a long name", lambda: part({"a": bytes(200 * MB)}, type=LONG_NAME), _part, "has a header of"),
    Bad("part: a time", lambda: part({"end.json": b"{}"}, mtime=1 << 70), _part, "timestamp"),
    _file(METADATA, "packages", lambda: f'{{"packages":{dense(16)}}}', nextest.read_workspace, TOO_MANY),
    Bad("package.json", lambda: package(f'{{"optionalDependencies":{keys(50_000)}}}'), _npm, f"name: {FIELD}"),
    _file("text", "an issue", lambda: dense(8), _issue, "Line(number=1"),
    _file("text", "a probe's", lambda: output_of_probe(f'{{"id_like":{dense(0.09)}}}'), _probe_output, FIELD),
    _file("a.toml", "3 MB of keys", lambda: _toml_keys(400_000), _baseline, "larger than 1 MiB"),
    _file("a.toml", "keys", lambda: _toml_keys(130_000), _baseline, "errors: this is not a BaselineFile"),
    _file("a.toml", "1 MB of tests", lambda: f"tests = {dense(1)}", _baseline, TOO_MANY),
]
# fmt: on

# Files that others may have put there, and what reads them.
FILES: list[tuple[str, Callable[[Path], object]]] = [
    (RESULTS_FILE, RunResult.read),
    (DECIDED_FILE, RunResult.read),
    (published.FILE, _site),
    ("history.json", read_history),
    ("probes.json", evidence.read_evidence),
    ("known.json", _known),
    (leftovers.MARK, leftovers.read_mark),
    (shell.MARK, shell.read_kept),
    ("manifest.json", store.read_image),
    ("acceleration.json", _acceleration),
    (METADATA, nextest.read_workspace),
    ("pins.toml", _definition),
    ("a.toml", _baseline),
]
# Whoever asks for these needs no reason: what cannot be read is made again, or is another lane's.
WITHOUT_REASON = {leftovers.MARK, shell.MARK, "manifest.json", "acceleration.json"}


def _read_in_child(read: Callable[[Path], object], folder: Path, answer: Connection) -> None:
    """Tell by how many MiB a reader raised the most that its process takes, and what it said."""
    space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (space + GUARD_BYTES, space + GUARD_BYTES))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        told = repr(read(folder))
    except (LabError, ValueError) as error:
        told = str(error)
    except MemoryError:
        told = "no memory"
    answer.send(((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, told[:100_000]))


def _read_bad(number: int, *arguments: Any) -> None:
    _read_in_child(BAD[number].read, *arguments)


def _read_file(number: int, *arguments: Any) -> None:
    _read_in_child(FILES[number][1], *arguments)


def measure(target: Callable[..., None], number: int, folder: Path) -> tuple[float, str]:
    """Run a reader in a process of its own, which has imported everything before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(number, folder, theirs))
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(LIMIT_SECONDS) else (float("inf"), "it did not end")
    except EOFError:
        return float("inf"), "its process was ended"
    finally:
        child.kill()
        child.join()


def put(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("number", range(len(BAD)), ids=[bad.name for bad in BAD])
def test_bad_data_costs_little_memory_and_is_told(tmp_path: Path, number: int) -> None:
    bad = BAD[number]
    put(tmp_path, bad.files())
    added, told = measure(_read_bad, number, tmp_path)
    assert added < MOST_MIB, told
    assert bad.error in told if bad.error else told == "None"
    # Only the first errors are told; of what is no JSON, a part is shown.
    assert len(told) < 2_000 or "printed no JSON" in told or bad.read is _issue


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "too large"])
@pytest.mark.parametrize("number", range(len(FILES)), ids=[file for file, _ in FILES])
def test_what_is_no_file_of_its_kind_is_refused_at_once(tmp_path: Path, number: int, kind: str) -> None:
    name, file = FILES[number][0], tmp_path / FILES[number][0]
    put(tmp_path, {RESULTS_FILE: record(), METADATA: b"{}"})
    file.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "device":
            file.symlink_to("/dev/zero")
        case _:
            file.touch()
            os.truncate(file, 1 << 30)
    added, told = measure(_read_file, number, tmp_path)
    assert added < MOST_MIB
    if name in WITHOUT_REASON:
        assert told == "None"
    else:
        assert name in told
        assert re.search("not a regular file|larger than|a link leads", told), told


def _rich_cell(number: int) -> CellResult:
    """A cell with all that a long run leaves: evidence, protection, remedies, an experiment, ten repeats."""
    variant = f"variant-{number}"
    folder = f"cells/debian-13/{variant}/0.10.8"
    names = [f"jailer_test_of_an_ordinary_length_number_{test}" for test in range(8)]
    profiles = [f"snap.profile-{profile}//inner" for profile in range(120)]
    mounts = [f"HOME/boxes/BOX/mounts/share-{mount} rw" for mount in range(40)]
    seconds = {"fork": 1.5, "apply": 2.5, "suite": 30.25, "evidence": 4.0}
    tried = [
        RemedyResult(name=name, result=RemedyOutcome.DOES_NOT_HELP, price="none", steps=seconds, evidence=names)
        for name in ("sysctl", "preflight", "jailer-off", "profile")
    ]
    trial = ExperimentTrial(
        changes=["without a sysctl"], outcome=TrialOutcome.FAILS, reason="it failed", seconds=30.0
    )
    repeat = RepeatResult(status=Status.XFAIL, cause="userns-limit", failed=names, seconds=seconds, seed=7)
    return blocked(
        variant=variant,
        tests=[
            TestResult(
                name=names[0], outcome=Outcome.FAIL, seconds=3.5, message="E   RuntimeError: bwrap " * 20
            ),
            *(
                TestResult(name=name, outcome=Outcome.PASS, protection=box(mounts=mounts))
                for name in names[1:4]
            ),
        ],
        facts=facts(apparmor={"profiles": dict.fromkeys(profiles, "enforce"), "profile_files": profiles}),
        evidence=[f"{folder}/boxlite/box-{file}/logs/boxlite.log" for file in range(44)],
        remedies=tried,
        experiment=Experiment(tests=names[:1], trials=[trial] * 6, evidence=names),
        seconds=seconds,
        repeats=[repeat] * 10,
        rates=[TestRate(name=name, ran=10, failed_in=list(range(1, 11)), low=0.72, high=1.0) for name in names],
    )


@pytest.mark.parametrize("indent", [2, None], ids=["as it is written", "without spaces"])
def test_a_good_record_of_1500_cells_is_far_below_the_limits(tmp_path: Path, indent: int | None) -> None:
    cells = 150
    steps = (
        [
            LaneStep(
                lane="debian-13", activity=Activity.SUITE, text="x" * 40, began=datetime.now(UTC), seconds=3.5
            )
        ]
        * 8
        * cells
    )
    run = run_of(*map(_rich_cell, range(cells)), steps=steps)
    content = run.model_dump_json(by_alias=True, indent=indent).encode()
    put(tmp_path, {RESULTS_FILE: content})
    assert RunResult.read(tmp_path) == run
    assert len(content) * 1500 / cells < MOST_BYTES / 1.5
    # Without what JSON of any size may have.
    values = sum(map(content.count, (b",", b"[", b"{")))
    assert len(content) / values > files.BYTES_PER_VALUE * 1.5
