"""Finished cells with their evidence: blocked ones, and what came of remedies on them."""

from pathlib import Path
from typing import Any

from lab.probes import Facts
from lab.record import CellResult, Outcome, RemedyOutcome, RemedyResult, TestResult
from lab.verdict.words import FinishedCell
from tests.builders import cells, evidence, messages
from tests.builders.facts import context, facts, probe, probed

TESTS = ("jailer_enabled_box_starts_and_executes", "jailer_creates_isolated_mount_namespace")
BWRAP = ["bwrap", "--unshare-user", "--bind", "/", "/", "true"]
POLICY = "apparmor-userns-nocaps"


def ran(*outcomes: Outcome) -> list[TestResult]:
    """The two tests of the report, with these outcomes."""
    return [
        TestResult(name=name, outcome=outcome, message="" if outcome is Outcome.PASS else messages.SAID)
        for name, outcome in zip(TESTS, outcomes, strict=True)
    ]


FAIL = ran(Outcome.FAIL, Outcome.FAIL)
RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns"
UBUNTU = {"id": "ubuntu", "version_id": "24.04", "pretty_name": "Ubuntu 24.04.3 LTS"}


def blocked(name: str = POLICY, /, **more: Any) -> CellResult:
    """A cell that is blocked as its variant expects, which is named like the cause."""
    defaults: dict[str, Any] = {"variant": name, "tests": FAIL, "facts": facts(), "context": context()}
    return cells.blocked(name, "the evidence in a sentence", **(defaults | more))


def ubuntu(restriction: str = "1", *profiles: str) -> Facts:
    """The facts of an Ubuntu 24.04, whose kernel has the restriction, with these profiles."""
    loaded = dict.fromkeys(profiles, "enforce")
    return facts(os=UBUNTU, sysctls={RESTRICTION: restriction}, apparmor={"profiles": loaded})


def with_remedies(*tried: tuple[str, RemedyOutcome], name: str = POLICY, **more: Any) -> CellResult:
    """A cell that is blocked, with what came of remedies."""
    results = [RemedyResult(name=name, result=result, price="") for name, result in tried]
    return blocked(name, remedies=results, **more)


def gathered(
    run: Path,
    result: CellResult,
    *,
    log: str = messages.APPARMOR_NOCAPS,
    kernel: str = evidence.DENIED_CAP_BWRAP,
    bwrap: int | None = 1,
    command: list[str] = BWRAP,
    said: str = "bwrap: refused",
    stripped: bool = True,
) -> FinishedCell:
    """A cell with its evidence in the folder of its run; `bwrap` is the exit status of that probe.

    `stripped`: whether a user namespace is made there without capabilities.
    """
    folder = run / result.folder
    (folder / "boxlite/box-a/logs").mkdir(parents=True)
    (folder / "boxlite/box-a/logs/boxlite.log.2026-11-24").write_text(log)
    probes = {
        "bwrap_user": probe(bwrap, said, command),
        "unshare_user": probe(0),
        "unshare_user_root": probe(int(stripped)),
    }
    confined = {"context": {"apparmor": "unprivileged_userns (enforce)"}}
    (folder / "probes.json").write_text(probed(probes, **confined).model_dump_json())
    (folder / "kernel.log").write_text(kernel)
    return FinishedCell(result, run)
