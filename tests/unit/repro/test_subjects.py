"""What a report is about, and which tests are about the same."""

import pytest

from lab import builds, catalog
from lab.repro import judging, subjects
from lab.repro.reading import read_report
from lab.repro.report import ErrorMessage, JudgedReport, Report
from lab.repro.subjects import SuiteChoice
from tests.builders.reports import CLONE, suspected


def of(text: str) -> Report:
    return read_report(text.encode())


NAMESPACE = "bwrap: No permissions to create new namespace"


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("# A stopped box's machine lives on after `rm --force`\n\nboxlite 0.10.8", {"stop": 1}),
        ("# Boxes are lost when the host reboots\n\nboxlite 0.10.8", {"recovery": 1}),
        ("# Names do not resolve: DNS in a box is dead", {"network": 1}),
        ("# Paused boxes cannot be resumed", {"pause": 1}),
        ("# Two more directories and the read-only volume is empty", {"volumes": 1}),
        ("# The memory limit is ignored", {"limits": 1}),
        # What a message says decides where the title does not, and a title that says more comes beside it.
        ("# It fails\n\n    Another BoxliteRuntime is already using directory: /root/.boxlite", {"sharing": 3}),
        ("# boxlite fails\n\n    OSError: [Errno 24] Too many open files: 'a'", {"open-files": 3}),
        ("# The third volume\n\n    RegisterNetDevice(IrqsExhausted)", {"volumes": 1}),
        # That a box does not start is what a report is about that names nothing else.
        ("# Box fails to start", {"start": 1}),
        (f"# boxlite on Debian\n\nThe network is up.\n\n    {NAMESPACE}", {"start": 5}),
        (f"# The network of a box\n\n    {NAMESPACE}", {"network": 1}),
        # A test of the usual suite is about a start.
        ("# A stopped box\n\n    jailer_enabled_box_starts_and_executes FAILED", {"stop": 1, "start": 3}),
        # Without a title or a message that tell it, what most lines are about.
        ("# A question on boxlite\n\nIt cannot stop.\nA port is open.\nThe internet is there.", {"network": 4}),
        ("# A question on boxlite\n\nIt cannot stop.\nA port is open.", {}),
        ("# A question on boxlite\n\nHow are you?", {}),
    ],
)
def test_what_a_report_is_about(text: str, about: dict[str, int]) -> None:
    assert {name: quote.number for name, quote in of(text).subjects.items()} == about


UNCLEAR = JudgedReport()


def choose(title: str, *names: str, judged: JudgedReport = UNCLEAR) -> SuiteChoice:
    return subjects.choose_suite(of(f"# {title}"), judged, names or subjects.WHEEL_SUITES)


def test_the_suite_is_the_one_whose_tests_are_about_most_of_what_a_report_is_about() -> None:
    usual = choose("Box fails to start")
    assert (usual.name, usual.untested, usual.steps) == ("jailer", (), ())
    stopped = choose("The memory limit is lost when a box is stopped")
    assert (stopped.name, stopped.untested) == ("lifecycle", ())
    assert stopped.steps == ("suite: lifecycle, whose tests are about limits and stop",)
    # Of two suites with such tests, that which is about nothing else.
    mounted = choose("Three volumes are not mounted")
    assert (mounted.name, mounted.untested) == ("volumes", ())
    both = choose("A stopped box cannot be resumed")
    assert (both.name, both.untested, both.is_untested) == ("lifecycle", ("pause",), False)
    assert both.reason == "no test is about pause"
    paused = choose("Paused boxes cannot be resumed")
    assert (paused.name, paused.untested, paused.is_untested) == ("jailer", ("pause",), True)
    silent = choose("A question on boxlite")
    assert (silent.is_untested, silent.reason) == (True, subjects.NOTHING_SAID)
    # A cause keeps boxes from starting, and the usual suite shows that.
    blocked = choose("Paused boxes cannot be resumed", judged=JudgedReport((suspected(CLONE),)))
    assert (blocked.name, blocked.untested, blocked.is_untested) == ("jailer", (), False)


def test_who_tests_it_is_named_with_the_command() -> None:
    choice = choose("Paused boxes lose their memory limit", "jailer")
    assert choice.reason == "no test is about limits or pause"
    assert {step.rpartition("=")[2] for step in choice.steps if "nextest:" in step} == {"pause", "disk-io"}
    for suite in catalog.load_suites():
        is_named = any(step.startswith(f"tests of it: {suite.title}: lab matrix ") for step in choice.steps)
        about = {suite.subject, *map(suite.get_subject, suite.tests)}
        assert is_named is not about.isdisjoint({"pause", "limits"}), suite.name


def test_the_suites_are_those_of_a_wheel() -> None:
    release = builds.resolve_build("0.10.8")
    assert (release.suite.name, *release.more_suites) == subjects.WHEEL_SUITES


@pytest.mark.parametrize(
    ("evidence", "operation", "words"),
    [
        (
            "likely_cause = shim died silently (see stderr / exit file)",
            "died-early",
            "had ended before its guest",
        ),
        ("likely_cause = guest agent never wrote to console (init", "no-console", "its kernel wrote nothing"),
        ("likely_cause = guest booted but agent did not connect to vsock", "slow-guest", "slow or loaded host"),
        # In one line, as Python shows an exception; a process that died wrote nothing either.
        (
            "shim_alive=false, console_bytes=0, ready_socket_exists=true",
            "died-early",
            "had ended before its guest",
        ),
        (
            "shim_alive=true, console_bytes=0, ready_socket_exists=true",
            "no-console",
            "its kernel wrote nothing",
        ),
        ("shim_alive=true, console_bytes=812, ready_socket_exists=true", "slow-guest", "slow or loaded host"),
    ],
)
def test_boxlite_s_time_out_has_three_meanings(evidence: str, operation: str, words: str) -> None:
    report = of(f"# boxlite fails\n\n    Box uPKT failed to start: timeout after 30s\n    {evidence}")
    assert [message.operation for message in report.of(ErrorMessage) if message.operation] == [operation]
    [remark] = judging.judge_report(report).remarks
    assert words in remark.text
    assert list(report.subjects) == ["start"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("internal error: Failed to acquire runtime lock at /root/.boxlite", "one at a time"),
        ("Too many open files (os error 24)", "`ulimit -n`"),
        ("storage error: Failed to write override_stat xattr on /root/.boxlite/x", "Put BOXLITE_HOME on ext4"),
        ("storage error: Embedded runtime extraction failed: No such file", "The remedy programs-renewed"),
        ("boxlite-guest not found in /root/.local/share/boxlite/runtimes", "The remedy programs-renewed"),
        ("nested virtualization is not supported on this host; Linux x86_64", "reads Y or 1"),
        ("engine reported an error: Timeout waiting for guest ready (30s)", "does not say why"),
        ("set BOXLITE_GUEST_READY_TIMEOUT_SECS=90", "That helps on a slow host"),
        ("the embedded runtime cache has lost a file", "The remedy programs-renewed"),
        ("Building the microVM failed: RegisterNetDevice(IrqsExhausted)", "with fewer folders"),
    ],
)
def test_what_a_message_of_boxlite_means_is_said_in_a_report_about_it(message: str, words: str) -> None:
    text = f"# It fails\n\nDebian 13, {{}}\n\n    Error: {message}\n"
    [remark] = judging.judge_report(of(text.format("boxlite 0.10.8"))).remarks
    assert words in remark.text
    assert [quote.number for quote in remark.quotes] == [5]
    assert (
        judging.judge_report(of(text.format("another program"))).remarks == () or "boxlite" in message.lower()
    )


LIVES_ON = """# `stop` leaks a detached box's VM

`boxlite stop` says that it succeeded, while the `boxlite-shim` under bwrap keeps running in {group}.
"""


@pytest.mark.parametrize(
    ("group", "likely", "possible"),
    [
        ("the cgroup of the shell, session-3.scope", ["cgroup-not-joined"], []),
        # Other faults of boxlite end so, too.
        ("the background", [], ["cgroup-not-joined"]),
    ],
)
def test_a_machine_that_outlives_its_stopped_box_is_what_the_suite_lifecycle_meets(
    group: str, likely: list[str], possible: list[str]
) -> None:
    report = of(LIVES_ON.format(group=group))
    judged = judging.judge_report(report)
    assert [finding.name for finding in judged.findings] == likely
    assert [candidate.name for candidate in judged.possible] == possible
    choice = subjects.choose_suite(report, judged)
    assert (choice.name, choice.is_untested) == ("lifecycle", False)


def test_a_cause_that_a_suite_meets_chooses_it_whatever_the_title_is_about() -> None:
    report = of(LIVES_ON.replace("`stop` leaks", "The network is lost: it leaks").format(group="init.scope"))
    judged = judging.judge_report(report)
    choice = subjects.choose_suite(report, judged)
    assert (choice.name, choice.untested) == ("lifecycle", ())
    assert choice.steps == ("suite: lifecycle, whose tests are about stop",)
