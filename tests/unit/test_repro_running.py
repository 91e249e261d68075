"""`lab repro` from a report to its answer, with a run that needs no guest."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from rich.console import Console

from lab import builds
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.paths import Paths
from lab.catalog import toml
from lab.record import ExperimentPolicy, Outcome, RunOptions, Status, TestResult
from lab.repro import bisection, running
from lab.repro.bisection import Bisection, Candidates, Steps
from lab.repro.planning import Plan
from lab.run import journal, start
from tests.builders import messages
from tests.builders.processes import run_main
from tests.builders.reports import CLONE, KNOWN, SWITCH, gather, holds, plan, ran, report, system, tried
from tests.builders.reports import run as run_of_cells

BLOCKED = f"""\
# boxes do not start

Debian 13, boxlite 0.10.8.
`{SWITCH} = 0`

    Sandbox preflight failed: bwrap cannot create user namespaces.

I tried `sysctl -w {SWITCH}=1`, and it works at once.
"""
ELSEWHERE = BLOCKED.replace("Debian 13", "Pop!_OS 22.04")
Repro = Callable[..., tuple[int, str, str]]


@pytest.fixture
def repro(
    home: Path, releases: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Repro:
    """Run `lab repro -` with a report and options: its exit status, output and errors."""
    monkeypatch.setattr(builds, "releases", lambda: [Version("0.9.0"), Version("0.10.8")])

    def call(text: str, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        status = run_main(monkeypatch, "repro", "-", *options)
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def with_options() -> list[RunOptions]:
    """The options of the runs that were made for reports."""
    return []


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch, with_options: list[RunOptions]) -> list[Plan]:
    """The cells of questions fail for the suspected cause, and others pass. Returns the plans that ran."""
    plans: list[Plan] = []

    def run(plan: Plan, folder: Path, *_: Any, again: str, options: RunOptions, **__: Any) -> Any:
        plans.append(plan)
        with_options.append(options)
        folder.mkdir()
        cells = [
            ran(plan, each.variant.name, cause=CLONE if each.trials else None, cured_by=["userns-clone-on"])
            for each in plan.cells(again)
        ]
        for cell in cells:
            gather(folder, cell, log=messages.USERNS_SYSCTL, kernel="")
        return run_of_cells(*cells)

    monkeypatch.setattr(running, "run", run)
    return plans


def test_a_report_is_run_and_answered(repro: Repro, blocked: list[Plan], tmp_path: Path) -> None:
    status, output, _ = repro(BLOCKED, "-o", str(tmp_path / "run"))
    assert status == 0
    assert "guest: debian-13, for Debian 13" in output
    assert "## Verdict: reproduced on debian-13" in output
    assert f"| line 8: {SWITCH}=1 helps against {CLONE} | held |" in output
    assert (tmp_path / "run" / "answer.md").read_text() in output
    [plan] = blocked
    assert [each.name for each in plan.cells("")] == ["debian-13/report/0.10.8", "debian-13/tried-1/0.10.8"]


def test_programs_get_one_document(repro: Repro, blocked: list[Plan], tmp_path: Path) -> None:
    status, output, _ = repro(BLOCKED, "-o", str(tmp_path / "run"), "--json")
    document = json.loads(output)
    assert (status, document["verdict"], document["guest"]) == (0, "reproduced", "debian-13")
    assert document["report"]["title"] == "boxes do not start"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ELSEWHERE, "the lab has no guest for Pop"),
        (BLOCKED.replace("0.10.8", "0.5.13"), "boxlite 0.5.13 is older than every release"),
        (BLOCKED.replace("Debian 13, b", "B"), "the report names no host"),
    ],
)
def test_what_cannot_be_run_boots_nothing(repro: Repro, blocked: list[Plan], text: str, why: str) -> None:
    status, output, _ = repro(text)
    assert status == 3
    assert "## Verdict: not run" in output
    assert why in output
    assert blocked == []


def test_the_nearest_guest_can_be_asked_for(repro: Repro, blocked: list[Plan], tmp_path: Path) -> None:
    status, output, _ = repro(ELSEWHERE, "--nearest", "-o", str(tmp_path / "run"))
    assert status == 0
    assert "reproduced on debian-13; not on Pop!\\_OS 22.04" in output
    assert "lab repro REPORT --nearest" in output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--guest", "debian-31"), "no guest is called 'debian-31'"),
        (("--build", "newest-one"), "neither a version nor the path of a wheel"),
    ],
)
def test_wrong_options_are_told_with_the_next_step(repro: Repro, options: tuple[str, ...], said: str) -> None:
    status, _, errors = repro(BLOCKED, *options)
    assert status == 2
    assert said in errors
    assert "next: " in errors


def test_an_index_that_does_not_answer_is_not_run(repro: Repro, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> None:
        raise LabError("could not ask for the releases")

    monkeypatch.setattr(builds, "releases", nobody)
    status, output, _ = repro(BLOCKED)
    assert status == 3
    assert "could not be found out: could not ask for the releases" in output


def test_a_report_s_variants_are_kept_with_its_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = plan(report(system(), holds(SWITCH, "0"), tried(SWITCH, "1", helped=True)), CLONE)
    folder = tmp_path / "run"
    begun: list[start.PlannedRun] = []

    def stop(self: start.PlannedRun, *_: object) -> None:
        begun.append(self)
        kept = folder / journal.VARIANTS
        assert sorted(file.name for file in kept.iterdir()) == ["report.toml", "tried-1.toml"]
        assert toml.read(kept / "tried-1.toml")["sysctl"] == {SWITCH: 1}
        assert KNOWN.with_variants(kept).variant("report").expect.cause == CLONE
        raise LabError("no libvirt")

    monkeypatch.setattr(start.PlannedRun, "run", stop)
    view = running.View(Console(), quiet=True)
    with pytest.raises(LabError, match="no libvirt"):
        running.run(
            made,
            folder,
            Paths(tmp_path, tmp_path),
            "",
            view,
            command="lab repro -",
            again="lab repro",
            options=running.Extras().options,
        )
    assert [cell.rerun(running.Extras().options) for cell in begun[0].cells] == ["lab repro", "lab repro"]
    assert not folder.exists()


def test_an_image_that_cannot_be_had_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    view = running.View(Console(), quiet=True)

    def none(*_: object) -> None:
        raise ImageNotAvailable("no network", hint="lab images import")

    monkeypatch.setattr("lab.repro.running.store.ensure", none)
    guest = KNOWN.guest("ubuntu-24.04")
    assert running.why_no_image(Paths(tmp_path, tmp_path), view, guest) == "image not available: no network"
    monkeypatch.setattr("lab.repro.running.store.ensure", lambda *_: None)
    assert running.why_no_image(Paths(tmp_path, tmp_path), view, guest) is None


@pytest.mark.parametrize(
    ("given", "remedies", "experiments", "again"),
    [
        ((), True, ExperimentPolicy.UNCLEAR, "lab repro REPORT\n"),
        (("--no-remedies",), False, ExperimentPolicy.UNCLEAR, "lab repro REPORT --no-remedies\n"),
        # A bisection tells by releases what an experiment tells by settings.
        (("--bisect",), True, ExperimentPolicy.NEVER, "lab repro REPORT --bisect\n"),
    ],
)
def test_remedies_and_experiments_are_made_as_asked(
    repro: Repro,
    blocked: list[Plan],
    with_options: list[RunOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    remedies: bool,
    experiments: ExperimentPolicy,
    again: str,
) -> None:
    monkeypatch.setattr(running, "_bisect", lambda subject, *_: subject)
    status, output, _ = repro(BLOCKED, *given, "-o", str(tmp_path / "run"))
    assert status == 0
    assert [(each.remedies, each.experiments) for each in with_options] == [(remedies, experiments)]
    assert again in output


def test_a_bisection_runs_other_releases_on_the_cell_that_failed_and_is_part_of_the_answer(
    repro: Repro, blocked: list[Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def does(candidates: Candidates, _paths: Paths, folder: Path, **_: Any) -> Bisection:
        assert folder == tmp_path / "run" / "bisection"
        steps = Steps(candidates)
        waiting = list(candidates.ends)
        while waiting:
            cell = waiting.pop(0)
            status = Status.PASS if cell.build.name == "0.9.0" else Status.XFAIL
            outcome = Outcome.PASS if cell.build.name == "0.9.0" else Outcome.FAIL
            tests = [TestResult(name=name, outcome=outcome) for name in cell.suite.tests]
            waiting += steps.follow(cell.result(status).model_copy(update={"tests": tests}))
        return steps.bisection("bisection", 90.0)

    monkeypatch.setattr(bisection, "bisect", does)
    status, output, _ = repro(BLOCKED, "--bisect", "-o", str(tmp_path / "run"))
    assert status == 0
    assert "### Which release\n\nboxlite 0.10.8 is the first release that fails: 0.9.0, the release" in output
    assert "lab repro REPORT --bisect" in output
    assert (tmp_path / "run" / "bisection" / journal.VARIANTS / "report.toml").is_file()


def test_why_there_is_no_bisection_is_said(
    repro: Repro, blocked: list[Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(builds, "releases", lambda: [Version("0.10.8")])
    status, output, _ = repro(BLOCKED, "--bisect", "-o", str(tmp_path / "run"))
    assert status == 0
    assert "- which release first failed: there is no release of boxlite beside 0.10.8" in output
