"""The page of findings on boxlite's own diagnosis."""

from pathlib import Path

from lab.record import CellResult, Outcome, RemedyOutcome, RemedyResult, TestResult
from lab.report.site.publish import publish
from tests.builders import output
from tests.builders.cells import blocked, cell

SAID = "boxlite.errors.ConfigError: <b>The sandbox</b> could not be initialized on this host."
LOG = """\
2026-11-25T23:35:20Z ERROR boxlite::jailer: Sandbox preflight failed.

Cause: Unknown restriction.
2026-11-25T23:35:20Z ERROR boxlite::task: Task failed: it
"""


def failed(variant: str) -> CellResult:
    folder = f"cells/debian-13/{variant}/0.10.8"
    cured = RemedyResult(name="bwrap-profile", result=RemedyOutcome.VERIFIED, price="the price")
    return blocked(
        "apparmor-userns-deny",
        "AppArmor denied it",
        variant=variant,
        tests=[TestResult(name="box", outcome=Outcome.FAIL, message=SAID)],
        evidence=[f"{folder}/boxlite/box-1/logs/boxlite.log.2026-11-25"],
        remedies=[cured],
    )


def with_log(base: Path, *cells: CellResult) -> Path:
    run = output.run_folder(base, *cells)
    for result in cells:
        for file in result.evidence:
            (run / file).write_text(LOG)
    return run


def test_a_wrong_diagnosis_is_shown_with_its_cells_the_cause_and_the_cure(tmp_path: Path) -> None:
    publish([with_log(tmp_path, failed("a"), failed("b"), cell())], tmp_path / "site")
    parsed = output.Parsed(tmp_path / "site" / "findings.html")
    text = " ".join(parsed.text.split())
    assert len([section for section in parsed.of("section") if section.get("class") == "finding"]) == 1
    for words in (
        "boxlite calls it an unknown restriction: AppArmor denied it",
        "unknown in 2 cells",
        "<b>The sandbox</b> could not be initialized",
        "Cause: Unknown restriction.",
        "apparmor-userns-deny, proved: AppArmor denied it",
        "bwrap-profile: verified in 2 of 2 cells; price: the price",
    ):
        assert words in text, words
    links = [address for address in parsed.attributes("href") if address.startswith("cells/")]
    assert links == ["cells/debian-13/a/0.10.8.html", "cells/debian-13/b/0.10.8.html"]
    assert "<b>" not in (tmp_path / "site" / "findings.html").read_text()


def test_what_cannot_be_judged_is_said(tmp_path: Path) -> None:
    passed = output.run_folder(tmp_path, cell(), name="passed")
    without_log = failed("a").model_copy(update={"evidence": []})
    publish([passed, output.run_folder(tmp_path, without_log, name="failed")], tmp_path / "site")
    text = output.Parsed(tmp_path / "site" / "findings.html").text
    assert "there is no diagnosis to judge" in text
    assert "not judged" in text and "No finding." in text
