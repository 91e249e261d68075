"""The workflows in docs/examples/, run as GitHub does; guests, machines and GitHub itself are stand-ins."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import catalog, plan
from lab.gate import baseline
from lab.record import RunResult
from lab.report.site.model import read_history
from lab.run import start
from tests.builders.facts import executable
from tests.builders.lab_without_guests import NEW_BUILD, RENEWED, judge_as_expected
from tests.builders.packages import make_wheel
from tests.builders.runs import RELEASE
from tests.builders.workflows import (
    Expression,
    Hub,
    NotSupported,
    WorkflowRun,
    decide,
    fill_in,
    render_build_workflow,
    sort_jobs,
)
from tests.conftest import Mount
from tests.vm import play_runner, runner

ROOT = Path(__file__).parents[2]
EIGHT = '["1/8", "2/8", "3/8", "4/8", "5/8", "6/8", "7/8", "8/8"]'

# -- expressions and the order of jobs

CONTEXTS: Mapping[str, Any] = {
    "github": {"event": {"number": 7}, "repository": "a/b"},
    "steps": {"lab": {"outputs": {"run": "/run", "status": "0"}}},
    "needs": {"gate": {"result": "success", "outputs": {"decision": "Blocked"}}},
    "inputs": {"merge": ""},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps.lab.outputs.run", "/run"),
        ("steps.none.outputs.run", ""),
        ("github.event.number", "7"),
        ("'it''s'", "it's"),
        ("steps.lab.outputs.run != ''", True),
        # GitHub's comparison of texts ignores case.
        ("needs.gate.outputs.decision == 'blocked'", True),
        ("inputs.merge == '' && steps.lab.outputs.status != '3'", True),
        ("!cancelled() && (inputs.merge || steps.lab.outputs.run)", "/run"),
        ("!always() || inputs.merge != ''", False),
    ],
)
def test_an_expression_has_github_s_value(text: str, value: str | bool) -> None:
    assert Expression(text, CONTEXTS, succeeded=True).evaluate() == value


@pytest.mark.parametrize(
    "text",
    [
        *("failure()", "hashFiles('**')", "fromJSON('[]')", "format('{0}', github.ref)", "secrets.TOKEN"),
        *("steps.*.outcome", "matrix[0]", "1 < 2", "needs.gate.outputs", "steps.lab == ''", "always() == ''"),
        *("'a", "(always()", "a b", "", "github", "env.X"),
    ],
)
def test_an_expression_that_the_examples_do_not_use_is_refused(text: str) -> None:
    with pytest.raises(NotSupported):
        Expression(text, CONTEXTS, succeeded=True).evaluate()


@pytest.mark.parametrize(
    ("condition", "succeeded", "runs"),
    [
        ("", True, True),
        ("", False, False),
        ("steps.lab.outputs.run != ''", True, True),
        # Without a function of the status it is asked for success, too.
        ("steps.lab.outputs.run != ''", False, False),
        ("always() && steps.lab.outputs.run != ''", False, True),
        ("${{ !cancelled() }}", False, True),
        ("${{ inputs.merge != '' }}", True, False),
    ],
)
def test_a_condition_asks_for_success_unless_it_says_otherwise(
    condition: str, succeeded: bool, runs: bool
) -> None:
    assert decide(condition, CONTEXTS, succeeded=succeeded) is runs


def test_a_text_is_filled_in_and_jobs_come_after_what_they_need() -> None:
    assert fill_in("a ${{ inputs.merge }}b-${{ steps.lab.outputs.status }}", CONTEXTS) == "a b-0"
    assert sort_jobs({"a": {"needs": ["b", "c"]}, "b": {"needs": "c"}, "c": {}}) == ["c", "b", "a"]
    for jobs in ({"a": {"needs": "a"}}, {"a": {"needs": "none"}}):
        with pytest.raises(NotSupported):
            sort_jobs(jobs)


# -- whole workflows


def write_baseline(folder: Path, file: Path) -> None:
    """A baseline of the sets that the workflows run, in which every cell does what is expected of it."""
    known = catalog.load_catalog()
    cells = plan.choose_cells(known, set_name="ci").cells([RELEASE])
    begun = start.begin_run(folder, cells, command="lab matrix", options=plan.DEFAULT_OPTIONS)
    folder.mkdir()
    RunResult(run=begun.info, cells=[judge_as_expected(cell) for cell in cells]).write(folder)
    baseline.write_baseline(baseline.read_side(folder.parent, str(folder)), file)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's repository with the examples, the lab's, and programs of the runner."""
    folder = tmp_path_factory.mktemp("examples")
    workflows = folder / "repository" / ".github" / "workflows"
    workflows.mkdir(parents=True)
    for file in sorted((ROOT / "docs" / "examples").glob("*.yml")):
        # Two shards take a quarter of the time, and join as eight do.
        (workflows / file.name).write_text(file.read_text().replace(EIGHT, '["1/2", "2/2"]'))
    (workflows / "build-wheels.yml").write_text(render_build_workflow("wheels-linux"))
    (workflows / "no-wheels.yml").write_text(render_build_workflow("other-linux"))
    (folder / "repository" / "compatibility").mkdir()
    write_baseline(folder / "earlier", folder / "repository" / "compatibility" / "baseline.toml")

    lab = folder / "lab"
    for name in ("images", "cloud-init", "lab", ".ci"):
        shutil.copytree(ROOT / name, lab / name)
    shutil.copy(ROOT / "action.yml", lab)
    program = f'cd "$(dirname "$0")" && PYTHONPATH=$PWD:{ROOT} exec {sys.executable}'
    executable(lab / "setup.sh", f'#!/bin/sh\n{program} -m tests.builders.lab_without_guests "$@"\n')
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "the lab"]):
        subprocess.run(["git", *words], cwd=lab, check=True)

    wheel = make_wheel(folder, "boxlite", "0.10.9")
    called = f'echo "${{0##*/}} $*" >>{folder}/called\n'
    executable(folder / "programs" / "make", f"#!/bin/sh\n{called}mkdir wheelhouse\ncp {wheel} wheelhouse\n")
    executable(folder / "programs" / "sudo", f"#!/bin/sh\n{called}")
    answer = 'case "$*" in *html_url) echo https://pages.example/ ;; *" list "*) cat "$0.number" ;; esac\n'
    executable(folder / "programs" / "gh", f'#!/bin/sh\n[ -n "$GH_TOKEN" ]\n{called}{answer}')
    (folder / "programs" / "gh.number").write_text("")
    # curl -o FILE: what Pages has.
    last = f"{folder}/pages/history.json"
    fetch = f'[ -e {last} ] || {{ echo 404; exit; }}\ncp {last} "$5"\necho 200\n'
    executable(folder / "programs" / "curl", f"#!/bin/sh\n{called}{fetch}")
    return folder


@pytest.fixture
def hub(examples: Path, tmp_path: Path) -> Hub:
    (examples / "called").unlink(missing_ok=True)
    (examples / "repository" / "compatibility" / "expected.toml").write_text("")
    shutil.rmtree(examples / "pages", ignore_errors=True)
    (examples / "programs" / "gh.number").write_text("")
    return Hub(examples / "repository", examples / "lab", tmp_path / "machine", examples / "programs")


# A known failure whose cell passes, and whose time is over.
STALE = """\
[[expect]]
guest = "debian-13"
variant = "stock"
cause = "unknown"
bug = "https://bugs.example/1"
reason = "it is being mended"
owner = "somebody"
until = 2026-01-31
"""


def output_of(run: WorkflowRun, job: str) -> str:
    return "".join(step.output for step in run.steps if step.job == job)


def called(examples: Path, program: str) -> list[str]:
    file = examples / "called"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if line.startswith(f"{program} ")]


@pytest.mark.slow
def test_a_release_is_tested_before_it_is_published(hub: Hub) -> None:
    run = hub.run("build-wheels.yml")
    assert run.results == {
        "build_wheels": "success",
        "compatibility/shard": "success",
        "compatibility/gate": "success",
        "compatibility": "success",
        "publish": "success",
    }, run.show()
    assert set(run.artifacts) == {"wheels-linux", "shard-0", "shard-1", "run"}
    result = RunResult.read(run.artifacts["run"])
    guests = catalog.load_catalog().set("ci").guests
    assert list(dict.fromkeys(cell.guest for cell in result.cells)) == guests
    assert {cell.build.partition("@")[0] for cell in result.cells} == {"0.10.9"}
    assert run.summaries.count("# gate passed") == 1
    # The cache has the images of both shards, and nothing else.
    assert len(hub.caches) == 2
    stored = [path.parent.name for cache in hub.caches.values() for path in cache.glob("0/*/manifest.json")]
    assert sorted(name.rpartition("-")[0] for name in stored) == sorted(guests)
    assert all(step.result != "failure" for step in run.steps), run.show()

    # The next release finds one image damaged and one machine gone; and one of its cells fails.
    [damaged] = next(iter(hub.caches.values())).glob("0/debian-13-*/disk.qcow2")
    damaged.chmod(0o644)  # Nobody but root may write to an image.
    damaged.write_text("something else")
    hub.loses = lambda job: job == "compatibility/shard-1"
    hub.variables = {"STAND_IN_FAILS": "fedora-44/stock"}
    run = hub.run("build-wheels.yml")
    assert run.results == {
        "build_wheels": "success",
        "compatibility/shard": "success",
        "compatibility/gate": "failure",
        "compatibility": "failure",
        "publish": "skipped",
    }, run.show()
    assert set(run.artifacts) == {"wheels-linux", "shard-0", "run"}
    first, last = output_of(run, "compatibility/shard-0"), output_of(run, "compatibility/gate")
    assert "set aside as" in first
    assert first.count("made the image of") == 1
    assert "made the image of debian-13\n" in first
    # The cells of the lost shard ran in the last job, before the gate was asked.
    assert "fedora-44 stock" in last
    assert {cell.status.could_not_run for cell in RunResult.read(run.artifacts["run"]).cells} == {False}
    assert "# gate blocked: 1 regressed" in run.summaries


@pytest.mark.slow
def test_what_the_guest_that_is_a_runner_plays_goes_through_with_stand_ins(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    runner.write_repository(tmp_path / "repository", tmp_path)
    places = {
        "CLONE": examples / "lab",
        "REPOSITORY": tmp_path / "repository",
        "CACHE": cache,
        "BUILT": examples,
    }
    for name, folder in places.items():
        monkeypatch.setattr(play_runner, name, str(folder))
    monkeypatch.setenv("PATH", f"{examples / 'programs'}:{os.environ['PATH']}")
    play_runner.main(tmp_path / "played")
    found = json.loads((tmp_path / "played" / "results.json").read_text())
    printed = (tmp_path / "played" / "printed").read_text()
    assert set(found["jobs"].values()) == {"success"}, printed
    assert ["compatibility/shard-0", "Verify them", "success"] in found["steps"]
    assert "# gate passed" in found["summaries"]
    [cell] = RunResult.read(Path(found["artifacts"]["run"])).cells
    assert (cell.guest, cell.variant) == (play_runner.GUEST, play_runner.VARIANT)


def test_a_played_shard_says_why_it_judged_nothing(tmp_path: Path) -> None:
    run = WorkflowRun(Hub(tmp_path, tmp_path, tmp_path, tmp_path))
    assert play_runner.find_unjudged(run) == "it left no run"
    run.artifacts[play_runner.SHARD] = tmp_path
    for status, problem in (("xfail", ""), ("error", "error: the machine is gone")):
        verdict = {"status": status, "reason": "the machine is gone"}
        (tmp_path / "results.json").write_text(json.dumps({"cells": [{"verdict": verdict}]}))
        assert play_runner.find_unjudged(run) == problem


@pytest.mark.slow
def test_without_wheels_nothing_is_published_and_each_job_says_why(hub: Hub) -> None:
    run = hub.run("no-wheels.yml")
    assert (run.results["compatibility"], run.results["publish"]) == ("failure", "skipped")
    for job in ("compatibility/shard-0", "compatibility/shard-1"):
        assert "neither a version nor the path of a wheel or of a folder of wheels" in output_of(run, job)
    assert "merge: no shard is in shards: none of the jobs left a run" in output_of(run, "compatibility/gate")
    assert set(run.artifacts) == {"other-linux"}


@pytest.mark.slow
def test_a_runner_whose_disk_has_2_gib_left_says_so_and_keeps_what_it_has(hub: Hub, mount: Mount) -> None:
    mount(hub.machine, "size=2g")
    hub.variables = {"STAND_IN_LARGE": "fedora-44"}
    run = hub.run("build-wheels.yml")
    assert (run.results["compatibility/gate"], run.results["publish"]) == ("failure", "skipped"), run.show()
    cells = RunResult.read(run.artifacts["run"]).cells
    without = [cell for cell in cells if cell.guest == "fedora-44"]
    assert {cell.status for cell in without} == {"not-run"}
    assert {cell.status.could_not_run for cell in cells if cell not in without} == {False}
    for cell in without:
        assert re.search(r"^the image of fedora-44 needs 3\.0 GiB free in \S+; there are 2\.0\n", cell.reason)
    assert run.summaries.count("the image of fedora-44 needs 3.0 GiB free") >= 2
    assert "# gate incomplete" in run.summaries
    # The shard that has all its images saved them.
    assert len(hub.caches) == 1


@pytest.mark.slow
def test_each_week_the_site_is_published_with_the_last_one_s_history(hub: Hub, examples: Path) -> None:
    run = hub.run("weekly.yml")
    assert set(run.results.values()) == {"success"}, run.show()
    assert hub.pages is not None
    assert len(read_history(hub.pages).shown) == len(RunResult.read(run.artifacts["run"]).cells)
    assert "so this is the first site" in output_of(run, "gate")
    # All jobs use the renewed pin, and the issue shows it.
    assert f"{RENEWED}: " in output_of(run, "pins")
    assert NEW_BUILD in (run.artifacts["pins"] / "pins" / "pins.toml").read_text()
    [_listed, created] = [line for line in called(examples, "gh") if " issue " in line]
    assert "issue create --repo upstream/boxlite --title The weekly" in created
    body = (hub.machine / "work" / "body.md").read_text()
    assert body.startswith("# gate passed")
    assert f'+build = "{NEW_BUILD}"' in body
    # The file of known failures is empty.
    assert body.count("compatibility/expected.toml: as far as was asked, no entry is stale\n") == 1

    # A week later a cell fails, another that was to fail passes, and the issue is there.
    shutil.copytree(hub.pages, examples / "pages")
    (examples / "programs" / "gh.number").write_text("12\n")
    hub.variables = {"STAND_IN_FAILS": "debian-12/stock"}
    (examples / "repository" / "compatibility" / "expected.toml").write_text(STALE)
    run = hub.run("weekly.yml")
    assert run.results["gate"] == "failure"
    assert {run.results[job] for job in ("pages", "issue")} == {"success"}, run.show()
    assert "pass" in {cell.status for cell in read_history(hub.pages).before}
    assert "Cells since this site was published before: 1" in (hub.pages / "index.html").read_text()
    assert "issue comment 12 --repo upstream/boxlite --edit-last" in called(examples, "gh")[-1]
    body = (hub.machine / "work" / "body.md").read_text()
    assert body.startswith("# gate blocked: 1 regressed")
    for fault in ("expired on 2026-01-31", "debian-13 stock passes: remove it"):
        assert any(fault in line for line in body.partition("## Known failures")[2].splitlines())
        assert fault in run.summaries
    assert "https://bugs.example/1 is no issue of the tracker" in body

    # What is no history of a site is not replaced.
    earlier = hub.pages
    (examples / "pages" / "history.json").write_text('{"format": "another site"}')
    run = hub.run("weekly.yml")
    assert (run.results["gate"], run.results["pages"]) == ("failure", "skipped")
    assert "expected the history that `lab publish` writes" in output_of(run, "gate")
    assert "run" in run.artifacts
    assert hub.pages == earlier


@pytest.mark.parametrize(
    "head", ["upstream/boxlite", pytest.param("somebody/boxlite", marks=pytest.mark.slow)], ids=["own", "fork"]
)
def test_a_pull_request_s_table_is_a_comment_unless_it_is_a_fork_s(hub: Hub, examples: Path, head: str) -> None:
    request = {"number": 7, "head": {"repo": {"full_name": head}}}
    hub = replace(hub, event={"pull_request": request}, variables={"STAND_IN_FAILS": "debian-13/stock"})
    run = hub.run("pull-request.yml")
    assert (run.results["wheel"], run.results["cells"]) == ("success", "failure"), run.show()
    is_own = head == "upstream/boxlite"
    assert run.results["comment"] == ("success" if is_own else "skipped")
    comments = [line for line in called(examples, "gh") if " comment " in line]
    options = "--edit-last --create-if-none --body-file table.md"
    assert comments == [f"gh pr comment 7 --repo upstream/boxlite {options}"] * is_own
    table = (run.artifacts["table"] / "table.md").read_text()
    assert table.startswith("# boxlite 0.10.9: the jailer on 2 guests of x86_64\n")
    assert "| debian-13 |" in table
    assert "\n## " not in table
    assert "\n## fail unknown: debian-13 stock" in run.summaries
    assert os.fspath(hub.machine) not in table
