"""The gate: its decision, its exit status, and what its commands print and refuse."""

import datetime
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.base.errors import UsageError
from lab.gate import baseline, expectations
from lab.gate.compare import Difference
from lab.gate.decision import Gate
from lab.gate.expectations import FILL_IN
from lab.record import CellResult, LaneRecord, Outcome, RunResult, ShardRecord, Status, TestResult
from tests.builders import golden
from tests.builders.cells import box, cell, done, run_with, side, write
from tests.builders.facts import facts
from tests.builders.mirror import Mirror, serving
from tests.builders.processes import RunLab

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
    ("new", "status", "gate", "differences"),
    [
        (now(), 0, Gate.PASSED, []),
        (now(stock=Status.FAIL), 1, Gate.BLOCKED, [Difference.REGRESSED]),
        (now(cause="userns-sysctl"), 1, Gate.BLOCKED, [Difference.CAUSE_CHANGED]),
        (now(stock=Status.FLAKY), 1, Gate.BLOCKED, [Difference.NEWLY_FLAKY]),
        (now(stock=Status.NOT_APPLICABLE), 1, Gate.BLOCKED, [Difference.VANISHED]),
        (now(blocked=Status.XPASS), 1, Gate.BLOCKED, [Difference.UNEXPECTED_PASS]),
        (now(older=Status.ERROR), 3, Gate.INCOMPLETE, []),
        (now(stock=Status.FAIL, older=Status.NOT_RUN), 1, Gate.BLOCKED, [Difference.REGRESSED]),
    ],
)
def test_the_gate_says_its_verdict_first_and_ends_with_its_status(
    tmp_path: Path, run_lab: RunLab, new: RunResult, status: int, gate: Gate, differences: list[Difference]
) -> None:
    old, candidate = write(BEFORE, tmp_path / "old"), write(new, tmp_path / "new")
    assert run_lab(status, "gate", candidate, "--against", old).startswith(f"gate {gate}: ")
    document = json.loads(run_lab(status, "gate", candidate, "--against", old, "--format", "json"))
    assert document["gate"] == gate
    assert [cell["difference"] for cell in document["blocking"]] == differences


# -- what the gate prints, whole


def old_cell(variant: str, status: Status = Status.PASS, cause: str | None = None, **more: Any) -> CellResult:
    return done(status, cause, variant=variant, build="0.10.0", **more)


def new_cell(variant: str, status: Status = Status.PASS, cause: str | None = None, **more: Any) -> CellResult:
    return done(status, cause, variant=variant, **more)


def box_cell(build: str, **changes: Any) -> CellResult:
    tests = [TestResult(name="starts", outcome=Outcome.PASS, protection=box(**changes))]
    return cell(variant="box", build=build, tests=tests, facts=facts())


def every_difference() -> tuple[RunResult, RunResult]:
    """An old and a new run: each difference, each reason for it, and a failure that is known."""
    limit, sysctl = "userns-limit", "userns-sysctl"
    old = run_with(
        *(
            old_cell(variant)
            for variant in ("stock", "known", "flaky", "gone", "apparmor", "lost", "more", "fewer")
        ),
        *(old_cell(variant, Status.XFAIL, limit) for variant in ("cause", "lifted", "late")),
        old_cell("fixed", Status.FAIL, limit),
        box_cell("0.10.0"),
        old_cell("kernel"),
    )
    new = run_with(
        *(new_cell(variant, Status.FAIL, limit, reason="the limit is 0") for variant in ("stock", "known")),
        new_cell("cause", Status.XFAIL, sysctl, reason="the sysctl is 0"),
        box_cell("0.10.8", seccomp=["off"], mounts=["/ rw", "/usr rw"]),
        new_cell("flaky", Status.FLAKY, reason="2 of 3"),
        new_cell("apparmor", Status.NOT_APPLICABLE, reason="no AppArmor"),
        new_cell("lifted", Status.XPASS),
        new_cell("lost", Status.ERROR, reason="no boot"),
        new_cell("late", Status.NOT_RUN, reason="interrupted"),
        new_cell("fixed"),
        new_cell("new"),
        new_cell("more", tests={"another": Outcome.PASS}),
        new_cell("fewer", tests={"isolates": None}),
        new_cell(
            "kernel",
            facts=facts(kernel="6.13.1", bubblewrap={"setuid": True}, selinux={"mode": "permissive"}),
        ),
        lanes=[LaneRecord(guest="debian-13", image="b2" * 32, fork="memory", network="open", seconds={})],
        definitions={"programs": "q" * 64, "variant stock": "t" * 64},
    )
    return old, new


@pytest.mark.parametrize("kind", ["table", "markdown"])
def test_the_report_of_the_gate_and_of_a_comparison_is_golden(run_lab: RunLab, kind: str) -> None:
    old, new = every_difference()
    write(old, Path("old"))
    write(new, Path("new"))
    known = entry(variant="known", until="2999-01-01")
    expired = entry(variant="known", until=datetime.date(2026, 1, 1))
    expected = file_of(known, expired, entry(guest="fedora-*", until="2999-01-01"))
    ending = "txt" if kind == "table" else "md"
    words = ["new", "--against", "old", "--expect", expected, "--format", kind]
    golden.check(f"gate.{ending}", run_lab(1, "gate", *words))
    golden.check(f"compare.{ending}", run_lab(0, "compare", "old", "new", "--format", kind))


def test_the_verdicts_of_the_gate_are_golden(run_lab: RunLab) -> None:
    write(BEFORE, Path("old"))
    write(run_with(done(Status.NOT_RUN)), Path("empty"))
    runs = {
        "passed": (now(), "old"),
        "incomplete": (now(older=Status.ERROR), "old"),
        "nothing on the old side": (now(), "empty"),
        "another plan": (run_with(done(Status.PASS)), "old"),
        "two": (now(stock=Status.FAIL, blocked=Status.XPASS), "old"),
    }
    texts = []
    for name, (run, old) in runs.items():
        write(run, Path("new"))
        texts.append(f"-- {name}\n{run_lab(None, 'gate', 'new', '--against', old)}")
    golden.check("gate-verdicts.txt", "\n".join(texts))


def test_a_baseline_stands_for_the_run_that_it_was_made_of(run_lab: RunLab) -> None:
    write(BEFORE, Path("old"))
    write(now(stock=Status.FAIL), Path("new"))
    run_lab(0, "baseline", "old", "-o", "b.toml")
    documents = [
        json.loads(run_lab(1, "gate", "new", "--against", side, "--format", "json"))
        for side in ("old", "b.toml")
    ]
    for document in documents:
        assert document["gate"] == "blocked"
        [blocking] = document["blocking"]
        assert (blocking["guest"], blocking["difference"]) == ("debian-13", "regressed")
        assert blocking["evidence"] == "new/cells/debian-13/stock/0.10.8"


def test_a_run_of_another_plan_is_refused(tmp_path: Path, run_lab: RunLab) -> None:
    old = write(BEFORE, tmp_path / "old")
    other = write(run_with(done(Status.PASS, guest="debian-14")), tmp_path / "other")
    assert "have no cell in common" in run_lab(2, "gate", other, "--against", old)


TWO = run_with(done(Status.PASS, build="0.10.0"), done(Status.FAIL, build="0.10.8"))
THREE = run_with(*(done(Status.PASS, build=build) for build in ("0.10.0", "0.10.7", "0.10.8")))


def test_two_builds_of_one_run_are_compared_in_their_order(tmp_path: Path, run_lab: RunLab) -> None:
    run = write(TWO, tmp_path / "two")
    document = json.loads(run_lab(0, "compare", run, "--format", "json"))
    assert (document["old"]["build"], document["new"]["build"]) == ("0.10.0", "0.10.8")
    assert document["cells"][0]["difference"] == "regressed"
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
        (["baseline", "one", "-o", "one/results.json"], "this file is not a baseline"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(THREE, Path("three"))
    write(now(), Path("one"))
    write(run_with(), Path("empty"))
    baseline.write_baseline(side(done(Status.PASS)), Path("b.toml"))
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
    document["cells"][0]["suite"]["tests"].append({"name": "t\x1b[2J|<i>", "outcome": "fail"})
    document["cells"][0]["verdict"]["cause"] = "\x1b]0;x\x07bad"
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
    _, faults = expectations.judge_failures(
        expectations.read_expectations(file_of(text)), side(*cells, **more), TODAY
    )
    return [fault.partition(": expect.")[2] for fault in faults]


def covered(text: str, *cells: CellResult) -> list[tuple[str, str]]:
    return list(
        expectations.judge_failures(expectations.read_expectations(file_of(text)), side(*cells), TODAY)[0]
    )


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
        expectations.read_expectations(file_of(text))
    assert str(refused.value).startswith("expect.toml: ")
    assert message in str(refused.value)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    file = file_of(entry(), entry(guest="fedora-*", cause="x", bug="y"), entry(owner=f"{FILL_IN}who"))
    with pytest.raises(UsageError) as refused:
        expectations.read_expectations(file)
    keys = ["2 (fedora-* stock).cause", "2 (fedora-* stock).bug", "3 (debian-* stock).owner"]
    told = [line.split(": ")[1] for line in str(refused.value).splitlines()]
    assert told == [f"expect.{key}" for key in keys]


# -- in a gate

OLD = run_with(done(Status.PASS, build="0.10.0"), done(Status.PASS, variant="a", build="0.10.0"))


def gate(run_lab: RunLab, status: int, text: str, *cells: CellResult) -> dict[str, Any]:
    """What `lab gate` decides about these cells with these expectations, as JSON."""
    write(OLD, Path("old"))
    write(run_with(*cells), Path("new"))
    words = ["new", "--against", "old", "--expect", file_of(text), "--format", "json"]
    document: dict[str, Any] = json.loads(run_lab(status, "gate", *words))
    return document


A_PASSES = done(Status.PASS, variant="a")


@pytest.mark.parametrize(
    ("cells", "status", "blocking", "faults"),
    [
        ([done(Status.FAIL), A_PASSES], 0, [], 0),
        ([done(Status.FAIL, "userns-sysctl"), A_PASSES], 1, [Difference.REGRESSED], 1),
        ([done(Status.FAIL), done(Status.FAIL, variant="a")], 1, [Difference.REGRESSED], 0),
        ([done(Status.PASS), A_PASSES], 1, [], 1),
        ([done(Status.ERROR), A_PASSES], 3, [], 0),
        ([done(Status.FLAKY), A_PASSES], 1, [Difference.NEWLY_FLAKY], 1),
        ([done(Status.FAIL)], 1, [Difference.VANISHED], 0),
    ],
)
def test_a_known_failure_passes(
    run_lab: RunLab, cells: list[CellResult], status: int, blocking: list[Difference], faults: int
) -> None:
    document = gate(run_lab, status, entry(until="2999-01-01"), *cells)
    assert [cell["difference"] for cell in document["blocking"]] == blocking
    assert len(document["expectations_at_fault"]) == faults
    assert document["gate"] == {0: Gate.PASSED, 1: Gate.BLOCKED, 3: Gate.INCOMPLETE}[status]


def test_a_known_failure_is_in_the_decision_with_its_expectation(run_lab: RunLab) -> None:
    document = gate(run_lab, 0, entry(until="2999-01-01"), done(Status.FAIL), A_PASSES)
    assert [failure["expected"]["owner"] for failure in document["known"]] == ["jane"]


# -- rewritten from runs


def rewritten(text: str, *cells: CellResult) -> str:
    return expectations.rewrite_expectations(file_of(text), list(side(*cells).cells.values())).new


def test_a_new_failure_is_drafted(run_lab: RunLab) -> None:
    cells = [
        done(Status.FAIL, reason="the limit is 0"),
        done(Status.XFAIL, variant="a"),
        done(Status.FAIL, "unknown", variant="b"),
    ]
    write(run_with(*cells), Path("new"))
    printed = run_lab(0, "expect", "new", "-o", "known.toml")
    golden.check("expect.txt", printed)
    text = Path("known.toml").read_text()
    drafts = tomllib.loads(text)["expect"]
    assert [(draft["variant"], draft["cause"], draft.get("tests")) for draft in drafts] == [
        ("stock", "userns-limit", None),
        ("b", "unknown", ["isolates", "starts"]),
    ]
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


# -- stale entries


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A tracker on the loopback interface, on which issue 7 is closed."""
    with serving() as mirror:
        mirror.files["/repos/b/b/issues/7"] = b'{"state": "closed", "state_reason": "completed"}'
        mirror.files["/repos/b/b/issues/8"] = b'{"state": "open"}'
        monkeypatch.setenv("GITHUB_API_URL", mirror.url)
        for name in ("GITHUB_SERVER_URL", "GITHUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield mirror


BUG = "https://github.com/b/b/issues/"
LATER = {"until": "2999-01-01"}


def test_entries_are_stale_by_date_by_run_and_by_bug(run_lab: RunLab, tracked: Mirror) -> None:
    write(run_with(done(Status.FAIL), done(Status.PASS, guest="fedora-42")), Path("run"))
    file = file_of(
        entry(bug=f"{BUG}8", until="2020-01-31"),
        entry(bug=f"{BUG}8", guest="fedora-*", **LATER),
        entry(bug=f"{BUG}7", **LATER),
        entry(bug=f"{BUG}8", **LATER),
    )
    text = file.read_text()
    printed = run_lab(1, "expect", "run", "--stale", "--ask-tracker", "-o", file)
    assert printed.out.splitlines() == [
        "expect.toml: expect.1 (debian-* stock): expired on 2020-01-31",
        "expect.toml: expect.2 (fedora-* stock): fedora-42 stock passes: remove it, or match fewer cells",
        f"expect.toml: expect.3 (debian-* stock): {BUG}7 is closed as completed",
    ]
    assert file.read_text() == text


def test_what_was_not_asked_is_said_and_nobody_is_asked(run_lab: RunLab, tracked: Mirror) -> None:
    file = file_of(entry(bug=f"{BUG}7", **LATER))
    printed = run_lab(0, "expect", "--stale", "-o", file)
    assert printed.out.splitlines() == [
        "no run is named: whether cells pass that are expected to fail was not asked",
        "whether their bugs are closed was not asked: --ask-tracker asks GitHub",
        "expect.toml: as far as was asked, no entry is stale",
    ]
    assert tracked.requests == []


@pytest.mark.parametrize(("until", "exit_status"), [("2999-01-01", 3), ("2020-01-31", 1)])
def test_a_tracker_that_does_not_answer_is_told_and_hides_no_stale_entry(
    run_lab: RunLab, tracked: Mirror, until: str, exit_status: int
) -> None:
    tracked.files.clear()
    file = file_of(entry(bug=f"{BUG}7", until=until), entry(bug="https://bugs.debian.org/1", **LATER))
    printed = run_lab(exit_status, "expect", "--stale", "--ask-tracker", "-o", file)
    assert f"lab: {BUG}7: HTTP 404: no such issue" in printed.err
    assert "https://bugs.debian.org/1 is no issue of the tracker, so it was not asked\n" in printed.out
    assert ("expired on 2020-01-31" in printed.out) is (exit_status == 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "lab expect rewrites the file from runs\n  next: name at least one"),
        (["--ask-tracker"], "--ask-tracker goes with --stale"),
        (["--stale"], "no such file"),
        (["--stale", "nowhere"], "nowhere"),
    ],
)
def test_stale_entries_of_nothing_are_wrong_usage(run_lab: RunLab, words: list[str], message: str) -> None:
    assert message.lower() in run_lab(2, "expect", *words, "-o", "known.toml").err.lower()
    assert not Path("known.toml").exists()
