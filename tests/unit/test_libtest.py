"""Reading the report of nextest's runner, with lines as nextest 0.9.148 wrote them."""

import json

import pytest

from lab.builds import rust
from lab.record import Outcome, TestResult

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
    return json.dumps({"type": "ending", "name": f"boxlite::jailer${name}", "how": how})


def read(*lines: str) -> dict[str, TestResult | None] | None:
    return rust.read_results("".join(f"{line}\n" for line in ['{"type": "limit", "seconds": 12}', *lines]))


def message(*lines: str) -> str:
    found = read(SUITE, event("it", "started"), *lines)
    assert found is not None
    result = found["it"]
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
    said = message(event("it", "failed", stdout=f"some output{PANIC}"), ending("it", "exit code 101"))
    assert said == PANIC.strip().partition("\nnote:")[0].replace(" (17449)", "")
    older = PANIC.replace(" (17449)", "")
    assert message(event("it", "failed", stdout=older)) == said
    twice = PANIC.replace("one", "another") + PANIC + "stack backtrace:\n   0: __rustc::rust_begin_unwind\n"
    assert message(event("it", "failed", stdout=twice)) == said


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("process aborted with signal 11 (SIGSEGV)", "was ended by SIGSEGV"),
        ("process aborted with signal 31", "was ended by SIGSYS"),
        ("process aborted with signal 99", "was ended by signal 99"),
        ("test failure with exit code 7", "ended with exit status 7"),
        ("test failure with exit code 101", "some output"),
    ],
)
def test_how_a_test_ended_is_told(how: str, said: str) -> None:
    output = "some output" if said == "some output" else ""
    assert message(event("it", "failed", stdout=output), ending("it", how)) == said


def test_a_limit_is_told_in_the_words_by_which_the_verdict_knows_it() -> None:
    failed = event("it", "failed", reason="time limit exceeded")
    assert message(failed, ending("it", "test timeout")) == "was killed at its time limit of 12 s"


def test_what_the_harness_prints_before_a_test_is_not_its_output() -> None:
    lines = (
        event("it", "failed", stdout="test it ... "),
        ending("it", "process aborted with signal 6 (SIGABRT)"),
    )
    assert message(*lines) == "was ended by SIGABRT"


def test_without_a_word_it_just_failed() -> None:
    assert message(event("it", "failed", stdout="")) == "failed"


def test_what_a_guest_wrote_into_it_is_harmless() -> None:
    said = message(event("it", "failed", stdout="\x1b[31mred\x1b[0m \u202e" + "x" * 100_000))
    assert len(said) <= 20_000
    assert "\x1b" not in said
    for line, why in {
        "no JSON": "Expecting value",
        "[]": "a line is no JSON object",
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
