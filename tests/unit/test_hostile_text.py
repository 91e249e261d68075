"""Hostile text in every field of a record, and what each text form of a run makes of it."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from junitparser import JUnitXml
from markdown_it import MarkdownIt
from pydantic import BaseModel
from rich.console import Console

from lab.base.activity import Activity, Progress
from lab.cli import cli
from lab.gate.decision import decide_gate
from lab.record import (
    BuildRecord,
    Foreseen,
    KeptFrom,
    LaneRecord,
    LaneStep,
    Outcome,
    Prediction,
    RunOptions,
    RunResult,
    ShardRecord,
    Status,
    TestResult,
)
from lab.record.folders import RUN_LOG
from lab.record.outcome import BoxProcess
from lab.report import compare, github, junit, markdown
from lab.report.site import one_page
from lab.run import live
from lab.run.live import open_log
from lab.run.observer import Observer
from tests.builders.cells import box, cell, done, side
from tests.builders.facts import context, facts
from tests.builders.output import REPORTS, Parsed, skeleton
from tests.builders.runs import host, run_of
from tests.unit.report.test_cells import blocked, everything

TEXTS = {
    "escapes": "\x1b[2J\x1b]0;title\x07\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\ \x9b31m\x85\x00",
    "direction": "\u202egpj.exe\u202c \u2067a\u2069 \u200e\u200f\u061c",
    "invisible": "pa\u200bss\u200d\u2060\ufeff\u00ad\u2028\u2029\U000e0041",
    "html": '<script>alert(1)</script> <b onclick="x">pass</b> <!-- &amp; </details>',
    "markdown": "# pass\n- [x](https://example.org) ![y](z)\n| a | b |\n```\n~~~\n*a* __b__ `c`\n> q\n---",
    "table": 'a\\|b | pass |\n| <b>pass</b> | "x" `y`',
    "list": "1. a list\n[name]: https://example.org\n![pass](https://example.org/x.png) <https://x.org>",
    "cut inside an escape": "x" * 295 + "|" * 20,
    "xml": ']]></failure><testcase name="forged"/><![CDATA[ &#0; \ufffe\uffff',
    "commands": "x\n::error::forged\n  ::stop-commands::t\n##[add-path]/evil\r::add-mask::x",
    "invalid UTF-8": b"\xff\xfe\xc3(\xed\xa0\x80".decode(errors="surrogateescape") + "\ud800",
    "rich markup": "[bold green]pass[/] [/nothing] [link=https://example.org]x[/link]",
}
# What no form may hold: controls but tab and line feed, marks of direction, what has no width, surrogates.
FORBIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


def run_with(text: str) -> RunResult:
    """A run with everything that a record may have, and the text before and behind each of its texts.

    It is as a lab passes it on that has just met it: not read from a record.
    """

    def told(value: Any) -> Any:
        match value:
            case BaseModel():
                fields = {name: told(getattr(value, name)) for name in type(value).model_fields}
                return value.model_copy(update=fields)
            case list() | tuple():
                return type(value)(map(told, value))
            case dict():
                return {key: told(part) for key, part in value.items()}
            case str() if not isinstance(value, StrEnum):
                return f"{text} {value} {text}"
        return value

    run: RunResult = told(everything())
    return run


def tell(view: Observer, run: RunResult) -> None:
    for result in run.cells:
        view.lane(result.guest, Progress(result.reason))
        view.note(result.reason)
        view.cell(result)


def progress(run: RunResult, _folder: Path) -> str:
    out = StringIO()
    console = Console(file=out, width=200, force_terminal=False, color_system=None)
    with live.open_view(console, [], [], quiet=False, verbose=True) as lines:
        tell(lines, run)
    return out.getvalue()


def log(run: RunResult, folder: Path) -> str:
    with open_log(folder, Observer()) as written:
        tell(written, run)
    return (folder / RUN_LOG).read_text()


FORMS = REPORTS | {"progress": progress, "run log": log}
of_each_kind = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


@pytest.mark.parametrize("name", FORMS)
@of_each_kind
def test_no_form_holds_what_controls_or_hides(name: str, text: str, tmp_path: Path) -> None:
    printed = FORMS[name](run_with(text), tmp_path)
    assert FORBIDDEN.findall(printed) == []
    assert printed.encode()


@of_each_kind
def test_hostile_text_changes_nothing_in_the_structure_of_a_page(text: str, tmp_path: Path) -> None:
    for page in (markdown.render_run, github.render_summary):
        hostile, tame = (skeleton(page(run_with(words), tmp_path)) for words in (text, "words"))
        assert [kind for kind, _, _ in hostile] == [kind for kind, _, _ in tame]
    markup = []
    for words in (text, "words"):
        (tmp_path / "page.html").write_text(one_page.render_one_page(run_with(words), tmp_path))
        elements = Parsed(tmp_path / "page.html").elements
        markup.append([(tag, list(attributes)) for tag, attributes in elements])
    assert markup[0] == markup[1]


# What would be a picture, a cell of a table, a heading, a link or a command to GitHub if it were not escaped.
FORGED = (
    "<img src=x>`|forged|&#x202e;\n## forged\n::error::forged\n##[add-path]/forged\n| forged |\n"
    "[forged](https://example.org) ![forged](x)"
)


def fields_of(value: object, at: str = "") -> Iterator[str]:
    """The path of each field that holds text, in a model and in all that it holds."""
    match value:
        case BaseModel():
            for name in type(value).model_fields:
                yield from fields_of(getattr(value, name), f"{at}.{name}")
        case list() | tuple():
            for part in value:
                yield from fields_of(part, at)
        case dict():
            for key, part in value.items():
                yield from (f"{at}.keys", *fields_of(part, f"{at}[{key}]"))
        case str() if not isinstance(value, StrEnum):
            yield at


def with_text(value: Any, field: str, text: str, at: str = "") -> Any:
    """The same with this text in the field, wherever it is."""
    match value:
        case BaseModel():
            names = type(value).model_fields
            update = {name: with_text(getattr(value, name), field, text, f"{at}.{name}") for name in names}
            return value.model_copy(update=update)
        case list() | tuple():
            return type(value)(with_text(part, field, text, at) for part in value)
        case dict():
            keys = [text if field == f"{at}.keys" else key for key in value]
            parts = [with_text(part, field, text, f"{at}[{key}]") for key, part in value.items()]
            return dict(zip(keys, parts, strict=True))
        case str() if at == field:
            return text
    return value


def forged(page: str) -> list[str]:
    """What of the text above is more than text to GitHub, in a page of Markdown or in the log of a job."""
    found = [line for line in page.splitlines() if line.lstrip().startswith("::") or "##[" in line]
    for token in (every for block in PARSER.parse(page) for every in (block, *(block.children or ()))):
        is_markup = token.type in ("link_open", "image")
        is_tag = token.type in ("html_block", "html_inline") and "img" in token.content
        is_alone = token.type == "inline" and token.content.strip("# |") == "forged"
        found += [f"{token.type}: {token.content}"] if is_markup or is_tag or is_alone else []
    return found


PARSER = MarkdownIt("commonmark").enable("table")


KEPT = KeptFrom(run="earlier", began=datetime(2026, 11, 20, tzinfo=UTC))


def with_every_text() -> RunResult:
    """The run with everything, and with a text in the fields that are empty in it."""
    run = everything()
    process = BoxProcess(program="p", seccomp=["filter"], limits={"open files": "1"})
    protection = box(warnings=["w"], inherited=["i"], cgroup_limits={"pids.max": "1"}, processes=[process])
    passed = TestResult(name="starts", outcome=Outcome.PASS, protection=protection)
    differs = {"differs": {"Ubuntu": ["point"]}, "context": context(apparmor="x"), "faulty": ["t"]}
    cells = [blocked("debian-13", "quiet", **differs), cell("debian-13", "boxes", tests=[passed])]
    cells.append(cell("debian-13", "kept", kept=KEPT, prediction=Prediction(says=Foreseen.BLOCKED, cause="c")))
    build = BuildRecord(name="0.10.8", version="0.10.8", source="PyPI", files={"f": "1"}, remarks=["remark"])
    began = run.run.started
    step = LaneStep(lane="l", activity=Activity.SUITE, text="boots", began=began, seconds=1)
    lane = LaneRecord(guest="debian-13", label="l", image="1", fork="memory", network="open", seconds={"s": 1})
    info = {
        "builds": [build],
        "definitions": {"variant stock": "1"},
        "finished": None,
        "host": host(),
        "host_names": ["alpha"],
        "lanes": [*run.run.lanes, lane],
        "options": RunOptions(rootfs="/layout", shuffle=1),
        "shard": ShardRecord(number=1, count=1, plan=["debian-13/stock/0.10.8"], sizes=[1]),
        "steps": [step],
    }
    return RunResult(run=run.run.model_copy(update=info), cells=[*run.cells, *cells])


EVERYTHING = with_every_text()
DECISION = decide_gate(
    side(*(done(Status.PASS, variant=variant, build="0.10.0") for variant in ("stock", "a", "b"))),
    side(
        done(
            Status.FAIL, "unknown", variant="stock", reason="r", tests={"isolates": Outcome.FAIL}, rerun="lab"
        ),
        done(Status.FAIL, "unknown", variant="a", facts=facts(kernel="6.1"), evidence=["cells/a/kernel.log"]),
        done(Status.ERROR, variant="b", reason="did not boot"),
        done(Status.PASS, variant="c", kept=KEPT),
    ),
)
SUMMARIES: dict[str, tuple[BaseModel, Callable[[Any], str]]] = {
    "summary": (EVERYTHING, lambda run: github.render_summary(run, Path("a run"))),
    "gate": (DECISION, lambda decision: compare.render_comparison(decision.comparison, decision)),
    "comparison": (DECISION.comparison, compare.render_comparison),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_no_field_reaches_the_summary_of_a_job_as_anything_but_text(name: str) -> None:
    shown, render = SUMMARIES[name]
    pages = {field: render(with_text(shown, field, FORGED)) for field in set(fields_of(shown))}
    assert {field: found for field, page in pages.items() if (found := forged(page))} == {}
    least = {"summary": 40, "gate": 20, "comparison": 15}[name]
    assert sum("forged" in page for page in pages.values()) > least, "fewer fields are shown than were"


def test_each_field_of_a_record_adds_no_annotation() -> None:
    usual = [line.partition(" ")[0] for line in github.list_annotations(EVERYTHING)]
    for field in set(fields_of(EVERYTHING)):
        lines = "\n".join(github.list_annotations(with_text(EVERYTHING, field, FORGED))).splitlines()
        assert {line.partition(" ")[0] for line in lines} == set(usual), field


def test_markup_of_rich_is_printed_as_text(tmp_path: Path) -> None:
    run = run_with(TEXTS["rich markup"])
    for printed in (FORMS["table"](run, tmp_path), progress(run, tmp_path)):
        assert "[bold green]pass[/] [/nothing]" in printed


@of_each_kind
def test_hostile_text_adds_nothing_to_a_report_for_ci(text: str) -> None:
    suites, kinds = [], []
    for run in (run_with(text), run_with("words")):
        suites.append([len(suite) for suite in JUnitXml.fromstring(junit.render_junit(run).encode())])
        lines = "\n".join(github.list_annotations(run)).splitlines()
        kinds.append([line.partition(" ")[0] for line in lines])
    assert suites[0] == suites[1]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("name", ["table", "progress", "summary", "Markdown"])
def test_no_line_of_what_a_job_prints_is_a_command_to_github(name: str, tmp_path: Path) -> None:
    printed = FORMS[name](run_with(TEXTS["commands"]), tmp_path)
    assert "forged" in printed
    assert [line for line in printed.splitlines() if line.lstrip().startswith("::") or "##[" in line] == []


# The other one quotes little of a record.
@pytest.mark.parametrize("name", sorted(FORMS.keys() - {"upstream"}))
def test_a_megabyte_in_a_field_is_cut_in_every_form(name: str, tmp_path: Path) -> None:
    run = run_of(
        cell(
            status=Status.FAIL,
            cause="unknown",
            reason="r" * 1_000_000,
            retried=["f" * 1_000_000],
            facts=facts(kernel="k" * 1_000_000),
            tests=[TestResult(name="n" * 1_000_000, outcome=Outcome.FAIL, message="m" * 1_000_000)],
        )
    )
    printed = FORMS[name](run, tmp_path)
    assert len(printed) < 150_000
    assert " more characters)" in printed


def test_ten_thousand_tests_that_a_guest_made_up_are_cut_where_people_read(tmp_path: Path) -> None:
    tests = [
        TestResult(name=f"t{number}", outcome=Outcome.FAIL, message=str(number)) for number in range(10_000)
    ]
    run = run_of(cell(status=Status.FAIL, cause="unknown", reason="x", tests=tests))
    assert len(markdown.render_run(run)) < 10_000
    assert len(FORMS["table"](run, tmp_path)) < 10_000
    # A test that is missing in JUnit would be taken for one that no longer exists.
    assert JUnitXml.fromstring(junit.render_junit(run).encode()).tests == 10_001


def test_the_json_for_programs_is_ascii(tmp_path: Path) -> None:
    run_of(cell(rerun="lab \u202eé")).write(tmp_path)
    printed = CliRunner().invoke(cli, ["report", str(tmp_path), "--format", "json"]).output
    assert printed.isascii() and json.loads(printed)["cells"]


@of_each_kind
def test_a_record_keeps_no_hidden_text(text: str, tmp_path: Path) -> None:
    run_of(cell(status=Status.FAIL, reason=text, retried=[text])).write(tmp_path)
    assert FORBIDDEN.findall((tmp_path / "results.json").read_text()) == []
    [kept] = RunResult.read(tmp_path).cells
    assert FORBIDDEN.findall(kept.reason) == []
    assert json.dumps(kept.reason)
