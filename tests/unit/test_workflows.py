"""The action, the workflows in docs/examples/ and the project's own: valid, safe, and their parts fit."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from tests.builders.workflows import list_needs, read_yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / "docs" / "examples").glob("*.yml"))
OWN = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"

each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: str(file.stem))
each_file = pytest.mark.parametrize("file", [ACTION, *WORKFLOWS, *OWN], ids=lambda file: str(file.stem))


def list_steps(file: Path) -> list[dict[str, Any]]:
    """The steps of all jobs of a workflow, or of the action."""
    table = read_yaml(file)
    jobs = [table["runs"]] if file == ACTION else [job for job in table["jobs"].values() if "steps" in job]
    return [step for job in jobs for step in job["steps"]]


@each_file
def test_each_is_valid_by_github_s_schema(file: Path) -> None:
    kind = "vendor.github-actions" if file == ACTION else "vendor.github-workflows"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", kind, str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_zizmor_finds_nothing(tmp_path: Path) -> None:
    # Users put a commit of the lab into their copy. The one finding that is ignored has its reason beside it.
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    for file in WORKFLOWS:
        (folder / file.name).write_text(file.read_text().replace("COMMIT", COMMIT))
    shutil.copytree(ROOT / ".github", tmp_path / ".github", dirs_exist_ok=True)
    shutil.copy(ACTION, tmp_path)
    zizmor = Path(sys.executable).with_name("zizmor")
    done = subprocess.run([zizmor, "--offline", tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, "No findings to report" in done.stdout) == (0, True), done.stdout
    ignored = [
        line
        for file in [ACTION, *WORKFLOWS, *OWN]
        for line in file.read_text().splitlines()
        if "zizmor" in line
    ]
    assert all(re.search(r"# zizmor: ignore\[[a-z-]+\] \w+", line) for line in ignored)


@each_file
def test_no_expression_is_part_of_a_program(file: Path) -> None:
    programs = [step["run"] for step in list_steps(file) if "run" in step]
    assert [program for program in programs if "${{" in program] == []


def list_actions(file: Path) -> list[str]:
    """What a file uses of other repositories but the lab, with the comments."""
    lines = [line.partition("uses: ")[2] for line in file.read_text().splitlines() if " uses: " in line]
    return [line for line in lines if not line.startswith(("OWNER/boxlite-lab@COMMIT", "./", "$/"))]


@each_file
def test_each_action_is_pinned_by_its_digest_and_names_its_release(file: Path) -> None:
    lines = list_actions(file)
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_release_of_each_action_is_used_everywhere() -> None:
    lines = {line for file in [ACTION, *WORKFLOWS, *OWN] for line in list_actions(file)}
    # Two of the actions are parts of one repository.
    releases = {(*line.partition("@")[0].split("/")[:2], line.partition("@")[2]) for line in lines}
    assert len(releases) == len({release[:2] for release in releases})


@each_workflow
def test_each_workflow_gives_the_action_inputs_that_it_has(file: Path) -> None:
    action = read_yaml(ACTION)
    text, used = file.read_text(), 0
    for step in list_steps(file):
        if str(step.get("uses")).startswith(("OWNER/boxlite-lab@", "./lab")):
            assert set(step["with"]) <= set(action["inputs"])
            used += 1
    assert used
    outputs = set(re.findall(r"steps\.lab\.outputs\.(\w+)", text))
    assert outputs <= set(action["outputs"])


@each_workflow
def test_each_job_has_the_rights_that_it_needs_and_runs_no_foreign_code_with_them(file: Path) -> None:
    workflow = read_yaml(file)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for name, job in workflow["jobs"].items():
        rights = job.get("permissions", workflow["permissions"])
        steps = job["steps"]
        writes = {right for right, kind in rights.items() if kind == "write"}
        has_token = any("github.token" in str(step.get("env")) for step in steps)
        # The caller's own repository is checked out with the right to read it, and no token stays in it.
        checkouts = [step["with"] for step in steps if str(step.get("uses")).startswith("actions/checkout@")]
        own = [given for given in checkouts if "repository" not in given]
        assert all(given["persist-credentials"] is False for given in checkouts)
        assert ("contents" in rights) is bool(own) or file.stem == "before-a-release", name
        # What may write runs neither code of a checkout nor the lab.
        if writes:
            assert own == [], name
            assert not any("lab" in str(step.get("uses")) for step in steps), name
        assert not has_token or writes or rights.get("pages") == "read", name
        assert "secrets." not in json.dumps(steps)


@each_workflow
def test_shards_are_as_many_as_guests_and_a_lost_one_is_made_good(file: Path) -> None:
    jobs, text = read_yaml(file)["jobs"], file.read_text()
    # Each artifact is uploaded again if its job is.
    assert text.count("uses: actions/upload-artifact@") == text.count("overwrite: true")
    if "shard" not in jobs:
        return
    shards = jobs["shard"]["strategy"]["matrix"]["shard"]
    count = len(catalog.load_catalog().set("ci").guests)
    assert shards == [f"{number}/{count}" for number in range(1, count + 1)]
    assert jobs["shard"]["strategy"]["fail-fast"] is False
    gate = jobs["gate"]
    assert list_needs(gate) == ["shard"]
    assert gate["if"] == "${{ !cancelled() }}"
    assert gate["timeout-minutes"] > jobs["shard"]["timeout-minutes"]
    [given] = [step["with"] for step in gate["steps"] if "merge" in step.get("with", {})]
    assert given["resume"] == "true"


def test_a_release_publishes_the_files_that_were_built_once_and_tried() -> None:
    jobs = read_yaml(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert {name: sorted(list_needs(job)) for name, job in jobs.items()} == {
        "tests": [],
        "build": [],
        "try": ["build"],
        "publish": ["tests", "try"],
    }
    built = [name for name, job in jobs.items() if "hatchling build" in json.dumps(job)]
    assert built == ["build"]
    # Who may publish runs no program, and no other job may.
    assert [name for name, job in jobs.items() if "id-token" in job["permissions"]] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert [step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert jobs["try"]["strategy"]["matrix"] == {"file": ["*.whl", "*.tar.gz"], "extra": ["", "run"]}
