"""The readers of data that others wrote: who writes it, a valid sample to change, and what reads it."""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from lab import causes, evidence, probes, remedies
from lab.base.paths import Paths
from lab.builds import closure, elf, libtest, local, nextest, npm, reportlog
from lab.catalog import Guest, loading, toml
from lab.catalog.sets import Set
from lab.catalog.suite import Suite
from lab.check import judging as check
from lab.check import published
from lab.check import text as check_text
from lab.fleet import archive, inventory, wire
from lab.fleet.engine import _images
from lab.fleet.events import Event
from lab.fleet.events import show as show_event
from lab.fleet.intake import End
from lab.fleet.names import LaneNames
from lab.fleet.part import Part
from lab.gate import baseline, expectations
from lab.guest import programs, variant
from lab.guest.evidence_folder import EvidenceFolder
from lab.guest.printed import checked
from lab.images import choice, cloud, store
from lab.lane import keeper
from lab.machine import acceleration, leftovers, network, states
from lab.probes import report as probe_report
from lab.record import Protection, RunOptions, RunResult, decided
from lab.remedies import Remedy
from lab.report import github, junit, markdown, terminal
from lab.repro import judging, reading
from lab.run import merge
from lab.run.labels import Labels
from lab.run.observer import Silent
from lab.site import history
from lab.upstream import words
from lab.verdict import asked
from lab.verdict import protection as verdict
from tests.fuzz.inputs import Inputs, archives_of, edited, files_of, json_of, lines_of, toml_of
from tests.unit import evidence_examples, report_examples, words_examples
from tests.unit.elf_examples import elf as elf_file
from tests.unit.examples import JAILED, cell, facts, printed_facts, probed
from tests.unit.npm_examples import NATIVE_FILE, manifest
from tests.unit.run_examples import KNOWN, SMALL
from tests.unit.test_baseline import RESULTS
from tests.unit.test_inventory import WHOLE
from tests.unit.test_libtest import PANIC, SUITE, ending, event
from tests.unit.test_results import full_run

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Reader:
    """What reads an input into an empty folder. `source` writes the data; `cost` divides how many are tried.

    It may raise what the lab raises for bad input, and what its docstring says: `expected`.
    """

    name: str
    source: str
    inputs: Inputs
    read: Callable[[Any, Path], object]
    expected: tuple[type[Exception], ...] = ()
    cost: int = 1


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _put(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _file(folder: Path, name: str, content: bytes) -> Path:
    return _put(folder, {name: content}) / name


# -- a guest


def _answer(content: bytes, folder: Path) -> None:
    answer = programs.Answer([("facts", {})], EvidenceFolder(folder).keep)
    if any(answer.take(line) for line in content.splitlines()):
        found = variant._checked_facts(answer.results[0], KNOWN.sysctls())
        [variant.why_not_applicable(each, found) for each in KNOWN.variants.values()]
        elf.check({}, found)


def _probed(content: bytes, folder: Path) -> None:
    answer = programs.Answer([("probe", {})])
    if answer.take(content):
        checked("probe", probes.Probed, answer.results[0])


CELL = {
    "probes.json": probed(evidence_examples.UBUNTU.probes.by_name()).model_dump_json(),
    "sysctls.txt": "user.max_user_namespaces = 0\nkernel.unprivileged_userns_clone = 0\n",
    "kernel.log": evidence_examples.UBUNTU_MOVED
    + evidence_examples.SELINUX_DENIED
    + evidence_examples.NO_MEMORY,
    "audit.log": evidence_examples.SELINUX_DENIED + evidence_examples.DENIED_MOUNT,
    "modes.txt": "755 box-a/boxes/B0X/bin/boxlite-shim\n",
    "boxlite/box-a/logs/boxlite.log": words_examples.UBUNTU,
    "boxlite/box-b/logs/boxlite.log": words_examples.USERNS_LIMIT,
}


def _evidence(content: dict[str, bytes], folder: Path) -> None:
    _put(folder, content)
    tests = full_run().cells[1].tests
    for control in ("", "a"):
        found = evidence.read(folder, tests, control=control)
        causes.diagnose(found)
    evidence.killed_for_memory(folder)
    evidence.refusals(folder)


def _words(content: dict[str, bytes], folder: Path) -> None:
    said = words.read(_put(folder, content), full_run().cells[1].tests)
    _ = said.text, said.gives_up, said.blames, said.advises, said.essence
    words.judge(full_run().cells[1], said, remedies.load())


def _protection(content: bytes, _folder: Path) -> None:
    shown = Protection.model_validate_json(content)
    verdict.summary(verdict.strengths(shown))
    verdict.words(shown)
    [str(each) for each in asked.unmet(shown)]
    asked.limits_given(shown)


def _results(results: Mapping[str, Any] | None) -> None:
    """Write what was read of a report into a record, as a cell does, and read that."""
    if results:
        tests = [each for each in results.values() if each]
        made = RunResult(run=full_run().run, cells=[cell(tests=tests)])
        RunResult.model_validate_json(made.model_dump_json())


PYTEST = [
    {
        "$report_type": "CollectReport",
        "nodeid": "test_x.py",
        "outcome": "passed",
        "longrepr": None,
        "result": [],
    },
    *(
        {
            "$report_type": "TestReport",
            "nodeid": "test_x.py::test_a",
            "when": when,
            "outcome": "failed" if when == "call" else "passed",
            "duration": 0.5,
            "longrepr": {"reprcrash": {"path": "x.py", "lineno": 3, "message": "E"}},
            "user_properties": [["protection", JAILED]],
        }
        for when in ("setup", "call", "teardown")
    ),
]
NEXTEST = [
    *({"type": "limit", "seconds": 12}, json.loads(SUITE)),
    *map(
        json.loads,
        (event("it", "started"), event("it", "failed", exec_time=0.1, stdout=PANIC), ending("it", "FAIL")),
    ),
]

# -- a build

WHEEL = {
    "boxlite/__init__.py": "",
    "boxlite/runtime.so": elf_file(
        versions={"libc.so.6": ["GLIBC_2.34"]}, levels={0xC0008002: 3}, kernel=(3, 2, 0)
    ),
    "boxlite-0.10.8.dist-info/METADATA": "Metadata-Version: 2.1\nName: boxlite\nVersion: 0.10.8\n"
    "Requires-Python: >=3.10\nRequires-Dist: a>1; python_version<'3.12' and extra == 'x'\n",
}
WHEEL_NAME = "boxlite-0.10.8-cp310-cp310-manylinux_2_28_x86_64.whl"


def _wheel(content: bytes, folder: Path) -> None:
    wheel = _file(folder, WHEEL_NAME, content)
    elf.why_not(wheel, facts())
    for read in (lambda: closure.needs(wheel, "3.12", ["x"]), lambda: closure.allows(wheel, "3.12")):
        with suppress(ValueError):  # As the docstring says.
            read()
    local.read_version(wheel)
    local.choose(wheel, facts())


def _npm(content: bytes, folder: Path) -> None:
    tarball = _file(folder, "boxlite-0.10.0.tgz", content)
    elf.why_not(tarball, facts())
    made = npm.read(tarball)
    _ = made.oldest_node, npm.native_of(tarball, made), npm.native_beside(tarball, made)


def _program(content: bytes, folder: Path) -> None:
    program = _file(folder, "program", content)
    elf.why_not(program, facts())
    nextest.check_executable(program, "a program")


# -- a record, a shard

RUN = json.loads(full_run().model_dump_json())
DECIDED = [{"cell": RUN["cells"][1]}, {"lane": RUN["run"]["lanes"][0]}, {"build": RUN["run"]["builds"][0]}]


def _record(content: bytes, folder: Path) -> RunResult:
    _put(folder, {"results.json": content})
    run = RunResult.read(folder)
    run.write(folder)
    return RunResult.read(folder)


def _decided(content: bytes, folder: Path) -> None:
    record = full_run().write(folder).read_bytes()
    (folder / decided.DECIDED_FILE).write_bytes(decided.first_line(record) + content)
    RunResult.read(folder)


def _reports(content: bytes, folder: Path) -> None:
    run = _record(content, folder)
    markdown.render(run, folder)
    junit.render(run)
    github.summary(run, folder)
    github.annotations(run)
    terminal.summary(Console(file=io.StringIO(), width=120), run, folder)


def _shard(content: bytes, folder: Path) -> None:
    run = full_run()
    other = _file(folder / "b", "results.json", content).parent
    run.write(_put(folder / "a", {"x": b""}))
    merge.merge([(folder / "a", run), (other, RunResult.read(other))], folder / "merged", partial=True)


# -- those who define and configure


def _definition(model: Any) -> Callable[[bytes, Path], object]:
    return lambda content, folder: toml.load_file(
        _file(folder, "debian-13.toml", content), model, name="debian-13"
    )


def _toml(name: str, load: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    return lambda content, folder: load(_file(folder, name, content))


EXPECT = b"""[[expect]]
guest = "debian-13"
variant = "stock"
cause = "userns-limit"
bug = "https://example.org/1"
until = "2030-12-31"
"""

# -- a host of a run

EVENT = {"kind": "left", "seconds": 12.5, "lane": "debian-13", "text": "boot", "status": "pass"}
REGISTRATION = {"op": "register-worker", "name": "one", "resources": {"lane": 1}, "extra": {"images": "[]"}}


def _event(content: bytes, _folder: Path) -> None:
    if told := Event.read(content):
        show_event(told, LaneNames("host", Labels()), Silent())


def _part_archive(content: bytes, folder: Path) -> None:
    packed = _file(folder, "packed", content)
    (folder / "to").mkdir()
    archive.unpack(packed, folder / "to", [each.folder for each in SMALL])


def _message(content: bytes, _folder: Path) -> None:
    try:
        message = json.loads(content)
    except (ValueError, RecursionError):
        message = wire.read([content])
    call = wire.check(message)
    if isinstance(call, dict):
        End.read(call)
        _images(call.get("extra"))


# -- what the lab itself stored


def _stored(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Reads a file of a home of the lab that has nothing else."""
    return lambda content, folder: read(_file(folder, name, content).parent)


# -- a report


def _report(content: bytes, _folder: Path) -> None:
    judging.judge(reading.read(content))


REPORTS = [
    *(report_examples.TWICE, report_examples.KILLED, report_examples.MANY_PROCESSES),
    *(report_examples.FAMILY, report_examples.MOVED, report_examples.PROBE),
]


def _probe_output(content: bytes, _folder: Path) -> None:
    if found := probe_report.read(_text(content)):
        list(check_text.lines(check.judge(found, published.Published.model_validate_json(SITE))))


SITE = json.dumps({"distributions": [], "cells": [], "rules": {}})


def _site(content: bytes, folder: Path) -> None:
    _file(folder, "host-data.js", b"lab.hosts = " + content + b";\n")
    published.load([str(folder)], folder)


IMAGE = {"guest": "debian-13", "inputs": "a" * 64, "files": {"disk.qcow2": {"sha256": "d" * 64, "size": 1}}}
MANIFEST = {
    **{"guest": "debian-13", "inputs": "a" * 64, "disk_sha256": "d" * 64, "built": "now", "seconds": 1.0},
    "files": {"disk.qcow2": {"sha256": "d" * 64, "size": 1, "modified_ns": 1}},
}
KEYS = {"private": "x", "public": "y"}
NETWORK = {"key": "k", "network": "user", "proved": "x", "denials": ["x"]}
ACCELERATION = {"key": "k", "kvm": False, "reason": "x", "measured": "2026-11-27T10:00:00Z"}
CHECKSUMS = f"{'a' * 64}  disk.qcow2\n{'b' * 64} *other.qcow2\nSHA256 (x.qcow2) = {'c' * 64}\n"


READERS = [
    Reader(
        "programs and facts of a guest",
        "guest",
        lines_of({"file": "kernel.log", "content": "eA=="}, {"results": [printed_facts()]}),
        _answer,
        cost=2,
    ),
    Reader("probes of a guest", "guest", json_of({"results": [json.loads(CELL["probes.json"])]}), _probed),
    Reader("evidence of a cell, causes", "guest", files_of(CELL), _evidence, cost=2),
    Reader("boxlite's words", "guest", files_of(CELL), _words),
    Reader("protection of a box", "guest", json_of(JAILED), _protection, (ValueError,)),
    Reader(
        "pytest's report",
        "guest",
        lines_of(*PYTEST),
        lambda c, _: _results(reportlog.read(_text(c))),
        (ValueError,),
    ),
    Reader(
        "nextest's report",
        "guest",
        lines_of(*NEXTEST),
        lambda c, _: _results(libtest.read(_text(c))),
        (ValueError,),
    ),
    Reader("a wheel", "build", archives_of(WHEEL, "zip"), _wheel, cost=2),
    Reader(
        "a package of npm",
        "build",
        archives_of(
            {"package/package.json": json.dumps(manifest()), NATIVE_FILE: WHEEL["boxlite/runtime.so"]}, "gz"
        ),
        _npm,
        cost=2,
    ),
    Reader("a program", "build", edited(WHEEL["boxlite/runtime.so"]), _program),
    Reader("results.json", "record", json_of(RUN), _record, cost=4),
    Reader("decided.jsonl", "record", lines_of(*DECIDED), _decided, cost=4),
    Reader("reports of a record", "record", json_of(RUN), _reports, cost=20),
    Reader(
        "history of a site",
        "record",
        json_of({"runs": [], "cells": []}),
        _toml("history.json", lambda f: history.read(f.parent)),
    ),
    Reader("a shard", "shard", json_of(RUN), _shard, cost=8),
    Reader("a baseline", "record", toml_of(baseline.render(RESULTS).encode()), _toml("b.toml", baseline.read)),
    Reader("expectations", "user", toml_of(EXPECT), _toml("e.toml", expectations.read)),
    Reader("drafts of expectations", "user", toml_of(EXPECT), _toml("e.toml", expectations.read_drafts)),
    Reader(
        "a guest's definition",
        "user",
        toml_of((ROOT / "images/debian-13.toml").read_bytes()),
        _definition(Guest),
    ),
    Reader(
        "a cloud guest's definition",
        "user",
        toml_of((ROOT / "images/debian-12-cloud.toml").read_bytes()),
        _definition(Guest),
    ),
    Reader(
        "a variant's definition",
        "user",
        toml_of((ROOT / "cloud-init/variants/apparmor-mount-deny.toml").read_bytes()),
        _definition(loading._variant_file()),
    ),
    Reader(
        "a set's definition", "user", toml_of((ROOT / "images/sets/quick.toml").read_bytes()), _definition(Set)
    ),
    Reader(
        "a suite's definition",
        "user",
        toml_of((ROOT / "lab/suites/jailer/suite.toml").read_bytes()),
        _definition(Suite),
    ),
    Reader(
        "a remedy's definition",
        "user",
        toml_of((ROOT / "lab/remedies/kvm-group.toml").read_bytes()),
        _definition(Remedy),
    ),
    Reader(
        "pins",
        "user",
        toml_of((ROOT / "images/pins/pins.toml").read_bytes()),
        _toml("pins.toml", loading.load_pins),
    ),
    Reader("an inventory", "user", toml_of(WHOLE.encode()), _toml("hosts.toml", inventory.load)),
    Reader(
        "a part",
        "host",
        json_of(json.loads(Part.of("run", 1, SMALL, RunOptions()).model_dump_json())),
        lambda c, _: Part.read(c),
    ),
    Reader("an event of a part", "host", json_of(EVENT), _event),
    Reader(
        "a message of a host",
        "host",
        json_of(REGISTRATION | {"size": 1, "status": 0}),
        _message,
        (wire.NotPlain, wire.Unexpected),
    ),
    Reader("images of a host", "host", json_of([IMAGE]), lambda c, _: _images(_text(c))),
    Reader(
        "the result of a part",
        "host",
        archives_of({"results.json": json.dumps(RUN), f"{SMALL[0].folder}/kernel.log": "x"}, "zst"),
        _part_archive,
        cost=4,
    ),
    Reader(
        "checksums of a distribution",
        "image",
        edited(CHECKSUMS),
        lambda c, _: cloud.find_digest(_text(c), "disk.qcow2", "https://x/SUMS"),
    ),
    Reader("a stored image's manifest", "lab", json_of(MANIFEST), _stored("manifest.json", store.read)),
    Reader(
        "images that were chosen",
        "lab",
        json_of({"debian-13": {"inputs": "a", "sha256": "b"}}),
        _stored(
            "images/guests.json", lambda folder: choice.all_remembered(Paths(folder.parent, folder.parent))
        ),
    ),
    Reader(
        "a stored state",
        "lab",
        json_of({"tag": "t", "client": KEYS, "host": KEYS, "files": {"a": "b"}}),
        _stored("known.json", lambda folder: states.StoredState(folder).known()),
    ),
    Reader(
        "a lane's mark",
        "lab",
        json_of({"lane": "l", "uri": "qemu:///x", "port": 1, "pid": 1}),
        _stored(leftovers.MARK, leftovers._read),
    ),
    Reader(
        "network.json",
        "lab",
        json_of(NETWORK),
        _stored("network.json", lambda folder: network.last(Paths(folder, folder))),
    ),
    Reader(
        "acceleration.json",
        "lab",
        json_of(ACCELERATION),
        _stored("acceleration.json", lambda folder: acceleration.measure_again(Paths(folder, folder))),
    ),
    Reader(
        "a kept guest",
        "lab",
        json_of({"name": "n", "cell": "c", "since": "2026-11-27T10:00:00Z", "keeper": 1, "entrance": {}}),
        _stored(keeper.MARK, keeper._read),
    ),
    Reader("a bug report", "report", edited(*REPORTS), _report, cost=20),
    Reader("the probe script's output", "report", edited(report_examples.PROBE), _probe_output, cost=4),
    Reader("data of a published site", "report", json_of(json.loads(SITE)), _site),
]
