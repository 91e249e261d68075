"""An executable that `cargo test --no-run` made: upstream's own tests, run by nextest."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lab.base.paths import Paths
from lab.builds import nextest, sandbox
from lab.builds._base import FILES
from lab.builds.arguments import Words
from lab.builds.nextest import MANIFEST, Unpacked
from lab.builds.rust import EXECUTABLE, RustTests, below, suite_of

# Where a guest has the workspace, unless `at` says so: a lone executable does not tell where it was built.
PLACE = "/opt/boxlite"
# The package that the tests are said to be of, as upstream's is: they run in its folder.
PACKAGE, FOLDER = "boxlite", "src/boxlite"
VERSION = "0.0.0"
# Cargo puts a hash behind the name of an executable.
HASH = re.compile(r"-[0-9a-f]{16}$")
# A lone executable has the tests of one suite, unless `filter` chooses some of them.
EVERY = "all()"
IN_WORKSPACE = "target/debug/deps/tests"


@dataclass(frozen=True)
class TestBinary(RustTests):
    """The executable `words.file`. nextest runs it by metadata that the lab writes in Cargo's place."""

    form = "test-binary:FILE"

    @classmethod
    def parse(cls, text: str) -> Self:
        words = Words.parse("test-binary", text)
        nextest.check_executable(words.file, "a test binary")
        program, where = words.program(Paths.default()), words.at or PLACE
        name = HASH.sub("", words.file.name)
        with sandbox.folder() as folder:
            for path, content in _texts(name, str(folder)).items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(content)
            tests = folder / IN_WORKSPACE
            tests.parent.mkdir(parents=True)
            shutil.copy(words.file, tests)
            unpacked = Unpacked(folder, _cargo_metadata(name, str(folder)), {f"{PACKAGE}::{name}": tests})
            listing = nextest.list_tests(program, unpacked, words.choice(words.filter or EVERY))
        names = listing.names()
        files = {EXECUTABLE: words.file}
        more = {**files, **below(words.runtime, "runtime"), **below(words.cache, "cache")}
        digest = words.digest(more, where, name)
        return cls(
            f"test-binary{words.series}@{digest}",
            VERSION,
            suite=suite_of(words, names),
            words=words,
            place=where,
            filter=words.filter or EVERY,
            expressions=names,
            files=files,
        )

    @property
    def argument(self) -> str:
        return self.words.argument("test-binary")

    @property
    def unpacking(self) -> str:
        name = HASH.sub("", self.words.file.name)
        commands = [f"mkdir -p {FOLDER} target/nextest {Path(IN_WORKSPACE).parent}"]
        commands += [
            f"printf %s {shlex.quote(text)} >{path}" for path, text in _texts(name, self.place).items()
        ]
        return " && ".join([*commands, f"cp {FILES}/{EXECUTABLE} {IN_WORKSPACE}", f"chmod 755 {IN_WORKSPACE}"])


def _texts(name: str, workspace: str) -> dict[str, str]:
    """The files that nextest needs beside the executable, by their paths in the workspace."""
    return {
        MANIFEST: f'[workspace]\nmembers = ["{FOLDER}"]\n',
        f"{FOLDER}/{MANIFEST}": f'[package]\nname = "{PACKAGE}"\nversion = "{VERSION}"\n',
        "target/nextest/cargo-metadata.json": json.dumps(_cargo_metadata(name, workspace)),
        "target/nextest/binaries-metadata.json": json.dumps(_binaries_metadata(name, workspace)),
    }


def _package(workspace: str) -> str:
    return f"path+file://{workspace}/{FOLDER}#{VERSION}"


def _cargo_metadata(name: str, workspace: str) -> dict[str, Any]:
    """What `cargo metadata` would print, as far as nextest reads it."""
    package = _package(workspace)
    target = {
        "kind": ["test"],
        "crate_types": ["bin"],
        "name": name,
        "src_path": f"{workspace}/{FOLDER}/tests/{name}.rs",
        "edition": "2021",
        "doc": False,
        "doctest": False,
        "test": True,
    }
    described = {
        "name": PACKAGE,
        "version": VERSION,
        "id": package,
        "dependencies": [],
        "targets": [target],
        "features": {},
        "manifest_path": f"{workspace}/{FOLDER}/{MANIFEST}",
        "edition": "2021",
    }
    return {
        "packages": [described],
        "workspace_members": [package],
        "resolve": {"nodes": [{"id": package, "dependencies": [], "deps": [], "features": []}], "root": None},
        "target_directory": f"{workspace}/target",
        "version": 1,
        "workspace_root": workspace,
    }


def _binaries_metadata(name: str, workspace: str) -> dict[str, Any]:
    """What nextest keeps of the binaries that it had Cargo build."""
    platform = {
        "platform": {"triple": "x86_64-unknown-linux-gnu", "target-features": "unknown"},
        "libdir": {"status": "unavailable", "reason": "not-in-archive"},
    }
    about = {
        "target-directory": f"{workspace}/target",
        "base-output-directories": ["debug"],
        "non-test-binaries": {},
        "build-script-out-dirs": {},
        "linked-paths": [],
        "platforms": {"host": platform, "targets": []},
        "target-platforms": [platform["platform"]],
        "target-platform": None,
    }
    binary = {
        "binary-id": f"{PACKAGE}::{name}",
        "binary-name": name,
        "package-id": _package(workspace),
        "kind": "test",
        "binary-path": f"{workspace}/{IN_WORKSPACE}",
        "build-platform": "target",
    }
    return {"rust-build-meta": about, "rust-binaries": {f"{PACKAGE}::{name}": binary}}
