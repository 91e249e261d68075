import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from lab.base.errors import UsageError
from lab.base.paths import PACKAGE
from lab.record import (
    CellHistory,
    CellTrials,
    CellVerdict,
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
    SuiteResult,
    TestResult,
    make_json_schema,
)
from tests.builders.cells import cell
from tests.builders.facts import context, facts
from tests.builders.runs import host, run_of

PUBLISHED = PACKAGE.parent / "docs" / "results.schema.json"


def full_run() -> RunResult:
    """A run with something in every field that has a form of its own."""
    failed = cell(
        variant="max-userns-zero",
        status=Status.XFAIL,
        expected=Expectation(status="xfail", cause="userns-limit"),
        cause="userns-limit",
        confidence=Confidence.PROVED,
        tests=[TestResult(name="a", outcome=Outcome.FAIL, seconds=1.5, message='<"ä\n">')],
        facts=facts(kvm=None),
        context=context(),
        evidence=["cells/debian-13/max-userns-zero/0.10.8/kernel.log"],
        remedies=[RemedyResult(name="sysctl", result=RemedyOutcome.VERIFIED, price="none", seconds=2.0)],
        seconds={"suite": 12.5},
        repeats=[RepeatResult(status=Status.XFAIL, failed=["a"], seconds={"suite": 12.5})],
    )
    run = run_of(cell(), failed)
    more = {
        "lanes": [LaneRecord(guest="debian-13", image="1" * 64, fork="memory", seconds={"boot": 21.0})],
        "finished": run.run.started,
        "resumed": [run.run.started],
        "host": host(),
        "options": RunOptions(cold=True, repeat=3),
        "definitions": {"variant stock": "3" * 64},
        "shard": ShardRecord(number=1, count=2, plan=["debian-13/stock/0.10.8"], sizes=[1, 0]),
        "merged": [run.run],
    }
    return RunResult(run=run.run.model_copy(update=more), cells=run.cells)


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
        (["pass", "xfail", "n/a"], 0),
        (["fail"], 1),
        (["xpass"], 1),
        (["flaky"], 1),
        (["error", "fail"], 1),
        (["flaky", "error", "not-run"], 1),
        (["error"], 3),
        (["not-run"], 3),
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


def changed(key: str, value: object) -> bytes:
    """The JSON of a valid record with another value."""
    record = valid()
    *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    inner = record
    for part in parents:
        inner = inner[part]
    inner[last] = value
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "results.json"),
        (b"[]", "Input should be a valid dictionary or instance of RunResult\n  next: name another run"),
        (b"{}", "run: Field required"),
        (changed("schema", 2), "results.json has version 2 of its format, and this lab, "),
        (changed("cells", []), "cells: the run has none, expected at least one"),
        (changed("cells", valid()["cells"][:1] * 2), "cells.1: expected each cell once, found that of cells.0"),
        (changed("cells", [{"guest": "x"}]), "cells.0.variant: Field required"),
        (changed("colour", "red"), "colour: Extra inputs are not permitted"),
        # What only a hostile host, guest or shard writes.
        (changed("run.lanes.0.seconds", {"boot": 1e308}), "lanes.0.seconds.boot: Input should be less than"),
        (
            changed("cells.1.suite.seconds", {"suite": -1.0}),
            "cells.1.suite.seconds.suite: Input should be greater than",
        ),
        (changed("run.started", "2026-11-26T10:00:00"), "run.started: Input should have timezone info"),
        (changed("run.shard.plan.0", "debian-13/stock"), "run.shard.plan: Value error, expected GUEST/VARIANT"),
        (changed("run.shard.plan", ["a/b/c"] * 2), "run.shard.plan: Value error, expected each cell once"),
        (changed("run.shard.number", 3), "run.shard: Value error, expected a number from 1 to 2"),
        (changed("run.options.repeat", 10**10), "run.options.repeat: Input should be less than"),
        (changed("run.builds", []), "cells.0.build: expected one of run.builds, found '0.10.8'"),
        (changed("cells.0.guest", ".."), "cells.0: expected names of a folder, found 'cells/../stock/0.10.8'"),
        (changed("cells.0.variant", "/etc"), "cells.0: expected names of a folder, found '/etc/0.10.8'"),
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


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -1.0])
def test_a_part_that_could_not_be_read_again_cannot_be_made(number: float) -> None:
    with pytest.raises(ValueError, match=r"seconds\.suite"):
        SuiteResult(seconds={"suite": number})


@pytest.mark.parametrize("part", [SuiteResult, CellVerdict, CellTrials, CellHistory])
def test_a_misspelt_field_of_a_part_is_an_error(part: type[BaseModel]) -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        part(status=Status.PASS, tets=[])


@pytest.mark.parametrize("values", [{"tets": []}, {"seconds": {"suite": float("inf")}}])
def test_another_value_of_a_part_is_checked(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"tets|seconds\.suite"):
        SuiteResult().with_values(**values)


def test_a_result_with_another_part_is_another_result() -> None:
    result = cell(facts=facts())
    history = CellHistory(lane="debian-13", retried=["the machine is gone"])
    other = result.with_parts(history=history, evidence=["kernel.log"])
    assert (other.history, other.evidence) == (history, ["kernel.log"])
    assert (other.suite, other.verdict, other.name) == (result.suite, result.verdict, result.name)
    assert (result.history, result.evidence) == (CellHistory(), [])
    with pytest.raises(ValueError, match="frozen"):
        result.verdict = CellVerdict(status=Status.FAIL)


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(PUBLISHED.read_text()) == make_json_schema()


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
