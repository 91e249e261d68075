"""The kind of build `cli`: boxlite's command line program."""

import shutil
from pathlib import Path

import pytest

from lab import builds
from lab.base.errors import NotApplicable, UsageError
from lab.base.paths import Paths
from lab.builds import elf, sandbox, wheels
from lab.catalog import load_suite
from tests.builders import packages
from tests.builders.facts import facts

SUITE = load_suite("cli")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that says what boxlite says of its version."""
    file = tmp_path / "boxlite"
    shutil.copy(shutil.which("true") or "", file)
    monkeypatch.setattr(sandbox, "run", lambda *_, **__: "boxlite 0.10.8\n")
    return file


def test_a_program_is_named_by_its_version_and_content(program: Path) -> None:
    build = builds.resolve(f"cli:{program}")
    assert build.version == "0.10.8"
    assert build.name.startswith("cli-0.10.8@")
    assert build.suite == SUITE
    assert builds.resolve(build.argument) == build
    program.write_bytes(program.read_bytes() + b"more")
    assert builds.resolve(build.argument).name != build.name


def test_a_guest_gets_the_program_and_pytest_for_its_own_python(
    program: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "pytest-8.4-py3-none-any.whl"
    pythons: list[str] = []

    def download(_paths: Paths, _required: object, python: str, _say: object) -> dict[str, Path]:
        pythons.append(python)
        return {wheel.name: wheel}

    monkeypatch.setattr(wheels, "download", download)
    files = builds.resolve(f"cli:{program}").fetch(paths, facts(python="3.9"), lambda _text: None)
    assert files == {"boxlite": program, wheel.name: wheel}
    assert pythons == ["3.9"]


def test_a_program_that_needs_a_newer_glibc_is_not_applicable(tmp_path: Path) -> None:
    file = tmp_path / "boxlite"
    file.write_bytes(packages.elf(versions={"libc.so.6": ["GLIBC_2.39"]}))
    with pytest.raises(NotApplicable, match=r"boxlite needs glibc 2\.39, and the guest has 2\.31"):
        elf.check({"boxlite": file}, facts(glibc="2.31"))


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (b"#!/bin/sh\necho boxlite 0.10.8\n", 0o755, "boxlite's command line program.* it is no ELF file"),
        (b"", 0o755, "it is no ELF file"),
        (packages.elf(machine=packages.AARCH64), 0o755, "program for the processor EM_AARCH64"),
        (packages.elf(), 0o755, "expected boxlite's command line program, which tells its version"),
        (packages.elf(), 0o644, "it is not executable"),
        ("uname", 0o755, "boxlite's command line program, which tells its version; it said 'uname"),
        (None, 0, "boxlite's command line program: No such file"),
    ],
)
def test_a_wrong_program_is_wrong_usage(
    tmp_path: Path, content: bytes | str | None, mode: int, expected: str
) -> None:
    file = tmp_path / "boxlite"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        shutil.copy(shutil.which(content) or "", file)
    if content is not None:
        file.chmod(mode)
    with pytest.raises(UsageError, match=expected):
        builds.resolve(f"cli:{file}")
