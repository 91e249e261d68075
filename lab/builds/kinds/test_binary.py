"""An executable that `cargo test --no-run` made: upstream's own tests, run as those of an archive."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from lab.base.architecture import ARCHITECTURES
from lab.base.errors import UsageError
from lab.builds import elf
from lab.builds.kinds.nextest import Nextest, NextestWords, Unpacked, read_workspace

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
    def read(cls, words: NextestWords, file: Path, **more: Any) -> Self:
        needs = () if file.is_dir() else elf.read_needs(file)
        if not needs or needs[0].processor not in {arch.elf for arch in ARCHITECTURES.values()}:
            raise UsageError(f"{file}: expected a test binary, a program for x86-64 or arm64 Linux")
        build = super().read(words, file, **more)
        # Its version is not known.
        return replace(build, name=build.name.replace(f"-{VERSION}@", "@"))

    @staticmethod
    def unpack(file: Path, folder: Path) -> Unpacked:
        path, metadata = f"debug/deps/{file.name}", folder / "target" / "nextest"
        tests = folder / "target" / path
        for parent in (tests.parent, metadata):
            parent.mkdir(parents=True)
        shutil.copy(file, tests)
        tests.chmod(0o755)
        for name, document in _metadata(HASH.sub("", file.name), f"{PLACE}/target/{path}").items():
            (metadata / f"{name}-metadata.json").write_text(json.dumps(document))
        return read_workspace(folder)


def _metadata(name: str, path: str) -> dict[str, Any]:
    """What `cargo metadata` would print, and what nextest keeps of the binaries that it had Cargo build.

    Only what nextest needs of it is there.
    """
    target = {
        "name": name,
        "kind": ["test"],
        "crate_types": ["bin"],
        "src_path": f"{FOLDER}/tests/{name}.rs",
    }
    package = {
        "name": PACKAGE,
        "version": VERSION,
        "id": PACKAGE_ID,
        "dependencies": [],
        "targets": [target],
        "features": {},
        "manifest_path": f"{FOLDER}/Cargo.toml",
    }
    node = {"id": PACKAGE_ID, "dependencies": [], "deps": [], "features": []}
    cargo = {
        "packages": [package],
        "workspace_members": [PACKAGE_ID],
        "resolve": {"nodes": [node], "root": None},
        "target_directory": f"{PLACE}/target",
        "version": 1,
        "workspace_root": PLACE,
    }
    binary = {
        "binary-id": f"{PACKAGE}::{name}",
        "binary-name": name,
        "package-id": PACKAGE_ID,
        "kind": "test",
        "binary-path": path,
        "build-platform": "target",
    }
    about = {
        "target-directory": f"{PLACE}/target",
        "base-output-directories": ["debug"],
        "non-test-binaries": {},
        "linked-paths": [],
    }
    binaries = {"rust-build-meta": about, "rust-binaries": {f"{PACKAGE}::{name}": binary}}
    return {"cargo": cargo, "binaries": binaries}
