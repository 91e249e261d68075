"""Running a build's suite in a guest, under a variant and a time limit, and telling what came of each test."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from lab.base.errors import LabError
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.catalog import Suite, Variant
from lab.guest.session import Session
from lab.guest.variant import as_run, home, login, under
from lab.record import Outcome, TestResult

KILLED = 137  # by SIGKILL, which `timeout` sends when its first signal was not enough
TIMED_OUT = 124
# The variable that has the container of a variant take standard input; see remote/knobs/container.py.
STDIN = "LAB_STDIN"


class SuiteBroken(LabError):
    """No test began: a fault of the lab, whatever the variant."""


@dataclass(frozen=True)
class SuiteRun:
    """What one run of the suite gave: a result for each test; `killed` if its limit ended it."""

    tests: list[TestResult]
    killed: bool


def run(
    session: Session,
    build: Build,
    variant: Variant,
    *,
    factor: float,
    options: SuiteOptions = WHOLE_SUITE,
) -> SuiteRun:
    """Run the build's suite under its time limit. A killed suite keeps the results of the tests that ended.

    Raises SuiteBroken if no test even began.
    """
    suite = build.suite
    limit = suite.suite_seconds * factor
    results = folder(variant)
    wanted = command(build, variant, factor=factor, options=options)
    report_file = build.report_file(results)
    # Another run in this fork may have left a report, and a runner that does not even start leaves none.
    script = (
        f"mkdir -p {results}; rm -f {report_file}; "
        f"({in_state_of_tests(build, variant, wanted, options.environment)}) >{results}/suite.log 2>&1; "
        f"echo $?; cat {report_file} 2>/dev/null || true"
    )
    output = session.run(
        as_run(variant, script),
        seconds=suite.suite_seconds + 30 / factor + 10,
        user=login(variant),
    )
    status, _, report = output.stdout.partition("\n")
    began = build.read_report(report)
    killed = int(status) in (TIMED_OUT, KILLED)
    if not killed and not began:
        printed = session.run(f"sudo -n tail -n 30 {results}/suite.log", seconds=10).stdout
        raise SuiteBroken(f"no test ran in the guest (exit status {status}):\n{printed}")
    ran = suite.only(options.tests) if options.tests else suite
    return SuiteRun(complete(ran, began, killed=killed, limit=limit), killed)


def command(build: Build, variant: Variant, *, factor: float, options: SuiteOptions = WHOLE_SUITE) -> str:
    """The command that runs the suite under its time limit, for a shell in the state that tests see."""
    suite = build.suite
    wanted = build.command(options, results=folder(variant), test_seconds=suite.test_seconds * factor)
    return f"timeout --kill-after=5 {suite.suite_seconds * factor:.0f} {wanted}"


def in_state_of_tests(
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
    before = under(variant)
    if before and stdin:
        before, words = f"env {STDIN}=1 {before}", ["-u", STDIN, *words]
    return " ".join(filter(None, [f"cd {build.working_folder} && exec", before, "env", *words, command]))


def folder(variant: Variant) -> str:
    """Where in the guest the suite's results go."""
    return f"{home(variant)}/results"


def complete(
    suite: Suite, began: Mapping[str, TestResult | None], *, killed: bool, limit: float = 0.0
) -> list[TestResult]:
    """One result for each test that the suite names, in its order, from those of the tests that began.

    The first test without an end was running when the suite was killed: it failed. A test that never began did
    not run. A test that the suite does not name is an error. None of them is ever taken for a pass.
    """
    results = []
    hung = False
    for name in suite.tests:
        ended = began.get(name)
        if ended:
            results.append(ended)
        elif killed and not hung:
            hung = True
            message = f"was running when the suite was killed at its limit of {limit:.0f} s"
            results.append(TestResult(name=name, outcome=Outcome.FAIL, message=message))
        else:
            results.append(TestResult(name=name, outcome=Outcome.NOT_RUN))
    return results + [
        TestResult(name=name, outcome=Outcome.ERROR, message="ran, but suite.toml does not name it")
        for name in began
        if name not in suite.tests
    ]
