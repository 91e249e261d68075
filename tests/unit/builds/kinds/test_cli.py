"""The kind of build `cli`: boxlite's command line program."""

import platform
import shutil
from pathlib import Path

import pytest

from lab import builds
from lab.base.activity import UNWATCHED
from lab.base.errors import NotApplicable, UsageError
from lab.base.paths import Paths
from lab.builds import elf, sandbox, wheels
from lab.catalog import load_suite
from tests.builders import packages
from tests.builders.facts import executable, facts

SUITE = load_suite("cli")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that says what boxlite says of its version."""
    file = tmp_path / "boxlite"
    shutil.copy(shutil.which("true") or "", file)
    monkeypatch.setattr(sandbox, "run_in_sandbox", lambda *_, **__: "boxlite 0.10.8\n")
    return file


def test_a_program_is_named_by_its_version_and_content(program: Path) -> None:
    build = builds.resolve_build(f"cli:{program}")
    assert build.version == "0.10.8"
    assert build.name.startswith("cli-0.10.8@")
    assert build.suite == SUITE
    assert builds.resolve_build(build.argument) == build
    program.write_bytes(program.read_bytes() + b"more")
    assert builds.resolve_build(build.argument).name != build.name


def test_a_guest_gets_the_program_and_pytest_for_its_own_python(
    program: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "pytest-8.4-py3-none-any.whl"
    pythons: list[str] = []

    def download(_paths: Paths, _required: object, python: str, _machine: str, _say: object) -> dict[str, Path]:
        pythons.append(python)
        return {wheel.name: wheel}

    monkeypatch.setattr(wheels, "download_wheels", download)
    files = builds.resolve_build(f"cli:{program}").fetch(paths, facts(python="3.9"), UNWATCHED)
    assert files == {"boxlite": program, wheel.name: wheel}
    assert pythons == ["3.9"]


@pytest.mark.parametrize(
    ("host", "processor", "guest"),
    [("x86_64", packages.AARCH64, "aarch64"), ("aarch64", packages.X86_64, "x86_64")],
)
def test_a_program_for_another_processor_is_not_started_here(
    host: str, processor: int, guest: str, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise AssertionError("the program is started")

    monkeypatch.setattr(sandbox, "run_in_sandbox", fail)
    monkeypatch.setattr(platform, "machine", lambda: host)
    monkeypatch.setattr(wheels, "download_wheels", lambda *_: {})
    file = executable(tmp_path / "boxlite", packages.elf(machine=processor))
    build = builds.resolve_build(f"cli:{file}")
    assert build.name.startswith("cli@")
    assert list(build.remarks) == [
        "the program is for another processor than this host's, so the lab did not ask it for its version"
    ]
    assert builds.resolve_build(build.argument) == build
    with pytest.raises(UsageError, match="has no version that a release could be older than"):
        builds.find_previous_release(build)
    files = build.fetch(paths, facts(arch=guest), UNWATCHED)
    elf.check_files(files, facts(arch=guest))
    with pytest.raises(NotApplicable, match="boxlite is for the processor EM_"):
        elf.check_files(files, facts(arch=host))


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (b"", 0o755, "which tells its version"),
        (packages.elf(), 0o755, "which tells its version"),
        (b"#!/bin/sh\nuname\n", 0o755, "which tells its version; it said 'Linux"),
        (b"#!/bin/sh\necho boxlite 0.10.8\n", 0o644, "it is not executable"),
        (None, 0, "no such file"),
    ],
)
def test_a_wrong_program_is_wrong_usage(
    tmp_path: Path, content: bytes | None, mode: int, expected: str
) -> None:
    file = tmp_path / "boxlite"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(UsageError, match=f"boxlite: expected boxlite's command line program.*{expected}"):
        builds.resolve_build(f"cli:{file}")
