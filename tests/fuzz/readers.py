"""The readers of data that others wrote: who writes it, a valid sample to change, and what reads it."""

import io
import json
import socket
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from rich.console import Console

from lab import causes, probes
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.base.wait import Speed
from lab.builds import elf
from lab.builds.kinds import npm
from lab.builds.kinds import wheel as wheel_kind
from lab.builds.kinds.nextest import read_results
from lab.builds.pytest_tests import read_reportlog
from lab.catalog import Guest, find_key_file, kernels, load_pins, remedies, toml
from lab.catalog.definitions import Set, Suite, VariantFile
from lab.catalog.remedies import Remedy
from lab.causes import evidence
from lab.check import answer, published
from lab.check import text as check_text
from lab.fleet import inventory, results
from lab.fleet.messages import LaneEvent, PartEnd, WorkerStart, read_event
from lab.fleet.roster import JoinedHost
from lab.gate import baseline, expectations, tracker
from lab.gate.compare import compare_builds
from lab.gate.results import reduce_run
from lab.guest import programs, variant
from lab.guest.agent import Agent
from lab.guest.collect import EvidenceFolder
from lab.images import cloud, debian, download, store
from lab.images.disk import explain_unusable
from lab.lane import shell
from lab.machine import acceleration, leftovers, states
from lab.merge import merge_shards
from lab.probes import report as probe_report
from lab.probes import script, show
from lab.record import DECIDED_FILE, Protection, RunResult, ShardRecord, Status, TestResult, format_continuation
from lab.report import compare as compare_report
from lab.report import github, judgements, junit, markdown, terminal
from lab.report.site.model import read_history
from lab.report.site.publish import publish_site
from lab.report.site.records import read_site_records
from lab.repro import judging, reading
from lab.verdict import protection, words
from lab.verdict import protection as verdict
from tests.builders import evidence as evidence_examples
from tests.builders import messages, report_texts
from tests.builders.cells import JAILED, cell, changed
from tests.builders.facts import facts, printed_facts, probed
from tests.builders.packages import NATIVE_FILE, deb, manifest
from tests.builders.packages import elf as elf_file
from tests.builders.runs import KNOWN, SMALL, run_of
from tests.fuzz.inputs import Inputs, archives_of, edited, files_of, json_of, lines_of, toml_of
from tests.unit.builds.kinds.test_libtest import PANIC, SUITE, ending, event
from tests.unit.catalog.test_hostile_kernels import tar_of
from tests.unit.catalog.test_kernels import MODULE, UNAME, arm64_image_of, image_of, zboot_of
from tests.unit.cli.test_gate import entry
from tests.unit.fleet.test_inventory import WHOLE
from tests.unit.gate.test_compare import RESULTS
from tests.unit.record.test_results import full_run

ROOT = Path(__file__).parents[2]
BUILTIN = f"lib/modules/{UNAME}/{kernels.BUILTIN}"
VARIANTS, VARIANT = "cloud-init/variants", VariantFile


@dataclass(frozen=True)
class Reader:
    """What reads an input into an empty folder. `cost` divides how many are tried.

    It may raise what the lab raises for bad input, and what its docstring says: `expected`.
    """

    name: str
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


def _verdict(folder: Path) -> object:
    return acceleration.read_verdict(Paths(folder, folder))


def _answer(content: bytes, folder: Path) -> None:
    answer = programs.ProgramReply([("facts", {})], EvidenceFolder(folder).keep)
    if any(answer.take(line) for line in content.splitlines()):
        checked = variant.check_facts(answer.results[0], KNOWN.sysctls())
        [variant.explain_inapplicable(change, checked) for change in KNOWN.variants.values()]
        elf.check_files({}, checked)


def _probed(content: bytes, folder: Path) -> None:
    answer = programs.ProgramReply([("probe", {})])
    if answer.take(content):
        probes.ProbedUser.model_validate(answer.results[0])


def _agent(content: bytes, folder: Path) -> None:
    """An agent that was asked for facts, from the guest's end of its port."""
    with socket.socket(socket.AF_UNIX) as port:
        port.bind(str(folder / "port"))
        port.listen()
        agent = Agent(folder / "port", alive=lambda: None, speed=Speed(emulated=False))
        guest = port.accept()[0]
        guest.sendall(content[:65_536])
        guest.shutdown(socket.SHUT_WR)
        try:
            agent.call([("facts", {})], seconds=1, keep=EvidenceFolder(folder).keep)
        finally:
            agent.close()
            guest.close()


CELL = {
    "probes.json": probed(evidence_examples.UBUNTU.probes.by_name()).model_dump_json(),
    "sysctls.txt": "user.max_user_namespaces = 0\nkernel.unprivileged_userns_clone = 0\n",
    "kernel.log": evidence_examples.UBUNTU_MOVED
    + evidence_examples.SELINUX_DENIED
    + evidence_examples.NO_MEMORY,
    "audit.log": evidence_examples.SELINUX_DENIED + evidence_examples.DENIED_MOUNT,
    "modes.txt": "755 box-a/boxes/B0X/bin/boxlite-shim\n",
    "boxlite/box-a/logs/boxlite.log": messages.UBUNTU,
    "boxlite/box-b/logs/boxlite.log": messages.USERNS_LIMIT,
}


def _evidence(content: dict[str, bytes], folder: Path) -> None:
    _put(folder, content)
    tests = full_run().cells[1].tests
    for control in ("", "a"):
        causes.diagnose_evidence(evidence.read_evidence(folder, tests, control=control))
    evidence.find_killed_programs(folder)
    evidence.find_refusals(folder)


def _words(content: dict[str, bytes], folder: Path) -> None:
    diagnosis = words.read(_put(folder, content), full_run().cells[1].tests)
    _ = diagnosis.text, diagnosis.blames, diagnosis.advises, diagnosis.essence
    words.judge_words(full_run().cells[1], diagnosis, remedies.load_remedies())


def _protection(content: bytes, _folder: Path) -> None:
    box = Protection.model_validate_json(content)
    verdict.join_strengths(verdict.describe_strengths(box))
    verdict.describe_protection(box)
    [str(option) for option in protection.list_unmet_options(box)]
    protection.limits_given(box)


def _results_of(read: Callable[[str], Mapping[str, TestResult | None] | None]) -> Callable[[bytes, Path], None]:
    """Reads a suite's report, writes its results into a record, as a cell does, and reads that."""

    def read_twice(content: bytes, folder: Path) -> None:
        tests = [test for test in (read(_text(content)) or {}).values() if test]
        RunResult(run=full_run().run, cells=[cell(tests=tests)]).write(folder)
        try:
            RunResult.read(folder)
        except LabError as error:
            raise AssertionError(f"its results make a record unreadable: {error}") from error

    return read_twice


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
    json.loads(SUITE),
    *map(
        json.loads,
        (event("it", "started"), event("it", "failed", exec_time=0.1, stdout=PANIC), ending("it", "FAIL")),
    ),
]

# -- a build


WHEEL: dict[str, bytes | str] = {
    "boxlite/__init__.py": "",
    "boxlite/runtime.so": elf_file(versions={"libc.so.6": ["GLIBC_2.34"]}),
    "boxlite-0.10.8.dist-info/METADATA": "Metadata-Version: 2.1\nName: boxlite\nVersion: 0.10.8\n"
    "Requires-Python: >=3.10\nRequires-Dist: a>1; python_version<'3.12' and extra == 'x'\n",
    "boxlite-0.10.8.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
WHEEL_NAME = "boxlite-0.10.8-cp313-cp313-manylinux_2_28_x86_64.whl"


def _wheel(content: bytes, folder: Path) -> None:
    wheel = _file(folder, WHEEL_NAME, content)
    elf.find_unmet_need(elf.read_needs(wheel), facts())
    wheel_kind.read_version(wheel)
    wheel_kind.choose(wheel, facts())


def _npm(content: bytes, folder: Path) -> None:
    tarball = _file(folder, "boxlite-0.10.0.tgz", content)
    elf.find_unmet_need(elf.read_needs(tarball), facts())
    str(npm.read_manifest(tarball).oldest_node)


def _kernel(path: Path, folder: Path) -> None:
    kernel = kernels.parse_kernel(str(path))
    assert kernel.path
    debian.copy_kernel(kernel, kernel.path, folder / "tree")
    assert not [file for file in (folder / "tree").rglob("*") if file.is_symlink()]


def _kernel_folder(content: dict[str, bytes], folder: Path) -> None:
    _kernel(_put(folder / "kernel", content), folder)


def _kernel_package(content: bytes, folder: Path) -> None:
    _kernel(_file(folder, "x.deb", content), folder)


def _program(content: bytes, folder: Path) -> None:
    program = _file(folder, "program", content)
    elf.find_unmet_need(elf.read_needs(program), facts())


KERNEL: dict[str, bytes | str] = {"vmlinuz": image_of(UNAME), MODULE: "x", BUILTIN: ""}
KERNEL_ARM64: dict[str, bytes | str] = {"Image": zboot_of(arm64_image_of(UNAME)), MODULE: "x", BUILTIN: ""}
CONTROL = {"./control": "Package: linux-image\nArchitecture: amd64\n"}
KERNEL_PACKAGES = st.one_of(
    archives_of(KERNEL, "tar").map(deb),
    archives_of(CONTROL, "tar").map(lambda control: deb(tar_of(), control)),
    edited(deb(tar_of())),
)

# -- a record, a shard


def _tree_of(run: RunResult) -> Any:
    return json.loads(run.model_dump_json(by_alias=True))


RUN = _tree_of(full_run())
DECIDED = [{"cell": RUN["cells"][1], "lanes": RUN["run"]["lanes"], "steps": []}]


def _record(content: bytes, folder: Path) -> RunResult:
    _put(folder, {"results.json": content})
    run = RunResult.read(folder)
    run.write(folder)
    return RunResult.read(folder)


def _decided(content: bytes, folder: Path) -> None:
    record = full_run().write(folder).read_bytes()
    (folder / DECIDED_FILE).write_bytes(format_continuation(record) + content)
    RunResult.read(folder)


def _report_all(run: RunResult, folder: Path) -> None:
    """Every report of a run whose evidence is in its folder."""
    markdown.render_run(run, folder)
    junit.render_junit(run)
    github.render_summary(run, folder)
    github.list_annotations(run)
    terminal.print_summary(Console(file=io.StringIO(), width=120), run, folder)
    judgements.render_misdiagnoses(run, folder)
    results = reduce_run(run, folder, run.run.builds[0].name)
    compare_report.render_comparison(compare_builds(results, results))
    publish_site([folder], folder / "site")


def _reports(content: bytes, folder: Path) -> None:
    _put(folder / full_run().cells[1].folder, {name: text.encode() for name, text in CELL.items()})
    _report_all(_record(content, folder), folder)


def _reported_evidence(content: dict[str, bytes], folder: Path) -> None:
    run = full_run()
    _put(folder / run.cells[1].folder, content)
    evidence = [f"{run.cells[1].folder}/{name}" for name in content]
    run.cells[1] = changed(run.cells[1], evidence=evidence)
    run.write(folder)
    _report_all(run, folder)


def _shards() -> list[RunResult]:
    first, second = full_run(), full_run()
    plan = [cell.name for cell in first.cells]
    for number, shard in enumerate((first, second), 1):
        shard.run.shard = ShardRecord(number=number, count=2, plan=plan, sizes=[1, 1])
        shard.cells = [shard.cells[number - 1]]
    return [first, second]


def _shard(content: bytes, folder: Path) -> None:
    own, whole = _shards()
    other = _put(folder / "b", {"results.json": content, whole.cells[0].evidence[0]: b"x"})
    merge_shards([(folder / "a", own), (other, RunResult.read(other))], folder / "merged", partial=True)


# -- those who define and configure


def _definition(model: Any) -> Callable[[bytes, Path], object]:
    return lambda content, folder: toml.load_file(
        _file(folder, "debian-13.toml", content), model, name="debian-13"
    )


def _toml(load: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    return lambda content, folder: load(_file(folder, "a.toml", content))


# -- a host of a run


def _part_archive(content: bytes, folder: Path) -> None:
    builds = [cell.build.name for cell in SMALL]
    run, _end = results.unpack_part(content, folder / "to", [cell.folder for cell in SMALL], builds)
    for sent in run.cells:
        results.keep_evidence(folder / "to" / sent.folder, folder / "run" / sent.folder)


def _told(content: bytes, _folder: Path) -> None:
    event = read_event(json.loads(content))
    if isinstance(event, LaneEvent):
        str(event.progress)


def _offer(content: bytes, _folder: Path) -> None:
    joined = JoinedHost.of("tls://127.0.0.1:1", json.loads(content))
    assert joined.name.isprintable()
    assert not joined.fault or (joined.lanes, joined.memory_mib) == (0, 0)
    [joined.suits(guest) for guest in KNOWN.guests.values()]
    f"{joined}: {joined.fault}".encode()


def _part_end(content: bytes, _folder: Path) -> None:
    PartEnd.model_validate_json(content)


def _issue(content: bytes, _folder: Path) -> None:
    tracker.read_issue(content)


def _worker_start(content: bytes, _folder: Path) -> None:
    WorkerStart.model_validate_json(content)


# -- what the lab itself stored


def _stored(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Reads a file of a home of the lab that has nothing else."""
    return lambda content, folder: read(_file(folder, name, content).parent)


def _checksums(content: bytes, _folder: Path) -> None:
    cloud.find_digest(_text(content), "disk.qcow2", "https://x/SUMS")


def _signature(content: bytes, _folder: Path) -> None:
    cloud.verify_signature(content, None, find_key_file("ubuntu-cloud"), "SUMS")


def _disk(content: bytes, folder: Path) -> None:
    explain_unusable(_file(folder, "disk", content))


# -- a report


def _report(content: bytes, _folder: Path) -> None:
    judging.judge_report(reading.read_report(content))


REPORTS = [
    *(report_texts.TWICE, report_texts.KILLED),
    *(report_texts.FAMILY, report_texts.MOVED, report_texts.PROBE),
]


@cache
def _published() -> Any:
    """What is published of a run, as the site has it and `lab check` reads it."""
    with tempfile.TemporaryDirectory() as name:
        full_run().write(Path(name))
        return json.loads(published.load_published([name], Path(name).parent).published.model_dump_json())


def _probe_output(content: bytes, _folder: Path) -> None:
    if report := probe_report.read_host_report(_text(content)):
        list(
            check_text.format_answer(
                answer.judge_host(report, published.Published.model_validate(_published()))
            )
        )


def _probe_document(content: bytes, folder: Path) -> None:
    """The part for programs of an output that is whole otherwise."""
    document = "".join(_text(content).split())
    begin = f"===== {script.BEGIN} {show.VERSION} ====="
    end = f"===== {script.END} {show.VERSION}: {len(document)} characters ====="
    _probe_output(f"{begin}\n{document}\n{end}".encode(), folder)


def _site(content: bytes, folder: Path) -> None:
    _file(folder, published.FILE, content)
    loaded = published.load_published([str(folder)], folder)
    report = probe_report.read_host_report(report_texts.PROBE)
    assert report
    list(check_text.format_answer(answer.judge_host(report, loaded.published)))


def _site_records(content: bytes, folder: Path) -> None:
    _put(folder / "records/run", {"evidence.json": content})
    full_run().write(folder / "records/run")
    read_site_records(folder)


def _listing(content: bytes, _folder: Path) -> None:
    with patch.object(download, "download_text", lambda url, task, **_more: content):
        cloud.newest_build("https://x/images/{build}/a-{build}.img", r"[\w.-]+", UNWATCHED)


MANIFEST = {
    "guest": "debian-13",
    "inputs": "a" * 64,
    **{"disk_sha256": "d" * 64, "built": "now", "seconds": 1.0, "source": "built"},
    "files": {"disk.qcow2": {"sha256": "d" * 64, "size": 1, "modified_ns": 1}},
}
SPEED = "acceleration.json"
KEYS = {"private": "x", "public": "y"}
STATE = {"tag": "t", "client": KEYS, "host": KEYS, "files": {"a": "b"}}
KVM = {"key": "k", "kvm": False, "reason": "x", "kernel_seconds": 4.0}
CHECKSUMS = f"{'a' * 64}  disk.qcow2\n{'b' * 64} *other.qcow2\nSHA256 (x.qcow2) = {'c' * 64}\n"
SIGNED = (
    f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{CHECKSUMS}\n-----BEGIN PGP SIGNATURE-----\n\niQ==\n"
)
QCOW2 = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 2, 0, 0, 9, 1 << 14, 0, 1, 1536, 512, 1, 0, 0) + bytes(4_000)
LISTING = '<a href="2026-01-02/">x</a><a href="20251231-12/">y</a><a href=\'release-1.5%2f\'>z</a>'
NPM = {"package/package.json": json.dumps(manifest()), NATIVE_FILE: WHEEL["boxlite/runtime.so"]}
SENT_END = {"host": "lab-1", "status": 0, "words": ""}
SENT = {
    "end.json": json.dumps(SENT_END),
    "results.json": json.dumps(_tree_of(run_of(SMALL[0].result(Status.PASS)))),
    f"{SMALL[0].folder}/kernel.log": "x",
}
LANE = {"kind": "lane", "part": 1, "lane": "debian-13", "text": "suite", "activity": "suite", "name": "suite"}
FORESEEN = {"kind": "prediction", "part": 1, "cell": "a/b/c", "says": "blocked", "cause": "x", "reason": "y"}
PREPARED = {"kind": "prepared", "part": 1, "folder": "/x", "image": MANIFEST}
OFFER = {"name": "lab-1", "resources": {"lane": 1.0, "memory": 8192.0, "x86_64": 1.0}}
# The host of that output, as its document.
PROBED_HOST = probe_report.read_host_report(report_texts.PROBE).model_dump(mode="json")  # type: ignore[union-attr]
PROBES = {"results": [json.loads(CELL["probes.json"])]}
FILE, ANSWER = {"file": "kernel.log", "content": "eA=="}, {"results": [printed_facts()]}
MARK = {"uri": "qemu:///x", "port": 22100}
KEPT = {"cell": "c", "since": "2026-11-27T10:00:00Z", "keeper": 1, "entrance": {}}


def _variant_of_a_run(content: bytes, folder: Path) -> None:
    for name in ("userns-clone-off", "report"):
        _file(folder, f"{name}.toml", content)
    KNOWN.with_variants(folder)


def _of(path: str) -> Inputs:
    return toml_of((ROOT / path).read_bytes())


# dask reads JSON before the lab does.
JSON = (ValueError, RecursionError)


# fmt: off
READERS = [
    Reader("programs and facts of a guest", lines_of(FILE, ANSWER), _answer, cost=2),
    Reader("the agent of a guest", lines_of({"id": 1} | ANSWER), _agent, cost=2),
    Reader("probes of a guest", json_of(PROBES), _probed, (ValueError,)),
    Reader("evidence of a cell, causes", files_of(CELL), _evidence, cost=2),
    Reader("boxlite's words", files_of(CELL), _words),
    Reader("evidence in all reports", files_of(CELL), _reported_evidence, cost=40),
    Reader("protection of a box", json_of(JAILED), _protection, (ValueError,)),
    Reader("pytest's report", lines_of(*PYTEST), _results_of(read_reportlog), (ValueError,), cost=2),
    Reader("nextest's report", lines_of(*NEXTEST), _results_of(read_results), (ValueError,), cost=2),
    Reader("a wheel", archives_of(WHEEL, "zip"), _wheel, cost=2),
    Reader("a package of npm", archives_of(NPM, "gz"), _npm, cost=2),
    Reader("a kernel's folder", st.one_of(files_of(KERNEL), files_of(KERNEL_ARM64)), _kernel_folder, cost=4),
    Reader("a kernel's package", KERNEL_PACKAGES, _kernel_package, cost=10),
    Reader("a program", edited(WHEEL["boxlite/runtime.so"]), _program),
    Reader("results.json", json_of(RUN), _record, cost=2),
    Reader("decided.jsonl", lines_of(*DECIDED), _decided, cost=2),
    Reader("a record in all reports", json_of(RUN), _reports, cost=20),
    Reader("the history of a site", json_of({"shown": []}), _stored("history.json", read_history)),
    Reader("where a site has evidence", json_of({"places": {"cells/a/x": "evidence/x"}}), _site_records),
    Reader("a shard", json_of(_tree_of(_shards()[1])), _shard, cost=4),
    Reader("a baseline", toml_of(baseline.render(RESULTS).encode()), _toml(baseline.read), cost=2),
    Reader("expectations", toml_of(entry().encode()), _toml(expectations.read_expectations)),
    Reader("drafts of "
"expectations", toml_of(entry().encode()), _toml(lambda at: expectations.rewrite_expectations(at, []))),
    Reader("a guest's definition", _of("images/debian-13.toml"), _definition(Guest)),
    Reader("a cloud guest's definition", _of("images/debian-12-cloud.toml"), _definition(Guest)),
    Reader("a variant's definition", _of(f"{VARIANTS}/userns-clone-off.toml"), _definition(VARIANT)),
    Reader("a variant of a run", _of(f"{VARIANTS}/userns-clone-off.toml"), _variant_of_a_run),
    Reader("a set's definition", _of("images/sets/quick.toml"), _definition(Set)),
    Reader("a suite's definition", _of("lab/suites/jailer/suite.toml"), _definition(Suite)),
    Reader("a remedy's definition", _of("lab/remedies/kvm-group.toml"), _definition(Remedy)),
    Reader("a tracker's answer", json_of({"state": "closed", "state_reason": "x"}), _issue, (ValueError,)),
    Reader("pins", _of("images/pins/pins.toml"), _toml(load_pins)),
    Reader("an inventory", toml_of(WHOLE.encode()), _toml(inventory.load_inventory)),
    Reader("the result of a part", archives_of(SENT, "zst"), _part_archive, cost=4),
    Reader("how a part ended", json_of(SENT_END), _part_end, (ValueError,)),
    Reader("what a lane of a host does", json_of(LANE), _told, JSON),
    Reader("what a host expects of a cell", json_of(FORESEEN), _told, JSON),
    Reader("an image that a host prepared", json_of(PREPARED), _told, JSON),
    Reader("the name and the offer of a host", json_of(OFFER), _offer, JSON),
    Reader("the line of a host's worker", json_of({"pid": 2, "port": 9001}), _worker_start, (ValueError,)),
    Reader("checksums of images", edited(CHECKSUMS), _checksums),
    Reader("signed checksums", edited(SIGNED), _signature, cost=50),
    Reader("a listing of builds", edited(LISTING), _listing),
    Reader("a disk", edited(QCOW2), _disk, cost=50),
    Reader("a stored image's manifest", json_of(MANIFEST), _stored("manifest.json", store.read_image)),
    Reader("a stored state", json_of(STATE), _stored("known.json", lambda at: states.StoredState(at).info())),
    Reader("a lane's mark", json_of(MARK), _stored(leftovers.MARK, leftovers.read_mark)),
    Reader("acceleration.json", json_of(KVM), _stored(SPEED, _verdict)),
    Reader("a kept guest", json_of(KEPT), _stored(shell.MARK, shell.read_kept)),
    Reader("a bug report", edited(*REPORTS), _report, cost=20),
    Reader("the probe script's output", edited(report_texts.PROBE), _probe_output, cost=8),
    Reader("the JSON in it", json_of(PROBED_HOST), _probe_document, cost=8),
    Reader("data of a published site", st.deferred(lambda: json_of(_published())), _site, cost=4),
]
# fmt: on
