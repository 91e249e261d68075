"""Reading the report of nextest's runner, with lines as nextest 0.9.148 wrote them."""

import json
import runpy
from pathlib import Path

import pytest

from lab.builds.kinds.nextest import RUNNER, read_results
from lab.record import Outcome, TestResult

RUN_NEXTEST = runpy.run_path(str(RUNNER))
BINARY = '{"crate":"boxlite","test_binary":"jailer","kind":"test"}'
SUITE = f'{{"type":"suite","event":"started","test_count":10,"nextest":{BINARY}}}'
PANIC = (
    "\nthread 'fails' (17449) panicked at src/boxlite/tests/jailer.rs:4:22:\n"
    "assertion `left == right` failed: one is not two\n  left: 1\n right: 2\n"
    "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
)


def event(name: str, what: str, **more: object) -> str:
    return json.dumps({"type": "test", "event": what, "name": f"boxlite::jailer${name}", **more})


def ending(name: str, how: str) -> str:
    return json.dumps({"type": "ending", "name": f"boxlite::jailer${name}", "exit": how})


def read(*lines: str) -> dict[str, TestResult | None] | None:
    return read_results("".join(f"{line}\n" for line in lines))


def message(*lines: str) -> str:
    results = read(SUITE, event("it", "started"), *lines)
    assert results is not None
    result = results["it"]
    assert result is not None
    assert result.outcome is Outcome.FAIL
    return result.message


def test_each_event_is_an_outcome() -> None:
    assert read(
        SUITE,
        event("inner::deep", "started"),
        event("skipped", "started"),
        event("skipped", "ignored"),
        event("inner::deep", "ok", exec_time=0.007861074),
        event("late", "started"),
    ) == {
        "inner::deep": TestResult(name="inner::deep", outcome=Outcome.PASS, seconds=0.01),
        "skipped": TestResult(
            name="skipped", outcome=Outcome.SKIP, message="#[ignore], and it was not asked for"
        ),
        "late": None,
    }


def test_a_runner_that_started_no_test_gives_no_result() -> None:
    assert read() is None
    assert read(SUITE) == {}


def test_a_failure_is_told_by_its_panic_alone() -> None:
    words = message(event("it", "failed", stdout=f"some output{PANIC}"), ending("it", ""))
    assert words == PANIC.strip().partition("\nnote:")[0].replace(" (17449)", "")
    older = PANIC.replace(" (17449)", "")
    assert message(event("it", "failed", stdout=older)) == words
    twice = PANIC.replace("one", "another") + PANIC + "stack backtrace:\n   0: __rustc::rust_begin_unwind\n"
    assert message(event("it", "failed", stdout=twice)) == words


@pytest.mark.parametrize(
    ("kind", "message", "how"),
    [
        ("test abort", "process aborted with signal 11 (SIGSEGV)", "was ended by SIGSEGV"),
        ("test abort", "process aborted with signal 31", "was ended by SIGSYS"),
        ("test abort", "process aborted with signal 99", "was ended by signal 99"),
        ("test failure with exit code 7", "", "ended with exit status 7"),
        ("test failure with exit code 101", "", ""),
        ("test timeout", "", ""),
    ],
)
def test_the_runner_tells_how_a_test_ended(tmp_path: Path, kind: str, message: str, how: str) -> None:
    junit = tmp_path / "junit.xml"
    failure = f'<failure type="{kind}" message="{message}"/>'
    case = f'<testcase name="it">{failure}</testcase><testcase name="other"/>'
    junit.write_text(f'<testsuites><testsuite name="boxlite">{case}</testsuite></testsuites>')
    # JUnit files call a binary by another name than events.
    names = RUN_NEXTEST["names"]
    for kind_of_binary, in_junit in (("test", "boxlite::jailer"), ("bin", "boxlite::bin/jailer")):
        binary = {"crate": "boxlite", "test_binary": "jailer", "kind": kind_of_binary}
        assert names(binary) == (in_junit, "boxlite::jailer")
    library = names({"crate": "boxlite", "test_binary": "boxlite", "kind": "lib"})
    [line] = RUN_NEXTEST["endings"](junit, dict([library]))
    assert json.loads(line) == {"type": "ending", "name": "boxlite::boxlite$it", "exit": how}


def test_a_test_s_end_is_told_behind_its_words() -> None:
    how = "was ended by SIGABRT"
    assert message(event("it", "failed", stdout="some output"), ending("it", how)) == f"some output\n{how}"
    # What the harness prints before a test is not its output.
    assert message(event("it", "failed", stdout="test it ... "), ending("it", how)) == how
    limit = "was killed at its time limit of 12 s"
    assert message(event("it", "failed", reason=limit), ending("it", how)) == limit
    for event_of, is_late in ((event("it", "failed", reason=limit), True), (event("it", "failed"), False)):
        results = read(SUITE, event("it", "started"), event_of)
        assert results and results["it"] and results["it"].out_of_time is is_late
    assert message(event("it", "failed", stdout=""), ending("it", "")) == "failed"


def test_what_a_guest_wrote_into_it_is_harmless() -> None:
    words = message(event("it", "failed", stdout="\x1b[31mred\x1b[0m \u202e" + "x" * 100_000))
    assert len(words) <= 20_000
    assert "\x1b" not in words
    for line, why in {
        "no JSON": "Expecting value",
        "[]": "a line is not a JSON object",
        event("it", "danced"): "it has an event of no known kind: danced",
        event("it", "ok", exec_time=-1): "exec_time",
        event("it", "ok", exec_time=1e300): "seconds",
        '{"type": "test"}': "name",
        "[" * 100_000: "nested too deeply",
    }.items():
        with pytest.raises(ValueError, match=why):
            read(line)
    with pytest.raises(ValueError, match="more than 1000 tests"):
        read(*(event(f"it{number}", "started") for number in range(1001)))
