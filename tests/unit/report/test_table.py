"""The table of a run, on a terminal and in matrix.md: its squares and counts, and what stands beside it."""

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from lab.record import (
    BuildRecord,
    CellResult,
    Confidence,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunResult,
    Status,
    TestResult,
)
from lab.report import markdown, run_notes, table
from lab.report.sections import make_sections
from lab.report.table import LOOKS
from tests.builders import golden
from tests.builders.cells import blocked as a_blocked_cell
from tests.builders.cells import cell
from tests.builders.facts import facts
from tests.builders.output import printed
from tests.builders.runs import run_of


def of_subjects(*subjects: str, outcome: Outcome = Outcome.PASS, **more: Any) -> CellResult:
    tests = [TestResult(name=name, outcome=outcome, subject=name) for name in subjects]
    return cell(tests=tests, **more)


def test_a_pass_covers_what_each_passing_cell_has_a_test_of() -> None:
    both = [of_subjects("start", "stop"), of_subjects("start", "confinement")]
    failed = of_subjects("network", status=Status.FAIL, outcome=Outcome.FAIL)
    coverage = run_notes.describe_coverage([*both, failed])
    covered, left_out = coverage.split(". ", 1)
    assert covered == "a box starts and runs a command"
    assert {"stop", "confinement", "network"} <= {*left_out.rpartition(": ")[2].split(", ")}
    assert "start" not in left_out
    # A skipped test shows nothing.
    skipped = of_subjects("start", outcome=Outcome.SKIP)
    nothing = "nothing that the lab can name: the record does not say what these tests are about"
    assert run_notes.describe_coverage([*both, skipped]) == nothing
    assert run_notes.describe_coverage([failed]) == ""
    # The page of a run says it.
    assert "`pass` covers: a box starts and runs a command. Not tested" in markdown.render_run(run_of(*both))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        # The squares of every other status: the reports of `test_cells`.
        ({"status": Status.XPASS, "reason": "passed, but"}, "xpass"),
        ({"status": Status.XFAIL, "cause": "userns-limit", "retried": ["x"]}, "xfail userns-limit (try 2)"),
        (None, ""),
    ],
)
def test_a_square_says_the_status_and_the_cause(more: dict[str, Any] | None, expected: str) -> None:
    assert table.format_square(cell(**more) if more else None) == expected


def test_pass_alone_is_green() -> None:
    assert [status for status, look in table.LOOKS.items() if "green" in look.style] == [Status.PASS]


def test_builds_stand_side_by_side_and_a_single_one_is_not_told() -> None:
    run = run_of(
        cell(build="0.10.7", status=Status.FAIL, cause="unknown"),
        cell(build="0.10.8"),
        cell(variant="podman", build="0.10.7"),
    )
    heading = "guest | kernel | stock 0.10.7 | stock 0.10.8 | podman 0.10.7"
    row = "debian-13 | - | fail unknown | pass | pass"
    lines = [re.sub(r"  +", " | ", line.strip()) for line in printed(run).splitlines()]
    assert {heading, row} < set(lines)
    assert {f"| {heading} |", f"| {row} |"} < set(markdown.render_run(run).splitlines())
    assert list(table.label_columns_of(run_of(cell(), cell(variant="podman"))).values()) == ["stock", "podman"]


def test_why_cells_were_left_out_is_said_once_for_each_reason() -> None:
    no_apparmor = {"status": Status.NOT_APPLICABLE, "reason": "no AppArmor"}
    run = run_of(
        cell("debian-12", "stock"),
        cell("debian-12", "apparmor-off", **no_apparmor),
        cell("debian-12", "bwrap-allow-list", **no_apparmor),
        cell("debian-13", "apparmor-off", **no_apparmor),
        cell("fedora-44", "stock", status=Status.NOT_RUN, rerun="lab 1"),
    )
    assert table.list_left_out(run) == [
        "n/a (no AppArmor): debian-12 (apparmor-off, bwrap-allow-list), debian-13",
        "not-run: fedora-44",
    ]
    assert "lab 1" not in printed(run)
    assert "## " not in markdown.render_run(run).split("## Environment")[0]


# A guest's name takes 19 columns, a square 22, with two spaces between them.
@pytest.mark.parametrize(("width", "columns"), [(60, 1), (80, 2), (120, 4), (240, 8)])
def test_a_table_that_is_too_wide_is_many_and_breaks_no_word(width: int, columns: int) -> None:
    variants = catalog.load_catalog().variants
    cause = "a-cause-of-22-letters-"
    run = run_of(
        *[
            cell(guest, variant, status=Status.XFAIL, cause=cause)
            for guest in ("debian-12", "debian-13-backports")
            for variant in variants
        ]
    )
    lines = [line.rstrip() for line in printed(run, width=width).splitlines()]
    tables = lines[: lines.index(table.count_statuses(run.cells))]
    assert all(len(line) <= width for line in tables)
    words = [word for line in tables for word in line.split()]
    assert [word for word in words if word in variants] == list(variants)
    assert words.count("xfail") == words.count(cause) == len(run.cells)
    heads = words.count("guest")
    assert words.count("debian-12") == words.count("debian-13-backports") == heads
    # One column may be too wide to stand beside as many others as the rest do.
    assert heads <= math.ceil(len(variants) / columns) + 1


MISSING = [cell(), cell("debian-12", status=Status.NOT_RUN), cell("debian-14", status=Status.ERROR)]
ENDED = {"finished": datetime.now(UTC)}
MORE = [cell(status=Status.XFAIL, unfinished=True)]
RUNS: dict[str, RunResult] = {
    "whole": run_of(cell(), **ENDED),
    "cells are missing": run_of(*MISSING, **ENDED),
    "not finished": run_of(*MISSING),
    "interrupted": run_of(*MISSING, **ENDED, interrupted=True),
    "a shard was lost": run_of(*MISSING, **ENDED, merged=[run_of(cell()).run], lost_shards=[2]),
    # What executes programs of this host has to be named again.
    "a build of this host": run_of(
        *MORE, **ENDED, builds=[BuildRecord(name="x", version="1", source="cli:/a b")]
    ),
}


def test_what_a_run_says_of_how_to_go_on_with_it_is_golden() -> None:
    lines = [f"{name}: {run_notes.describe_next_step(run, Path('RUN'))}" for name, run in RUNS.items()]
    golden.check("next-steps.txt", "".join(f"{line.rstrip()}\n" for line in lines))


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_run_says_where_it_is_and_how_to_go_on_with_it(tmp_path: Path, run: RunResult) -> None:
    (tmp_path / "run.log").touch()
    (tmp_path / "matrix.md").touch()
    line = run_notes.describe_next_step(run, tmp_path)
    assert bool(line) is (run is not RUNS["whole"])
    assert printed(run, tmp_path).rstrip().endswith(f"run: {tmp_path} (matrix.md, run.log)\n{line}".rstrip())
    assert line in markdown.render_run(run, tmp_path).split("| guest")[0].replace("\\", "")


# -- what fails in the same way is told once

BLOCKED = TestResult(name="jail_starts", outcome=Outcome.FAIL, message="no sandbox")


def blocked(guest: str, variant: str = "max-userns-zero", **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "tests": [TestResult(name="options", outcome=Outcome.PASS), BLOCKED],
        "evidence": [f"cells/{guest}/{variant}/0.10.8/kernel.log"],
        "rerun": f"lab matrix -g {guest} -v {variant}",
    }
    return a_blocked_cell(guest=guest, variant=variant, **(given | more))


def remedy(result: RemedyOutcome, reason: str = "") -> RemedyResult:
    return RemedyResult(name="limit-raise", result=result, reason=reason, price="Every program may.")


@pytest.mark.parametrize(
    "other",
    [
        {"status": Status.FAIL},
        {"cause": "userns-sysctl"},
        {"confidence": Confidence.LIKELY},
        {"causes": []},
        {"reason": "the limit is reached"},
        {"tests": [BLOCKED, BLOCKED.model_copy(update={"name": "jail_ends"})]},
        {"tests": [BLOCKED.model_copy(update={"outcome": Outcome.ERROR})]},
        {"remedies": [remedy(RemedyOutcome.VERIFIED)]},
        {"remedies": [remedy(RemedyOutcome.DOES_NOT_HELP)]},
        {"retried": ["no SSH"]},
    ],
)
def test_cells_that_differ_in_how_they_fail_are_sections_of_their_own(other: dict[str, Any]) -> None:
    run = run_of(blocked("debian-12"), blocked("debian-13", **other))
    assert sorted(section.first.guest for section in make_sections(run)) == ["debian-12", "debian-13"]


def test_cells_are_sections_of_their_own_if_boxlite_says_something_else_about_them() -> None:
    run = run_of(blocked("debian-12"), blocked("debian-13"))
    judged = make_sections(run, lambda cell: "unknown" if cell.guest == "debian-13" else "")
    assert [(section.first.guest, section.misdiagnosis) for section in judged] == [
        ("debian-12", ""),
        ("debian-13", "unknown"),
    ]


def test_the_same_failure_in_other_words_of_another_build_is_one_section_with_both_messages() -> None:
    other = BLOCKED.model_copy(update={"message": "RuntimeError: no sandbox"})
    run = run_of(blocked("debian-12", build="0.10.0", tests=[other]), blocked("debian-12"))
    page = markdown.render_run(run)
    assert "## xfail userns-limit: 2 cells on 1 guest\n" in page
    assert "max-userns-zero 0.10.0" in page
    assert "- `jail_starts`: fail: RuntimeError: no sandbox (in 1 of 2 cells)\n" in page
    assert "- `jail_starts`: fail: no sandbox (in 1 of 2 cells)\n" in page


def test_a_run_names_the_architectures_of_its_guests() -> None:
    arm64 = facts(arch="aarch64", kernel="6.12.9-arm64")
    run = run_of(cell(facts=facts(kernel="6.12.9-amd64")), cell("debian-13-arm64", facts=arm64))
    assert table.describe_run(run) == "boxlite 0.10.8: the jailer on 2 guests of aarch64 and x86_64"
    records = [
        BuildRecord(name=f"{name}-1", version="1", source="x", suite=name) for name in ("jailer", "lifecycle")
    ]
    of_two = run.model_copy(update={"run": run.run.with_values(builds=records)})
    assert table.describe_run(of_two).startswith("boxlite 1: the suites jailer, lifecycle on 2 guests")
    # Also of a guest that never came up.
    assert table.describe_run(run_of(cell("debian-13-arm64"))).endswith("the jailer on 1 guest of aarch64")
    page = markdown.render_run(run)
    assert "| debian-13 | 6.12.9-amd64 x86_64 | pass |" in page
    assert "| debian-13-arm64 | 6.12.9-arm64 aarch64 | pass |" in page
    lines = printed(run).splitlines()
    assert ["debian-13-arm64", "6.12", "aarch64", "pass"] in [line.split() for line in lines]


def test_a_guest_with_two_kernels_is_one_guest() -> None:
    cells = [a_blocked_cell(), a_blocked_cell(guest="debian-13@linux-image-amd64", kernel="linux-image-amd64")]
    run = run_of(*cells)
    assert table.describe_run(run).endswith("the jailer on 1 guest of x86_64, with 1 other kernel")
    [section] = make_sections(run)
    assert section.where == "2 cells on 1 guest"


def test_what_needs_a_person_comes_first_and_what_passed_has_no_section() -> None:
    cells = [cell(f"guest-{status}", status=status, reason="x") for status in reversed(LOOKS)]
    listed = make_sections(run_of(*cells, cell("passed")))
    statuses = ["fail", "xpass", "flaky", "error", "xfail", "pass"]
    assert [str(section.first.status) for section in listed] == statuses
    assert set(LOOKS) == set(Status)


def test_each_reason_why_a_remedy_does_not_cure_a_section_is_said() -> None:
    failed = [
        blocked(guest, remedies=[remedy(RemedyOutcome.CANNOT, f"{guest} has no podman")])
        for guest in ("debian-12", "debian-13")
    ]
    reasons = "cannot be tried here: debian-12 has no podman / debian-13 has no podman\n"
    assert f"- remedy `limit-raise`: {reasons}" in markdown.render_run(run_of(*failed))


def test_a_run_without_cells_says_so() -> None:
    page = markdown.render_run(run_of())
    assert page.startswith("# boxlite: the jailer on 0 guests\n\nThis run has no cells.\n\n## Environment\n")


def test_a_section_lists_so_many_tests_and_messages_and_says_that_there_are_more() -> None:
    tests = [TestResult(name=f"t{number}", outcome=Outcome.FAIL, message="same") for number in range(25)]
    tests += [TestResult(name="u", outcome=Outcome.FAIL, message=f"other {number}") for number in range(25)]
    page = markdown.render_run(run_of(blocked("debian-13", tests=tests)))
    assert "`t19` and more: fail: same\n" in page
    assert "`t20`" not in page
    assert "- and 6 more messages\n" in page
