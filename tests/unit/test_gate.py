"""The gate: its decision, its exit status, and what its commands print and refuse."""

import datetime
import json
from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.gate import baseline, expectations
from lab.gate.expectations import FILL_IN
from lab.record import CellResult, Outcome, RunResult, ShardRecord, Status
from tests.builders.cells import done, run_with, side, write
from tests.builders.processes import Printed, RunLab

BEFORE = run_with(
    done(Status.PASS, build="0.10.0"),
    done(Status.XFAIL, variant="max-userns-zero", build="0.10.0"),
    done(Status.PASS, guest="debian-12", build="0.10.0"),
)


pytestmark = pytest.mark.usefixtures("home")


def now(
    stock: Status = Status.PASS, blocked: Status = Status.XFAIL, older: Status = Status.PASS, cause: str = ""
) -> RunResult:
    return run_with(
        done(stock, reason="why it failed"),
        done(blocked, cause or None, variant="max-userns-zero"),
        done(older, guest="debian-12"),
    )


@pytest.mark.parametrize(
    ("new", "status", "verdict"),
    [
        (now(), 0, "gate passed: 3 cells compared, nothing is worse"),
        (now(stock=Status.FAIL), 1, "gate blocked: 1 regressed"),
        (now(cause="userns-sysctl"), 1, "gate blocked: 1 cause changed"),
        (now(stock=Status.FLAKY), 1, "gate blocked: 1 newly flaky"),
        (now(stock=Status.NOT_APPLICABLE), 1, "gate blocked: 1 vanished"),
        (now(blocked=Status.XPASS), 1, "gate blocked: 1 unexpected pass"),
        (now(older=Status.ERROR), 3, "gate incomplete: 1 cell could not be run; nothing else is worse"),
        (now(stock=Status.FAIL, older=Status.NOT_RUN), 1, "gate blocked: 1 regressed"),
    ],
)
def test_the_gate_says_its_verdict_first_and_ends_with_its_status(
    tmp_path: Path, run_lab: RunLab, new: RunResult, status: int, verdict: str
) -> None:
    old, candidate = write(BEFORE, tmp_path / "old"), write(new, tmp_path / "new")
    assert run_lab(status, "gate", candidate, "--against", old).splitlines()[0] == verdict


def test_a_cell_that_blocks_has_its_reason_evidence_and_commands(tmp_path: Path, run_lab: RunLab) -> None:
    old, candidate = write(BEFORE, tmp_path / "old"), write(now(stock=Status.FAIL), tmp_path / "new")
    assert (
        run_lab(0, "baseline", old, "-o", tmp_path / "b.toml")
        == f"{tmp_path}/b.toml: 3 cells of boxlite 0.10.0\n"
    )
    printed = run_lab(1, "gate", candidate, "--against", tmp_path / "b.toml")
    for lines in (
        f"old: boxlite 0.10.0 (baseline {tmp_path}/b.toml)",
        "regressed: debian-13 stock: pass -> fail userns-limit\n  why it failed\n",
        "  test: starts: pass -> fail\n",
        f"  evidence: {candidate}/cells/debian-13/stock/0.10.8\n",
        "  run it again: lab matrix -g debian-13 -v stock --build 0.10.8\n",
    ):
        assert lines in printed
    document = json.loads(run_lab(1, "gate", candidate, "--against", old, "--format", "json"))
    assert document["gate"] == "blocked"
    assert [(cell["guest"], cell["difference"]) for cell in document["blocking"]] == [
        ("debian-13", "regressed")
    ]
    page = run_lab(1, "gate", candidate, "--against", old, "--format", "markdown").splitlines()
    assert page[0] == "# gate blocked: 1 regressed"
    assert "| regressed | debian-13 | stock | pass | fail userns-limit |" in page
    assert "- run it again: `lab matrix -g debian-13 -v stock --build 0.10.8`" in page


def test_what_could_not_run_is_named_with_reason_and_command(tmp_path: Path, run_lab: RunLab) -> None:
    missing = [done(Status.ERROR, guest="debian-12", reason="no boot"), done(Status.PASS)]
    blocked = done(Status.NOT_RUN, variant="max-userns-zero", reason="interrupted")
    old, candidate = write(BEFORE, tmp_path / "old"), write(run_with(*missing, blocked), tmp_path / "new")
    assert (
        "could not run:\n"
        "  debian-12 (stock): no boot\n"
        "  debian-13 (max-userns-zero): interrupted\n"
        f"  run what is missing: lab matrix --resume {candidate}\n"
    ) in run_lab(3, "gate", candidate, "--against", old)
    # An old side without results is no green gate.
    empty = write(run_with(done(Status.NOT_RUN)), tmp_path / "empty")
    printed = run_lab(3, "gate", write(now(), tmp_path / "whole"), "--against", empty)
    assert "gate incomplete: no cell has a result on both sides" in printed


def test_a_run_of_another_plan_is_refused_or_named(tmp_path: Path, run_lab: RunLab) -> None:
    old = write(BEFORE, tmp_path / "old")
    other = write(run_with(done(Status.PASS, guest="debian-14")), tmp_path / "other")
    assert "have no cell in common" in run_lab(2, "gate", other, "--against", old)
    printed = run_lab(1, "gate", write(run_with(done(Status.PASS)), tmp_path / "part"), "--against", old)
    assert "gate blocked: 2 vanished" in printed
    assert "this run was not asked for 2 cells that the old side has" in printed
    assert "vanished: debian-12 stock: pass -> not asked" in printed


TWO = run_with(done(Status.PASS, build="0.10.0"), done(Status.FAIL, build="0.10.8"))
THREE = run_with(*(done(Status.PASS, build=build) for build in ("0.10.0", "0.10.7", "0.10.8")))


def test_two_builds_of_one_run_are_compared_in_their_order(tmp_path: Path, run_lab: RunLab) -> None:
    run = write(TWO, tmp_path / "two")
    printed = run_lab(0, "compare", run)
    assert "new: boxlite 0.10.8 (run 20261124-160000)\nold: boxlite 0.10.0" in printed
    assert "1 regressed" in printed
    assert json.loads(run_lab(0, "compare", run, "--format", "json"))["cells"][0]["difference"] == "regressed"
    page = run_lab(0, "compare", run, "--format", "markdown")
    assert page.startswith("# boxlite 0.10.8 compared with 0.10.0\n")
    run_lab(1, "gate", run, "--against-build", "0.10.0")
    run_lab(0, "gate", run, "--against-build", "0.10.8", "--build", "0.10.0")
    assert "old: boxlite 0.10.0" in run_lab(1, "gate", run, "--against-build", "previous")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "three"], "several builds: 0.10.0, 0.10.7, 0.10.8\n  next: choose one with lab baseline"),
        (["compare", "three", "one"], "next: choose one with lab baseline RUN -o FILE --build BUILD"),
        (["gate", "three", "--against-build", "0.10.0"], "next: choose one with --build BUILD"),
        (["compare", "one"], "tested one build, 0.10.8: there is no other to compare it with"),
        (["gate", "three", "--against-build", "0.9", "--build", "0.10.8"], "no build of run"),
        (["gate", "three", "--against-build", "0.10.8", "--build", "0.10.8"], "both name 0.10.8"),
        (["compare", "b.toml"], "b.toml is a baseline of one build"),
        (
            ["gate", "b.toml", "--against", "one", "--build", "0.9"],
            "--build 0.9: b.toml is a baseline of 0.10.8",
        ),
        (["compare", "nowhere.toml", "one"], "nowhere.toml: no such file"),
        (["gate", "three", "--against", "one"], "next: choose one with --build BUILD"),
        (["gate", "one", "--against", "yesterday"], "no run 'yesterday'"),
        (["gate", "one"], "--against FILE-or-RUN, or --against-build BUILD"),
        (["gate", "one", "--against", "b.toml", "--against-build", "0.10.0"], "compares with one thing"),
        (["gate", "one", "--against-build", "previous"], "there is no other to compare it with"),
        (["gate", "one", "--against", "three/results.json"], "next: choose one with lab baseline RUN -o FILE"),
        (["gate", "one", "--against", "cut.toml"], "cut.toml: not valid TOML"),
        (["gate", "empty", "--against", "one"], "cells: the run has none, expected at least one"),
        (["baseline", "three", "-o", "new.toml"], "next: choose one with --build BUILD"),
        (["baseline", "one", "-o", "one/results.json"], "this file is no baseline"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(THREE, Path("three"))
    write(now(), Path("one"))
    write(run_with(), Path("empty"))
    baseline.write(side(done(Status.PASS)), Path("b.toml"))
    Path("cut.toml").write_text(Path("b.toml").read_text()[:-3])
    assert message in run_lab(2, *words)
    assert not Path("new.toml").exists()


def test_hostile_text_controls_neither_terminal_nor_markdown(tmp_path: Path, run_lab: RunLab) -> None:
    name = "stock\ngate passed: everything is fine"
    cells = [
        done(Status.FAIL, variant="max-userns-zero", reason="<b>x</b> \x1b[31m`y`\n# z"),
        *(done(Status.PASS), done(Status.PASS, guest="debian-12")),
        done(Status.FAIL, variant=name, tests={name: Outcome.FAIL}),
    ]
    before = run_with(*BEFORE.cells, done(Status.PASS, variant=name, build="0.10.0"))
    old, candidate = write(before, tmp_path / "old"), write(run_with(*cells), tmp_path / "new")
    document = json.loads((candidate / "results.json").read_text())
    document["cells"][0]["tests"].append({"name": "t\x1b[2J|<i>", "outcome": "fail"})
    document["cells"][0]["cause"] = "\x1b]0;x\x07bad"
    (candidate / "results.json").write_text(json.dumps(document))
    for kind in ("table", "markdown"):
        printed = run_lab(1, "gate", candidate, "--against", old, "--format", kind)
        assert "\x1b" not in printed
        assert kind == "table" or not ("<b>" in printed or "<i>" in printed)
        # No name makes a line of its own.
        assert not [line for line in printed.splitlines() if line.startswith("gate passed")]


def test_a_cell_of_which_many_tests_changed_names_the_first_of_them(tmp_path: Path, run_lab: RunLab) -> None:
    many = {f"test-{number}": Outcome.FAIL for number in range(100)}
    old = write(run_with(done(Status.PASS, tests=dict.fromkeys(many, Outcome.PASS))), tmp_path / "old")
    new = write(run_with(done(Status.FAIL, tests=many)), tmp_path / "new")
    printed = run_lab(1, "gate", new, "--against", old)
    assert printed.count("  test: ") == 20
    assert "  tests: 82 more changed\n" in printed


# -- known failures

TODAY = datetime.date(2026, 11, 26)
ENTRY = {
    "guest": "debian-*",
    "variant": "stock",
    "cause": "userns-limit",
    "bug": "https://bugs.example/468",
    "reason": "the limit is too low",
    "owner": "jane",
    "until": "2026-12-31",
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def entry(**changes: object) -> str:
    """The text of one expectation; None leaves a key out, a date is TOML's own."""
    values = {key: value for key, value in (ENTRY | changes).items() if value is not None}
    lines = [
        f"{key} = {value if isinstance(value, datetime.date) else json.dumps(value)}\n"
        for key, value in values.items()
    ]
    return f"[[expect]]\n{''.join(lines)}"


def file_of(*entries: str) -> Path:
    file = Path("expect.toml")
    file.write_text("\n".join(entries))
    return file


def problems(text: str, *cells: CellResult, **more: object) -> list[str]:
    _, faults = expectations.judge(expectations.read(file_of(text)), side(*cells, **more), TODAY)
    return [fault.partition(": expect.")[2] for fault in faults]


def covered(text: str, *cells: CellResult) -> list[tuple[str, str]]:
    return list(expectations.judge(expectations.read(file_of(text)), side(*cells), TODAY)[0])


@pytest.mark.parametrize("status", [Status.FAIL, Status.XFAIL])
def test_a_failure_for_the_cause_in_the_cells_that_are_named_is_covered(status: Status) -> None:
    assert covered(entry(), done(status)) == [("debian-13", "stock")]
    assert covered(entry(), done(status, guest="fedora-42"), done(status, variant="other")) == []
    assert covered(entry(variant="*"), done(status, variant="other")) == [("debian-13", "other")]
    assert covered(entry(cause="userns-sysctl"), done(status)) == []


def test_tests_limit_what_is_covered() -> None:
    both = ["starts", "isolates"]
    assert covered(entry(tests=both), done(Status.FAIL)) == [("debian-13", "stock")]
    worse = done(Status.FAIL, tests={"control": Outcome.FAIL})
    assert covered(entry(tests=both), worse) == []
    assert problems(entry(tests=both), worse) == [
        "1 (debian-* stock): covers no failure: debian-13 stock: control failed too"
    ]


@pytest.mark.parametrize(
    ("until", "expired"),
    [
        (datetime.date(2026, 11, 26), ""),
        ("2026-11-26", ""),
        (datetime.date(2026, 11, 25), "expired on 2026-11-25"),
        ("0.10.9", ""),
        ("0.10.8", "expired with boxlite 0.10.8; this is 0.10.8"),
        ("0.9", "expired with boxlite 0.9; this is 0.10.8"),
    ],
)
def test_an_expectation_expires_after_a_day_or_with_a_version(until: object, expired: str) -> None:
    faults = problems(entry(until=until), done(Status.FAIL))
    assert faults == ([f"1 (debian-* stock): {expired}"] if expired else [])


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        ([done(Status.PASS)], "debian-13 stock passes: remove it, or match fewer cells"),
        ([done(Status.FAIL), done(Status.XPASS, guest="debian-12")], "debian-12 stock passes: remove it"),
        ([done(Status.FAIL, variant="other")], "matches no cell of this run: remove it"),
        ([done(Status.FAIL, "userns-sysctl")], "covers no failure: debian-13 stock fails for userns-sysctl"),
        ([done(Status.FLAKY)], "covers no failure: debian-13 stock is flaky"),
        ([done(Status.NOT_APPLICABLE)], "covers no failure: debian-13 stock is n/a"),
    ],
)
def test_an_expectation_has_to_describe_its_cells(cells: list[CellResult], fault: str) -> None:
    [told] = problems(entry(), *cells)
    assert told.startswith(f"1 (debian-* stock): {fault}")


def test_an_expectation_whose_cells_could_not_run_or_are_elsewhere_is_none() -> None:
    assert problems(entry(), done(Status.ERROR)) == []
    shard = ShardRecord(number=1, count=2, plan=["debian-13/stock/0.10.8"], sizes=[1, 0])
    assert problems(entry(), done(Status.PASS, variant="other"), shard=shard) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (entry(cause="gremlins"), "cause: expected a cause of `lab list causes`, or unknown; found 'gremlins'"),
        (entry(until="soon"), "until: expected a date such as 2027-01-31, or a version"),
        (entry(bug="#468"), "bug: expected a link that begins with https://, found '#468'"),
        (entry(reason=f"{FILL_IN}why"), f"reason: expected a value of yours, found '{FILL_IN}why'"),
        (entry(colour="red"), "colour: unknown key"),
        (entry(guest=None), "expect.1 (None stock).guest: Field required"),
        ("[[expect]]\nuntil = 2026-12-31T10:00:00\n", "until: Input should be a valid string, found"),
        ("expect = 1", "expect: expected tables that begin with [[expect]], found 1"),
        ("[[except]]\n", "except: unknown key"),
        ("[[expect]\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_expectation(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        expectations.read(file_of(text))
    assert str(refused.value).startswith("expect.toml: ")
    assert message in str(refused.value)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    file = file_of(entry(), entry(guest="fedora-*", cause="x", bug="y"), entry(owner=f"{FILL_IN}who"))
    with pytest.raises(UsageError) as refused:
        expectations.read(file)
    keys = ["2 (fedora-* stock).cause", "2 (fedora-* stock).bug", "3 (debian-* stock).owner"]
    told = [line.split(": ")[1] for line in str(refused.value).splitlines()]
    assert told == [f"expect.{key}" for key in keys]


# -- in a gate

OLD = run_with(done(Status.PASS, build="0.10.0"), done(Status.PASS, variant="a", build="0.10.0"))


def gate(run_lab: RunLab, status: int, text: str, *cells: CellResult) -> Printed:
    write(OLD, Path("old"))
    write(run_with(*cells), Path("new"))
    return run_lab(status, "gate", "new", "--against", "old", "--expect", file_of(text))


A_PASSES = done(Status.PASS, variant="a")


@pytest.mark.parametrize(
    ("cells", "status", "verdict"),
    [
        ([done(Status.FAIL), A_PASSES], 0, "gate passed: "),
        ([done(Status.FAIL, "userns-sysctl"), A_PASSES], 1, "1 regressed, 1 expectation"),
        ([done(Status.FAIL), done(Status.FAIL, variant="a")], 1, "1 regressed\n"),
        ([done(Status.PASS), A_PASSES], 1, "gate blocked: 1 expectation does not hold"),
        ([done(Status.ERROR), A_PASSES], 3, "gate incomplete: 1 cell could not be run"),
        ([done(Status.FLAKY), A_PASSES], 1, "1 newly flaky, 1 expectation"),
        ([done(Status.FAIL)], 1, "1 vanished\n"),
    ],
)
def test_a_known_failure_passes(run_lab: RunLab, cells: list[CellResult], status: int, verdict: str) -> None:
    assert verdict in gate(run_lab, status, entry(until="2999-01-01"), *cells)


def test_the_decision_is_written(run_lab: RunLab) -> None:
    text = entry(until="2999-01-01") + entry(guest="fedora-*", until="2999-01-01")
    fault = "expect.toml: expect.2 (fedora-* stock): matches no cell of this run: remove it"
    printed = gate(run_lab, 1, text, done(Status.FAIL), A_PASSES)
    assert f"expectations that do not hold:\n  {fault}\n" in printed
    failure = "fail userns-limit: the limit is too low (https://bugs.example/468, jane, "
    assert f"debian-13 stock: {failure}" in printed
    words = ["gate", "new", "--against", "old", "--expect", "expect.toml", "--format"]
    document = json.loads(run_lab(1, *words, "json"))
    assert document["expectations_at_fault"] == [fault]
    assert [failure["expected"]["owner"] for failure in document["known"]] == ["jane"]
    assert "## Known failures, as expected\n" in run_lab(1, *words, "markdown")


# -- rewritten from runs


def rewritten(text: str, *cells: CellResult) -> str:
    return expectations.rewrite(file_of(text), list(side(*cells).cells.values())).new


def test_a_new_failure_is_drafted(run_lab: RunLab) -> None:
    cells = [
        done(Status.FAIL, reason="the limit is 0"),
        done(Status.XFAIL, variant="a"),
        done(Status.FAIL, "unknown", variant="b"),
    ]
    write(run_with(*cells), Path("new"))
    printed = run_lab(0, "expect", "new", "-o", "known.toml")
    assert "--- a/known.toml\n+++ b/known.toml\n" in printed
    assert "known.toml: 2 added\nreplace every 'FILL IN' before a gate uses the file\n" in printed
    text = Path("known.toml").read_text()
    begins = '[[expect]]\nguest = "debian-13"\nvariant = "stock"\ncause = "userns-limit"\nbug = "FILL'
    assert f"# the limit is 0\n{begins}" in text
    assert 'cause = "unknown"\ntests = ["isolates", "starts"]\n' in text
    assert 'variant = "a"' not in text
    # What a person has not filled in yet is no reason to add it again.
    assert "known.toml: nothing to change\n" in run_lab(0, "expect", "new", "-o", "known.toml")
    assert Path("known.toml").read_text() == text


FIRST = f"# about the first\n{entry()}\n"
SECOND = f"# about the second\n{entry(guest='fedora-*')}\n"
COMMENTED = f"# Ours, reviewed monthly.\n\n{FIRST}{SECOND}# at the end\n"
DEBIAN, FEDORA = done(Status.FAIL), done(Status.FAIL, guest="fedora-42")


@pytest.mark.parametrize(
    ("text", "cells", "after"),
    [
        (COMMENTED, [DEBIAN, FEDORA], COMMENTED),
        # An entry goes with its own comment and no other.
        (COMMENTED, [done(Status.PASS), FEDORA], COMMENTED.replace(FIRST, "")),
        (COMMENTED, [DEBIAN, done(Status.PASS, guest="fedora-42")], COMMENTED.replace(SECOND, "")),
        (f"# ours\n{entry()}", [done(Status.PASS)], "# ours\n"),
        # A cell that did not run removes nothing.
        (f"# ours\n{entry()}", [done(Status.ERROR)], f"# ours\n{entry()}"),
    ],
)
def test_entries_that_do_not_hold_any_more_are_removed(text: str, cells: list[CellResult], after: str) -> None:
    assert rewritten(text, *cells) == after


def test_what_a_person_has_to_look_at_is_said_and_stays_as_it_is(run_lab: RunLab) -> None:
    write(run_with(done(Status.FAIL), done(Status.PASS, guest="debian-12")), Path("new"))
    printed = run_lab(0, "expect", "new", "-o", file_of(COMMENTED))
    for fault in (
        "1 (debian-* stock): debian-12 stock passes: remove it, or match fewer cells",
        "2 (fedora-* stock): matches no cell of this run: remove it",
    ):
        assert f"look at expect.{fault}\n" in printed
    assert Path("expect.toml").read_text() == COMMENTED


def test_the_last_run_counts_and_a_dry_run_writes_nothing(run_lab: RunLab) -> None:
    write(run_with(done(Status.FAIL), done(Status.FAIL, variant="a")), Path("one"))
    write(run_with(done(Status.PASS)), Path("two"))
    words = ["expect", "one", "two", "-o", "known.toml"]
    assert "known.toml: 1 added (nothing was written)" in run_lab(0, *words, "--dry-run")
    assert not Path("known.toml").exists()
    assert "known.toml: 1 added\n" in run_lab(0, *words)
    assert 'variant = "a"' in Path("known.toml").read_text()


def test_a_file_that_cannot_be_rewritten_is_left_as_it_is(run_lab: RunLab) -> None:
    write(run_with(done(Status.FAIL)), Path("new"))
    text = f"expect = [{{{', '.join(entry().splitlines()[1:])}}}]\n"
    file = file_of(text)
    assert "begins with a line [[expect]]" in run_lab(2, "expect", "new", "-o", file)
    assert file.read_text() == text
