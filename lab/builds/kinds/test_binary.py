"""An executable that `cargo test --no-run` made: upstream's own tests, run as those of an archive."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.builds import elf, upstream_tests
from lab.builds.kinds.nextest import Nextest
from lab.builds.upstream_tests import MANIFEST, Unpacked, Words

# Where a guest has the workspace, unless `at` says so: a lone executable does not tell where it was built.
PLACE = "/opt/boxlite"
# The package that the tests are said to be of, as upstream's is: they run in its folder.
PACKAGE, FOLDER, VERSION = "boxlite", f"{PLACE}/src/boxlite", "0.0.0"
PACKAGE_ID = f"path+file://{FOLDER}#{VERSION}"
# Cargo puts a hash behind the name of an executable.
HASH = re.compile(r"-[0-9a-f]{16}$")


@dataclass(frozen=True)
class TestBinary(Nextest):
    """The executable `file`. nextest runs it by metadata that the lab writes in Cargo's place."""

    form = "test-binary:FILE"
    kind = "test-binary"
    # A lone executable has the tests of one suite, unless `filter` chooses some of them.
    usual_filter = "all()"

    @classmethod
    def read(cls, words: Words, file: Path) -> dict[str, Any]:
        elf.check_program(file, "a test binary")
        build = super().read(words, file)
        # Its version is not known.
        return {**build, "name": build["name"].replace(f"-{VERSION}@", "@")}

    @classmethod
    def unpack(cls, file: Path, folder: Path) -> Unpacked:
        name = HASH.sub("", file.name)
        tests = folder / "target" / "debug" / "deps" / file.name
        metadata = folder / "target" / "nextest"
        for parent in (tests.parent, metadata):
            parent.mkdir(parents=True)
        shutil.copy(file, tests)
        tests.chmod(0o755)
        (metadata / "cargo-metadata.json").write_text(json.dumps(_cargo_metadata(name)))
        built = _binaries_metadata(name, f"{PLACE}/{tests.relative_to(folder)}")
        (metadata / "binaries-metadata.json").write_text(json.dumps(built))
        return upstream_tests.read_workspace(folder)


def _cargo_metadata(name: str) -> dict[str, Any]:
    """What `cargo metadata` would print, as far as nextest reads it."""
    target = {
        "kind": ["test"],
        "crate_types": ["bin"],
        "name": name,
        "src_path": f"{FOLDER}/tests/{name}.rs",
        "edition": "2021",
        "doc": False,
        "doctest": False,
        "test": True,
    }
    package = {
        "name": PACKAGE,
        "version": VERSION,
        "id": PACKAGE_ID,
        "dependencies": [],
        "targets": [target],
        "features": {},
        "manifest_path": f"{FOLDER}/{MANIFEST}",
        "edition": "2021",
    }
    node = {"id": PACKAGE_ID, "dependencies": [], "deps": [], "features": []}
    return {
        "packages": [package],
        "workspace_members": [PACKAGE_ID],
        "resolve": {"nodes": [node], "root": None},
        "target_directory": f"{PLACE}/target",
        "version": 1,
        "workspace_root": PLACE,
    }


def _binaries_metadata(name: str, path: str) -> dict[str, Any]:
    """What nextest keeps of the binaries that it had Cargo build."""
    platform = {
        "platform": {"triple": "x86_64-unknown-linux-gnu", "target-features": "unknown"},
        "libdir": {"status": "unavailable", "reason": "not-in-archive"},
    }
    about = {
        "target-directory": f"{PLACE}/target",
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
        "package-id": PACKAGE_ID,
        "kind": "test",
        "binary-path": path,
        "build-platform": "target",
    }
    return {"rust-build-meta": about, "rust-binaries": {f"{PACKAGE}::{name}": binary}}
