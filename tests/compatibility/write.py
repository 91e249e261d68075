"""Writes a file of each format as this lab writes it: `python -m tests.compatibility.write`.

They are in the folder `next` until the next release, with which the folder gets the release's number.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import tomlkit

from lab.base.activity import Activity
from lab.base.formats import KEY, list_versions
from lab.gate import baseline, expectations
from lab.gate.results import reduce_run
from lab.record import (
    DECIDED_FILE,
    RESULTS_FILE,
    BuildRecord,
    CellResult,
    DecidedCell,
    Experiment,
    ExperimentPolicy,
    ExperimentTrial,
    Foreseen,
    LaneRecord,
    LaneStep,
    Outcome,
    Prediction,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    RunOptions,
    RunResult,
    Status,
    TestResult,
    TrialOutcome,
    format_continuation,
)
from lab.report.site.publish import publish_site
from tests.builders.cells import box, done
from tests.builders.facts import context, printed_facts
from tests.builders.probe_script import output
from tests.builders.runs import host, run_of

NEXT = Path(__file__).with_name("next")
# Where each format is in such a folder, by its name in `lab/base/formats.py`.
FILES = {
    "record": f"run/{RESULTS_FILE}",
    "baseline": "baseline.toml",
    "expectations": "expectations.toml",
    "inventory": "hosts.toml",
    "site's history": "site/history.json",
    "published results": "site/published.json",
    "probe's output": "probe.txt",
    "definition": "run/variants/made-for-this-run.toml",
}
OLD, NEW, LIFECYCLE = "0.10.0", "0.10.8", "0.10.8-lifecycle"
START = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)
LANES = [
    LaneRecord(guest="debian-13", label="debian-13", image="1" * 64, fork="memory", seconds={"boot": 21.0})
]
STEPS = [LaneStep(lane="debian-13", activity=Activity.START, text="boots", began=START, seconds=21)]
INVENTORY = {
    "coordinator": {"port": 8786},
    "hosts": {"lab-1": {"address": "lab@lab-1.example.org", "python": "/srv/lab/bin/python", "lanes": 2}},
}


def _make_cells() -> list[CellResult]:
    """A cell of every status, in two builds, with what trials, predictions and the suite lifecycle add."""
    experiment = Experiment(
        tests=["starts"],
        trials=[ExperimentTrial(changes=["without sysctl"], outcome=TrialOutcome.PASSES)],
        turning=[["without sysctl"]],
        seconds=40.0,
    )
    remedies = [
        RemedyResult(name="userns-limit-raise", result=RemedyOutcome.VERIFIED, price="nothing", seconds=30),
        RemedyResult(name="jailer-off", result=RemedyOutcome.AVOIDS, price="all of it", seconds=20),
    ]
    blocked = Prediction(says=Foreseen.BLOCKED, cause="userns-limit", reason="the limit is 0")
    repeats = [RepeatResult(status=Status.PASS, seed=1), RepeatResult(status=Status.FAIL, failed=["a"], seed=2)]
    lifecycle = [
        TestResult(name="box_starts_again_after_an_imitated_reboot", outcome=Outcome.PASS, subject="stop"),
        TestResult(name="box_ends_with_its_runtime", outcome=Outcome.FAIL, subject="stop", protection=box()),
    ]
    limit = "max-userns-zero"
    return [
        done(Status.PASS, build=OLD, context=context()),
        done(Status.PASS, prediction=Prediction(says=Foreseen.WORKS)),
        done(Status.XFAIL, variant=limit, remedies=remedies, experiment=experiment, prediction=blocked),
        done(Status.FAIL, variant="podman", reason="permission denied"),
        done(Status.XPASS, variant="as-root"),
        done(Status.FLAKY, variant="docker", repeats=repeats, seed=1),
        done(Status.NOT_APPLICABLE, variant="apparmor-off", reason="no AppArmor"),
        done(Status.ERROR, variant="cgroup-v1", reason="the guest did not come up"),
        done(Status.NOT_RUN, variant="made-for-this-run"),
        done(Status.FAIL, "cgroup-not-joined", build=LIFECYCLE).with_parts(
            suite=done(Status.FAIL).suite.with_values(tests=lifecycle)
        ),
    ]


def _write_run(folder: Path) -> None:
    """Write a run whose lab was killed: the last cell that it decided is beside the record."""
    suites = {OLD: "jailer", NEW: "jailer", LIFECYCLE: "lifecycle"}
    builds = [
        BuildRecord(name=name, version=name, source="PyPI", suite=suite) for name, suite in suites.items()
    ]
    options = RunOptions(repeat=2, remedies=True, experiments=ExperimentPolicy.UNCLEAR)
    definitions = {"programs": "2" * 64, "suite jailer": "3" * 64, "variant stock": "4" * 64}
    more = {"builds": builds, "options": options, "definitions": definitions, "lanes": LANES, "steps": STEPS}
    run = run_of(*_make_cells(), host=host(), finished=START + timedelta(hours=1), **more)
    record = run.write(folder).read_bytes()
    late = DecidedCell(cell=done(Status.PASS, variant="made-for-this-run"), lanes=LANES, steps=STEPS)
    lines = format_continuation(record) + late.model_dump_json().encode() + b"\n"
    (folder / DECIDED_FILE).write_bytes(lines)


def write(folder: Path) -> None:
    """Write a file of each format into an empty folder."""
    (folder / "run/variants").mkdir(parents=True)
    variant = {"title": "One limit", "expect": {"status": "pass"}, "sysctl": {"user.max_user_namespaces": 9}}
    versions = {name: {KEY: list_versions(name)[-1]} for name in FILES}
    (folder / FILES["definition"]).write_text(tomlkit.dumps(versions["definition"] | variant))
    (folder / FILES["inventory"]).write_text(tomlkit.dumps(versions["inventory"] | INVENTORY))
    _write_run(folder / "run")
    run = RunResult.read(folder / "run")
    side = reduce_run(run, folder / "run", NEW)
    baseline.write_baseline(side, folder / FILES["baseline"])
    filled = {"bug": "https://github.com/boxlite-ai/boxlite/issues/1239", "until": "2027-01-31"}
    text = expectations.rewrite_expectations(folder / FILES["expectations"], [*side.cells.values()]).new
    for key, words in expectations.FILL.items():
        text = text.replace(f"{expectations.FILL_IN}{words}", filled.get(key, "somebody"))
    (folder / FILES["expectations"]).write_text(text)
    (folder / FILES["probe's output"]).write_text(output(printed_facts()))
    with TemporaryDirectory() as temporary:
        site = publish_site([folder / "run"], Path(temporary) / "site").parent
        (folder / "site").mkdir()
        for name in ("history.json", "published.json", "records"):
            (shutil.copytree if (site / name).is_dir() else shutil.copy)(site / name, folder / "site" / name)


if __name__ == "__main__":
    shutil.rmtree(NEXT, ignore_errors=True)
    write(NEXT)
