"""The kind of build `npm`: releases and tarballs of `npm pack`, with Node of the distribution."""

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab import builds
from lab.base import process
from lab.base.activity import UNWATCHED
from lab.base.errors import LabError, NotApplicable, UsageError
from lab.base.paths import Paths
from lab.builds import elf, wheels
from lab.builds.kinds import npm
from lab.builds.kinds.npm import Npm
from lab.lane import upkeep
from lab.probes import Facts
from tests.builders import packages
from tests.builders.facts import facts
from tests.builders.packages import NATIVE_FILE, Registry, manifest, tarball

NATIVE, NATIVE_ARM64 = npm.NATIVE.values()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    served = Registry(tmp_path, monkeypatch)
    tarball(served.shelf)
    native = packages.elf(versions={"libc.so.6": ["GLIBC_2.28"]})
    tarball(served.shelf, manifest(NATIVE), {NATIVE_FILE: native})
    return served


def of(identity: str, codename: str | None, name: str, arch: str = "x86_64") -> Facts:
    return facts(os={"id": identity, "version_codename": codename, "pretty_name": name}, arch=arch)


TRIXIE = of("debian", "trixie", "Debian GNU/Linux 13 (trixie)")
ARM64 = of("debian", "trixie", "Debian GNU/Linux 13 (trixie)", "aarch64")


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Debian's packages without a mirror; the commands that fetched them."""
    versions = {"trixie": "20.19.2+dfsg-1+deb13u3", "bullseye": "12.22.12~dfsg-1~deb11u7"}
    commands: list[list[str]] = []
    run = process.run_command

    def fetch(command: list[str], **more: Any) -> str:
        if command[0] != "mmdebstrap":
            return run(command, **more)
        commands.append([str(word) for word in command])
        with tarfile.open(next(word for word in command if "tar-out" in word).split()[-1], "w") as tar:
            tar.addfile(tarfile.TarInfo("partial"))
            [word] = [word.split("=")[1] for word in commands[-1] if word.startswith("--architectures=")]
            for name in (f"nodejs_{versions[command[-2]]}_{word}.deb", f"libuv1_1.50.0-2_{word}.deb"):
                tar.addfile(tarfile.TarInfo(name))
        return ""

    monkeypatch.setattr(process, "run_command", fetch)
    return commands


@pytest.fixture(autouse=True)
def no_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "pytest-9.0-py3-none-any.whl"
    wheel.touch()
    monkeypatch.setattr(wheels, "download_wheels", lambda *_: {wheel.name: wheel})


def test_a_release_is_fetched_once_with_node(paths: Paths, registry: Registry, debian: list[list[str]]) -> None:
    build = builds.resolve_build("npm:0.10.0")
    assert (build.name, build.version, build.argument) == ("npm-0.10.0", "0.10.0", "npm:0.10.0")
    build.check(paths)
    calls = registry.calls
    assert len(calls) == 2
    assert all("--ignore-scripts" in call for call in calls)
    for _ in range(2):
        files = build.fetch(paths, TRIXIE, UNWATCHED)
        assert {name: file.name for name, file in files.items()} == {
            "main.tgz": "boxlite-ai-boxlite-0.10.0.tgz",
            "native-x86_64.tgz": "boxlite-ai-boxlite-linux-x64-gnu-0.10.0.tgz",
            "node/libuv1_1.50.0-2_amd64.deb": "libuv1_1.50.0-2_amd64.deb",
            "node/nodejs_20.19.2+dfsg-1+deb13u3_amd64.deb": "nodejs_20.19.2+dfsg-1+deb13u3_amd64.deb",
            "pytest-9.0-py3-none-any.whl": "pytest-9.0-py3-none-any.whl",
        }
        assert all(file.is_file() for file in files.values())
    assert registry.calls == calls
    [command] = debian
    assert command[-2] == "trixie"
    # What the native package needs is read in its tarball.
    with pytest.raises(NotApplicable, match=r"boxlite\.linux-x64-gnu\.node in .*tgz needs glibc 2\.28"):
        elf.check_files(files, facts(glibc="2.17"))


def test_a_guest_of_arm64_gets_its_own_native_package_and_node(
    paths: Paths, registry: Registry, debian: list[list[str]]
) -> None:
    build = builds.resolve_build("npm:0.10.0")
    build.check(paths)
    # npm's registry has none, and the release is tested on other guests.
    with pytest.raises(NotApplicable, match=rf"no release 0\.10\.0 of {NATIVE_ARM64}$"):
        build.fetch(paths, ARM64, UNWATCHED)
    tarball(registry.shelf, manifest(NATIVE_ARM64), {NATIVE_FILE: packages.elf(machine=packages.AARCH64)})
    files = build.fetch(paths, ARM64, UNWATCHED)
    build.fetch(paths, TRIXIE, UNWATCHED)
    nodes = [file.name for file in wheels.get_wheel_store(paths).glob("node-*") if file.is_dir()]
    assert sorted(nodes) == ["node-trixie-aarch64", "node-trixie-x86_64"]
    assert {name: file.name for name, file in files.items()} == {
        "main.tgz": "boxlite-ai-boxlite-0.10.0.tgz",
        "native-aarch64.tgz": "boxlite-ai-boxlite-linux-arm64-gnu-0.10.0.tgz",
        "node/libuv1_1.50.0-2_arm64.deb": "libuv1_1.50.0-2_arm64.deb",
        "node/nodejs_20.19.2+dfsg-1+deb13u3_arm64.deb": "nodejs_20.19.2+dfsg-1+deb13u3_arm64.deb",
        "pytest-9.0-py3-none-any.whl": "pytest-9.0-py3-none-any.whl",
    }
    elf.check_files(files, ARM64)
    with pytest.raises(NotApplicable, match="is for the processor EM_AARCH64"):
        elf.check_files(files, TRIXIE)


def test_a_package_that_was_packed_on_arm64_alone_is_for_guests_of_it(
    paths: Paths, tmp_path: Path, registry: Registry, debian: list[list[str]]
) -> None:
    main = tarball(tmp_path, manifest(version="0.11.0", optionalDependencies={NATIVE_ARM64: "0.11.0"}))
    build = builds.resolve_build(f"npm:{main}")
    with pytest.raises(UsageError, match=f"0.11.0 names no package {NATIVE}"):
        build.check(paths)
    native = tarball(tmp_path, manifest(NATIVE_ARM64, "0.11.0"))
    build.check(paths)
    assert builds.resolve_build(f"npm:{main}").name != build.name
    assert build.fetch(paths, ARM64, UNWATCHED)["native-aarch64.tgz"] == native
    with pytest.raises(NotApplicable, match=f"names no package {NATIVE}"):
        build.fetch(paths, TRIXIE, UNWATCHED)


def test_a_guest_without_a_fitting_node_is_not_applicable(
    paths: Paths, registry: Registry, debian: list[list[str]]
) -> None:
    build = builds.resolve_build("npm:0.10.0")
    with pytest.raises(NotApplicable, match=r"needs Node 18\.0\.0 or newer; .*Linux 11 .*has 12\.22\.12"):
        build.fetch(paths, of("debian", "bullseye", "Debian GNU/Linux 11 (bullseye)"), UNWATCHED)
    # Old releases have other archives.
    [command] = debian
    assert any("bullseye-security" in word for word in command)
    with pytest.raises(NotApplicable, match="Debian's releases only; the guest is Fedora Linux 44"):
        build.fetch(paths, of("fedora", None, "Fedora Linux 44"), UNWATCHED)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("9.9.9", r"no release 9\.9\.9 of @boxlite-ai/boxlite\n.*npm view @boxlite-ai/boxlite versions"),
        # Its native package was not published.
        ("0.9.5", r"no release 0\.9\.5 of @boxlite-ai/boxlite-linux-x64-gnu\n"),
        # Its engine cannot be read, which is told before a guest is booted.
        ("0.12.0", r"engines\.node: String should match"),
    ],
)
def test_a_release_that_cannot_be_tested_is_wrong_usage(
    paths: Paths, registry: Registry, version: str, expected: str
) -> None:
    tarball(registry.shelf, manifest(version="0.9.5"))
    tarball(registry.shelf, manifest(version="0.12.0", engines={"node": "^18 || >=20"}))
    tarball(registry.shelf, manifest(NATIVE, "0.12.0"))
    with pytest.raises(UsageError, match=expected):
        builds.resolve_build(f"npm:{version}").check(paths)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("", "npm: No such file or directory"),
        # npm compares what was sent with the registry's digest.
        ("echo npm error code EINTEGRITY; exit 1", "EINTEGRITY"),
    ],
)
def test_what_cannot_be_fetched_is_a_fault_that_says_what_to_do_and_is_not_kept(
    paths: Paths,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    expected: str,
) -> None:
    npm_here = tmp_path / "programs" / "npm"
    if not program:
        npm_here.unlink()
        (tmp_path / "programs" / "setpriv").symlink_to("/usr/bin/setpriv")
        monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    else:
        npm_here.write_text(f"#!/bin/sh\n{program}\n")
    with pytest.raises(LabError, match=expected) as error:
        builds.resolve_build("npm:0.10.0").check(paths)
    assert error.value.exit_status == 3
    assert "npm:FILE.tgz" in (error.value.hint or "")
    assert not [file for file in (paths.cache / "wheels").iterdir() if file.is_dir()]


def test_a_living_lab_leaves_no_rest(paths: Paths, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[Path] = []
    run = process.run_command

    def look(command: list[str], **more: Any) -> str:
        if command[0] == "npm":
            removed.extend(unused.path for unused in upkeep.sweep_leftovers(paths)[0])
        return run(command, **more)

    monkeypatch.setattr(process, "run_command", look)
    Npm.parse("0.10.0").packages(paths, "x86_64", UNWATCHED)
    # Another lab may have died on this host.
    assert [path for path in removed if path.is_relative_to(paths.cache)] == []


def test_a_local_tarball_takes_a_native_package(paths: Paths, tmp_path: Path, registry: Registry) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    main = tarball(folder, manifest(version="0.11.0"))
    alone = builds.resolve_build(f"npm:{main}")
    native = tarball(folder, manifest(NATIVE, "0.11.0"))
    build = builds.resolve_build(f"npm:{main}")
    assert build.version == "0.11.0"
    assert build.name.startswith("npm-0.11.0@")
    assert build.name != alone.name
    assert builds.resolve_build(build.argument) == build
    assert Npm.parse(str(main)).packages(paths, "x86_64", UNWATCHED)[1:] == (main, native)
    assert registry.calls == []
    released = tarball(folder)
    *_, native = Npm.parse(str(released)).packages(paths, "x86_64", UNWATCHED)
    assert native.parent.parent == paths.cache / "wheels"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (manifest("left-pad"), r"expected a tarball of @boxlite-ai/boxlite, .* name: String should match"),
        (manifest(optionalDependencies={}), "optionalDependencies: Dictionary should have at least 1 item"),
        (manifest(NATIVE), "name: String should match"),
        (b"", "it cannot be read"),
        (b"\x1f\x8b\x08rest", "it cannot be read"),
    ],
)
def test_another_tarball_is_wrong_usage(tmp_path: Path, content: dict[str, Any] | bytes, expected: str) -> None:
    file = tmp_path / "boxlite.tgz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file = tarball(tmp_path, content)
    with pytest.raises(UsageError, match=expected):
        builds.resolve_build(f"npm:{file}")


@pytest.mark.parametrize("text", ["0.10", "newest", "no/such/file.tgz", ""])
def test_neither_version_nor_file_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="neither a version nor the path of a tarball"):
        Npm.parse(text)


@pytest.mark.parametrize("arch", npm.NATIVE)
def test_the_steps_put_the_packages_where_node_looks_for_them(arch: str, tmp_path: Path) -> None:
    unpack, install, *_ = Npm("npm-0.10.0", "0.10.0").steps()
    build, modules = tmp_path / "build", tmp_path / "node_modules"
    build.mkdir()
    native = npm.NATIVE[arch]
    for name, file in (
        ("main.tgz", tarball(tmp_path)),
        (f"native-{arch}.tgz", tarball(tmp_path, manifest(native))),
    ):
        file.rename(build / name)
    command = unpack.command.replace("/opt/lab", str(tmp_path))
    subprocess.run(["sh", "-c", command], check=True)
    for name in (npm.PROJECT, native):
        assert json.loads((modules / name / "package.json").read_text())["name"] == name
    assert not list(build.iterdir())
    assert len(list((modules / "@boxlite-ai").iterdir())) == 2
    assert "dpkg" in install.command
    assert json.dumps("home") in Npm.first_use.replace("\\", "")
