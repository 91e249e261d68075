from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from lab.probes import Facts
from lab.record import CellResult, Outcome, RemedyOutcome, RemedyResult, Status, TestResult
from lab.report import judgements, markdown
from tests.builders import evidence, messages
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


def blocks(page: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(page) if token.type == "fence"]


def test_a_misdiagnosis_has_all_that_an_issue_needs(tmp_path: Path) -> None:
    page = page_of(tmp_path, failed(), failed(guest="debian-sid"))
    assert "Failed cells: 2. boxlite's own diagnosis: unknown in 2, not judged in 0 " in page
    [title] = [line for line in page.splitlines() if line.startswith("## ")]
    assert title == f"## boxlite calls it an unknown restriction: {WHY}"
    again = "`lab matrix -g debian-13 -v apparmor-userns-deny --build 0.10.8`"
    row = "| Debian GNU/Linux 13 (trixie) | 6.12.118+deb13-cloud-amd64 x86_64 | 0.12.0 | 4.1.0 | - | 0.10.8 |"
    assert page.count(f"{row} apparmor-userns-deny | {again} |") == 2
    words, logged, audit, probes = blocks(page)
    assert words == f"{messages.SAID}\n"
    assert "\nCause: Unknown restriction.\n" in logged
    assert audit == DENIED_CREATE
    assert "bwrap: Creating new namespace failed: Permission denied\n" in probes
    assert f"- `apparmor-userns-deny`, proved: {WHY}. AppArmor denies bubblewrap the user namespace" in page
    assert "This run does not show a cure: " in page


def test_what_cures_stands_alone_where_something_does(tmp_path: Path) -> None:
    remedies = [
        tried("preflight", RemedyOutcome.AVOIDS, reason="skipped: all of them"),
        tried("bwrap-profile", RemedyOutcome.VERIFIED, scripts={"bwrap-profile": "0" * 64}),
    ]
    cells = [failed(remedies=remedies), failed(guest="debian-sid", remedies=remedies[:1])]
    page = page_of(tmp_path / "both", *cells)
    how = "`lab remedies show bwrap-profile --script`; price: bubblewrap alone may do it."
    assert f"- `bwrap-profile`: verified in 1 of 1 cells: {how}\n" in page
    assert "`preflight`" not in page
    assert "- `preflight`: avoids it: skipped: all of them\n" in page_of(tmp_path / "one", cells[1])


@pytest.mark.parametrize("outcome", [RemedyOutcome.CANNOT, RemedyOutcome.ERROR])
def test_what_could_not_be_tried_says_nothing_of_a_cure(tmp_path: Path, outcome: RemedyOutcome) -> None:
    result = failed(remedies=[tried("bwrap-userns-restrict", outcome, reason="x")])
    page = page_of(tmp_path, result)
    assert "This run does not show a cure: " in page
    assert "bwrap-userns-restrict" not in page


def test_advice_that_failed_is_told_with_what_came_of_it(tmp_path: Path) -> None:
    in_place = "it is in place already, and the cell fails all the same"
    remedies = [
        tried("install-bubblewrap", RemedyOutcome.DOES_NOT_HELP, reason=in_place),
        tried("apparmor-restrict-off", RemedyOutcome.VERIFIED),
    ]
    result = failed("apparmor-userns-nocaps", remedies=remedies)
    page = page_of(tmp_path, result, log=messages.UBUNTU)
    assert f"## boxlite's advice does not cure it: {WHY}\n" in page
    assert f"- `sudo apt install --reinstall bubblewrap`: does not help: {in_place}\n" in page
    assert "- `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`: verified\n" in page


def test_a_wrong_knob_is_named_beside_the_right_one(tmp_path: Path) -> None:
    result = failed("userns-sysctl")
    page = page_of(tmp_path, result, log=messages.UBUNTU)
    blamed = "Cause: AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns=1)."
    assert f"## boxlite blames something else: {blamed} But {WHY}\n" in page
    assert "- `sudo apt install --reinstall bubblewrap`: not tried in this run\n" in page


def test_cells_with_another_cause_or_other_words_are_another_misdiagnosis(tmp_path: Path) -> None:
    unlike = [failed(), failed("apparmor-userns-nocaps"), failed("bwrap-setuid")]
    recorded(tmp_path, *unlike[:2])
    recorded(tmp_path, unlike[2], log=messages.HOME_NOEXEC)
    misdiagnoses = judgements.review(run_of(*unlike), tmp_path).misdiagnoses
    assert [[cell.result.variant for cell in one.cells] for one in misdiagnoses] == [
        [one.variant] for one in unlike
    ]
    assert misdiagnoses[2].title == f"boxlite does not say why: {WHY}"


def test_where_boxlite_is_right_there_is_nothing_to_be_filed(tmp_path: Path) -> None:
    cells = [failed("userns-sysctl"), failed("userns-limit", cause="unknown", confidence=None, causes=[])]
    page = page_of(tmp_path, *cells, cell(), log=messages.USERNS_SYSCTL)
    assert "Failed cells: 2. boxlite's own diagnosis: right in 1, not judged in 1 (" in page
    assert "No finding: there is nothing to report.\n" in page
    assert "## " not in page
    # Where nothing failed it is not said to be right.
    page = page_of(tmp_path / "other", cell(status=Status.NOT_RUN, reason="no image"))
    assert "No cell of this run failed: there is no diagnosis by boxlite to judge.\n" in page
    assert "No finding" not in page


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
    page = markdown.render(run_of(wrong, right), tmp_path)
    assert page.count("boxlite's own diagnosis") == page.count(mark) == 1
    assert (
        mark
        in page.split("## xfail apparmor-userns-deny: debian-13 apparmor-userns-deny\n")[1].split("\n## ")[0]
    )
    assert "own diagnosis" not in markdown.render(run_of(wrong))
