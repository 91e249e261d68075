from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from lab.probes import Facts
from lab.record import CellResult, Outcome, RemedyOutcome, RemedyResult, RunResult, Status, TestResult
from lab.report import judgements, markdown
from lab.verdict.words import WordsVerdict
from tests.builders import evidence, golden, messages
from tests.builders.cells import blocked, cell
from tests.builders.evidence import APPARMOR_DENY, DENIED_CREATE
from tests.builders.facts import facts
from tests.builders.runs import run_of

WHY = "AppArmor denied userns_create to bwrap by profile lab-bwrap-without-userns"


def failed(cause: str = "apparmor-userns-deny", /, **more: Any) -> CellResult:
    given: dict[str, Any] = {
        "variant": cause,
        "tests": [TestResult(name="jailer_enabled_box", outcome=Outcome.FAIL, message=messages.SAID)],
        "facts": facts(),
        "rerun": f"lab matrix -g debian-13 -v {cause} --build 0.10.8",
    }
    return blocked(cause, WHY, **(given | more))


def recorded(run: Path, *cells: CellResult, log: str = messages.APPARMOR_DENY) -> None:
    """Write the evidence of a cell that a profile blocks, with this log of boxlite, for these cells."""
    for result in cells:
        folder = run / result.folder
        (folder / "boxlite/box-a/logs").mkdir(parents=True)
        (folder / "boxlite/box-a/logs/boxlite.log").write_text(log)
        evidence.write(folder, APPARMOR_DENY, DENIED_CREATE)


def tried(name: str, result: RemedyOutcome, **more: Any) -> RemedyResult:
    return RemedyResult(name=name, result=result, price="bubblewrap alone may do it.", **more)


def page_of(folder: Path, *cells: CellResult, log: str = messages.APPARMOR_DENY) -> str:
    """The page of a run of these cells, of which boxlite wrote this log."""
    recorded(folder, *cells, log=log)
    return judgements.render_misdiagnoses(run_of(*cells), folder)


def every_verdict(folder: Path) -> RunResult:
    """A run with each verdict on what boxlite says, on cells with cures and without, and its evidence."""
    in_place = "it is in place already, and the cell fails all the same"
    cured = [
        tried("preflight", RemedyOutcome.AVOIDS, reason="skipped: all of them"),
        tried("bwrap-profile", RemedyOutcome.VERIFIED, scripts={"bwrap-profile": "0" * 64}),
    ]
    advised = [
        tried("install-bubblewrap", RemedyOutcome.DOES_NOT_HELP, reason=in_place),
        tried("apparmor-restrict-off", RemedyOutcome.VERIFIED),
    ]
    cells = {
        messages.APPARMOR_DENY: [failed(remedies=cured), failed(guest="debian-sid", remedies=cured[:1])],
        messages.UBUNTU: [failed("apparmor-userns-nocaps", remedies=advised), failed("userns-sysctl")],
        messages.HOME_NOEXEC: [failed("bwrap-setuid", remedies=cured[:1])],
        messages.USERNS_SYSCTL: [failed("userns-sysctl", guest="debian-12")],
        "": [failed("userns-limit", cause="unknown", confidence=None, causes=[])],
    }
    for log, of_log in cells.items():
        recorded(folder, *of_log, log=log)
    return run_of(*(cell for of_log in cells.values() for cell in of_log), cell())


def test_the_report_on_boxlites_own_words_is_golden(tmp_path: Path) -> None:
    golden.check("upstream.md", judgements.render_misdiagnoses(every_verdict(tmp_path), tmp_path))


def test_the_report_on_a_run_without_a_misdiagnosis_is_golden(tmp_path: Path) -> None:
    right = page_of(tmp_path, failed("userns-sysctl"), cell(), log=messages.USERNS_SYSCTL)
    # Where nothing failed it is not said to be right.
    nothing = page_of(tmp_path / "other", cell(status=Status.NOT_RUN, reason="no image"))
    golden.check("upstream-right.md", right)
    golden.check("upstream-nothing-failed.md", nothing)


def blocks(page: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(page) if token.type == "fence"]


def test_a_misdiagnosis_has_what_boxlite_said_and_the_evidence_in_blocks_of_their_own(tmp_path: Path) -> None:
    words, logged, audit, probes = blocks(page_of(tmp_path, failed(), failed(guest="debian-sid")))
    assert words == f"{messages.SAID}\n"
    assert "\nCause: Unknown restriction.\n" in logged
    assert audit == DENIED_CREATE
    assert "bwrap: Creating new namespace failed: Permission denied\n" in probes


def test_every_verdict_is_in_the_review(tmp_path: Path) -> None:
    review = judgements.review_words(every_verdict(tmp_path), tmp_path)
    assert review.counts == {
        WordsVerdict.UNKNOWN: 2,
        WordsVerdict.NO_CURE: 1,
        WordsVerdict.WRONG_KNOB: 1,
        WordsVerdict.NOTHING: 1,
        WordsVerdict.RIGHT: 1,
        None: 1,
    }
    assert [list(each.cures) for each in review.misdiagnoses] == [
        ["bwrap-profile"],
        ["apparmor-restrict-off"],
        [],
        ["preflight"],
    ]


@pytest.mark.parametrize("outcome", [RemedyOutcome.CANNOT, RemedyOutcome.ERROR])
def test_what_could_not_be_tried_says_nothing_of_a_cure(tmp_path: Path, outcome: RemedyOutcome) -> None:
    result = failed(remedies=[tried("bwrap-userns-restrict", outcome, reason="x")])
    recorded(tmp_path, result)
    [misdiagnosis] = judgements.review_words(run_of(result), tmp_path).misdiagnoses
    assert misdiagnosis.cures == {}


def test_cells_with_another_cause_or_other_words_are_another_misdiagnosis(tmp_path: Path) -> None:
    unlike = [failed(), failed("apparmor-userns-nocaps"), failed("bwrap-setuid")]
    recorded(tmp_path, *unlike[:2])
    recorded(tmp_path, unlike[2], log=messages.HOME_NOEXEC)
    misdiagnoses = judgements.review_words(run_of(*unlike), tmp_path).misdiagnoses
    assert [[cell.result.variant for cell in one.cells] for one in misdiagnoses] == [
        [one.variant] for one in unlike
    ]


@pytest.mark.parametrize(
    ("seen", "row"),
    [
        (None, "| debian-13 | - | - | - | - | 0.10.8 |"),
        (
            facts(os={"pretty_name": None}, kernel="6.12", bubblewrap={"version": None}, apparmor=None),
            "| debian-13 | 6.12 x86_64 | - | - | - | 0.10.8 |",
        ),
        (
            facts(kernel="6.12", bubblewrap=None, selinux={"mode": "permissive"}),
            "| Debian GNU/Linux 13 (trixie) | 6.12 x86_64 | - | 4.1.0 | permissive | 0.10.8 |",
        ),
    ],
)
def test_what_is_not_known_of_a_guest_is_a_dash(tmp_path: Path, seen: Facts | None, row: str) -> None:
    assert f"{row} apparmor-userns-deny |" in page_of(tmp_path, failed(facts=seen))


def test_what_a_guest_says_stays_in_its_block(tmp_path: Path) -> None:
    hostile = "x\n```\n# pass\n````"
    tokens = MarkdownIt().parse(
        page_of(tmp_path, failed(tests=[TestResult(name="a", outcome=Outcome.FAIL, message=hostile)]))
    )
    assert next(token.content for token in tokens if token.type == "fence") == f"{hostile}\n"
    assert sum(token.type == "heading_open" for token in tokens) == 2


def test_the_table_s_page_marks_what_boxlite_got_wrong_and_nothing_else(tmp_path: Path) -> None:
    wrong, right = failed(), failed("userns-sysctl")
    recorded(tmp_path, wrong)
    recorded(tmp_path, right, log=messages.USERNS_SYSCTL)
    mark = "- boxlite's own diagnosis: unknown (`lab report RUN --upstream`)\n"
    page = markdown.render_run(run_of(wrong, right), tmp_path)
    assert page.count("boxlite's own diagnosis") == page.count(mark) == 1
    assert (
        mark
        in page.split("## xfail apparmor-userns-deny: debian-13 apparmor-userns-deny\n")[1].split("\n## ")[0]
    )
    assert "own diagnosis" not in markdown.render_run(run_of(wrong))
