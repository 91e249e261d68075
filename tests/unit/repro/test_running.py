"""`lab repro` as users have it, from a report to its answer, with runs that need no guest."""

import io
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from packaging.version import Version
from rich.console import Console

from lab import builds
from lab.base.errors import ImageNotAvailable, LabError
from lab.base.paths import Paths
from lab.cli import INTERRUPTED
from lab.plan import PlannedRun
from lab.record import ExperimentPolicy, RunResult
from lab.record.folders import VARIANTS
from lab.repro.planning import Plan
from lab.repro.running import Runner, options
from lab.repro.wishes import Wishes
from lab.run.scheduler import Scheduler
from tests.builders import messages
from tests.builders.processes import run_main
from tests.builders.report_texts import FAMILY, PROBE, TWICE
from tests.builders.reports import CLONE, KNOWN, POLICY, SWITCH, gather, holds, plan, ran, report, system, tried
from tests.builders.runs import host

BLOCKED = f"""\
# boxes do not start

Debian 13, boxlite 0.10.8.
`{SWITCH} = 0`

    Sandbox preflight failed: bwrap cannot create user namespaces.

I tried `sysctl -w {SWITCH}=1`, and it works at once.
"""
PAUSED = "# Paused boxes cannot be resumed\n\nDebian 13, boxlite 0.10.8. I called `box.pause()`.\n"
STOPPED = "# A stopped box's machine lives on\n\nDebian 13, boxlite 0.10.8. I called `box.stop()`.\n"
ELSEWHERE = BLOCKED.replace("Debian 13", "Pop!_OS 22.04")
UBUNTU = system("ubuntu", "24.04")
Repro = Callable[..., tuple[int, str, str]]


@pytest.fixture
def repro(
    home: Path, releases: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Repro:
    """Run `lab repro` with a report or another argument, and options: exit status, output and errors."""
    monkeypatch.setattr(builds, "list_releases", lambda *_: [Version("0.9.0"), Version("0.10.8")])

    def call(text: str, *options: str, argument: str | Path = "-") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        status = run_main(monkeypatch, "repro", argument, *options)
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> list[PlannedRun]:
    """The runs that are made, without guests: cells of questions fail for the cause since 0.10, others pass."""
    runs: list[PlannedRun] = []

    def run(self: Scheduler) -> RunResult:
        planned = self.planned
        runs.append(planned)
        waiting, results = list(planned.cells), []
        cures = ["userns-clone-on"] if planned.info.options.remedies else []
        while waiting:
            cell = waiting.pop(0)
            cause = CLONE if cell.trials and cell.build.name == "0.10.8" else None
            results.append(ran(cell, cell.variant.name, cause=cause, cured_by=cures))
            gather(planned.folder, results[-1], log=messages.USERNS_SYSCTL, kernel="")
            waiting += self.follow(results[-1])
        info = {"host": host(), "finished": planned.info.started + timedelta(seconds=90)}
        return RunResult(run=planned.info.model_copy(update=info), cells=results)

    monkeypatch.setattr(Scheduler, "run", run)
    return runs


def test_a_report_is_run_and_answered(repro: Repro, blocked: list[PlannedRun], tmp_path: Path) -> None:
    status, output, _ = repro(BLOCKED, "-o", str(tmp_path / "run"))
    assert status == 0
    assert "guest: debian-13, for Debian 13" in output
    assert "## Verdict: reproduced on debian-13" in output
    assert f"| line 8: {SWITCH}=1 helps against {CLONE} | held |" in output
    assert (tmp_path / "run" / "answer.md").read_text() in output
    [made] = blocked
    assert [cell.name for cell in made.cells] == ["debian-13/report/0.10.8", "debian-13/tried-1/0.10.8"]


def test_what_cannot_be_run_boots_nothing(repro: Repro, blocked: list[PlannedRun]) -> None:
    status, output, _ = repro(ELSEWHERE)
    assert status == 3
    assert "## Verdict: not run" in output
    assert "the lab has no guest for Pop" in output
    assert blocked == []


@pytest.mark.parametrize("options", [(), ("--text-only",), ("--json",), ("--text-only", "--json")])
def test_what_no_test_is_about_is_said_to_be_not_tested(
    repro: Repro, blocked: list[PlannedRun], options: tuple[str, ...]
) -> None:
    status, output, _ = repro(PAUSED, *options)
    assert (status, blocked) == (3, [])
    assert "not tested: no test is about pause" in output or '"no test is about pause"' in output
    assert "nextest:ARCHIVE,suite=pause" in output
    assert "not reproduced" not in output
    if options == ("--json",):
        assert json.loads(output)["verdict"] == "not tested"


def test_what_a_report_asserts_is_run_whatever_else_it_is_about(
    repro: Repro, blocked: list[PlannedRun], tmp_path: Path
) -> None:
    status, output, _ = repro(f"{PAUSED}\nIt works with sudo.\n", "-o", str(tmp_path / "run"))
    assert status == 3
    assert [cell.variant.name for cell in blocked[0].cells] == ["as-root"]
    assert "## Verdict: not tested: no test is about pause" in output
    assert "boxlite works if root runs it | held |" in output


def test_a_report_about_more_than_a_start_is_run_with_the_suite_that_is_about_it(
    repro: Repro, blocked: list[PlannedRun], tmp_path: Path
) -> None:
    status, output, _ = repro(STOPPED, "-o", str(tmp_path / "run"))
    assert [cell.name for cell in blocked[0].cells] == ["debian-13/stock/lifecycle-0.10.8"]
    assert "suite: lifecycle, whose tests are about stop" in output
    assert "--build 0.10.8,suite=lifecycle" in output
    # Every test passes, also those about stopping.
    assert (status, "## Verdict: not reproduced on debian-13" in output) == (1, True)
    shown = repro(STOPPED, "--text-only")
    assert (shown[0], "suite: lifecycle, whose tests are about stop" in shown[1]) == (0, True)
    assert json.loads(repro(STOPPED, "--text-only", "--json")[1])["suite"] == "lifecycle"


def test_a_report_that_says_nothing_is_not_called_not_reproduced(
    repro: Repro, blocked: list[PlannedRun]
) -> None:
    status, output, _ = repro("# A question on boxlite\n\nDebian 13, boxlite 0.10.8")
    assert (status, blocked) == (3, [])
    assert "not tested: the report does not say what fails" in output


def test_the_nearest_guest_can_be_asked_for(repro: Repro, blocked: list[PlannedRun], tmp_path: Path) -> None:
    status, output, _ = repro(ELSEWHERE, "--nearest", "-o", str(tmp_path / "run"))
    assert status == 0
    assert "reproduced on debian-13; not on Pop!\\_OS 22.04" in output
    assert "lab repro REPORT --nearest" in output
    document = json.loads(repro(ELSEWHERE, "--nearest", "-o", str(tmp_path / "other"), "--json")[1])
    assert (document["verdict"], document["guest"]) == ("reproduced", "debian-13")


@pytest.mark.parametrize(
    "planned",
    [
        plan(report(system(), holds(SWITCH, "0"), tried(SWITCH, "1", helped=True)), CLONE),
        plan(
            report(UBUNTU, holds(SWITCH, "1"), tried("setenforce 0", None, helped=False)), POLICY, nearest=True
        ),
    ],
    ids=["on its host", "on the nearest guest"],
)
def test_a_report_s_variants_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, planned: Plan) -> None:
    folder = tmp_path / "run"
    begun: list[PlannedRun] = []

    def stop(self: Scheduler) -> None:
        begun.append(self.planned)
        kept = KNOWN.with_variants(folder / VARIANTS)
        assert sorted(set(kept.variants) - set(KNOWN.variants)) == ["report", "tried-1"]
        for name, variant in planned.variants.items():
            assert kept.variant(name).knobs == variant.knobs
            assert kept.variant(name).expect == variant.expect
        raise LabError("no libvirt")

    monkeypatch.setattr(Scheduler, "run", stop)
    runner = Runner(Paths(tmp_path, tmp_path), "", "lab repro -", Console(), quiet=True)
    with pytest.raises(LabError, match="no libvirt"):
        runner.answer(planned, folder, Wishes())
    assert [cell.rerun(options(Wishes())) for cell in begun[0].cells] == [planned.again] * len(begun[0].cells)
    assert not folder.exists()


def test_an_image_that_cannot_be_had_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise ImageNotAvailable("no network", hint="lab images import")

    here = Runner(Paths(tmp_path, tmp_path), "", "lab repro -", Console()).host()
    monkeypatch.setattr("lab.repro.running.store.ensure_image", none)
    guest = KNOWN.guest("ubuntu-24.04")
    assert not here.has_image(guest)
    assert "image not available: no network" in capsys.readouterr().out
    monkeypatch.setattr("lab.repro.running.store.ensure_image", lambda *_: None)
    assert here.has_image(guest)


@pytest.mark.parametrize("given", [(), ("--no-remedies",)])
def test_remedies_are_tried_as_asked(
    repro: Repro, blocked: list[PlannedRun], tmp_path: Path, given: tuple[str, ...]
) -> None:
    status, output, _ = repro(BLOCKED, *given, "-o", str(tmp_path / "run"))
    assert status == 0
    options = blocked[0].info.options
    assert (options.remedies, options.experiments) == (not given, ExperimentPolicy.UNCLEAR)
    assert " ".join(("lab repro REPORT", *given)) + "\n" in output


def test_a_bisection_is_part_of_the_answer(repro: Repro, blocked: list[PlannedRun], tmp_path: Path) -> None:
    status, output, _ = repro(BLOCKED, "--bisect", "-o", str(tmp_path / "run"))
    assert status == 0
    assert "### Which release\n\nNo release is newer than 0.10.8, which fails.\n" in output
    assert "2 of 2 releases were\nrun." in output
    assert "lab repro REPORT --bisect\n" in output
    first, bisected = blocked
    assert first.info.options.remedies
    # A bisection tells by releases what an experiment tells by settings.
    assert first.info.options.experiments is ExperimentPolicy.NEVER
    assert bisected.folder == tmp_path / "run" / "bisection"
    assert (bisected.folder / VARIANTS / "report.toml").is_file()
    assert not bisected.info.options.remedies


def test_the_comment_says_what_a_bisection_found(
    repro: Repro, blocked: list[PlannedRun], tmp_path: Path
) -> None:
    status, output, _ = repro(BLOCKED, "--bisect", "--comment", "-o", str(tmp_path / "run"))
    assert (status, len(blocked)) == (0, 2)
    assert "\n- No release is newer than 0.10.8, which fails.\n" in output
    assert "\n- boxlite 0.10.8 is the first release that fails: 0.9.0, " in output


def test_an_interrupted_bisection_ends_as_an_interrupted_run_does(
    repro: Repro, blocked: list[PlannedRun], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = Scheduler.run

    def interrupted(self: Scheduler) -> RunResult:
        run = whole(self)
        info = run.run.model_copy(update={"interrupted": len(blocked) == 2})
        return run.model_copy(update={"run": info})

    monkeypatch.setattr(Scheduler, "run", interrupted)
    status, output, _ = repro(BLOCKED, "--bisect", "-o", str(tmp_path / "run"))
    assert status == INTERRUPTED
    assert "- The bisection did not come to its end: interrupted." in output


@pytest.mark.parametrize(
    ("releases", "status", "runs"),
    [
        # What cannot be bisected is refused before anything is run.
        (["0.10.8"], 2, 0),
        # Without a cell that fails there is nothing to bisect.
        (["0.9.0", "0.10.7"], 1, 1),
    ],
)
def test_what_cannot_be_bisected(
    repro: Repro,
    blocked: list[PlannedRun],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    releases: list[str],
    status: int,
    runs: int,
) -> None:
    monkeypatch.setattr(builds, "list_releases", lambda *_: list(map(Version, releases)))
    text = BLOCKED.replace("0.10.8", releases[-1])
    done, output, errors = repro(text, "--bisect", "-o", str(tmp_path / "run"))
    assert (done, len(blocked)) == (status, runs)
    assert ("there is no release of boxlite beside 0.10.8" in errors) is (runs == 0)
    assert ("nothing to bisect" in output) is (runs == 1)
    assert "### Which release" not in output


# -- the text alone


def test_a_report_is_shown_with_its_lines_and_what_they_show(repro: Repro) -> None:
    status, output, _ = repro(FAMILY, "--text-only", "--verbose")
    assert status == 0
    lines = [line.strip() for line in output.splitlines()]
    assert "1 | - OS: Ubuntu 24.04 family" in lines
    assert "system        Ubuntu 24.04 or a derivative" in lines
    assert "**Likely: apparmor-userns-nocaps**" in output


def test_a_comment_is_printed_alone_and_written_with_all_that_was_read(repro: Repro, tmp_path: Path) -> None:
    status, output, _ = repro(FAMILY, "--text-only", "-o", str(tmp_path / "answer"))
    assert status == 0
    assert "system        Ubuntu 24.04" not in output
    written = (tmp_path / "answer" / "answer.md").read_text()
    assert written.startswith(output)
    assert "system        Ubuntu 24.04" in written
    assert "guest: ubuntu-24.04" in written
    document = json.loads(repro(FAMILY, "--text-only", "--json")[1])
    assert "".join(f"{line}\n" for line in document["comment"]) == output


def test_the_comment_on_a_run_begins_with_its_verdict_and_names_what_it_verified(
    repro: Repro, blocked: list[PlannedRun], tmp_path: Path
) -> None:
    status, output, _ = repro(BLOCKED, "--comment", "-o", str(tmp_path / "run"))
    assert (status, len(blocked)) == (0, 1)
    assert output.startswith("## Verdict: reproduced on debian-13\n")
    assert "(`lab remedies show userns-clone-on --script` prints the script); verified on report." in output
    assert (tmp_path / "run" / "answer.md").read_text().startswith(output)
    assert "### What was run" not in output


def test_the_plan_is_shown_without_a_network(repro: Repro) -> None:
    _, output, _ = repro("# No box on Ubuntu 24.04\n\nboxlite 0.10.8", "--text-only", "--verbose")
    assert "guest: ubuntu-24.04, for Ubuntu 24.04" in output
    assert "build: boxlite 0.10.8, as the report says, if the package index has it" in output


def test_a_file_is_shown_as_json(repro: Repro, tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    file.write_text(TWICE)
    document = json.loads(repro("", "--text-only", "--json", argument=file)[1])
    kinds = [statement["kind"] for statement in document["statements"]]
    assert {"system", "kernel", "setting", "audit-line", "message", "failing-test", "command"} <= set(kinds)
    tried = [one["says"] for one in document["statements"] if one["kind"] == "setting"]
    assert [setting["helped"] for setting in tried] == [False, False, False]
    assert "apparmor-userns-nocaps" in [finding["cause"] for finding in document["findings"]]
    assert (document["characters"], document["cut"]) == (len(TWICE), False)


def test_the_output_of_the_probe_script_is_shown(repro: Repro) -> None:
    assert "failed: unshare_user, unshare_user_root" in repro(PROBE, "--text-only", "--verbose")[1]
    document = json.loads(repro(PROBE, "--text-only", "--json")[1])
    [probed] = [one for one in document["statements"] if one["kind"] == "lab-probe"]
    assert probed["says"]["host"]["facts"]["os"]["id"] == "debian"


@pytest.mark.parametrize(
    ("text", "words", "error"),
    [
        ("", "-", "the report is empty"),
        ("", ".", "cannot be read: Is a directory"),
        ("", "none.md", "cannot be read: No such file or directory"),
        ("", "https://github.com/a/b/issues/7", "is an address, and nothing is fetched"),
        (BLOCKED, "- --guest debian-31", "no guest is called 'debian-31'"),
        (BLOCKED, "- --build newest-one", "neither a version nor the path of a wheel"),
    ],
)
def test_bad_input_is_told_with_the_next_step(repro: Repro, text: str, words: str, error: str) -> None:
    argument, *options = words.split()
    status, output, errors = repro(text, *options, argument=argument)
    assert (status, output) == (2, "")
    assert error in errors
    assert "next: " in errors


def test_a_hostile_report_does_not_reach_the_terminal(repro: Repro) -> None:
    text = "Ubuntu 24.04 \x1b]0;owned\x07 \u202e[bold]x[/bold]\n::error::forged\n$ echo ##[add-path]/evil\n"
    status, output, _ = repro(text, "--text-only", "--verbose")
    assert status == 3  # It does not say what fails.
    assert not any(part in output for part in ("\x1b", "\u202e", "##["))
    assert "[bold]x[/bold]" in output
    assert "##\\[add-path]" in output
