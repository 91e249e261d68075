"""A crate without dependencies whose tests do all that a test can do, as builds of it are tested."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds import sandbox
from lab.builds.kinds import nextest

WORKSPACE = '[workspace]\nmembers = ["src/boxlite"]\nresolver = "2"\n[profile.dev]\ndebug = 0\n'
PACKAGE = '[package]\nname = "boxlite"\nversion = "0.10.8"\nedition = "2021"\n'
TESTS = """
use std::{env, process, thread, time::Duration};
extern "C" { fn raise(signal: i32) -> i32; fn setrlimit(resource: i32, limits: &[u64; 2]) -> i32; }

fn print_10_mb() {
    let line = "x".repeat(99);
    for _ in 0..100_000 { println!("{line}"); }
}

#[test] fn default_security_options_enable_jailer_on_supported_platforms() {}
#[test] fn development_mode_disables_jailer() { print_10_mb(); }
#[test] fn standard_mode_enables_jailer() { print_10_mb(); panic!("after 10 MB"); }
#[test] fn jailer_enabled_box_starts_and_executes() { unsafe { (8 as *mut u32).write_volatile(7) } }
#[test] fn host_network_grants_off_box_starts_and_executes() { unsafe { raise(31); } }
#[test] #[ignore = "needs a VM"] fn jailer_disabled_box_starts_and_executes() {
    assert!(env::current_dir().unwrap().ends_with("src/boxlite"));
}
#[test] fn jailer_creates_isolated_mount_namespace() { assert_eq!(1, 2, "the namespaces are the same"); }
#[test] fn hangs() { thread::sleep(Duration::from_secs(3600)); }
#[test] fn exits() { process::exit(7) }
mod deeper { #[test] fn aborts() { std::process::abort() } }
#[test] fn has_no_memory_left() {
    // RLIMIT_AS: the host keeps its own.
    assert_eq!(unsafe { setrlimit(9, &[1 << 28, 1 << 28]) }, 0);
    let mut taken = Vec::new();
    loop { taken.push(vec![1u8; 1 << 26]); }
}
#[test] fn is_flaky() {
    let seed = env::var("SEED").map_or(2, |seed| seed.parse::<u64>().unwrap());
    assert!(seed % 2 == 0, "with the seed {seed}");
}
"""


@dataclass(frozen=True)
class Crate:
    """The crate's workspace, the archive made of it, and the executable that has its jailer's tests."""

    workspace: Path
    archive: Path
    executable: Path


def cargo() -> str | None:
    return shutil.which("cargo") or shutil.which("cargo", path=Path("~/.cargo/bin").expanduser())


def write(folder: Path, tests: Mapping[str, str], library: str = "") -> None:
    """Write the crate's sources: the texts of its test binaries by their names, and that of its library."""
    package = folder / "src" / "boxlite"
    (package / "tests").mkdir(parents=True)
    (package / "src").mkdir()
    (folder / "Cargo.toml").write_text(WORKSPACE)
    (package / "Cargo.toml").write_text(PACKAGE)
    (package / "src" / "lib.rs").write_text(library)
    for name, text in tests.items():
        (package / "tests" / f"{name}.rs").write_text(text)


def archiver(home: Paths) -> Path:
    """The cargo-nextest that makes archives. Skips the test where it, cargo or a sandbox is missing."""
    if cargo() is None:
        pytest.skip("this host has no cargo to build a crate with")
    try:
        sandbox.check_sandbox()
        return nextest.fetch_nextest(home)
    except LabError as error:
        pytest.skip(f"no cargo-nextest, or no sandbox for what it lists: {error.args[0]}")


def make(
    folder: Path,
    program: Path,
    tests: str = TESTS,
    *,
    others: Mapping[str, str] | None = None,
    library: str = "",
) -> Crate:
    """Build the crate and archive its tests: those of the jailer, and those in `others` and in the library."""
    write(folder, {"jailer": tests, **(others or {})}, library)
    archive = folder / "jailer.tar.zst"
    path = f"{Path(cargo() or '').parent}:{os.environ['PATH']}"
    which = "--tests" if others or library else "--test=jailer"
    command = [str(program), "nextest", "archive", "--offline", which, f"--archive-file={archive}"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    deps = folder / "target" / "debug" / "deps"
    [executable] = [file for file in deps.glob("jailer-*") if not file.suffix]
    return Crate(folder, archive, executable)
