from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import causes
from lab.catalog import remedies
from lab.record import (
    CellResult,
    Confidence,
    FoundCause,
    Outcome,
    RemedyOutcome,
    RemedyResult,
    Status,
    TestResult,
)
from lab.verdict import words
from lab.verdict.words import BoxliteMessage, WordsVerdict
from tests.builders import cells
from tests.builders import messages as examples

FAILED = [
    TestResult(name="jailer_enabled_box_starts_and_executes", outcome=Outcome.FAIL, message=examples.SAID)
]
# Both come from Ubuntu's restriction, which boxlite blames: one where the policy's profile is loaded.
RESTRICTION = ["apparmor-userns-deny", "apparmor-userns-nocaps"]
# Each log, the causes that it blames, and the remedies that do what it advises.
LOGS = [
    (examples.USERNS_SYSCTL, ["userns-sysctl"], ["userns-clone-on"]),
    (examples.USERNS_LIMIT, ["userns-limit"], ["userns-limit-raise"]),
    (examples.APPARMOR_DENY, [], []),
    (examples.APPARMOR_NOCAPS, [], []),
    (examples.UBUNTU, RESTRICTION, ["install-bubblewrap", "apparmor-restrict-off"]),
    (
        examples.UBUNTU_BUNDLED,
        RESTRICTION,
        ["bundled-bwrap-profile", "install-bubblewrap", "apparmor-restrict-off"],
    ),
    (examples.KVM_ABSENT, [], ["kvm-module"]),
    (examples.KVM_DENIED, [], ["kvm-group"]),
    (examples.HOME_NOEXEC, [], []),
]


CONSOLE = "• likely_cause        = guest agent never wrote to console (init or vsock plumbing broken)"
TIMED_OUT = f"Box uPKT failed to start: timeout after 30s\n\nEvidence at T+30s:\n{CONSOLE}"


def put_log(folder: Path, log: str) -> None:
    (folder / "boxlite/box-a/logs").mkdir(parents=True)
    (folder / "boxlite/box-a/logs/boxlite.log.2026-11-24").write_text(log)


def read(folder: Path, log: str, said: str = examples.SAID) -> BoxliteMessage:
    put_log(folder, log)
    return words.read(folder, [FAILED[0].model_copy(update={"message": said})])


def blocked(*names: str, tried: Sequence[tuple[str, RemedyOutcome]] = (), **more: Any) -> CellResult:
    """A cell that these causes blocked."""
    findings = [FoundCause(name=name, confidence=Confidence.PROVED, reason="it is") for name in names]
    results = [RemedyResult(name=name, result=result, price="") for name, result in tried]
    return cells.blocked(names[0], **({"causes": findings, "remedies": results} | more))


def judged(folder: Path, log: str, result: CellResult, said: str = examples.SAID) -> WordsVerdict | None:
    return words.judge_words(result, read(folder, log, said), remedies.load_remedies())


@pytest.mark.parametrize(("log", "blames", "advised"), LOGS)
def test_blame_and_advice_are_read(tmp_path: Path, log: str, blames: list[str], advised: list[str]) -> None:
    diagnosis = read(tmp_path, log)
    assert diagnosis.message == examples.SAID
    assert diagnosis.file == "boxlite/box-a/logs/boxlite.log.2026-11-24"
    assert diagnosis.blames == blames
    all_remedies = remedies.load_remedies().items()
    by_command = [
        [name for name, remedy in all_remedies if remedy.is_advised_by(command)]
        for command in diagnosis.advises
    ]
    assert by_command == [[name] for name in advised]


def test_an_entry_is_read_whole_and_what_is_logged_of_every_failure_is_left_out(tmp_path: Path) -> None:
    # No log steers a terminal.
    steering = examples.APPARMOR_DENY.replace("bwrap stderr:", "\x1b[2J\x1b]0;title\x07bwrap stderr:")
    diagnosis = read(tmp_path, steering + examples.USERNS_LIMIT)
    assert "\nbwrap stderr:" in diagnosis.logged
    assert diagnosis.module == "boxlite::jailer::sandbox::bwrap"
    first, *_, last = diagnosis.logged.splitlines()
    assert first == "Sandbox preflight failed: bwrap cannot create user namespaces."
    assert last == "To skip the sandbox (development only): SecurityOptions::disabled()"
    assert "Task failed" not in diagnosis.logged
    assert diagnosis.essence == "Cause: Unknown restriction."


def test_where_it_logs_nothing_of_its_own_its_words_to_the_caller_stand_alone(tmp_path: Path) -> None:
    diagnosis = read(tmp_path, examples.HOME_NOEXEC, examples.NOEXEC)
    assert (diagnosis.logged, diagnosis.essence) == ("", examples.NOEXEC)
    assert diagnosis.file


def test_a_box_that_logs_nothing_of_its_own_does_not_hide_the_words_of_the_next(tmp_path: Path) -> None:
    diagnosis = read(tmp_path, examples.failed("it is so") + examples.SELINUX_DENY + examples.USERNS_LIMIT)
    first, *_, last = diagnosis.logged.splitlines()
    assert first.startswith("clone(CLONE_NEWUSER) failed with UNEXPECTED errno")
    assert last == "To skip the sandbox (development only): SecurityOptions::disabled()"
    assert diagnosis.blames == []


def test_the_likely_cause_of_a_time_out_is_what_boxlite_says(tmp_path: Path) -> None:
    diagnosis = read(tmp_path, examples.failed("it is so"), TIMED_OUT)
    assert diagnosis.essence == CONSOLE
    # It names a part of the box, and nothing of the host.
    result = words.judge_words(blocked("kvm-unusable"), diagnosis, remedies.load_remedies())
    assert result is WordsVerdict.UNKNOWN


def test_of_what_was_not_gathered_nothing_is_known(tmp_path: Path) -> None:
    assert words.read(tmp_path, FAILED) == BoxliteMessage(message=examples.SAID)
    assert words.read(tmp_path, [TestResult(name="a", outcome=Outcome.PASS)]) == BoxliteMessage()
    not_run = TestResult(name="a", outcome=Outcome.NOT_RUN, message="the suite ended")
    assert words.read(tmp_path, [not_run]) == BoxliteMessage()
    # boxlite is not said to say nothing.
    assert words.judge_words(blocked("apparmor-userns-deny"), BoxliteMessage(message=examples.SAID), {}) is None


FAILS = RemedyOutcome.DOES_NOT_HELP
INSTALL_FAILS, CLONE_ON = ("install-bubblewrap", FAILS), "userns-clone-on"
# Only a failure of its advice, tried alone, speaks against it.
NOT_AGAINST = [
    *((CLONE_ON, result) for result in (RemedyOutcome.VERIFIED, RemedyOutcome.CANNOT, RemedyOutcome.ERROR)),
    *((name, FAILS) for name in ("bwrap-profile", f"{CLONE_ON}+userns-limit-raise")),
]
UNPROVED: list[dict[str, Any]] = [
    {"cause": "unknown", "confidence": None, "causes": []},
    {"causes": []},
    {"confidence": Confidence.LIKELY},
    *({"status": status} for status in (Status.PASS, Status.FLAKY, Status.ERROR)),
]


@pytest.mark.parametrize(
    ("log", "result", "expected"),
    [
        (examples.USERNS_SYSCTL, blocked("userns-sysctl"), WordsVerdict.RIGHT),
        (examples.USERNS_LIMIT, blocked("userns-limit"), WordsVerdict.RIGHT),
        (examples.APPARMOR_DENY, blocked("apparmor-userns-deny"), WordsVerdict.UNKNOWN),
        (examples.APPARMOR_NOCAPS, blocked("apparmor-userns-nocaps"), WordsVerdict.UNKNOWN),
        (examples.APPARMOR_DISCONNECTED, blocked("apparmor-disconnected"), WordsVerdict.UNKNOWN),
        (examples.BWRAP_SETUID, blocked("bwrap-setuid"), WordsVerdict.UNKNOWN),
        # The error of boxlite's own attempt comes before the supposed cause.
        (examples.SELINUX_DENY, blocked("selinux-userns-deny"), WordsVerdict.UNKNOWN),
        (examples.HOME_NOEXEC, blocked("home-noexec"), WordsVerdict.NOTHING),
        (examples.UBUNTU, blocked("apparmor-userns-nocaps"), WordsVerdict.RIGHT),
        (examples.UBUNTU, blocked("apparmor-userns-deny"), WordsVerdict.RIGHT),
        # boxlite checks the sysctl of Ubuntu's kernels first, the kernel checks it last.
        (examples.UBUNTU, blocked("userns-sysctl"), WordsVerdict.WRONG_KNOB),
        (examples.UBUNTU, blocked("userns-sysctl", "apparmor-userns-nocaps"), WordsVerdict.RIGHT),
        (examples.UBUNTU, blocked("apparmor-userns-nocaps", tried=[INSTALL_FAILS]), WordsVerdict.NO_CURE),
        (examples.UBUNTU, blocked("userns-sysctl", tried=[INSTALL_FAILS]), WordsVerdict.WRONG_KNOB),
        # What it blames is behind the cause found: the profile of the restriction is in complain mode.
        (
            examples.UBUNTU,
            blocked("apparmor-disconnected", tried=[("apparmor-restrict-off", RemedyOutcome.VERIFIED)]),
            WordsVerdict.RIGHT,
        ),
        (examples.UBUNTU, blocked("apparmor-disconnected"), WordsVerdict.WRONG_KNOB),
        # boxlite names one of two causes, and its remedy alone does not help.
        (
            examples.USERNS_SYSCTL,
            blocked("userns-sysctl", "userns-limit", tried=[(CLONE_ON, FAILS)]),
            WordsVerdict.NO_CURE,
        ),
        *(
            (examples.USERNS_SYSCTL, blocked("userns-sysctl", tried=[tried]), WordsVerdict.RIGHT)
            for tried in NOT_AGAINST
        ),
        *((examples.UBUNTU, blocked("userns-sysctl", **more), None) for more in UNPROVED),
    ],
)
def test_boxlites_words_are_judged_by_the_cause_that_was_found(
    tmp_path: Path, log: str, result: CellResult, expected: WordsVerdict | None
) -> None:
    assert judged(tmp_path, log, result) is expected


def test_a_cause_may_stand_in_what_boxlite_says_to_its_caller(tmp_path: Path) -> None:
    said = "boxlite.errors.UnsupportedError: unsupported: KVM is not available on this host."
    assert judged(tmp_path, examples.KVM_ABSENT, blocked("kvm-absent"), said) is WordsVerdict.RIGHT
    assert words.judge_words(blocked("kvm-denied"), BoxliteMessage(message=said), {}) is WordsVerdict.WRONG_KNOB


def test_no_two_causes_are_blamed_by_the_same_words_but_those_of_ubuntus_restriction_and_of_a_folder() -> None:
    # boxlite says that it cannot make the folder, not whether a service is what makes /tmp read-only.
    shared = (RESTRICTION[0], "service-closes-tmp")
    all_causes = [cause for name, cause in causes.list_causes().items() if name not in shared]
    messages = [message for cause in all_causes for message in cause.blamed_by]
    assert len(messages) == len(set(messages)) > 0
