"""A run for GitHub Actions: the summary of a job, annotations, and the action itself."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.record import BuildRecord, CellResult, Status
from lab.report import github, markdown
from tests.builders.cells import cell
from tests.builders.facts import executable
from tests.builders.processes import RunLab
from tests.builders.runs import run_of, runs_of_shards

ROOT = Path(__file__).parents[3]
ACTION = ROOT / "action.yml"
WORKFLOW = ROOT / "docs" / "examples" / "compatibility.yml"
COMMAND = re.compile(r"::(error|warning|notice) title=([^:,]*)::(.*)")


def failed(guest: str, **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "status": Status.FAIL,
        "cause": "unknown",
        "reason": f"of {guest}",
        "rerun": f"lab matrix -g {guest}",
    }
    return cell(guest, **(given | more))


# -- annotations


def test_a_version_that_several_builds_have_is_told_once_and_what_ends_a_title_is_escaped() -> None:
    builds = [BuildRecord(name=name, version="abc-dirty", source=name) for name in ("one", "other")]
    run = run_of(cell("debian-13"), builds=[*builds, BuildRecord(name="3", version="A:C", source="3")])
    notice = "::notice title=boxlite abc-dirty%2C A%3AC%3A the jailer on 1 guest of x86_64::1 pass"
    assert github.list_annotations(run) == [notice]
    assert markdown.render_run(run).startswith("# boxlite abc-dirty, A:C: the jailer on 1 guest of x86_64\n")


def test_at_most_ten_annotations_of_a_kind_are_made_and_the_last_says_how_many_more() -> None:
    *ten, _ = github.list_annotations(run_of(*[failed(f"guest-{number}") for number in range(10)]))
    assert ten[9].startswith("::error title=fail unknown%3A guest-9 stock::of guest-9%0A")
    *many, _ = github.list_annotations(run_of(*[failed(f"guest-{number}") for number in range(30)]))
    assert len(many) == 10
    assert many[9] == "::error title=and 21 more::the job's summary lists them"
    [line] = github.list_annotations(run_of())
    assert line.endswith("::this run has no cells")


# -- the summary


def test_the_summary_is_the_page_without_links(tmp_path: Path) -> None:
    text = github.render_summary(run_of(failed("debian-13", evidence=["cells/a"]), cell("debian-12")), tmp_path)
    assert text.startswith("# boxlite 0.10.8: the jailer on 2 guests of x86_64\n\n1 pass, 1 fail\n")
    assert "\n## fail unknown: debian-13 stock\n" in text
    assert "](" not in text


def test_a_summary_that_is_too_long_lacks_its_last_sections_and_says_so(tmp_path: Path) -> None:
    cells = [failed(f"guest-{number}", reason="ü" * 3000 + str(number)) for number in range(300)]
    text = github.render_summary(run_of(*cells), tmp_path)
    assert 0.95 * github.LARGEST < len(text.encode()) <= github.LARGEST
    assert text.endswith(github.CUT)
    # The table has all cells, and no section is cut.
    assert "| guest-299 |" in text
    assert 0 < text.count("\n## fail") == text.count("</details>") < 300


@pytest.mark.parametrize("room", [-5, 10, 300, 2000, 10_000])
def test_a_table_that_is_too_long_is_cut_after_a_line_with_a_note(tmp_path: Path, room: int) -> None:
    run = run_of(*[cell(f"gäst-{number}") for number in range(1000)])
    text = github.render_summary(run, tmp_path, room)
    assert len(text.encode()) <= max(room, 0)
    assert text == "" if room < len(github.CUT) else text.endswith(github.CUT)
    kept = text.removesuffix(github.CUT).splitlines()
    assert kept == github.render_summary(run, tmp_path).splitlines()[: len(kept)]


# -- the command line


@pytest.fixture
def folder(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    run_of(failed("debian-13")).write(tmp_path)
    return tmp_path


def test_outside_of_a_job_the_summary_is_printed_before_the_annotations(folder: Path, run_lab: RunLab) -> None:
    printed = run_lab(1, "report", folder, "--format", "github").out
    assert printed.startswith("# boxlite 0.10.8: the jailer on 1 guest of x86_64\n")
    assert [line.partition(" ")[0] for line in printed.splitlines()[-2:]] == ["::error", "::notice"]


def test_a_job_gets_the_summary_added(folder: Path, monkeypatch: pytest.MonkeyPatch, run_lab: RunLab) -> None:
    job = folder / "summary.md"
    job.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job))
    printed = run_lab(1, "report", folder, "--format", "github").out
    assert job.read_text().startswith("of an earlier step\n# boxlite 0.10.8: the jailer on 1 guest of x86_64\n")
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


KEYS = ("BUILD", "SET", "SHARD", "MERGE", "RESUME", "GATE", "GATE_BUILD", "EXPECT", "PUBLISH")


class Runner:
    """A runner of GitHub's with an action whose `setup.sh` only writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.action, self.work, self.temporary = folder / "action", folder / "work", folder / "temporary"
        for made in (self.action / ".ci", self.work, self.temporary):
            made.mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "action", self.action / ".ci")
        self.calls, self.output, self.summary = folder / "calls", folder / "output", folder / "summary.md"
        program = (
            f"#!{sys.executable}\n"
            "import json, os, pathlib, sys\n"
            f"with open({str(self.calls)!r}, 'a') as calls: calls.write(json.dumps(sys.argv[1:]) + '\\n')\n"
            "if '-o' in sys.argv: pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).mkdir(parents=True)\n"
            "print('printed')\n"
            "sys.exit(int(os.environ.get('STATUS_' + sys.argv[1], '0')))\n"
        )
        executable(self.action / "setup.sh", program)

    def step(self, name: str, inputs: Mapping[str, str]) -> int:
        environment = {
            "PATH": "/usr/bin:/bin",
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_WORKSPACE": str(self.work),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_TEMP": str(self.temporary),
            **{f"LAB_{key}": "" for key in KEYS},
            **inputs,
        }
        command = [str(self.action / ".ci" / "action"), name]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True).returncode

    def called(self, run: object) -> list[list[str]]:
        """How the lab was called, with RUN for the folder of the run, and WORK for the folder of the job."""
        if not self.calls.exists():
            return []
        text = self.calls.read_text().replace(str(run), "RUN").replace(str(self.work), "WORK")
        return [json.loads(line) for line in text.splitlines()]

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


# An input of the action is never code.
HOSTILE = '$(touch "$GITHUB_WORKSPACE/owned"); `touch owned` "; touch owned #'
MATRIX = ["matrix", "--verbose", "-o", "RUN"]
BUILDS = ["--build=0.10.0", "--build=WORK/a b.whl"]
NAMED = ["0.10.8", "previous", "WORK/./0.10.8", "WORK/dist/", "dist/none.whl", "cli:bin/boxlite"]
MERGE = ["merge", "--partial", "-o", "RUN", "WORK/shards/shard-0/", "WORK/shards/shard-1/"]
SHARDS = {"LAB_MERGE": "shards"}
RESUME = {**SHARDS, "LAB_RESUME": "true"}


@pytest.mark.parametrize(
    ("inputs", "calls", "status"),
    [
        (
            {"LAB_BUILD": "0.10.0\na b.whl\n", "LAB_SET": "all", "LAB_GATE": "b.toml", "LAB_EXPECT": "/e.toml"},
            [[*MATRIX, "--set=all", "--gate=WORK/b.toml", "--expect=/e.toml", *BUILDS]],
            "0",
        ),
        (
            # A release is a release, whatever the workspace has; a folder of that name has a slash.
            {"LAB_BUILD": "0.10.8\nprevious\n./0.10.8\ndist/\ndist/none.whl\ncli:bin/boxlite"},
            [[*MATRIX, *(f"--build={build}" for build in NAMED)]],
            "0",
        ),
        (
            {"LAB_BUILD": HOSTILE, "LAB_SET": HOSTILE, "LAB_SHARD": HOSTILE},
            [[*MATRIX, f"--set={HOSTILE}", f"--shard={HOSTILE}", f"--build={HOSTILE}"]],
            "0",
        ),
        (
            {**SHARDS, "LAB_GATE": "b.toml", "LAB_EXPECT": "e.toml", "LAB_SET": "quick", "STATUS_merge": "1"},
            [MERGE, ["gate", "RUN", "--against=WORK/b.toml", "--expect=WORK/e.toml"]],
            "0",
        ),
        (
            {**RESUME, "LAB_GATE": "b.toml", "LAB_BUILD": "cli:boxlite", "STATUS_merge": "3"},
            [
                MERGE,
                # What the shards' records say of it is not enough for a program that is executed.
                ["matrix", "--verbose", "--resume=RUN", "--build=cli:boxlite"],
                ["gate", "RUN", "--against=WORK/b.toml"],
            ],
            "0",
        ),
        ({**RESUME, "STATUS_merge": "3", "STATUS_matrix": "1"}, [MERGE, [*MATRIX[:2], "--resume=RUN"]], "1"),
        (RESUME, [MERGE], "0"),
        ({**SHARDS, "LAB_RESUME": "false", "STATUS_merge": "3"}, [MERGE], "3"),
    ],
    ids=[
        *("matrix", "names", "code", "gate", "resume, then gate", "resume"),
        *("nothing is missing", "not asked to resume"),
    ],
)
def test_the_action_runs_a_matrix_or_merges_shards_and_asks_the_gate(
    runner: Runner, inputs: dict[str, str], calls: list[list[str]], status: str
) -> None:
    (runner.work / "a b.whl").touch()
    for name in ("0.10.8", "previous", "dist"):
        (runner.work / name).mkdir()
    for number in (0, 1):
        (runner.work / "shards" / f"shard-{number}").mkdir(parents=True)
    assert runner.step("run", inputs) == 0
    assert runner.called(runner.outputs["run"]) == calls
    assert (set(runner.outputs), runner.outputs["status"]) == ({"run", "status"}, status)
    assert not (runner.work / "owned").exists()


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (1, 0), (3, 0), (2, 2), (4, 4), (130, 130)])
def test_what_the_cells_did_ends_no_step_before_the_report(runner: Runner, status: int, ends: int) -> None:
    assert runner.step("run", {"STATUS_matrix": str(status)}) == ends
    assert runner.outputs.get("status") == (str(status) if ends == 0 else None)
    assert runner.step("judge", {"LAB_STATUS": str(status)}) == status


def test_without_any_shard_the_action_says_so_and_merges_nothing(runner: Runner) -> None:
    (runner.work / "shards").mkdir()
    assert runner.step("run", {"LAB_MERGE": "shards"}) == 3
    assert runner.step("run", {"LAB_MERGE": "nowhere"}) == 3
    assert runner.step("lab", {}) == 2
    assert runner.called("") == []
    assert "status" not in runner.outputs


def test_a_lost_shard_ends_the_job_with_3(runner: Runner, tmp_path: Path) -> None:
    shards = runs_of_shards(runner.work / "shards", 4)
    shutil.rmtree(shards[1][0])
    (runner.action / "setup.sh").write_text(f'#!/bin/sh\nexec {sys.executable} -m lab "$@"\n')
    inherited = {"LAB_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    assert runner.step("run", {"LAB_MERGE": "shards", **inherited}) == 0
    run = runner.outputs["run"]
    assert runner.outputs["status"] == "3"
    assert runner.step("report", {"LAB_RUN": run, **inherited}) == 0
    assert "- not-run (shard 2/4 was lost): debian-12 (max-userns-zero)" in runner.summary.read_text()
    assert "shard 2/4 was lost" in (Path(run) / "junit.xml").read_text()


def test_the_workflow_runs_every_shard_of_its_plan_and_makes_a_lost_one_good() -> None:
    text = WORKFLOW.read_text()
    [listed] = re.findall(r"shard: (\[.*\])", text)
    shards = json.loads(listed)
    assert shards == [f"{number}/{len(shards)}" for number in range(1, len(shards) + 1)]
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
    ("inputs", "calls", "summary"),
    [
        ({"LAB_PUBLISH": "web", "STATUS_report": "1"}, [*REPORTS, ["publish", "RUN", "-o", "WORK/web"]], False),
        ({"LAB_GATE": "b.toml", "STATUS_gate": "1"}, [[*GATE, "--against=WORK/b.toml"], *REPORTS], True),
        ({"LAB_GATE_BUILD": "previous"}, [[*GATE, "--against-build=previous"], *REPORTS], True),
    ],
    ids=["publish", "gate", "gate with a build"],
)
def test_the_action_reports_after_the_gate_s_decision_and_publishes(
    runner: Runner, tmp_path: Path, inputs: dict[str, str], calls: list[list[str]], summary: bool
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert runner.step("report", {"LAB_RUN": str(run), **inputs}) == 0
    assert runner.called(run) == calls
    assert (run / "junit.xml").read_text() == "printed\n"
    assert runner.summary.exists() is summary
    assert not summary or runner.summary.read_text() == "printed\n"
