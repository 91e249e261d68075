"""The action of GitHub Actions: its inputs, its outputs, and what it does with a shard that was lost."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.images import store
from tests.builders.facts import executable
from tests.builders.runs import runs_of_shards

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"


# What the steps get in the environment: each input but `judge`, which is a condition.
INPUTS = set(re.findall(r"^        (LAB_[A-Z_]+): ", ACTION.read_text(), re.MULTILINE))


class Runner:
    """A runner of GitHub's with an action whose `setup.sh` only writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.action, self.work, self.temporary = folder / "action", folder / "work", folder / "temporary"
        for made in (self.action / ".ci", self.work, self.temporary, folder / "programs"):
            made.mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "action", self.action / ".ci")
        self.calls, self.output, self.summary = folder / "calls", folder / "output", folder / "summary.md"
        self.programs = folder / "programs"
        program = (
            f"#!{sys.executable}\n"
            "import json, os, pathlib, sys\n"
            f"with open({str(self.calls)!r}, 'a') as calls: calls.write(json.dumps(sys.argv[1:]) + '\\n')\n"
            "if '-o' in sys.argv: pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).mkdir(parents=True)\n"
            "print(f'# {sys.argv[1]}\\n\\n## more')\n"
            "if (summary := os.environ.get('GITHUB_STEP_SUMMARY')) and 'github' in sys.argv:\n"
            "    pathlib.Path(summary).write_text('# summary\\n\\n## cells\\n')\n"
            "sys.exit(int(os.environ.get('STATUS_' + sys.argv[1], '0')))\n"
        )
        executable(self.action / "setup.sh", program)
        # Whether bubblewrap may make user namespaces, and who is root there.
        executable(self.programs / "bwrap", '#!/bin/sh\nexit "${STATUS_bwrap-0}"\n')
        executable(self.programs / "sudo", f'#!/bin/sh\necho "$*" >>{folder}/sudo\nexit "${{STATUS_sudo-0}}"\n')

    def step(self, name: str, inputs: Mapping[str, str]) -> int:
        environment = {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_WORKSPACE": str(self.work),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "RUNNER_TEMP": str(self.temporary),
            **dict.fromkeys(INPUTS, ""),
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
SHOWN = ["remedies", "show", "bwrap-profile", "--script"]
MATRIX = ["matrix", "--verbose", "-o", "RUN"]
BUILDS = ["--build=0.10.0", "--build=WORK/a b.whl"]
NAMED = ["0.10.8", "previous", "WORK/./0.10.8", "WORK/dist/", "WORK/dist/none.whl", "npm:0.10.8"]
OF_THE_WORKSPACE = ["cli:WORK/bin/boxlite", "nextest:WORK/a.tar.zst,suite=detach", "npm:WORK/a.tgz", "cli:/b"]
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
            {"LAB_BUILD": "0.10.8\nprevious\n./0.10.8\ndist/\ndist/none.whl\nnpm:0.10.8"},
            [[*MATRIX, *(f"--build={build}" for build in NAMED)]],
            "0",
        ),
        (
            {"LAB_BUILD": "cli:bin/boxlite\nnextest:a.tar.zst,suite=detach\nnpm:a.tgz\ncli:/b"},
            [SHOWN, [*MATRIX, *(f"--build={build}" for build in OF_THE_WORKSPACE)]],
            "0",
        ),
        (
            {
                "LAB_SET": "ci/mine.toml",
                "LAB_GUESTS": "debian-13\n  fedora-44\n\n",
                "LAB_VARIANTS": "stock\n",
                "LAB_SUITE": "lifecycle",
                "LAB_REPEAT": "3",
                "LAB_REMEDIES": "false",
                "LAB_ARGUMENTS": "--no-experiment\n--kernel=a b\n",
                "LAB_SHARD": "1/2",
            },
            [
                [
                    *(
                        *MATRIX,
                        "--set=WORK/ci/mine.toml",
                        "-gdebian-13",
                        "-gfedora-44",
                        "-vstock",
                        "--shard=1/2",
                    ),
                    *("--suite=lifecycle", "--repeat=3", "--no-remedies", "--no-experiment", "--kernel=a b"),
                ]
            ],
            "0",
        ),
        ({"LAB_REMEDIES": "true"}, [[*MATRIX, "--remedies"]], "0"),
        (
            {
                **{f"LAB_{name}": HOSTILE for name in ("BUILD", "SET", "SHARD", "SUITE", "REPEAT")},
                **{f"LAB_{name}": HOSTILE for name in ("GUESTS", "VARIANTS", "ARGUMENTS")},
            },
            [
                [
                    *(*MATRIX, f"--set=WORK/{HOSTILE}", f"-g{HOSTILE}", f"-v{HOSTILE}", f"--shard={HOSTILE}"),
                    *(f"--suite={HOSTILE}", f"--repeat={HOSTILE}", HOSTILE, f"--build=WORK/{HOSTILE}"),
                ]
            ],
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
                SHOWN,
                # What the shards' records say of it is not enough for a program that is executed.
                ["matrix", "--verbose", "--resume=RUN", "--build=cli:WORK/boxlite"],
                ["gate", "RUN", "--against=WORK/b.toml"],
            ],
            "0",
        ),
        ({**RESUME, "STATUS_merge": "3", "STATUS_matrix": "1"}, [MERGE, [*MATRIX[:2], "--resume=RUN"]], "1"),
        # A cell failed, and another shard may be lost.
        ({**RESUME, "STATUS_merge": "1"}, [MERGE, [*MATRIX[:2], "--resume=RUN"]], "0"),
        (RESUME, [MERGE], "0"),
        ({**SHARDS, "LAB_RESUME": "false", "STATUS_merge": "3"}, [MERGE], "3"),
    ],
    ids=[
        *(
            "matrix",
            "names",
            "paths",
            "choice",
            "remedies",
            "code",
            "gate",
            "resume, then gate",
            "resume",
            "failed",
        ),
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
    assert runner.outputs["status"] == status
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
    assert runner.called("RUN") == []
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


def test_one_shard_that_is_left_has_no_folder_of_its_own(runner: Runner) -> None:
    # As download-artifact unpacks one artifact, whatever the pattern.
    (runner.work / "shards" / "cells").mkdir(parents=True)
    (runner.work / "shards" / "results.json").touch()
    assert runner.step("run", SHARDS) == 0
    assert runner.called(runner.outputs["run"]) == [["merge", "--partial", "-o", "RUN", "WORK/shards/"]]


def test_what_is_no_answer_to_whether_remedies_are_tried_is_refused(runner: Runner) -> None:
    assert runner.step("run", {"LAB_REMEDIES": "yes"}) == 2
    assert runner.called("RUN") == []


@pytest.mark.parametrize(
    ("gate", "status", "decision"),
    [("", "1", None), ("b.toml", "0", "passed"), ("b.toml", "1", "blocked"), ("b.toml", "3", "incomplete")],
)
def test_the_gate_s_decision_is_an_output(runner: Runner, gate: str, status: str, decision: str | None) -> None:
    assert runner.step("run", {"LAB_GATE": gate, "STATUS_matrix": status}) == 0
    assert (runner.outputs["status"], runner.outputs.get("decision")) == (status, decision)


REPORTS = [["report", "RUN", "--format", "github"], ["report", "RUN", "--format", "junit"]]
GATE = ["gate", "RUN", "--format", "markdown"]


@pytest.mark.parametrize(
    ("inputs", "calls", "decision"),
    [
        ({"LAB_PUBLISH": "web", "STATUS_report": "1"}, [*REPORTS, ["publish", "RUN", "-o", "WORK/web"]], ""),
        (
            {"LAB_GATE": "b.toml", "STATUS_gate": "1"},
            [[*GATE, "--against=WORK/b.toml"], *REPORTS],
            "# gate\n\n",
        ),
        ({"LAB_GATE_BUILD": "previous"}, [[*GATE, "--against-build=previous"], *REPORTS], "# gate\n\n"),
    ],
    ids=["publish", "gate", "gate with a build"],
)
def test_the_action_reports_after_the_gate_s_decision_and_publishes(
    runner: Runner, tmp_path: Path, inputs: dict[str, str], calls: list[list[str]], decision: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert runner.step("report", {"LAB_RUN": str(run), **inputs}) == 0
    assert runner.called(run) == calls
    assert (run / "junit.xml").read_text() == "# report\n\n## more\n"
    # A table for a comment has no sections.
    assert Path(runner.outputs["table"]).read_text() == f"{decision}# summary\n\n"
    assert runner.summary.read_text().startswith(f"{decision}## more\n# summary" if decision else "# summary")
    site = runner.outputs.get("site")
    assert site == (str(runner.work / "web") if "LAB_PUBLISH" in inputs else None)


# -- what the runner has


@pytest.mark.parametrize(
    ("build", "bwrap", "sudo", "ends"),
    [
        ("cli:boxlite", "1", "0", 0),
        # The remedy says why nothing can be done on this host, and the lab then what to do.
        ("nextest:a.tar.zst", "1", "3", 0),
        ("checkout:.", "1", "1", 1),
        ("cli:boxlite", "0", "0", 0),
        ("dist/", "1", "0", 0),
    ],
)
def test_where_user_namespaces_are_restricted_the_sandbox_of_programs_gets_its_profile(
    runner: Runner, tmp_path: Path, build: str, bwrap: str, sudo: str, ends: int
) -> None:
    inputs = {"LAB_BUILD": build, "STATUS_bwrap": bwrap, "STATUS_sudo": sudo}
    assert runner.step("run", inputs) == ends
    # The remedy's script is there before bubblewrap is asked.
    assert [call == SHOWN for call in runner.called("RUN")] == [True] * (":" in build) + [False] * (not ends)
    asked_root = (tmp_path / "sudo").read_text() if (tmp_path / "sudo").exists() else ""
    is_refused = bwrap == "1" and ":" in build
    assert asked_root == f"sh {runner.temporary}/bwrap-profile.sh --yes\n" * is_refused


@pytest.fixture
def key_of(runner: Runner) -> Callable[..., str]:
    """The key of the cache for these inputs."""
    for folder in ("images", "lab/images", "lab/lane", "lab/catalog", "lab/guest/remote"):
        (runner.action / folder).mkdir(parents=True)
        (runner.action / folder / "file").write_text(folder)

    def find(**inputs: str) -> str:
        runner.output.unlink(missing_ok=True)
        assert runner.step("key", {f"LAB_{name}": text for name, text in inputs.items()}) == 0
        assert runner.outputs["key"].startswith(runner.outputs["prefix"])
        return runner.outputs["key"]

    return find


def test_the_cache_s_key_says_what_is_chosen_and_what_images_are_made_from(
    runner: Runner, key_of: Callable[..., str]
) -> None:
    (runner.work / "mine.toml").write_text("one")
    chosen = [
        {"SET": "quick"},
        {"SET": "ci"},
        {"SET": "ci", "SHARD": "1/2"},
        {"SET": "ci", "GUESTS": "debian-13"},
    ]
    keys = [key_of(**inputs) for inputs in [*chosen, {"SET": "mine.toml"}]]
    assert len(set(keys)) == 5
    assert key_of(SET="quick") == keys[0]
    assert re.fullmatch(r"lab-\w+-[0-9a-f]{16}-[0-9a-f]{16}", keys[0])
    (runner.work / "mine.toml").write_text("other")
    assert key_of(SET="mine.toml") != keys[-1]
    prefix = runner.outputs["prefix"]
    (runner.action / "images" / "pins.toml").write_text("a newer image")
    assert key_of(SET="mine.toml").startswith(prefix)
    assert key_of(SET="quick") != keys[0]


def test_a_published_disk_that_has_a_prepared_image_is_not_cached(runner: Runner, tmp_path: Path) -> None:
    paths = Paths(cache=tmp_path / ".cache" / "boxlite-lab", state=tmp_path)
    paths.images.mkdir(parents=True)

    def place(name: str, text: str, base: str = "") -> store.BaseImage:
        def fill(partial: Path) -> None:
            (partial / store.DISK).write_text(text)

        folder = paths.images / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        return store.place_image(folder, "a-guest", "0" * 64, "made for a test", fill, base=base)

    published = place("ubuntu-24.04", "as published")
    kept = [
        place("prepared-ubuntu-24.04", "prepared", published.manifest.disk_sha256),
        place("debian-13", "built"),
        place("fedora-44", "not prepared yet"),
    ]
    assert runner.step("prune", {"HOME": str(tmp_path)}) == 0
    assert sorted(paths.images.iterdir()) == sorted(image.folder for image in kept)


@pytest.mark.parametrize(("name", "status", "ends"), [("verify", 1, 0), ("prune", 0, 0), ("prune", 2, 2)])
def test_the_cache_is_verified_and_pruned(runner: Runner, name: str, status: int, ends: int) -> None:
    assert runner.step(name, {"STATUS_images": str(status), "HOME": str(runner.temporary)}) == ends
    assert runner.called("RUN") == [["images", name]]
