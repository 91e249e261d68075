"""A bug report answered by a real run."""

from pathlib import Path

import pytest

from lab import builds
from lab.catalog import Catalog
from lab.record import Confidence, RunResult
from lab.repro import answer, planning, reading, verdict
from lab.repro.answer import Subject
from lab.repro.planning import Host, Plan
from lab.repro.report import Finding, Judged
from lab.repro.verdict import Held, Result
from tests.vm.conftest import ONE_KNOB, RELEASE, TRIES

REPORT = f"""\
# no box starts any more

Debian 13, boxlite {RELEASE}. The log has

    Sandbox preflight failed: bwrap cannot create user namespaces.
"""


@pytest.fixture
def planned(definitions: Catalog) -> Plan:
    read = reading.read(REPORT.encode())
    host = Host(lambda guest: True, lambda guest: True, builds.releases)
    # These words alone have several causes.
    suspected = Judged((Finding("userns-sysctl", Confidence.LIKELY, "a guess", ()),))
    return planning.plan(read, suspected, definitions, host, planning.Wishes(build=RELEASE))


@pytest.mark.shared(TRIES[ONE_KNOB])
def test_a_report_is_reproduced_with_its_words_and_answered_with_a_verified_remedy(
    planned: Plan, run: RunResult, folder: Path
) -> None:
    assert [cell.variant.name for cell in planned.cells] == [ONE_KNOB]
    judged = verdict.of_run(planned, run, folder)
    assert judged.result is Result.REPRODUCED, judged.why
    claim = next(claim for claim in judged.claims if claim.held is Held.HELD)
    assert "Sandbox preflight failed" in claim.why
    text = answer.render(Subject(planned, judged, run))
    assert "userns-clone-on.sh" in text
    assert str(folder) not in text
