"""What reports say of each cell: a run with everything, in each of its forms.

What each of them is as a whole: the golden files of `tests.builders.golden`.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest

from lab.record import (
    CellResult,
    Confidence,
    Experiment,
    ExperimentTrial,
    FoundCause,
    LaneRecord,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunOptions,
    RunResult,
    Status,
    Stress,
    TestResult,
    TrialOutcome,
)
from lab.report import github, junit, markdown, run_notes, sections
from lab.report.sections import format_command
from lab.report.site import one_page
from lab.report.site.publish import publish_site
from lab.verdict.status import combine_repeats
from tests.builders import golden
from tests.builders.cells import blocked as a_blocked_cell
from tests.builders.cells import box, cell, changed
from tests.builders.facts import facts
from tests.builders.output import FAULT, FLAKY, REPORTS, printed
from tests.builders.runs import host, run_of

NOWHERE = Path("no-such-run")


def trial(outcome: TrialOutcome, *changes: str) -> ExperimentTrial:
    return ExperimentTrial(changes=list(changes), outcome=outcome)


def trials(forks: list[ExperimentTrial], *turning: list[str], tests: str = "box", **more: Any) -> Experiment:
    return Experiment(tests=tests.split(), trials=forks, turning=list(turning), **more)


PASSES, FAILS, CANNOT, ERROR = TrialOutcome
ONE, OTHER = "without sysctl a=0", "without sysctl b=0"
ALONE = [trial(FAILS), trial(FAILS, ONE), trial(FAILS, OTHER)]
TURNED = trials(
    [*ALONE, trial(PASSES, ONE, OTHER)],
    [ONE, OTHER],
    tests="box namespace",
    evidence=["cells/a/experiment/01/suite.log", "cells/a/experiment/02/suite.log"],
)
BROKEN = [trial(PASSES), trial(FAILS, "with a"), trial(FAILS, "with b"), trial(PASSES, "with c")]
BROKEN += [trial(CANNOT, "with d"), trial(ERROR, "with e")]


def test_what_an_experiment_found_is_golden() -> None:
    experiments = [
        (Status.FAIL, trials(ALONE, stopped="out of time")),
        (Status.PASS, trials(BROKEN, ["with a"], ["with b"])),
        (Status.PASS, trials(BROKEN[::3])),
        (Status.FAIL, trials([trial(ERROR, ONE)], [ONE, OTHER])),
        (Status.FAIL, trials([trial(PASSES)], stopped="out of time")),
    ]
    cells = [cell(status=status, experiment=experiment) for status, experiment in experiments]
    golden.check("experiments.txt", "".join(f"{sections.describe_experiment(each)}\n" for each in cells))


TRIED = [
    RemedyResult(name="preflight", result=RemedyOutcome.AVOIDS, reason="skipped: a | b", price="Nothing."),
    RemedyResult(
        name="install-bubblewrap",
        result=RemedyOutcome.CANNOT,
        reason="no source of packages",
        price="None.",
        scripts={"install-bubblewrap": "0" * 64},
    ),
    RemedyResult(
        name="clone-on+limit-raise",
        result=RemedyOutcome.VERIFIED,
        price="Every program may.",
        scripts={"clone-on": "1" * 64, "limit-raise": "2" * 64},
        defects=["its undo does not put back what was: bwrap_user"],
        evidence=["cells/a/remedies/x/boxlite/box-1/logs/boxlite.log", "cells/a/remedies/x/clone-on.sh"],
    ),
]


def blocked(guest: str, variant: str, **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "causes": [
            FoundCause(name="userns-limit", confidence=Confidence.PROVED, reason="it is 0"),
            FoundCause(name="<gone>", confidence=Confidence.LIKELY, reason="of another release"),
        ],
        "remedies": TRIED,
        "evidence": [f"cells/{guest}/{variant}/0.10.8/kernel.log"],
        "rerun": f"lab matrix -g {guest} -v {variant}",
    }
    return a_blocked_cell(guest=guest, variant=variant, **(given | more))


def repeated(guest: str, variant: str, times: int, **failed_in: list[int]) -> CellResult:
    """A cell that was repeated so often, with the repeats in which each test failed."""
    repeats = []
    for number in range(1, times + 1):
        tests = [
            TestResult(
                name=name,
                outcome=Outcome.FAIL if number in failed_in.get(name, []) else Outcome.PASS,
                subject="start" if name == "box_starts" else "confinement",
            )
            for name in ("presets", "box_starts", "namespaces")
        ]
        passed = all(test.outcome is Outcome.PASS for test in tests)
        repeats.append(cell(guest, variant, status=Status.PASS if passed else Status.FAIL, tests=tests))
    return combine_repeats(repeats)


PASSED = [
    TestResult(name=name, outcome=Outcome.PASS, subject=subject)
    for name, subject in {"starts": "start", "isolates": "confinement"}.items()
]


def boxes(guest: str, **changes: Any) -> CellResult:
    """A cell that passed, with what confined the boxes of its tests."""
    seen = box(**changes)
    tests = [test.with_values(protection=seen) for test in PASSED]
    return cell(guest, "podman", tests=tests, lane=guest)


def everything() -> RunResult:
    """Cells that passed, failed in every way, were tried again or repeated, and could not be run."""
    tests = [
        TestResult(name="jail_starts", outcome=Outcome.FAIL, message=f"no\nsandbox {'x' * 400}"),
        TestResult(name="jail_ends", outcome=Outcome.SKIP),
        TestResult(name="box_starts", outcome=Outcome.PASS, seconds=1.23456),
    ]
    unknown = {
        "status": Status.FAIL,
        "cause": "unknown",
        "confidence": Confidence.LIKELY,
        "reason": "[red] is no markup",
    }
    weak = {
        "namespaces": ["mnt", "user"],
        "seccomp": ["off"],
        "asked": {"seccomp_enabled": True},
        "limits": {"open files": "1024", "file size": "7800", "processes": "7795"},
        "own_limits": ["file size", "open files"],
    }
    alpha, beta = host(name="alpha.example"), host(name="beta.example", kernel="6.18", acceleration="KVM")
    return run_of(
        cell("debian-12", retried=[FAULT, "no SSH"], tests=PASSED),
        blocked("debian-12", "max-userns-zero", facts=facts(kernel="6.1.0")),
        blocked("debian-13", "max-userns-zero", facts=facts()),
        blocked("debian-13", "limit-one", facts=facts()),
        cell("debian-13", **FLAKY),
        cell("debian-13", "podman", rerun="lab 1", tests=tests, evidence=["a.log"], **unknown),
        blocked("debian-13", "as-root", remedies=[TRIED[1]], experiment=TURNED),
        cell(
            "debian-14",
            status=Status.ERROR,
            reason="the machine of debian-14 is gone",
            rerun="lab 2",
            evidence=["cells/debian-14/stock/0.10.8/console.log"],
        ),
        cell("debian-12", "apparmor-off", status=Status.NOT_APPLICABLE, reason="no AppArmor"),
        cell("fedora-44", status=Status.NOT_RUN, reason="no image"),
        repeated("debian-11", "stock", 20),
        repeated("debian-11", "as-root", 8, box_starts=[2, 5], namespaces=[*range(1, 9)]),
        boxes("debian-11"),
        boxes("debian-12", **weak),
        lanes=[
            LaneRecord(
                guest="debian-13",
                image="1" * 64,
                fork="disk",
                note="no memory",
                seconds={},
                processor_seconds=687.0,
            ),
            *(
                LaneRecord(guest=guest, label=guest, host=of, image="2" * 64, fork="memory", seconds={})
                for guest, of in (("debian-11", alpha), ("debian-12", beta))
            ),
        ],
        options=RunOptions(repeat=20, stress=list(Stress)),
        finished=datetime(2026, 11, 24, 17, 0, tzinfo=UTC),
    )


def html_of(run: RunResult) -> str:
    """The page without its style sheet, its digest and the version of the lab."""
    page = re.sub(r"<style>.*?</style>", "", one_page.render_one_page(run, NOWHERE), flags=re.DOTALL)
    return re.sub(r"sha256-[\w+/=]+|boxlite-lab \S+", "", re.sub(r"\n+", "\n", page))


FORMS: dict[str, Callable[[RunResult], str]] = {
    "summary.txt": printed,
    "matrix.md": markdown.render_run,
    "page.html": html_of,
    "junit.xml": junit.render_junit,
    "annotations.txt": lambda run: "\n".join(github.list_annotations(run)) + "\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_a_report_of_everything_is_golden(name: str) -> None:
    golden.check(name, FORMS[name](everything()))


def test_a_template_gets_values_and_functions_and_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, templates, modules = jinja2.Template.render, set(), set()

    def watch(template: jinja2.Template, *values: Mapping[str, object], **more: object) -> str:
        templates.add(template.name)
        for name, value in dict(*values, **more).items():
            if isinstance(value, ModuleType):
                modules.add((template.name, name))
        return str(render(template, *values, **more))

    monkeypatch.setattr(jinja2.Template, "render", watch)
    run = everything()
    for report in REPORTS.values():
        report(run, NOWHERE)
    run.write(tmp_path)
    publish_site([tmp_path], tmp_path / "site")
    assert modules == set()
    assert templates > {"matrix.md", "upstream.md", "one_page.html", "host.html", "cell.html", "matrix.html"}


# -- how often tests failed in repeats


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (RunOptions(), []),
        (RunOptions(repeat=100, until_fail=True), ["too high on average"]),
        (RunOptions(repeat=9, shuffle=3), ["an order of its own"]),
    ],
)
def test_what_to_mind_about_rates_is_told(options: RunOptions, expected: list[str]) -> None:
    note = run_notes.explain_rates(run_of(repeated("debian-13", "stock", 3, box_starts=[3]), options=options))
    possible = ("too high on average", "an order of its own")
    assert [words for words in possible if words in note] == expected


def test_a_run_without_repeats_and_trials_says_nothing_of_them(tmp_path: Path) -> None:
    run = run_of(blocked("debian-13", "stock", remedies=[], evidence=[]))
    for text in (printed(run), markdown.render_run(run), one_page.render_one_page(run, tmp_path)):
        assert not [words for words in ("How often", "remed", "by experiment") if words in text]


def test_long_lists_are_cut_and_a_shuffled_repeat_is_named_with_the_option_for_its_order() -> None:
    long = repeated("debian-13", "stock", 30, box_starts=[*range(1, 30)])
    [first, others] = run_notes.list_rates_of_cell(long)
    assert first.repeats == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and 19 more"
    assert others.name_tests(1) == "presets and 1 more"
    seeds = [
        repeat.model_copy(update={"seed": 40 + number}) for number, repeat in enumerate(long.suite.repeats, 1)
    ]
    [first, *_] = run_notes.list_rates_of_cell(changed(long, repeats=seeds))
    assert first.repeats.startswith("1 (--shuffle=41), 2 (--shuffle=42)")


def test_of_remedies_together_only_those_that_change_the_host_are_shown_as_scripts() -> None:
    names = "kvm-everyone+unconfined-container"
    scripts = {"kvm-everyone": "0" * 64}
    remedy = RemedyResult(name=names, result=RemedyOutcome.VERIFIED, price="all", scripts=scripts)
    assert format_command(remedy) == (
        "lab remedies show kvm-everyone --script and lab remedies show unconfined-container"
    )
