"""Reports as data, plans for them, and runs that answer them, without a guest."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from packaging.version import Version

from lab import catalog
from lab.catalog import Guest, Variant
from lab.plan import Cell
from lab.record import (
    CellResult,
    Confidence,
    FoundCause,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RunResult,
    TestResult,
)
from lab.repro import planning
from lab.repro.planning import HostAbilities, Plan
from lab.repro.report import (
    ArchitectureStatement,
    AuditLine,
    Command,
    ErrorMessage,
    JudgedReport,
    Mood,
    NamedTest,
    ProgramVersion,
    Quote,
    Report,
    Setting,
    Speaker,
    Statement,
    System,
)
from lab.repro.report import Finding as TextFinding
from lab.repro.wishes import Wishes
from tests.builders import evidence
from tests.builders.cells import blocked, cell
from tests.builders.facts import facts
from tests.builders.finished_cells import gathered
from tests.builders.runs import host, run_of

KNOWN = catalog.load_catalog()
POLICY, CLONE = "apparmor-userns-nocaps", "userns-sysctl"
SWITCH, RESTRICT = "kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns"
UNLOAD = "apparmor_parser -R /etc/apparmor.d/unprivileged_userns"
RELEASES = [Version(version) for version in ("0.9.0", "0.10.7", "0.10.8")]


def suspected(name: str, *quotes: Quote, program: str = "bwrap") -> TextFinding:
    """A cause that the text of a report shows by these lines."""
    return TextFinding(name, "likely", "the text says so", quotes, program)


def quote(number: int, text: str = "a line") -> Quote:
    return Quote(number, text)


def system(name: str = "debian", version: str | None = "13", **more: Any) -> System:
    return System(quote(1), name, version, f"{name} {version or ''}".strip().capitalize(), **more)


def architecture(name: str) -> ArchitectureStatement:
    return ArchitectureStatement(quote(2, name), name)


def holds(name: str, value: str, number: int = 2) -> Setting:
    return Setting(quote(number), name, value, Mood.HOLDS)


def tried(name: str, value: str | None, *, helped: bool | None, number: int = 3) -> Setting:
    return Setting(quote(number), name, value, Mood.TRIED, helped)


def words(text: str, number: int = 4, speaker: Speaker = Speaker.BUBBLEWRAP) -> ErrorMessage:
    return ErrorMessage(quote(number, text), text, speaker)


def audit(number: int = 5, **fields: str) -> AuditLine:
    refused = {
        "apparmor": "DENIED",
        "operation": "capable",
        "profile": "unprivileged_userns",
        "capability": "21",
        "capname": "sys_admin",
    }
    return AuditLine(quote(number, "audit: DENIED"), {**refused, **fields})


def boxlite(version: str) -> ProgramVersion:
    return ProgramVersion(quote(6), "boxlite", version)


def command(text: str, number: int) -> Command:
    return Command(quote(number, f"$ {text}"), text)


def program(name: str, version: str) -> ProgramVersion:
    return ProgramVersion(quote(2), name, version)


def named_test(name: str, *, known: bool = True) -> NamedTest:
    return NamedTest(quote(7), name, known)


def report(*statements: Statement) -> Report:
    return Report("boxlite fails", statements, subjects={"start": quote(1, "boxlite fails")})


def is_built(guest: Guest) -> bool:
    return guest.name.startswith(("debian-1", "twin-")) and "cloud" not in guest.name


def variant_of(planned: Plan) -> Variant:
    """The variant of a plan's first question."""
    variant = planned.questions[0].variant
    assert variant is not None
    return variant


HOST = HostAbilities(is_built, is_built, lambda: RELEASES)


def plan(
    given: Report, *causes: str | TextFinding, host: HostAbilities = HOST, nearest: bool = False, **wishes: Any
) -> Plan:
    findings = [suspected(cause) if isinstance(cause, str) else cause for cause in causes]
    return planning.plan_report(
        given, JudgedReport(tuple(findings)), KNOWN, host, Wishes(nearest=nearest, **wishes)
    )


def ran(
    planned: Plan | Cell,
    variant: str,
    *,
    cause: str | None = None,
    confidence: Confidence = Confidence.PROVED,
    cured_by: Sequence[str] = (),
    **more: Any,
) -> CellResult:
    """A cell of a plan that failed for a cause, or passed; its sandbox tests did the same."""
    assert planned.guest and planned.build
    outcome = Outcome.FAIL if cause else Outcome.PASS
    values: dict[str, Any] = {
        "guest": planned.guest.name,
        "variant": variant,
        "build": planned.build.name,
        "tests": [
            TestResult(name=name, outcome=outcome if needs == "sandbox" else Outcome.PASS)
            for name, needs in planned.build.suite.tests.items()
        ],
        "facts": facts(),
        "remedies": [RemedyResult(name=name, result=RemedyOutcome.VERIFIED, price="x") for name in cured_by],
    }
    if cause is None:
        return cell(**(values | more))
    findings = [FoundCause(name=cause, confidence=confidence, reason="the evidence")]
    values |= {"confidence": confidence, "causes": findings}
    return blocked(cause, "the evidence in a sentence", **(values | more))


# Writes the evidence of a cell into the folder of its run; by default that of Ubuntu's policy.
gather = partial(gathered, said=evidence.BWRAP_REFUSED.stderr)


def run(*cells: CellResult) -> RunResult:
    return run_of(*cells, host=host())
