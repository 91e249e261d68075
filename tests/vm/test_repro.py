"""A bug report answered by a real run, and its commands run in a real guest."""

from pathlib import Path

import pytest

from lab import builds, plan
from lab.base.paths import Paths
from lab.catalog import Catalog
from lab.machine.connection import default_uri
from lab.record import Confidence, RunResult
from lab.repro import answer, claims, commands, planning, reading, verdict
from lab.repro.answer import Subject
from lab.repro.judging import Finding, Judged
from lab.repro.planning import Host, Plan
from lab.repro.report import Command, Quote
from lab.repro.verdict import Result
from lab.upstream.finished import FinishedCell
from tests.vm.conftest import ONE_KNOB, RELEASE, TRIES

REPORT = f"""\
# no box starts any more

Debian 13, boxlite {RELEASE}. The log has

    Sandbox preflight failed: bwrap cannot create user namespaces.
"""
WANTED = [
    "cat /proc/net/dev; id -un",
    "(yes | head -c 1000000) 2>&1",
    "i=0; while [ $i -lt 300 ]; do sleep 100 >/dev/null 2>&1 & i=$((i+1)); done; echo all",
]


@pytest.fixture
def planned(known: Catalog) -> Plan:
    read = reading.read(REPORT.encode())
    host = Host(lambda guest: True, lambda guest: None, builds.releases)
    # These words alone have several causes.
    suspected = Judged((Finding("userns-sysctl", Confidence.LIKELY, "a guess", ()),))
    return planning.plan(read, suspected, known, host, planning.Wishes(build=RELEASE))


@pytest.mark.shared(TRIES[ONE_KNOB])
def test_a_report_is_reproduced_with_its_words_and_answered_with_a_verified_remedy(
    planned: Plan, run: RunResult, folder: Path
) -> None:
    assert [cell.variant.name for cell in planned.cells("")] == [ONE_KNOB]
    found = verdict.of_run(planned, run, folder)
    assert found.result is Result.REPRODUCED, found.why
    [proof, *_] = found.answered[0].proofs
    assert "Sandbox preflight failed" in proof.text
    said = claims.lines(planned, found, [FinishedCell(cell, folder) for cell in run.cells])
    text = answer.render(Subject(planned, found, said, run, "lab repro REPORT"))
    assert "userns-clone-on.sh" in text
    assert str(folder) not in text


def test_commands_of_a_report_have_no_network_and_end_at_their_limits(
    paths: Paths, known: Catalog, tmp_path: Path
) -> None:
    cell = plan.Cell(known.guest("debian-13"), known.variant("stock"), builds.resolve(RELEASE))
    wanted = [Command(Quote(number, text), text) for number, text in enumerate(WANTED, start=1)]
    shown: list[str] = []
    network, much, many = commands.run(
        wanted, cell, tmp_path, paths, default_uri(), lambda text: None, shown.append
    )
    assert network.ran is not None, network.why_not
    interfaces = [line.partition(":")[0].strip() for line in network.ran.output.splitlines() if ":" in line]
    assert interfaces == network.ran.interfaces == ["lo"]
    assert network.ran.output.splitlines()[-1] == "tester"
    assert much.ran is not None
    assert (much.ran.cut, len(much.ran.output)) == (True, commands.BYTES)
    assert many.ran is not None
    assert "Cannot fork" in many.ran.output
    assert "all" not in many.ran.output
    assert len(shown) == len(WANTED)
