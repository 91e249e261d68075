"""The GitHub issue form that asks for the output of the probe script."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from lab.cli import cli
from lab.probes.report import read


@pytest.fixture(scope="module")
def form() -> str:
    return CliRunner().invoke(cli, ["probe", "--issue-form"], standalone_mode=False).output


def fields(form: str) -> dict[str, Any]:
    return {
        each.get("id", str(number)): each for number, each in enumerate(YAML(typ="safe").load(form)["body"])
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
    known = fields(form)
    asked = {name: each for name, each in known.items() if each["type"] != "markdown"}
    required = {name for name, each in asked.items() if each.get("validations", {}).get("required")}
    assert required == {"what-happened", "version", "installed-by", "probe"}
    assert len({each["attributes"]["label"] for each in asked.values()}) == len(asked)
    # GitHub puts such an answer between fences, so that nothing in it is markup.
    assert asked["probe"]["attributes"]["render"] == "text"


def test_the_command_in_it_prints_what_the_lab_reads_in_the_issue_that_comes_of_it(form: str) -> None:
    [text] = [each["attributes"]["value"] for each in fields(form).values() if "```sh" in str(each)]
    command = text.split("```sh\n")[1].split("```")[0]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    issue = f"### Version of boxlite\n\n0.10.8\n\n### Output of the probe\n\n```text\n{done.stdout}\n```\n"
    report = read(issue)
    assert report is not None
    assert report == read(done.stdout)
