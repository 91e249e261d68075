"""A run for GitHub Actions: the summary of a job, annotations, and the action itself."""

import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.record import BuildRecord, CellResult, RunResult, Status
from lab.report import github, markdown
from tests.builders.cells import cell
from tests.builders.processes import RunLab
from tests.builders.runs import run_of, runs_of_shards

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
WORKFLOW = ROOT / "docs" / "examples" / "compatibility.yml"
COMMAND = re.compile(r"::(error|warning|notice) title=([^:,]*)::(.*)")


def decoded(line: str) -> tuple[str, str, str]:
    """An annotation as GitHub reads it: kind, title, text."""
    parts = COMMAND.fullmatch(line)
    assert parts, line

    def unescaped(text: str) -> str:
        for escape, character in {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}.items():
            text = text.replace(escape, character)
        return text

    return parts[1], unescaped(parts[2]), unescaped(parts[3])


def failed(guest: str, **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "status": Status.FAIL,
        "cause": "unknown",
        "reason": f"of {guest}",
        "rerun": f"lab matrix -g {guest}",
    }
    return cell(guest, **(given | more))


# -- annotations


def test_each_kind_of_failure_is_one_annotation_and_the_last_one_counts() -> None:
    builds = [BuildRecord(name="0.10.8", version="0.10.8", source="PyPI")]
    run = run_of(
        cell("debian-12"),
        failed("debian-13", reason="50 %: a, b"),
        failed("debian-14", reason="50 %: a, b"),
        cell("fedora-44", status=Status.XFAIL, cause="userns-limit", reason="as expected"),
        cell("ubuntu-24.04", status=Status.ERROR, reason="no SSH"),
        cell("ubuntu-22.04", status=Status.NOT_RUN, reason="no image"),
        builds=builds,
    )
    assert [decoded(line) for line in github.annotations(run)] == [
        (
            "error",
            "fail unknown: 2 cells on 2 guests",
            "50 %: a, b\ndebian-13 stock, debian-14 stock\nrun it again: lab matrix -g debian-13",
        ),
        ("warning", "error: ubuntu-24.04 stock", "no SSH\nubuntu-24.04 stock"),
        ("warning", "cells were not run", "not-run (no image): ubuntu-22.04"),
        ("notice", "boxlite 0.10.8: the jailer on 6 guests", "1 pass, 2 fail, 1 xfail, 1 error, 1 not-run"),
    ]


def test_a_version_that_several_builds_have_is_told_once(tmp_path: Path) -> None:
    builds = [BuildRecord(name=name, version="abc-dirty", source=name) for name in ("one", "other")]
    run = run_of(cell("debian-13"), builds=[*builds, BuildRecord(name="3", version="ABC-dirty", source="3")])
    assert decoded(github.annotations(run)[-1])[1] == "boxlite abc-dirty, ABC-dirty: the jailer on 1 guest"
    assert markdown.render(run, tmp_path).startswith("# boxlite abc-dirty, ABC-dirty: the jailer on 1 guest\n")


def test_at_most_ten_annotations_of_a_kind_are_made_and_the_last_says_how_many_more() -> None:
    ten = github.annotations(run_of(*[failed(f"guest-{number}") for number in range(10)]))
    assert [decoded(line)[1] for line in ten if line.startswith("::error")][-1] == "fail unknown: guest-9 stock"
    many = github.annotations(run_of(*[failed(f"guest-{number}") for number in range(30)]))
    errors = [decoded(line) for line in many if line.startswith("::error")]
    assert len(errors) == 10
    assert errors[-1] == ("error", "and 21 more", "the job's summary lists them")
    [line] = github.annotations(run_of())
    assert decoded(line)[2] == "this run has no cells"


# -- the summary


def test_the_summary_is_the_page_without_links(tmp_path: Path) -> None:
    text = github.summary(run_of(failed("debian-13", evidence=["cells/a"]), cell("debian-12")), tmp_path)
    assert text.startswith("# boxlite 0.10.8: the jailer on 2 guests\n\n1 pass, 1 fail\n")
    assert "\n## fail unknown: debian-13 stock\n" in text
    assert "](" not in text


def test_a_summary_that_is_too_long_lacks_its_last_sections_and_says_so(tmp_path: Path) -> None:
    cells = [failed(f"guest-{number}", reason="ü" * 3000 + str(number)) for number in range(300)]
    text = github.summary(run_of(*cells), tmp_path)
    assert 0.95 * github.LARGEST < len(text.encode()) <= github.LARGEST
    assert text.endswith(github.CUT)
    # The table has all cells, and no section is cut.
    assert "| guest-299 |" in text
    assert 0 < text.count("\n## fail") == text.count("</details>") < 300


@pytest.mark.parametrize("room", [-5, 10, 300, 2000, 10_000])
def test_a_table_that_is_too_long_is_cut_after_a_line_with_a_note(tmp_path: Path, room: int) -> None:
    run = run_of(*[cell(f"gäst-{number}") for number in range(1000)])
    text = github.summary(run, tmp_path, room)
    assert len(text.encode()) <= max(room, 0)
    assert text == "" if room < len(github.CUT) else text.endswith(github.CUT)
    kept = text.removesuffix(github.CUT).splitlines()
    assert kept == github.summary(run, tmp_path).splitlines()[: len(kept)]


# -- the command line


@pytest.fixture
def folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run with one failed cell."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    run_of(failed("debian-13")).write(tmp_path)
    return tmp_path


def test_outside_of_a_job_the_summary_is_printed_before_the_annotations(folder: Path, run_lab: RunLab) -> None:
    printed = run_lab(1, "report", folder, "--format", "github").out
    assert printed.startswith("# boxlite 0.10.8: the jailer on 1 guest\n")
    assert [line.partition(" ")[0] for line in printed.splitlines()[-2:]] == ["::error", "::notice"]


def test_in_a_job_the_summary_is_added_to_the_job_s(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab
) -> None:
    job = folder / "summary.md"
    job.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job))
    printed = run_lab(1, "report", folder, "--format", "github").out
    assert job.read_text().startswith("of an earlier step\n# boxlite 0.10.8: the jailer on 1 guest\n")
    assert all(map(COMMAND.fullmatch, printed.splitlines()))
    # The limit counts what is there already.
    job.write_text("x" * (github.LARGEST - 400))
    run_lab(1, "report", folder, "--format", "github")
    assert github.LARGEST - 400 < job.stat().st_size <= github.LARGEST
    assert job.read_text().endswith(github.CUT)
    # A file that cannot be written is named.
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder))
    printed = run_lab(2, "report", folder, "--format", "github").err
    assert f"the job's summary cannot be written: Is a directory: {folder}" in printed


# -- the action


@pytest.mark.parametrize(
    ("kind", "file"), [("vendor.github-actions", ACTION), ("vendor.github-workflows", WORKFLOW)]
)
def test_the_action_and_the_workflow_are_valid(kind: str, file: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", kind, str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", [ACTION, WORKFLOW])
def test_no_input_is_part_of_a_program(file: Path) -> None:
    programs = re.findall(r"^ *-? *run:.*(?:\n(?: {8,}).*)*", file.read_text(), re.MULTILINE)
    assert [program for program in programs if "${{" in program] == []


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    declared = set(re.findall(r"^  ([a-z-]+):$", ACTION.read_text().split("\noutputs:")[0], re.MULTILINE))
    used = re.findall(r"uses: OWNER/boxlite-lab@main\n +with:\n((?: {10}.*\n)+)", WORKFLOW.read_text())
    assert len(used) == 2
    given = {line.split(":")[0].strip() for block in used for line in block.splitlines()}
    assert given <= declared, given - declared
    assert {"build", "set", "shard", "gate", "expect"} <= declared


class Runner:
    """A runner of GitHub's with an action whose `setup.sh` only writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.action, self.work, self.temporary = folder / "action", folder / "work", folder / "temporary"
        for made in (self.action / ".ci", self.work, self.temporary):
            made.mkdir(parents=True)
        (self.action / ".ci" / "action").write_bytes((ROOT / ".ci" / "action").read_bytes())
        (self.action / ".ci" / "action").chmod(0o755)
        self.calls, self.output, self.summary = folder / "calls", folder / "output", folder / "summary.md"
        program = (
            f"#!{sys.executable}\n"
            "import json, os, pathlib, sys\n"
            f"with open({str(self.calls)!r}, 'a') as calls: calls.write(json.dumps(sys.argv[1:]) + '\\n')\n"
            "if '-o' in sys.argv: pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).mkdir(parents=True)\n"
            "print('printed')\n"
            "sys.exit(int(os.environ.get('STATUS_' + sys.argv[1], '0')))\n"
        )
        (self.action / "setup.sh").write_text(program)
        (self.action / "setup.sh").chmod(0o755)

    def step(self, name: str, inputs: Mapping[str, str]) -> int:
        keys = ("BUILD", "SET", "SHARD", "MERGE", "RESUME", "GATE", "GATE_BUILD", "EXPECT", "PUBLISH")
        environment = {
            "PATH": "/usr/bin:/bin",
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_WORKSPACE": str(self.work),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_TEMP": str(self.temporary),
            **{f"LAB_{key}": "" for key in keys},
            **inputs,
        }
        command = [str(self.action / ".ci" / "action"), name]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True).returncode

    @property
    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []

    def filled(self, calls: list[list[str]], run: object) -> list[list[str]]:
        """Calls with the folders in place of RUN and WORK."""
        return [
            [word.replace("RUN", str(run)).replace("WORK", str(self.work)) for word in call] for call in calls
        ]

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_the_action_runs_a_matrix_with_absolute_paths(runner: Runner) -> None:
    (runner.work / "a b.whl").touch()
    inputs = {
        "LAB_BUILD": "0.10.0\na b.whl\n",
        "LAB_SET": "quick",
        "LAB_SHARD": "1/4",
        "LAB_GATE": "base.toml",
        "LAB_EXPECT": "/expected.toml",
    }
    assert runner.step("run", inputs) == 0
    [call] = runner.called
    assert call == [
        "matrix",
        "--verbose",
        "-o",
        runner.outputs["run"],
        "--set=quick",
        "--shard=1/4",
        f"--gate={runner.work}/base.toml",
        "--expect=/expected.toml",
        "--build=0.10.0",
        f"--build={runner.work}/a b.whl",
    ]
    assert runner.outputs["status"] == "0"


def test_an_input_of_the_action_is_never_code(runner: Runner) -> None:
    hostile = '$(touch "$GITHUB_WORKSPACE/owned"); `touch owned` "; touch owned #'
    assert runner.step("run", dict.fromkeys(("LAB_BUILD", "LAB_SET", "LAB_SHARD"), hostile)) == 0
    assert runner.called[0][4:] == [f"--set={hostile}", f"--shard={hostile}", f"--build={hostile}"]
    assert not (runner.work / "owned").exists()
    assert set(runner.outputs) == {"run", "status"}


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (1, 0), (3, 0), (2, 2), (4, 4), (130, 130)])
def test_what_the_cells_did_ends_no_step_before_the_report(runner: Runner, status: int, ends: int) -> None:
    assert runner.step("run", {"STATUS_matrix": str(status)}) == ends
    assert runner.outputs.get("status") == (str(status) if ends == 0 else None)
    assert runner.step("judge", {"LAB_STATUS": str(status)}) == status


@pytest.mark.parametrize(
    ("inputs", "calls", "status"),
    [
        (
            {"LAB_GATE": "base.toml", "LAB_EXPECT": "expected.toml", "LAB_SET": "quick", "STATUS_merge": "1"},
            [["gate", "RUN", "--against=WORK/base.toml", "--expect=WORK/expected.toml"]],
            "0",
        ),
        (
            {"LAB_RESUME": "true", "LAB_GATE": "base.toml", "LAB_BUILD": "cli:boxlite", "STATUS_merge": "3"},
            [
                # What the shards' records say of it is not enough for a program that is executed.
                ["matrix", "--verbose", "--resume=RUN", "--build=cli:boxlite"],
                ["gate", "RUN", "--against=WORK/base.toml"],
            ],
            "0",
        ),
        (
            {"LAB_RESUME": "true", "STATUS_merge": "3", "STATUS_matrix": "1"},
            [["matrix", "--verbose", "--resume=RUN"]],
            "1",
        ),
        ({"LAB_RESUME": "true"}, [], "0"),
        ({"LAB_RESUME": "false", "STATUS_merge": "3"}, [], "3"),
    ],
    ids=["gate", "resume, then gate", "status of what is resumed", "nothing is missing", "not asked to resume"],
)
def test_the_action_merges_shards_runs_what_is_missing_and_asks_the_gate(
    runner: Runner, inputs: dict[str, str], calls: list[list[str]], status: str
) -> None:
    shards = [runner.work / "shards" / f"shard-{number}" for number in (0, 1)]
    for shard in shards:
        shard.mkdir(parents=True)
    assert runner.step("run", {"LAB_MERGE": "shards", **inputs}) == 0
    run = runner.outputs["run"]
    merge, *others = runner.called
    assert merge == ["merge", "--partial", "-o", run, *(f"{shard}/" for shard in shards)]
    assert others == runner.filled(calls, run)
    assert runner.outputs["status"] == status


def test_without_any_shard_the_action_says_so_and_merges_nothing(runner: Runner) -> None:
    (runner.work / "shards").mkdir()
    assert runner.step("run", {"LAB_MERGE": "shards"}) == 3
    assert runner.step("run", {"LAB_MERGE": "nowhere"}) == 3
    assert runner.called == []
    assert "status" not in runner.outputs


def test_a_lost_shard_ends_the_job_with_3(runner: Runner, tmp_path: Path) -> None:
    shards = runs_of_shards(runner.work / "shards", 4)
    shutil.rmtree(shards[1][0])
    (runner.action / "setup.sh").write_text(f'#!/bin/sh\nexec {sys.executable} -m lab "$@"\n')
    inherited = {"LAB_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    assert runner.step("run", {"LAB_MERGE": "shards", **inherited}) == 0
    run = Path(runner.outputs["run"])
    assert RunResult.read(run).run.lost_shards == [2]
    assert runner.outputs["status"] == "3"
    assert runner.step("report", {"LAB_RUN": str(run), **inherited}) == 0
    assert "- not-run (shard 2/4 was lost): debian-12 (max-userns-zero)" in runner.summary.read_text()
    assert "shard 2/4 was lost" in (run / "junit.xml").read_text()
    assert runner.step("judge", {"LAB_STATUS": runner.outputs["status"]}) == 3


def test_the_workflow_runs_every_shard_of_its_plan_and_makes_a_lost_one_good() -> None:
    text = WORKFLOW.read_text()
    [listed] = re.findall(r"shard: (\[.*\])", text)
    shards = json.loads(listed)
    assert shards == [f"{number}/{len(shards)}" for number in range(1, len(shards) + 1)]
    assert len(shards) <= 256
    assert "name: shard-${{ strategy.job-index }}" in text
    assert "pattern: shard-*" in text
    # Each artifact is uploaded again if its job is.
    assert text.count("uses: actions/upload-artifact@") == text.count("overwrite: true")
    shard, last = text.split("\n  gate:\n")
    assert 'resume: "true"' in last
    assert "if: ${{ !cancelled() }}" in last
    of_shard, of_last = (int(re.findall(r"timeout-minutes: (\d+)", job)[-1]) for job in (shard, last))
    assert of_last > of_shard


REPORTS = [["report", "RUN", "--format", "github"], ["report", "RUN", "--format", "junit"]]
GATE = ["gate", "RUN", "--format", "markdown"]


@pytest.mark.parametrize(
    ("inputs", "calls"),
    [
        (
            {"LAB_PUBLISH": "site", "STATUS_report": "1"},
            [*REPORTS, ["publish", "RUN", "-o", "WORK/site"]],
        ),
        ({"LAB_GATE": "base.toml", "STATUS_gate": "1"}, [[*GATE, "--against=WORK/base.toml"], *REPORTS]),
        ({"LAB_GATE_BUILD": "previous"}, [[*GATE, "--against-build=previous"], *REPORTS]),
    ],
    ids=["publish", "gate", "gate with a build"],
)
def test_the_action_reports_after_the_gate_s_decision_and_publishes(
    runner: Runner, inputs: dict[str, str], calls: list[list[str]]
) -> None:
    run = runner.work / "run"
    run.mkdir()
    assert runner.step("report", {"LAB_RUN": str(run), **inputs}) == 0
    assert runner.called == runner.filled(calls, run)
    assert (run / "junit.xml").read_text() == "printed\n"
    summary = runner.summary.read_text() if runner.summary.exists() else ""
    assert summary == ("printed\n" if calls[0][0] == "gate" else "")


def test_the_action_s_program_can_be_run_and_refuses_other_steps(runner: Runner) -> None:
    assert (ROOT / ".ci" / "action").stat().st_mode & stat.S_IXUSR
    assert runner.step("lab", {}) == 2
    assert runner.called == []
