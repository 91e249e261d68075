"""Running a build's suite in a guest, under a variant and a time limit, and telling what came of each test."""

import re
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from lab.base.errors import LabError, format_error
from lab.base.files import clean_text, cut_text
from lab.base.wait import Speed
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.catalog import Suite, Variant
from lab.guest.session import Session
from lab.guest.variant import choose_login, find_home, get_command_prefix, wrap_script
from lab.record import Outcome, SuiteRun, TestResult

# The variable that has the container of a variant take standard input; see `container` in remote/knobs.py.
STDIN = "LAB_STDIN"
# How much of a report is read. A suite of a hundred failed tests writes less than a tenth of it.
MOST_REPORT_BYTES = 8_000_000
# The first line that the guest prints of a suite: its exit status and its seconds.
ENDED = re.compile(r"(\d{1,3}) (\d{1,6})\n")
# By `timeout`, whose first signal was enough. That of coreutils in Rust had the second status until 2026, with
# --kill-after (https://github.com/uutils/coreutils/pull/11392).
TIMED_OUT = (124, 125)
BY_SIGNAL = 128  # what a shell adds to the number of the signal that ended a command
KILLED = BY_SIGNAL + signal.SIGKILL
# Seconds are counted as the difference of two times, each without its fraction.
ROUNDING = 1


class SuiteBroken(LabError):
    """The suite's runner failed, before the first test or at whatever time: a fault of the lab."""


@dataclass(frozen=True)
class Ending:
    """The command's exit status, and how many seconds it took; `limit` is the suite's limit in seconds."""

    status: int
    seconds: int
    limit: float

    @property
    def at_limit(self) -> bool:
        """Whether the suite's limit ended it: the kernel, too, sends SIGKILL if memory runs out."""
        return self.status in (*TIMED_OUT, KILLED) and self.seconds >= int(self.limit) - ROUNDING

    def is_early(self, build: Build) -> bool:
        return self.at_limit or self.status not in build.completed

    def __str__(self) -> str:
        if self.at_limit:
            return f"was killed at its time limit of {self.limit:.0f} s"
        names = {number.value: number.name for number in signal.Signals}
        if name := names.get(self.status - BY_SIGNAL):
            early = f", before its time limit of {self.limit:.0f} s" if self.status == KILLED else ""
            return f"was ended by {name} (exit status {self.status}){early}"
        return f"ended with exit status {self.status}"


def execute_suite(
    session: Session,
    build: Build,
    variant: Variant,
    *,
    speed: Speed,
    options: SuiteOptions = WHOLE_SUITE,
) -> SuiteRun:
    """Run the build's suite under its time limit. If it is cut short, the tests that ended keep their results.

    Raises SuiteBroken if its runner failed, or if its report cannot be read.
    """
    suite = build.suite
    results = get_results_folder(variant)
    limited = build_suite_command(build, variant, speed=speed, options=options)
    report_file = build.report_file(results)
    # Another run in this fork may have left a report, and a runner that does not even start leaves none. The
    # guest's uptime says how long it took, whatever the tests do to its clock.
    script = (
        f"mkdir -p {results}; rm -f {report_file}; read -r begun _ </proc/uptime; "
        f"({wrap_command(build, variant, limited, options.environment)}) >{results}/suite.log 2>&1; "
        "status=$?; read -r ended _ </proc/uptime; echo $status $((${ended%.*} - ${begun%.*})); "
        f"head -c {MOST_REPORT_BYTES} {report_file} 2>/dev/null || true"
    )
    output = session.run(
        wrap_script(variant, script),
        seconds=suite.suite_seconds * options.more_time + 30 / speed.factor + 10,
        user=choose_login(variant),
    )
    try:
        ending, report = _read(output.stdout, limit=speed.in_guest(suite.suite_seconds * options.more_time))
        by_test = build.read_report(report) if report else None
    except ValueError as error:
        raise SuiteBroken(f"what the suite reported cannot be read: {format_error(error)}") from error
    if by_test is None or ending.status in build.runner_failed or not (by_test or ending.is_early(build)):
        # The end of what the suite printed, and what the kernel killed for want of memory, if anything.
        script = f"tail -n 30 {results}/suite.log | tail -c 4000; dmesg | grep 'Killed process' | tail -n 3"
        printed = session.run(f"sudo -n sh -c {shlex.quote(script)}", seconds=10, check=False).stdout
        raise SuiteBroken(f"the runner of the suite failed: it {ending}\n{printed}".rstrip())
    hangs = None in by_test.values()
    cut_short = str(ending) if hangs or ending.is_early(build) else ""
    ran = suite.only(options.tests) if options.tests else suite
    tests = complete(ran, by_test, cut_short=cut_short, out_of_time=ending.at_limit)
    return SuiteRun(tests, cut_short, ending.at_limit)


def _read(printed: str, *, limit: float) -> tuple[Ending, str]:
    """How the suite ended, and the whole lines of its report. Raises ValueError."""
    ended = ENDED.match(printed)
    if ended is None:
        raise ValueError(
            f"expected its exit status and its seconds, found {cut_text(clean_text(printed), 100)!r}"
        )
    report = printed[ended.end() :]
    if len(report.encode()) >= MOST_REPORT_BYTES:
        raise ValueError(f"its report has more than {MOST_REPORT_BYTES} bytes")
    # The last line is cut off if the suite was ended while it was written.
    return Ending(int(ended[1]), int(ended[2]), limit), report[: report.rfind("\n") + 1]


def build_suite_command(
    build: Build, variant: Variant, *, speed: Speed, options: SuiteOptions = WHOLE_SUITE
) -> str:
    """The command that runs the suite under its time limit, for a shell in the state that tests see."""
    suite = build.suite
    test_seconds = speed.in_guest(suite.test_seconds * options.more_time)
    tests = build.command(options, results=get_results_folder(variant), test_seconds=test_seconds)
    return f"timeout --kill-after=5 {speed.in_guest(suite.suite_seconds * options.more_time):.0f} {tests}"


def wrap_command(
    build: Build,
    variant: Variant,
    command: str,
    environment: Mapping[str, str] | None = None,
    *,
    stdin: bool = False,
) -> str:
    """A shell script that becomes `command` in the state that tests see: folder, variables, confinement.

    With `stdin` the command also gets the script's standard input in a container, where the suite gets none.
    """
    variables = {**build.environment, **(environment or {})}
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    # What the variant runs the suite under comes first: a container passes on neither variables nor signals.
    prefix = get_command_prefix(variant)
    if prefix and stdin:
        prefix, words = f"env {STDIN}=1 {prefix}", ["-u", STDIN, *words]
    return " ".join(filter(None, [f"cd {build.working_folder} && exec", prefix, "env", *words, command]))


def get_results_folder(variant: Variant) -> str:
    """Where in the guest the suite's results go."""
    return f"{find_home(variant)}/results"


def complete(
    suite: Suite, by_test: Mapping[str, TestResult | None], *, cut_short: str = "", out_of_time: bool = False
) -> list[TestResult]:
    """One result for each test that the suite names, in its order, from those of the tests that began.

    If the suite was cut short, the test that was running failed: one that began and has no end, or else the
    first that has no result; `out_of_time` says whether the suite's limit ended it. A test that never began did
    not run. A test that the suite does not name is an error. None of them is ever taken for a pass.
    """
    results = {
        name: by_test.get(name) or TestResult(name=name, outcome=Outcome.NOT_RUN) for name in suite.tests
    }
    without_end = [name for name in suite.tests if by_test.get(name) is None]
    if cut_short and without_end:
        running = next((name for name in without_end if name in by_test), without_end[0])
        message = f"was running when the suite {cut_short}"
        results[running] = TestResult(
            name=running, outcome=Outcome.FAIL, message=message, out_of_time=out_of_time
        )
    of_suite = [result.with_values(subject=suite.get_subject(name)) for name, result in results.items()]
    return of_suite + [
        TestResult(name=name, outcome=Outcome.ERROR, message="ran, but suite.toml does not name it")
        for name in by_test
        if name not in suite.tests
    ]
