import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab.base.errors import UsageError
from lab.base.paths import PACKAGE
from lab.record import (
    BuildRecord,
    Confidence,
    Expectation,
    LaneRecord,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    RunOptions,
    RunResult,
    ShardRecord,
    Status,
    TestResult,
    json_schema,
)
from tests.builders.cells import cell
from tests.builders.facts import context, facts
from tests.builders.runs import host, run_of

PUBLISHED = PACKAGE.parent / "docs" / "results.schema.json"


def full_run() -> RunResult:
    """A run with something in every field."""
    failed = cell(
        variant="max-userns-zero",
        status=Status.XFAIL,
        expected=Expectation(status="xfail", cause="userns-limit"),
        cause="userns-limit",
        confidence=Confidence.PROVED,
        reason="user.max_user_namespaces is 0 and `unshare -U` is refused: ENOSPC",
        tests=[TestResult(name="a", outcome=Outcome.FAIL, seconds=1.5, message='<"ä\n">')],
        facts=facts(kvm=None),
        context=context(),
        evidence=["cells/debian-13/max-userns-zero/0.10.8/kernel.log"],
        remedies=[RemedyResult(name="sysctl", result=RemedyOutcome.VERIFIED, price="none", seconds=2.0)],
        seconds={"suite": 12.5},
        fork="memory",
        repeats=[
            RepeatResult(
                status=Status.XFAIL,
                cause="userns-limit",
                reason="ENOSPC",
                failed=["a"],
                seconds={"suite": 12.5},
            )
        ],
        retried=["the machine died"],
        rerun="lab matrix -g debian-13",
    )
    lane = LaneRecord(
        guest="debian-13",
        image="1" * 64,
        fork="memory",
        note="booted twice",
        restored=True,
        seconds={"boot": 21.0},
    )
    run = run_of(cell(), failed, lanes=[lane])
    run.run.finished = run.run.started
    run.run.builds = [BuildRecord(name="0.10.8", version="0.10.8", source="PyPI", files={"b.whl": "2" * 64})]
    run.run.host = host()
    run.run.resumed = [run.run.started]
    run.run.options = RunOptions(cold=True, repeat=3, retries=2, rootfs="/layout")
    run.run.definitions = {"variant stock": "3" * 64}
    run.run.shard = ShardRecord(number=1, count=2, plan=["debian-13/stock/0.10.8"], sizes=[1, 0])
    run.run.merged = [run_of(cell()).run]
    return run


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    run = full_run()
    assert run.write(tmp_path) == tmp_path / "results.json"
    assert RunResult.read(tmp_path) == run


@pytest.mark.parametrize(
    ("outcome", "is_failure"),
    [("pass", False), ("fail", True), ("skip", False), ("error", True), ("not-run", False)],
)
def test_a_test_that_did_not_run_is_no_failure(outcome: str, is_failure: bool) -> None:
    assert Outcome(outcome).is_failure == is_failure


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], 0),
        (["pass"], 0),
        (["pass", "xfail", "n/a"], 0),
        (["n/a"], 0),
        (["fail"], 1),
        (["xpass"], 1),
        (["flaky"], 1),
        (["pass", "fail"], 1),
        (["error", "fail"], 1),
        (["not-run", "xpass"], 1),
        (["flaky", "error", "not-run"], 1),
        (["error"], 3),
        (["not-run"], 3),
        (["pass", "xfail", "n/a", "error"], 3),
        (["pass", "not-run"], 3),
    ],
)
def test_exit_status(statuses: list[str], expected: int) -> None:
    assert run_of(*[cell(status=Status(status)) for status in statuses]).exit_status() == expected


@pytest.mark.parametrize("status", Status)
def test_a_status_is_as_expected_or_unexpected_or_could_not_run(status: Status) -> None:
    expected = {"pass", "xfail", "n/a"}
    assert status.as_expected == (status in expected)
    assert status.could_not_run == (status in {"error", "not-run"})


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} is not the folder of a run: No such file"):
        RunResult.read(tmp_path)


def valid() -> Any:
    return json.loads(full_run().model_dump_json(by_alias=True))


def changed(key: str, value: object, *, raw: bool = False) -> bytes:
    """The JSON of a valid record with another value; `raw`: as it stands there."""
    record = valid()
    *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    inner = record
    for part in parents:
        inner = inner[part]
    inner[last] = value
    text = json.dumps(record)
    return (text.replace(json.dumps(value), str(value)) if raw else text).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Invalid JSON"),
        (b"not json", "Invalid JSON"),
        (b'{"schema": 2', "Invalid JSON"),
        (b"\xff\xfe", "results.json"),
        (b"[]", "Input should be an object\n  next: name another run"),
        (b"{}", "run: Field required"),
        (json.dumps(valid()).encode()[:-100], "EOF while parsing"),
        *((changed("schema", wrong), "schema: Input should be 2\n  next: name") for wrong in (1, True, [1])),
        (changed("cells", []), "cells: the run has none, expected at least one"),
        (changed("cells", valid()["cells"][:1] * 2), "cells.1: expected each cell once, found that of cells.0"),
        (changed("cells", "many"), "cells: Input should be a valid array"),
        (changed("cells", ["one"]), "cells.0: Input should be"),
        (changed("cells", [{"guest": "x"}]), "cells.0.variant: Field required"),
        (changed("run", "x"), "run: Input should be"),
        (changed("run", {"lanes": {}, "merged": [1]}), "run.id: Field required"),
        (changed("colour", "red"), "colour: Extra inputs are not permitted"),
        # What only a hostile host, guest or shard writes.
        (
            changed("run.lanes.0.seconds", {"boot": 1e308}),
            "run.lanes.0.seconds.boot: Input should be less than",
        ),
        (changed("cells.1.tests.0.seconds", "1e400", raw=True), "cells.1.tests.0.seconds: Input should be "),
        (changed("cells.1.seconds", {"suite": -1.0}), "cells.1.seconds.suite: Input should be greater than"),
        (changed("run.started", "2026-11-26T10:00:00"), "run.started: Input should have timezone info"),
        (changed("run.resumed.0", "2026-11-26T10:00:00"), "run.resumed.0: Input should have timezone info"),
        (
            changed("run.shard.plan.0", "debian-13/stock"),
            "run.shard.plan: Value error, expected GUEST/VARIANT/BUILD",
        ),
        (changed("run.shard.plan", ["a/b/c"] * 2), "run.shard.plan: Value error, expected each cell once"),
        (changed("run.shard.count", 10**10), "run.shard.count: Input should be less than"),
        (changed("run.shard.number", 3), "run.shard: Value error, expected a number from 1 to 2"),
        (changed("run.options.repeat", 10**10), "run.options.repeat: Input should be less than"),
        (changed("run.builds", []), "cells.0.build: expected one of run.builds, found '0.10.8'"),
        (changed("cells.0.guest", ".."), "cells.0: expected names of a folder, found 'cells/../stock/0.10.8'"),
        (changed("cells.0.variant", "/etc"), "cells.0: expected names of a folder, found '/etc/0.10.8'"),
        (changed("cells.0.build", "a\0b"), "cells.0: expected names of a folder"),
    ],
)
def test_results_that_cannot_be_read_name_file_and_key(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(UsageError) as error:
        RunResult.read(tmp_path)
    assert str(tmp_path / "results.json") in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "link", ["cells", "cells/debian-13", "cells/debian-13/stock", "cells/debian-13/stock/0.10.8"]
)
def test_a_cell_whose_folder_is_a_link_is_refused(tmp_path: Path, link: str) -> None:
    run_of(cell()).write(tmp_path)
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to("/etc")
    with pytest.raises(UsageError, match=f"{link}: expected a folder, found a link"):
        RunResult.read(tmp_path)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_could_not_be_read_again_does_not_replace_a_record(tmp_path: Path, number: float) -> None:
    run_of(cell()).write(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ValueError, match=r"cells\.0\.seconds"):
        run_of(cell().model_copy(update={"seconds": {"suite": number}})).write(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema()


def test_written_results_are_valid_by_the_published_schema(tmp_path: Path) -> None:
    schema = json.loads(PUBLISHED.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(full_run().write(tmp_path).read_text()), schema)


@pytest.mark.parametrize("outcome", RemedyOutcome)
def test_a_resumed_run_tries_a_remedy_again_only_after_a_fault_of_the_lab(outcome: RemedyOutcome) -> None:
    failed = cell(status=Status.XFAIL, remedies=[RemedyResult(name="sysctl", result=outcome, price="none")])
    assert failed.has_more_to_try is (outcome is RemedyOutcome.ERROR)
    assert outcome.says_nothing is (
        outcome.value in ("cannot be tried here", "not judged here", "its script fails", "error")
    )
