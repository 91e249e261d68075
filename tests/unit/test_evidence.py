import json
import re
from pathlib import Path
from typing import Any

import pytest

from lab import causes
from lab.base.errors import LabError
from lab.causes import evidence
from lab.causes.evidence import LOG_BYTES, Evidence
from lab.probes import NONE_RUN, NOT_RUN
from lab.record import Confidence, Outcome, TestResult
from tests.builders import evidence as examples
from tests.builders.facts import probe, probed


def test_a_cell_s_files_are_read_as_they_were_gathered(tmp_path: Path) -> None:
    kernel = examples.NOISE + examples.DENIED_CREATE
    examples.write(tmp_path, examples.APPARMOR_DENY, kernel)
    control = TestResult(name="control", outcome=Outcome.PASS)
    assert evidence.read(tmp_path, [control], control="control") == examples.APPARMOR_DENY


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [("pass", False), ("fail", True), ("error", True), ("skip", None), ("not-run", None), (None, None)],
)
def test_a_control_may_have_no_result(tmp_path: Path, outcome: str | None, failed: bool | None) -> None:
    tests = [TestResult(name="control", outcome=Outcome(outcome))] if outcome else []
    tests.append(TestResult(name="other", outcome=Outcome.FAIL))
    assert evidence.read(tmp_path, tests, control="control").control_failed is failed


@pytest.mark.parametrize(
    ("log", "killed"),
    [
        (examples.NO_MEMORY * 2 + examples.NO_MEMORY.replace("python3", "shim"), ["python3", "shim"]),
        # A control group, another program's words, half a line.
        (examples.NO_MEMORY.replace("Out of memory", "Memory cgroup out of memory"), []),
        (examples.NO_MEMORY.replace("Out of memory", "box: Out of memory"), []),
        ("[   71.6] boxlite[3]: Out of memory: Killed process\n", []),
    ],
)
def test_what_was_killed_for_want_of_memory_is_named(tmp_path: Path, log: str, killed: list[str]) -> None:
    assert evidence.killed_for_memory(tmp_path) == []
    (tmp_path / "kernel.log").write_text(examples.NOISE + log)
    assert evidence.killed_for_memory(tmp_path) == killed


def test_probes_and_what_confined_them_are_read_from_their_file(tmp_path: Path) -> None:
    nothing = evidence.read(tmp_path)
    assert nothing == Evidence()
    assert (nothing.probes.unshare_user.status, nothing.probes.ran) == (None, False)
    stored = probed({"bwrap_user": probe(1, "bwrap: refused")}, context={"apparmor": "a (enforce)"})
    (tmp_path / "probes.json").write_text(stored.model_dump_json())
    gathered = evidence.read(tmp_path)
    assert (gathered.profile, gathered.probes.ran) == ("a", True)
    assert gathered.probes == NONE_RUN.model_copy(update={"bwrap_user": probe(1, "bwrap: refused")})
    assert gathered.probes.bwrap_all == NOT_RUN


def without(first: str, second: str = "") -> str:
    """A file of probes without one of its keys."""
    document: Any = json.loads(probed({}).model_dump_json())
    if second:
        del document[first][second]
    else:
        del document[first]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{", "Invalid JSON"),
        (without("probes"), "probes: Field required"),
        (without("probes", "unshare_user"), "probes.unshare_user: Field required"),
        (without("context", "apparmor"), "context.apparmor: Field required"),
    ],
)
def test_damaged_probes_name_the_file_and_the_key(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "probes.json").write_text(text)
    with pytest.raises(LabError, match=re.escape(str(tmp_path / "probes.json"))) as error:
        evidence.read(tmp_path)
    assert key in str(error.value)


def test_a_name_with_spaces_in_an_audit_line_stays_whole() -> None:
    [line] = evidence.parse_audit('audit: type=1400 audit(1.5:2): comm="Web Content" name="/tmp/a=b" pid=1')
    assert (line["comm"], line["name"], line["pid"]) == ("Web Content", "/tmp/a=b", "1")


def test_where_an_audit_daemon_takes_the_lines_they_are_read_from_its_log(tmp_path: Path) -> None:
    (tmp_path / "kernel.log").write_text(examples.NOISE)
    (tmp_path / "audit.log").write_text(
        'type=AVC msg=audit(1795536999.471:105): avc:  denied  { create } for  pid=744 comm="bwrap" '
        "scontext=a:b:c:s0 tcontext=a:b:c:s0 tclass=user_namespace permissive=0\n"
    )
    [line] = evidence.read(tmp_path).avc_denied("create", tclass="user_namespace", permissive="0")
    assert line["comm"] == "bwrap"
    assert evidence.read(tmp_path).avc_denied("write") == []


def test_refusals_are_what_was_refused_and_not_what_was_only_logged(tmp_path: Path) -> None:
    refused = [examples.DENIED_CREATE, examples.SELINUX_DENIED, examples.DISCONNECTED]
    allowed = [examples.SELINUX_DENIED.replace("permissive=0", "permissive=1"), examples.NOISE]
    allowed.append(examples.DENIED_CREATE.replace("DENIED", "ALLOWED"))
    (tmp_path / "kernel.log").write_text("".join([*allowed, *refused]))
    assert evidence.refusals(tmp_path) == {"kernel.log": "".join(refused).splitlines()}


@pytest.mark.parametrize(
    "log",
    [
        "",
        "\n",
        examples.NOISE,
        'boxlite: apparmor="DENIED" says the program\n',
        # Who may make a user namespace has the kernel log any words by mount(2); this is Linux 6.1's overlay.
        "[   71.6] overlayfs: unrecognized mount option "
        f'"{examples.DENIED_CREATE.partition("] ")[2].strip()}" or missing value\n',
        f"[   71.6] fuse: Unknown parameter '{examples.DENIED_CREATE.partition('] ')[2]}",
    ],
)
def test_other_lines_are_no_audit_lines(log: str) -> None:
    assert evidence.parse_audit(log) == []


HOSTILE = [
    "x",
    "x ",
    "=",
    'a="',
    'a=" ',
    "avc:  denied  { ",
    "avc:  denied  ",
    "avc:" + " " * 20,
    "avc:  denied  { create } for permissive=",
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", HOSTILE)
def test_audit_lines_of_any_length_are_read(tmp_path: Path, piece: str) -> None:
    # A reader that tries each split of a line takes hours for this.
    line = "audit: type=1400 audit(1.5:2): " + piece * (2**20 // len(piece)) + " permissive=1"
    (tmp_path / "kernel.log").write_text(line)
    evidence.refusals(tmp_path)
    evidence.parse_audit(line)


def test_boxlites_own_logs_are_read_as_far_as_each_goes(tmp_path: Path) -> None:
    logs = tmp_path / "boxlite" / "box-a" / "logs"
    (logs / "boxlite.log.2026-11-25").mkdir(parents=True)
    (logs / "boxlite.log.2026-11-26").write_bytes(b"it failed \xff" + b"x" * LOG_BYTES)
    gathered = evidence.read(tmp_path)
    assert [len(log) for log in gathered.logs] == [LOG_BYTES]
    assert gathered.boxlite_says("it failed")
    assert not gathered.says("it failed")
    assert not gathered.boxlite_says("it worked")


def test_modes_are_read_by_path_and_other_lines_are_left_out(tmp_path: Path) -> None:
    lines = ("0755 runtimes/v1/boxlite-shim", "0664 box-a/boxes/B0X/bin/a name", "0999 no-mode", "words")
    (tmp_path / "modes.txt").write_text("\n".join(lines) + "\n")
    modes = evidence.read(tmp_path).modes
    assert modes == {"runtimes/v1/boxlite-shim": 0o755, "box-a/boxes/B0X/bin/a name": 0o664}


SIGSYS = '{"type":"signal","exit_code":159,"signal":"SIGSYS"}'
NO_THREAD = "runtime/cgo: pthread_create failed: Resource temporarily unavailable\nSIGABRT: abort\n"


@pytest.mark.parametrize(
    ("name", "text", "cause", "confidence"),
    [
        ("exit", SIGSYS, "shim-seccomp", Confidence.PROVED),
        ("exit.previous", SIGSYS, "shim-seccomp", Confidence.PROVED),
        ("shim.stderr", NO_THREAD, "nproc-limit", Confidence.LIKELY),
    ],
)
def test_what_a_box_and_its_shim_wrote_is_read_as_a_log_is(
    tmp_path: Path, name: str, text: str, cause: str, confidence: Confidence
) -> None:
    box = tmp_path / "boxlite" / "box-a" / "boxes" / "B0X"
    box.mkdir(parents=True)
    (box / name).write_text(text)
    control = TestResult(name="control", outcome=Outcome.FAIL, message="The VM failed to start.")
    tests = [control] if cause == "nproc-limit" else []
    [finding] = causes.diagnose(evidence.read(tmp_path, tests, control="control"))
    assert (finding.name, finding.confidence) == (cause, confidence)
