"""What builds are made of, tiny: wheels, ELF files, npm packages and their registry."""

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import parse_wheel_filename

from lab.base import process
from lab.builds import wheels
from lab.builds.kinds import npm

PURE = "py3-none-any"

X86_64, AARCH64 = 62, 183
STRTAB, VERNEED = 3, 0x6FFFFFFE


NATIVE_FILE = "package/boxlite.linux-x64-gnu.node"

# Fetches as npm does: $SHELF has FILE.tgz for each version, and the calls.
STAND_IN = """#!/bin/sh
echo "$@" >>"$SHELF/calls"
spec=$2
for word in "$@"; do case $word in --pack-destination=*) to=${word#*=} ;; esac; done
name=$(echo "${spec#@}" | sed 's|/|-|; s|@.*||') version=${spec##*@}
cp "$SHELF/$name-$version.tgz" "$to" 2>&1 || { echo "npm error code ETARGET"; exit 1; }
"""


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *needs: str,
    tags: str = PURE,
    extras: Sequence[str] = (),
    python: str = "",
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel with nothing but a module, its METADATA and the files in `more`."""
    project = name.replace("-", "_")
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}"] if python else []
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {need}" for need in needs]
    information = f"{project}-{version}.dist-info"
    path = folder / f"{project}-{version}-{tags}.whl"
    files = {
        f"{project}/__init__.py": b"",
        f"{information}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{information}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n".encode(),
        f"{information}/RECORD": b"",
        **(more or {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return path


class StandIn:
    """Stands for uv and pip, with an index that is a folder of wheels: all of them are chosen.

    `calls` are their commands. `fails` has what is printed by those that fail, by their words: "compile",
    "download" or "versions".
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *released: str) -> None:
        self.folder, self.released = folder, released
        self.calls: list[list[str]] = []
        self.fails: dict[str, str] = {}
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(process, "run_command", self.run)
        wheels.read_versions.cache_clear()

    def run(self, command: Sequence[str | Path], **_: object) -> str:
        words = [str(word) for word in command]
        options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        [what] = {"compile", "download", "versions", "config"} & set(words)
        if what == "config":
            return ""
        self.calls.append(words)
        if what == "compile" and what not in self.fails:
            Path(options["--output-file"]).write_text("".join(map(_pin, self.folder.iterdir())))
        elif what == "download":
            shutil.copytree(self.folder, options["--dest"], dirs_exist_ok=True)
        if what in self.fails:
            raise process.CommandFailed(words, "exit status 1", self.fails[what])
        # Warnings are among the lines.
        return f"WARNING: Cache entry ignored\n{json.dumps({'name': 'boxlite', 'versions': self.released})}\n"


def _pin(wheel: Path) -> str:
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def elf(
    *,
    versions: Mapping[str, Sequence[str]] | None = None,
    weak: Sequence[str] = (),
    machine: int = X86_64,
) -> bytes:
    """An ELF file with these versions of symbols, by library."""
    strings = bytearray(b"\0")
    sections = [(0, b"", 0, 0), (STRTAB, b"", 0, 0)]
    if versions:
        sections.append((VERNEED, _needed(versions, weak, strings), 1, len(versions)))
    sections[1] = (STRTAB, bytes(strings), 0, 0)
    body, headers = bytearray(64), bytearray()
    for kind, content, link, info in sections:
        headers += struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, len(body), len(content), link, info, 4, 0)
        body += content + bytes(-len(content) % 8)
    body[:64] = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, 0, 3, machine, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(sections), 1),
    )
    return bytes(body + headers)


def _needed(versions: Mapping[str, Sequence[str]], weak: Sequence[str], strings: bytearray) -> bytes:
    def place(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    needed = b""
    for number, (library, names) in enumerate(versions.items(), 1):
        size = 16 * (1 + len(names))
        following = size if number < len(versions) else 0
        needed += struct.pack("<HHIII", 1, len(names), place(library), 16, following)
        for name in names:
            last = name == names[-1]
            needed += struct.pack("<IHHII", 0, 2 if name in weak else 0, 2, place(name), 0 if last else 16)
    return needed


def manifest(name: str = npm.PROJECT, version: str = "0.10.0", **other: Any) -> dict[str, Any]:
    values = {"name": name, "version": version, "engines": {"node": ">=18.0.0"}, **other}
    if name == npm.PROJECT:
        values.setdefault("optionalDependencies", dict.fromkeys(npm.NATIVE.values(), version))
    return values


def tarball(folder: Path, values: dict[str, Any] | None = None, more: dict[str, bytes] | None = None) -> Path:
    """A tarball of the package with this manifest, under the name that `npm pack` gives it."""
    values = manifest() if values is None else values
    file = folder / npm.file_name(values["name"], values["version"])
    with tarfile.open(file, "w:gz") as tar:
        for name, content in {"package/package.json": json.dumps(values).encode(), **(more or {})}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file


class Registry:
    """A folder of tarballs that a stand-in for npm answers from."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shelf = folder / "shelf"
        programs = folder / "programs"
        for made in (self.shelf, programs):
            made.mkdir()
        (programs / "npm").write_text(STAND_IN)
        (programs / "npm").chmod(0o755)
        monkeypatch.setenv("SHELF", str(self.shelf))
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    @property
    def calls(self) -> list[str]:
        log = self.shelf / "calls"
        return log.read_text().splitlines() if log.exists() else []


def deb(data: bytes, control: bytes = b"") -> bytes:
    """A package of Debian's of two tars: what it has for the system, and what it says of itself for dpkg."""
    text = b"Package: linux-image\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
    entry = tarfile.TarInfo("./control")
    entry.size = len(text)
    control = control or entry.tobuf() + text + bytes(-len(text) % 512 + 1024)
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(control),
        "data.tar.gz": gzip.compress(data),
    }
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts += [b"%-16s0           0     0     100644  %-10d`\n" % (name.encode(), len(content)), content]
        parts += [b"\n" * (len(content) % 2)]
    return b"".join(parts)
