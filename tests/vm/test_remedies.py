"""Remedies tried on real guests: what cures is verified, what does not is found out, and each undo undoes."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from lab import claims
from lab.claims import Answer
from lab.diagnosis import remedies, told
from lab.diagnosis.recorded import Recorded
from lab.diagnosis.told import Judged
from lab.results import CellResult, RemedyOutcome, RemedyResult, RunResult, Status
from tests.vm.conftest import RELEASE, run_matrix

# One that has a remedy of each outcome but one: each cell here takes minutes.
VARIANTS = ("userns-clone-off",)


@pytest.fixture(scope="module")
def folder(home: Path) -> Path:
    return home / "remedies"


@pytest.fixture(scope="module")
def run(home: Path, folder: Path) -> RunResult:
    words = [word for variant in VARIANTS for word in ("-v", variant)]
    words += ["-g", "debian-13", "--jobs", "1", "--build", RELEASE]
    return run_matrix(home, folder, *words, seconds=1700)


def cell(run: RunResult, variant: str) -> CellResult:
    [found] = [each for each in run.cells if each.variant == variant]
    assert found.status is Status.XFAIL, found.reason
    return found


def tried(run: RunResult, variant: str, name: str) -> RemedyResult:
    [found] = [each for each in cell(run, variant).remedies if each.name == name]
    return found


@pytest.mark.parametrize(("variant", "name"), [("userns-clone-off", "userns-clone-on")])
def test_what_cures_is_verified_by_the_script_that_users_get(
    run: RunResult, folder: Path, variant: str, name: str
) -> None:
    cured = tried(run, variant, name)
    assert (cured.result, cured.reason) == (RemedyOutcome.VERIFIED, "")
    [script] = [file for file in cured.evidence if file.endswith(f"{name}.sh")]
    assert (folder / script).read_text() == remedies.find(name).script()
    assert cured.scripts == {name: sha256((folder / script).read_bytes()).hexdigest()}
    [log] = [file for file in cured.evidence if file.endswith(f"{name}.log")]
    text = (folder / log).read_text()
    assert text.count("(exit status 0)") == 3  # done, done already, taken back
    assert f"{name}: in place already: nothing was changed" in text


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_the_jailer_boxes_start_and_nothing_is_called_cured(run: RunResult, variant: str) -> None:
    for name in ("jailer-off", "preflight"):
        avoided = tried(run, variant, name)
        assert avoided.result is RemedyOutcome.AVOIDS, avoided.reason
        assert avoided.reason.startswith("skipped: ")


def test_what_the_guest_lacks_cannot_be_tried_and_says_so(run: RunResult) -> None:
    container = tried(run, "userns-clone-off", "privileged-container")
    assert container.result is RemedyOutcome.CANNOT
    assert "podman" in container.reason


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_script_changes_a_host_twice_and_every_undo_undoes(
    run: RunResult, folder: Path, variant: str
) -> None:
    blocked = cell(run, variant)
    before = json.loads((folder / "cells/debian-13" / variant / RELEASE / "probes.json").read_text())
    undone = 0
    for each in blocked.remedies:
        assert each.defects == []
        for file in each.evidence:
            if file.endswith("probes-undone.json"):
                after = json.loads((folder / file).read_text())
                assert _statuses(after) == _statuses(before)
                undone += 1
    assert undone > 0


def _statuses(probes: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    return {name: probe["status"] for name, probe in probes["probes"].items()}


def test_the_summary_says_what_cures_first(run: RunResult, folder: Path) -> None:
    page = (folder / "matrix.md").read_text()
    section = page.split("## debian-13, userns-clone-off")[1].split("\n## ")[0]
    first = next(line for line in section.splitlines() if line.startswith("- remedy"))
    assert first.startswith(
        "- remedy `userns-clone-on`: verified: `lab remedies show userns-clone-on --script`"
    )


def test_the_report_s_claims_are_judged_by_what_was_tried(run: RunResult, folder: Path) -> None:
    blocked = Recorded(cell(run, "userns-clone-off"), folder)
    known = claims.known("issue-468")
    for name in ("blocked-tests", "preflight-fails", "option-preflight"):
        assert claims.judge(known[name], "debian-13", [blocked]).answer is Answer.HOLDS
    # A blocked switch of the kernel's says nothing of Ubuntu's policy.
    assert claims.judge(known["audit-line"], "debian-13", [blocked]).answer is Answer.NOT_JUDGED


def test_boxlite_names_this_cause_and_its_advice_cures(run: RunResult, folder: Path) -> None:
    blocked = Recorded(cell(run, "userns-clone-off"), folder)
    assert blocked.told.advises == ["sudo sysctl -w kernel.unprivileged_userns_clone=1"]
    assert told.judge(blocked.result, blocked.told, remedies.load()) is Judged.RIGHT
