"""What is behind a report that shows no cause of the lab's: one row of the table for each kind of words."""

import json
import tomllib
from pathlib import Path

import pytest

from lab.repro.instead import ROWS
from lab.repro.judging import TABLE, judge_report
from lab.repro.reading import read_report
from tests.builders.processes import RunLab

CASES = tomllib.loads((Path(__file__).parents[1] / "data/repro/instead.toml").read_text())
NONE = "none"
KEYS = {
    *("name", "pattern", "refusals", "audit", "beside", "alone", "lacks"),
    *("says", "command", "shows", "source"),
}


def topics(text: str) -> list[str]:
    return [explanation.topic for explanation in judge_report(read_report(text.encode())).instead]


def test_each_row_has_words_that_decide_and_an_example() -> None:
    rows = ROWS
    assert {key for row in rows for key in row} == KEYS
    assert all({"pattern", "refusals", "audit", "lacks"} & row.keys() for row in rows)
    assert {row["name"] for row in rows} == CASES.keys() - {NONE}


def test_no_row_has_the_name_of_a_topic_or_names_one_that_is_not_there() -> None:
    names = {topic["name"] for topic in TABLE["topic"]}
    assert {row["beside"] for row in ROWS if "beside" in row} <= names
    assert not names & {row["name"] for row in ROWS if "pattern" in row}


@pytest.mark.parametrize("command", [row["command"] for row in ROWS])
def test_a_command_sets_nothing(command: str) -> None:
    assert not {"-w", "tee", "chmod", "usermod", "setenforce", "mount", "apt", "rm"} & {*command.split()}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in CASES.items() for text in texts])
def test_words_that_decide_explain_a_report(name: str, text: str) -> None:
    assert topics(text)[:1] == ([] if name == NONE else [name])


def test_an_explanation_quotes_its_line_and_a_cause_that_is_likely_leaves_none() -> None:
    text = "My host\n\nmytool: error: could not find bubblewrap on PATH"
    [explanation] = judge_report(read_report(text.encode())).instead
    assert [quote.number for quote in explanation.quotes] == [3]
    assert topics(f"{text}\n\n/dev/kvm: No such file or directory") == []


def test_the_text_and_the_json_show_it(run_lab: RunLab, tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    report.write_text("The build fails: write /srv/layer: no space left on device")
    shown = run_lab(None, "repro", "--text-only", str(report))
    assert "A file system or a quota is full" in shown.out
    document = json.loads(run_lab(None, "repro", "--text-only", "--json", str(report)).out)
    assert [one["topic"] for one in document["instead"]] == ["disk-full"]
