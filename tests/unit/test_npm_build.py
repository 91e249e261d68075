"""The kind of build `npm`: releases and tarballs of `npm pack`, with Node of the distribution."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab import builds
from lab.base import process
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.paths import Paths
from lab.builds import elf
from lab.builds.kinds import npm
from lab.builds.kinds.npm import Npm
from lab.lane import upkeep
from lab.probes import Facts
from tests.builders import packages
from tests.builders.facts import facts
from tests.builders.packages import NATIVE_FILE, Registry, manifest, tarball


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    served = Registry(tmp_path, monkeypatch)
    served.has(manifest())
    served.has(manifest(npm.NATIVE), {NATIVE_FILE: packages.elf(versions={"libc.so.6": ["GLIBC_2.28"]})})
    return served


def of(identity: str, codename: str | None, name: str) -> Facts:
    debian = facts()
    system = {"id": identity, "version_codename": codename, "pretty_name": name}
    return debian.model_copy(update={"os": debian.os.model_copy(update=system)})


TRIXIE = of("debian", "trixie", "Debian GNU/Linux 13 (trixie)")
BULLSEYE = of("debian", "bullseye", "Debian GNU/Linux 11 (bullseye)")
FEDORA = of("fedora", None, "Fedora Linux 44")


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Debian's packages without a mirror; the commands that fetched them."""
    versions = {"trixie": "20.19.2+dfsg-1+deb13u3", "bullseye": "12.22.12~dfsg-1~deb11u7"}
    commands: list[list[str]] = []

    def run(command: list[str], **more: Any) -> str:
        if command[0] != "mmdebstrap":
            return process_run(command, **more)
        commands.append([str(word) for word in command])
        suite = command[-2]
        archive = Path(next(word for word in command if "tar-out" in word).split()[-1])
        folder = archive.parent / "debs"
        (folder / "partial").mkdir(parents=True)
        names = [f"nodejs_{versions[suite]}_amd64.deb", "libuv1_1.50.0-2_amd64.deb"]
        for name in names:
            (folder / name).write_text("a package")
        process_run(["tar", "-cf", archive, "-C", folder, "."], timeout=10)
        process_run(["rm", "-r", folder], timeout=10)
        return ""

    process_run = process.run
    monkeypatch.setattr(process, "run", run)
    return commands


@pytest.fixture(autouse=True)
def no_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "pytest-9.0-py3-none-any.whl"
    wheel.touch()
    monkeypatch.setattr(npm, "runner", lambda *_: [wheel])


def quiet(_text: str) -> None:
    pass


def test_a_release_is_fetched_with_its_native_package_once(paths: Paths, registry: Registry) -> None:
    build = builds.resolve("npm:0.10.0")
    assert (build.name, build.version, build.argument) == ("npm-0.10.0", "0.10.0", "npm:0.10.0")
    build.check(paths)
    asked = len(registry.calls)
    assert [file.name for file in npm.tarballs(paths, "0.10.0", quiet)] == [
        "boxlite-ai-boxlite-0.10.0.tgz",
        "boxlite-ai-boxlite-linux-x64-gnu-0.10.0.tgz",
    ]
    assert len(registry.calls) == asked


def test_a_guest_gets_tarballs_and_node(paths: Paths, registry: Registry, debian: list[list[str]]) -> None:
    build = builds.resolve("npm:0.10.0")
    files = build.fetch(paths, TRIXIE, quiet)
    assert list(files) == [
        "main.tgz",
        "native.tgz",
        "node/libuv1_1.50.0-2_amd64.deb",
        "node/nodejs_20.19.2+dfsg-1+deb13u3_amd64.deb",
        "pytest-9.0-py3-none-any.whl",
    ]
    assert all(file.is_file() for file in files.values())
    build.fetch(paths, TRIXIE, quiet)
    [command] = debian
    assert command[-2] == "trixie"


def test_old_releases_have_other_archives(paths: Paths, registry: Registry, debian: list[list[str]]) -> None:
    with pytest.raises(
        NotApplicable, match=r"needs Node 18\.0\.0 or newer; Debian GNU/Linux 11 .*has 12\.22\.12"
    ):
        builds.resolve("npm:0.10.0").fetch(paths, BULLSEYE, quiet)
    [command] = debian
    assert any("bullseye-security" in word for word in command)


def test_a_guest_of_another_distribution_is_not_applicable(paths: Paths, registry: Registry) -> None:
    with pytest.raises(NotApplicable, match="Debian's releases only; the guest is Fedora Linux 44"):
        builds.resolve("npm:0.10.0").fetch(paths, FEDORA, quiet)


def test_what_the_native_package_needs_is_read_in_its_tarball(registry: Registry, paths: Paths) -> None:
    _, native = npm.tarballs(paths, "0.10.0", quiet)
    with pytest.raises(NotApplicable, match=r"boxlite\.linux-x64-gnu\.node in .*tgz needs glibc 2\.28"):
        elf.check({"native.tgz": native}, facts(glibc="2.17"))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("9.9.9", r"there is no release 9\.9\.9 of @boxlite-ai/boxlite\n.*there are 0\.10\.0"),
        # Its native package was not published.
        ("0.9.5", r"boxlite 0\.9\.5 needs \S+-x64-gnu 0\.9\.5: there is no release"),
        # Its engine cannot be read, which is told before a guest is booted.
        ("0.12.0", r"engines\.node: expected >=VERSION, found '\^18 \|\| >=20'"),
    ],
)
def test_a_release_that_cannot_be_tested_is_wrong_usage(
    paths: Paths, registry: Registry, version: str, expected: str
) -> None:
    registry.has(manifest(version="0.9.5"))
    registry.has(manifest(version="0.12.0", engines={"node": "^18 || >=20"}))
    registry.has(manifest(npm.NATIVE, "0.12.0"))
    with pytest.raises(UsageError, match=expected):
        builds.resolve(f"npm:{version}").check(paths)


def test_a_tarball_that_is_not_what_the_registry_says_is_not_kept(paths: Paths, registry: Registry) -> None:
    tarball(registry.shelf, manifest(description="changed on its way"))
    for _ in range(2):
        with pytest.raises(LabError, match=r"npm's registry says sha512-\S+, and what it sent has sha512-"):
            npm.tarballs(paths, "0.10.0", quiet)


def test_a_living_lab_leaves_no_rest(paths: Paths, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[Path] = []
    verify = npm.verify

    def look(file: Path, integrity: object) -> None:
        removed.extend(unused.path for unused in upkeep.sweep(paths)[0])
        verify(file, integrity)

    monkeypatch.setattr(npm, "verify", look)
    npm.tarballs(paths, "0.10.0", quiet)
    assert removed == []


def test_without_npm_there_is_a_hint(paths: Paths, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(LabError, match="this host has no npm") as error:
        builds.resolve("npm:0.10.0").check(paths)
    assert "npm:FILE.tgz" in (error.value.hint or "")


def test_a_registry_without_an_answer_is_a_fault(paths: Paths, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "programs" / "npm").write_text("#!/bin/sh\necho npm error ECONNREFUSED; exit 1\n")
    with pytest.raises(LabError, match=r"npm could not view @boxlite-ai/boxlite(.|\n)*ECONNREFUSED"):
        builds.resolve("npm:0.10.0").check(paths)


def test_a_local_tarball_takes_the_native_package_beside_it_or_that_of_the_release(
    paths: Paths, tmp_path: Path, registry: Registry
) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    main = tarball(folder, manifest(version="0.11.0"))
    alone = builds.resolve(f"npm:{main}")
    native = tarball(folder, manifest(npm.NATIVE, "0.11.0"))
    build = builds.resolve(f"npm:{main}")
    assert build.version == "0.11.0"
    assert build.name.startswith("npm-0.11.0@")
    assert build.name != alone.name
    assert builds.resolve(build.argument) == build
    assert npm.tarballs(paths, main, quiet) == (main, native)
    assert registry.calls == []
    released = tarball(folder)
    builds.resolve(f"npm:{released}").check(paths)
    assert npm.tarballs(paths, released, quiet)[1].parent.parent == paths.cache / "wheels"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (manifest("left-pad"), r"expected a tarball of @boxlite-ai/boxlite, .*; it is of left-pad"),
        (manifest(optionalDependencies={}), r"expected @boxlite-ai/boxlite-linux-x64-gnu among its optional"),
        (manifest(npm.NATIVE), r"it is of @boxlite-ai/boxlite-linux-x64-gnu"),
        ({**manifest(), "engines": ["node"]}, r"its package\.json is wrong: .*engines"),
        (b"no archive", "it cannot be read"),
        (b"", "it cannot be read"),
        (b"\x1f\x8b\x08rest", "it cannot be read"),
    ],
)
def test_a_file_that_is_no_tarball_of_boxlite_is_wrong_usage(
    tmp_path: Path, content: dict[str, Any] | bytes, expected: str
) -> None:
    file = tmp_path / "boxlite.tgz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file = tarball(tmp_path, content)
    with pytest.raises(UsageError, match=expected):
        builds.resolve(f"npm:{file}")


@pytest.mark.parametrize("text", ["0.10", "newest", "no/such/file.tgz", ""])
def test_neither_version_nor_file_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="neither a version nor the path of a tarball"):
        Npm.parse(text)


def test_the_steps_put_the_packages_where_node_looks_for_them() -> None:
    unpack, install = Npm("npm-0.10.0", "0.10.0").unpacking()
    assert f"/opt/lab/node_modules/{npm.NATIVE}" in unpack.command
    assert "dpkg" in install.command
    assert json.dumps("home") in npm.FIRST_USE.replace("\\", "")
