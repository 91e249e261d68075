"""Rust's tests in real guests: crates whose sandbox tests run bubblewrap, take all memory, or are flaky.

Upstream's own crate has dependencies, which cannot be fetched everywhere; these have none.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.catalog import load_suite
from lab.record import Outcome, RunResult, Status
from tests.builders import rust
from tests.vm.conftest import invoke

pytestmark = [pytest.mark.rust, pytest.mark.timeout(3600)]

# Its glibc is as new as that of the hosts that run these tests.
GUEST = "debian-13"
UPSTREAM = load_suite("upstream-jailer")
# The tests that need the sandbox run bubblewrap, the others do nothing.
SANDBOXED = """
fn sandboxed() {
    let bwrap = ["--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "true"];
    let ended = std::process::Command::new("bwrap").args(bwrap).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}
""" + "\n".join(
    f"#[test] fn {name}() {{ {'sandboxed();' if needs.value == 'sandbox' else ''} }}"
    for name, needs in UPSTREAM.tests.items()
)
# In a guest: its kernel ends the first for want of memory; the second goes by a number that each fork draws.
IN_A_GUEST = """
#[test] fn takes_all_memory() {
    let mut taken = Vec::new();
    loop { taken.push(vec![1u8; 1 << 24]); }
}
#[test] fn is_flaky_by_chance() {
    let drawn = std::fs::read("/proc/sys/kernel/random/uuid").unwrap()[0];
    assert!(drawn % 2 == 0, "drew {}", drawn as char);
}
"""
KILLED = "takes_all_memory"
REPEATS = 12


@pytest.fixture(scope="module")
def own(home: Path, paths: Paths) -> Iterator[Paths]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LAB_HOME", str(home))
        yield paths


@pytest.fixture(scope="module")
def program(own: Paths) -> Path:
    return rust.archiver(own)


def matrix(folder: Path, *words: str) -> RunResult:
    """Run cells without remedies, inside this process."""
    common = ["matrix", "--jobs", "1", "--no-remedies", "--no-experiment", "-o", str(folder)]
    invoke(*common, *words)
    return RunResult.read(folder)


def crate(folder: Path, program: Path, tests: str) -> str:
    """A build of a crate with these tests."""
    made = rust.make(folder, program, tests)
    return f"nextest:{made.archive},at=/opt/boxlite"


def test_what_blocks_the_sandbox_is_found_by_rusts_tests_too(own: Paths, program: Path, tmp_path: Path) -> None:
    build = crate(tmp_path / "crate", program, SANDBOXED)
    words = ["-g", GUEST, "-v", "stock", "-v", "userns-clone-off", "--build", build]
    stock, cell = matrix(own.state / "blocked", *words).cells
    assert stock.status is Status.PASS
    assert {test.outcome for test in stock.tests} == {Outcome.PASS}
    assert (cell.status, cell.cause, cell.verdict.confidence) == (Status.XFAIL, "userns-sysctl", "proved")
    failed = {test.name for test in cell.tests if test.outcome is Outcome.FAIL}
    assert failed == {name for name, needs in UPSTREAM.tests.items() if needs.value == "sandbox"}


def test_a_guest_without_memory_is_no_failure_of_boxlites(own: Paths, program: Path, tmp_path: Path) -> None:
    build = crate(tmp_path / "crate", program, rust.TESTS + IN_A_GUEST)
    killed = f"test(={KILLED}) | test(={UPSTREAM.control}) | test(={UPSTREAM.witness})"
    words = ["-g", GUEST, "-v", "stock", "--build", f"{build},filter={killed}", "--retries", "0"]
    [cell] = matrix(own.state / "memory", *words).cells
    assert cell.status is Status.ERROR
    assert "the guest had no memory left, and its kernel killed jailer-" in cell.reason


def test_forks_draw_their_own_random_numbers(own: Paths, program: Path, tmp_path: Path) -> None:
    """Of twelve repeats, all are even or all are odd once in 2048 times."""
    build = crate(tmp_path / "crate", program, SANDBOXED + IN_A_GUEST)
    words = ["-g", GUEST, "-v", "stock", "--repeat", str(REPEATS)]
    run = matrix(own.state / "flaky", *words, "--build", f"{build},filter=not test(={KILLED})")
    [cell] = run.cells
    assert cell.status is Status.FLAKY
    assert {name for repeat in cell.suite.repeats for name in repeat.failed} == {"is_flaky_by_chance"}
    [rate] = [rate for rate in cell.suite.rates if rate.name == "is_flaky_by_chance"]
    assert rate.ran == REPEATS
    assert rate.failed == len([repeat for repeat in cell.suite.repeats if repeat.failed])
    assert 0 < rate.low < rate.failed / REPEATS < rate.high < 1
