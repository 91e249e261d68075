"""The GitHub issue form that asks for the output of the probe script."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from lab.cli import cli
from lab.probes.report import read_host_report


@pytest.fixture(scope="module")
def form() -> str:
    return CliRunner().invoke(cli, ["probe", "--issue-form"], standalone_mode=False).output


def fields(form: str) -> dict[str, Any]:
    return {
        field.get("id", str(number)): field for number, field in enumerate(YAML(typ="safe").load(form)["body"])
    }


def test_github_takes_it(form: str, tmp_path: Path) -> None:
    file = tmp_path / "form.yml"
    file.write_text(form)
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-issue-forms",
        str(file),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_it_asks_for_what_decides_and_labels_and_ids_are_unique(form: str) -> None:
    questions = {name: field for name, field in fields(form).items() if field["type"] != "markdown"}
    required = {name for name, field in questions.items() if field.get("validations", {}).get("required")}
    assert required == {"what-happened", "version", "installed-by", "probe"}
    assert len({field["attributes"]["label"] for field in questions.values()}) == len(questions)
    # GitHub puts such an answer between fences, so that nothing in it is markup.
    assert questions["probe"]["attributes"]["render"] == "text"


def test_the_command_in_it_prints_what_the_lab_reads_in_the_issue_that_comes_of_it(form: str) -> None:
    [text] = [field["attributes"]["value"] for field in fields(form).values() if "```sh" in str(field)]
    command = text.split("```sh\n")[1].split("```")[0]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    issue = f"### Version of boxlite\n\n0.10.8\n\n### Output of the probe\n\n```text\n{done.stdout}\n```\n"
    report = read_host_report(issue)
    assert report is not None
    assert report == read_host_report(done.stdout)
