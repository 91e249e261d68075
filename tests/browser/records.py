"""A site made from records that hold everything a record may hold: every status, remedies, hostile text."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.base.activity import Activity
from lab.catalog import remedies
from lab.probes import Facts
from lab.record import (
    CellResult,
    Confidence,
    Expectation,
    Experiment,
    ExperimentTrial,
    FoundCause,
    LaneRecord,
    LaneStep,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    Status,
    Stress,
    TestRate,
    TestResult,
    TrialOutcome,
)
from lab.report.site.publish import publish_site
from tests.builders.cells import cell
from tests.builders.facts import context
from tests.builders.facts import facts as a_facts
from tests.builders.output import run_folder
from tests.builders.runs import host as a_host

OLD, NEW = "0.10.0", "0.10.8"
# Markup, addresses, script, a terminal's escape, a mark that turns the writing around, a word without a space.
HOSTILE = (
    "x<script>document.title='owned'</script>\"'>"
    "<img src=https://evil.example/x onerror=document.title='owned'>"
    "{{7*7}}</textarea></table>]]>javascript:alert(1)\u202egnp.exe\x1b[31m"
)
LONG = "a-word-that-has-no-space-and-would-widen-a-page-" * 6
# The variant whose cells fail for a cause with a cure, and one of everything else.
BLOCKED, CAUSE, CURE = "userns-clone-off", "userns-sysctl", "userns-clone-on"
START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def _tests(outcome: Outcome = Outcome.PASS, message: str = "") -> list[TestResult]:
    return [
        TestResult(name="bundled_bwrap_is_executable", outcome=Outcome.PASS),
        TestResult(name="jailed_box_starts_and_executes", outcome=outcome, message=message),
    ]


def _facts(guest: str, **changes: Any) -> Facts:
    system = {
        "version_id": "12",
        "version_codename": "bookworm",
        "pretty_name": "Debian GNU/Linux 12 (bookworm)",
    }
    return a_facts(**({"os": system} if guest == "debian-12" else {}), **changes)


def _cell(guest: str, variant: str, status: Status = Status.PASS, build: str = NEW, **more: Any) -> CellResult:
    evidence = [f"cells/{guest}/{variant}/{build}/{name}" for name in ("suite/suite.log", "probes.json")]
    given: dict[str, Any] = {
        "facts": None if status.could_not_run else _facts(guest),
        "context": None if status.could_not_run else context(),
        "tests": [] if status.could_not_run else _tests(),
        "seconds": {"fork": 1.0, "apply": 0.5, "suite": 21.0},
        "lane": guest,
        "fork": "memory",
        "evidence": evidence,
        "rerun": f"lab matrix -g {guest} -v {variant} --build {build}",
    }
    return cell(guest, variant, build=build, status=status, **(given | more))


def _blocked(guest: str, build: str, status: Status = Status.XFAIL, **more: Any) -> CellResult:
    reason = "kernel.unprivileged_userns_clone is 0"
    given = {
        "facts": _facts(guest, sysctls={"kernel.unprivileged_userns_clone": "0"}),
        "context": context(),
        "expected": Expectation(status="xfail", cause=CAUSE),
        "cause": CAUSE,
        "confidence": Confidence.PROVED,
        "causes": [FoundCause(name=CAUSE, confidence=Confidence.PROVED, reason=reason)],
        "reason": reason,
        "tests": _tests(Outcome.FAIL, "Operation not permitted"),
        "remedies": [
            RemedyResult(
                name=CURE,
                result=RemedyOutcome.VERIFIED,
                price="nothing that Debian gives",
                seconds=30,
                scripts={CURE: remedies.find_remedy(CURE).digest},
            ),
            RemedyResult(name="jailer-off", result=RemedyOutcome.AVOIDS, price="all of it", seconds=20),
            RemedyResult(
                name="kvm-group", result=RemedyOutcome.DOES_NOT_HELP, reason=HOSTILE, price="-", seconds=9
            ),
        ],
    }
    return _cell(guest, BLOCKED, status, build, **(given | more))


def _everything() -> list[CellResult]:
    """Every status at least once; in the newer build most, so that the builds differ."""
    experiment = Experiment(
        tests=["jailed_box_starts_and_executes"],
        trials=[
            ExperimentTrial(changes=[], outcome=TrialOutcome.FAILS),
            ExperimentTrial(changes=["without sysctl"], outcome=TrialOutcome.PASSES, reason=HOSTILE),
        ],
        turning=[["without sysctl"]],
        seconds=40.0,
    )
    unknown: dict[str, Any] = {"cause": "unknown", "reason": HOSTILE, "tests": _tests(Outcome.ERROR, HOSTILE)}
    repeats = [
        RepeatResult(status=Status.PASS, seed=1),
        RepeatResult(status=Status.FAIL, failed=["a"], reason=HOSTILE, seed=2),
    ]
    rates = [
        TestRate(name=name, ran=2, failed_in=failed_in, low=0.1, high=0.9)
        for name, failed_in in {"a": [2], HOSTILE: [1, 2], "b": []}.items()
    ]
    flaky: dict[str, Any] = {"repeats": repeats, "rates": rates, "seed": 2, "stress": list(Stress)}
    return [
        *[_cell(guest, "stock", build=build) for guest in ("debian-12", "debian-13") for build in (OLD, NEW)],
        _blocked("debian-12", OLD),
        _blocked("debian-12", NEW),
        _blocked("debian-13", OLD),
        _blocked("debian-13", NEW, Status.FAIL, expected=Expectation(), experiment=experiment),
        _cell("debian-13", "podman", build=OLD),
        _cell("debian-13", "podman", Status.FAIL, **unknown),
        _cell("debian-13", "as-root", Status.XPASS, expected=Expectation(status="xfail", cause=CAUSE)),
        _cell("debian-13", "max-userns-zero", Status.FLAKY, reason="passed 1 of 2 times", **flaky),
        _cell("debian-12", "apparmor-userns-deny", Status.NOT_APPLICABLE, reason="AppArmor 3.0.8 is too old"),
        _cell("debian-sid", "stock", Status.ERROR, reason=f"the guest did not come up: {HOSTILE}"),
        _cell("debian-14", "stock", Status.NOT_RUN, reason="image not available: no network"),
    ]


def _hostile() -> list[CellResult]:
    """Names and facts that nobody vetted: the record of somebody else's run."""
    facts = a_facts(os={"id": HOSTILE, "version_id": LONG, "pretty_name": HOSTILE}, kernel=LONG)
    more: dict[str, Any] = {
        "facts": facts,
        "lane": HOSTILE,
        "rerun": f"lab matrix -g {HOSTILE}",
        "evidence": [],
    }
    return [
        _cell(HOSTILE, "stock", Status.FAIL, cause=HOSTILE, reason=LONG, **more),
        _cell("debian-13", HOSTILE, Status.FAIL, HOSTILE, cause="unknown", reason=HOSTILE, **more),
    ]


def publish(base: Path) -> Path:
    """Publish an older run and a newer one; return the folder of the site."""
    host = a_host(acceleration_reason=HOSTILE)
    lanes = [
        LaneRecord(guest=guest, image="1" * 64, fork="memory", seconds={"boot": 30.0, "deploy": 15.0})
        for guest in ("debian-12", "debian-13")
    ]
    # Every activity, and a lane of a hostile name.
    steps = [
        LaneStep(lane=lane, activity=kind, text=HOSTILE, began=START + timedelta(minutes=n), seconds=50)
        for lane in ("debian-12", "debian-13", HOSTILE)
        for n, kind in enumerate(Activity)
    ]
    older = run_folder(
        base,
        *[_cell(guest, "stock", build=OLD) for guest in ("debian-12", "debian-13")],
        name="20261119-080000",
        started=START - timedelta(days=1),
        finished=START - timedelta(days=1) + timedelta(minutes=4),
        lanes=lanes,
        host=host,
    )
    newer = run_folder(
        base,
        *_everything(),
        *_hostile(),
        name="20261120-080000",
        started=START,
        finished=START + timedelta(minutes=9),
        lanes=lanes,
        steps=steps,
        host=host,
    )
    publish_site([older, newer], base / "site")
    return base / "site"
