import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tenacity import wait_none

from lab.base import notices, process
from lab.base.errors import LabError, UsageError
from lab.base.paths import Paths
from lab.builds import sandbox
from lab.builds.kinds.wheel import Wheel
from lab.catalog import loading, remedies
from lab.causes.rule import CAUSES
from lab.images import download
from lab.machine import acceleration, clock, lane, leftovers
from lab.machine.acceleration import Acceleration
from lab.record import Status
from tests.builders import rust
from tests.builders.lanes import EMULATION, Bench, put_stand_ins
from tests.builders.mirror import Mirror, SigningKey, definitions, key_ring, serving
from tests.builders.processes import Printed, RunLab, decide_at_once, run_main


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A lab's folders, all empty."""
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state")


@pytest.fixture
def x86_64_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has the architecture of most guests, whichever it has."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.fixture(scope="session")
def sandboxed() -> None:
    """Skips the test where bubblewrap makes no sandbox, as in many containers."""
    try:
        sandbox.check_sandbox()
    except LabError as error:
        pytest.skip(str(error.args[0]))


@pytest.fixture(autouse=True)
def unnoticed_bugs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that leaves a bug which no command shows; a later test's command would show it."""
    bugs: dict[str, None] = {}
    monkeypatch.setattr(notices, "bugs", bugs)
    yield
    assert not bugs


@pytest.fixture(autouse=True)
def own_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports that no lab uses, so that these tests do not disturb a running lab."""
    monkeypatch.setattr(leftovers, "FIRST_PORT", 23100)
    monkeypatch.setattr(leftovers, "LAST_PORT", 23149)


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for every image: how full this host's disk is decides no test."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2**42))


def _definitions() -> tuple[object, ...]:
    """What decides which definitions are read."""
    return vars(loading)["find_definitions"], vars(loading)["PACKAGE"], CAUSES


@pytest.fixture(autouse=True)
def own_definitions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the definitions that another one put in place of the lab's own. Reading them takes long."""
    own = _definitions()
    yield
    if own != _definitions():
        loading.load_catalog.cache_clear()
        remedies.load_remedies.cache_clear()


@pytest.fixture(scope="module")
def rust_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paths]:
    """A lab of its own that has cargo-nextest. Skips the test where it, cargo or a sandbox is missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(tmp_path_factory.mktemp("lab")))
        rust.archiver(paths := Paths.default())
        yield paths


@pytest.fixture(scope="session")
def keys() -> Iterator[dict[str, SigningKey]]:
    """A trusted key, an untrusted one, and one that expired after signing."""
    with key_ring() as home:
        yield {
            "good": SigningKey(home, "good@example.org"),
            "another": SigningKey(home, "another@example.org"),
            "expired": SigningKey(home, "expired@example.org", expires="1y", at="20200101T000000"),
        }


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small qcow2 disk with incompressible content."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "raw").write_bytes(os.urandom(1 << 20))
    process.run_command(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "raw", folder / "qcow2"], timeout=60
    )
    return (folder / "qcow2").read_bytes()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror that serves nothing yet; retries do not wait."""
    monkeypatch.setattr(download, "WAIT", wait_none())
    with serving() as served:
        yield served


@pytest.fixture
def root(mirror: Mirror, keys: dict[str, SigningKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lab's definitions, with the mirror as the source of every distribution."""
    made = definitions(tmp_path / "definitions", mirror.url, keys["good"])
    monkeypatch.setattr(loading, "find_definitions", lambda: made)
    loading.load_catalog.cache_clear()
    return made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where these labs keep their things; nobody has made it yet."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run_lab(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunLab:
    """Runs a command line in this process and returns what it printed. None: whatever its exit status is."""

    def run(status: int, *words: object) -> Printed:
        capfd.readouterr()
        ended = run_main(monkeypatch, *words)
        out, err = capfd.readouterr()
        assert status in (None, ended), out + err
        printed = Printed(out + err)
        printed.out, printed.err = out, err
        return printed

    return run


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package index is asked: every release is there but 99.0."""

    def check(build: Wheel, _paths: object) -> None:
        if build.version == "99.0":
            raise UsageError("there is no release 99.0")

    monkeypatch.setattr(Wheel, "check", check)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs without guests, of which each cell passes; the names of the cells that were run."""
    return decide_at_once(monkeypatch, lambda cell: cell.result(Status.PASS))


@pytest.fixture
def benches(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Acceleration], Bench]:
    made: list[Bench] = []

    def fetch(build: Wheel, _paths: Paths, _facts: object, _say: object) -> dict[str, Path]:
        file = tmp_path / f"{build.name}.whl"
        file.write_text(build.name)
        return {file.name: file}

    put_stand_ins(monkeypatch)
    monkeypatch.setattr(Wheel, "fetch", fetch)

    def make(acceleration: Acceleration) -> Bench:
        made.append(Bench(paths, tmp_path / "lane", acceleration))
        return made[-1]

    return make


@pytest.fixture
def bench(benches: Callable[[Acceleration], Bench]) -> Bench:
    return benches(EMULATION)


@pytest.fixture(autouse=True)
def real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests of unit tests have this host's clock, and this host nothing else to do."""
    monkeypatch.setattr(clock, "FOLDERS", ())
    for module in (lane, acceleration):
        monkeypatch.setattr(module, "measure_load", lambda: 1.0)
