"""Tarballs of npm packages, and a stand-in for npm whose registry is a folder of them."""

import base64
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab.builds import node

NATIVE_FILE = "package/boxlite.linux-x64-gnu.node"

# Answers as npm does. $SHELF has FILE.tgz and FILE.tgz.integrity for each version, and PACKAGE.versions.
STAND_IN = """#!/bin/sh
echo "$@" >>"$SHELF/calls"
what=$1 spec=$2
for word in "$@"; do case $word in --pack-destination=*) to=${word#*=} ;; esac; done
name=$(echo "${spec#@}" | sed 's|/|-|; s|@.*||') version=${spec##*@}
if test "$what" = pack; then cp "$SHELF/$name-$version.tgz" "$to" && echo '[{}]'; exit; fi
case $3 in
versions) cat "$SHELF/$name.versions" ;;
dist.integrity) cat "$SHELF/$name-$version.tgz.integrity" ;;
esac
"""


def manifest(name: str = node.PROJECT, version: str = "0.10.0", **other: Any) -> dict[str, Any]:
    found = {"name": name, "version": version, "engines": {"node": ">=18.0.0"}, **other}
    if name == node.PROJECT:
        found.setdefault("optionalDependencies", {node.NATIVE: version})
    return found


def tarball(folder: Path, said: dict[str, Any] | None = None, more: dict[str, bytes] | None = None) -> Path:
    """A tarball of the package with this manifest, under the name that `npm pack` gives it."""
    said = manifest() if said is None else said
    file = folder / node.file_name(said["name"], said["version"])
    with tarfile.open(file, "w:gz") as tar:
        for name, content in {"package/package.json": json.dumps(said).encode(), **(more or {})}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file


def integrity(file: Path) -> str:
    return f"sha512-{base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()}"


class Registry:
    """A folder of tarballs that a stand-in for npm answers from."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shelf = folder / "shelf"
        programs = folder / "programs"
        for each in (self.shelf, programs):
            each.mkdir()
        (programs / "npm").write_text(STAND_IN)
        (programs / "npm").chmod(0o755)
        monkeypatch.setenv("SHELF", str(self.shelf))
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        node._versions.cache_clear()

    def has(self, said: dict[str, Any], more: dict[str, bytes] | None = None) -> Path:
        """Publish a package."""
        file = tarball(self.shelf, said, more)
        file.with_name(f"{file.name}.integrity").write_text(json.dumps(integrity(file)))
        known = self.shelf / f"{node.file_name(said['name'], '').removesuffix('-.tgz')}.versions"
        versions = json.loads(known.read_text()) if known.exists() else []
        known.write_text(json.dumps([*versions, said["version"]]))
        return file

    @property
    def calls(self) -> list[str]:
        log = self.shelf / "calls"
        return log.read_text().splitlines() if log.exists() else []
