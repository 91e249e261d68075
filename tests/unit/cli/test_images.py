"""`lab images`, as users run it."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.images import debian
from lab.machine.states import StoredState
from tests.builders.mirror import Mirror, SigningKey, guest, path_of
from tests.builders.processes import RunLab
from tests.unit.images.test_store import build_well

UBUNTU = "ubuntu-24.04"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Paths:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    return Paths.default()


@pytest.fixture
def served(mirror: Mirror, root: Path, keys: dict[str, SigningKey], disk: bytes) -> Mirror:
    """Every signed guest's disk; a different one for each."""
    for name in ("ubuntu-22.04", UBUNTU, "ubuntu-26.04", "fedora-43", "fedora-44"):
        mirror.publish(guest(name), disk + name.encode(), keys["good"])
    return mirror


def folders(paths: Paths) -> list[Path]:
    return [path for path in paths.images.iterdir() if path.is_dir()]


def test_pull_without_names_pulls_all_that_can_be_had(paths: Paths, served: Mirror, run_lab: RunLab) -> None:
    del served.files[path_of(guest("fedora-43"))]
    told = run_lab(3, "images", "pull")
    assert [line.partition(":")[0] for line in told.out.splitlines()] == [
        "fedora-44",
        "ubuntu-22.04",
        UBUNTU,
        "ubuntu-26.04",
    ]
    assert "lab: debian-13-cloud: no digest is pinned yet" in told.err
    missing = path_of(guest("fedora-43"))
    named = f"{missing.rpartition('/')[2]} of {served.host}"
    assert f"lab: fedora-43: {named}: HTTP 404 Not Found\n" in told.err
    assert f"  next: check that {served.url}{missing} exists and answers" in told.err
    assert len(folders(paths)) == 4


def test_pull_takes_a_newer_build_on_demand_and_shows_it(
    paths: Paths, served: Mirror, keys: dict[str, SigningKey], disk: bytes, run_lab: RunLab
) -> None:
    old, new = disk + UBUNTU.encode(), disk + b"newer"
    run_lab(0, "images", "pull", UBUNTU)
    served.publish(guest(UBUNTU), new, keys["good"])
    run_lab(0, "images", "pull", UBUNTU)
    told = run_lab(0, "images", "pull", "--update", UBUNTU)
    before, after = (hashlib.sha256(content).hexdigest()[:16] for content in (old, new))
    assert f"{UBUNTU}: sha256 {before} of " in told
    assert f" -> sha256 {after} of " in told
    assert "->" not in run_lab(0, "images", "pull", "--update", UBUNTU)


def test_pull_offline_asks_nobody(paths: Paths, served: Mirror, run_lab: RunLab) -> None:
    printed = run_lab(3, "images", "pull", "--offline", UBUNTU)
    assert f"lab: {UBUNTU}: the image is not in the store, and --offline forbids fetching it" in printed
    assert served.requests == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["pull", "--update", "--offline"], "contradict each other"),
        (
            ["pull", "debian-13"],
            "the image of debian-13 is built locally\n  next: run: lab images build debian-13",
        ),
        (
            ["build", UBUNTU],
            f"{UBUNTU} is a cloud image, which is not built\n  next: lab images pull {UBUNTU}",
        ),
        (["import", "/nowhere", "--as", UBUNTU], "'/nowhere' does not exist"),
        (["import", "/etc/passwd", "--as", UBUNTU], "form raw, not qcow2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_and_nothing_is_begun(
    paths: Paths, served: Mirror, run_lab: RunLab, line: list[str], message: str
) -> None:
    assert message in run_lab(2, "images", *line)
    assert served.requests == []
    assert not paths.images.exists()


def test_list_shows_what_is_there_who_uses_it_and_who_has_none(
    paths: Paths, served: Mirror, disk: bytes, tmp_path: Path, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "build_image", build_well)
    (tmp_path / "mine.qcow2").write_bytes(disk)
    run_lab(0, "images", "pull", UBUNTU)
    run_lab(0, "images", "build", "debian-12")
    run_lab(0, "images", "import", str(tmp_path / "mine.qcow2"), "--as", "debian-13-cloud")
    header, *rows, without, states = run_lab(0, "images", "list").splitlines()
    assert header.split() == ["guests", "size", "date", "sha256", "source"]
    told = {row.split()[0]: row.rstrip().split(maxsplit=5)[4:] for row in rows}
    assert told == {
        "debian-12": [hashlib.sha256(b"content of disk.qcow2").hexdigest(), "built from Debian bookworm"],
        UBUNTU: [
            hashlib.sha256(disk + UBUNTU.encode()).hexdigest(),
            f"{served.url}{path_of(guest(UBUNTU))}",
        ],
        "debian-13-cloud": [hashlib.sha256(disk).hexdigest(), "imported from mine.qcow2"],
    }
    assert without.startswith("no image yet: ")
    absent = without.removeprefix("no image yet: ").split(", ")
    assert "fedora-43" in absent
    assert UBUNTU not in absent
    assert states == "stored states: 0, 0.0 GiB of at most 20 GiB (--states-gib)"


@pytest.fixture
def two_states(paths: Paths) -> list[Path]:
    """Stored states of 2 MiB each, the one that was used last first."""
    folders = [paths.states / f"debian-{number}-0123456789abcdef" for number in (13, 12)]
    for minute, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "state.qcow2").write_bytes(os.urandom(2 << 20))
        os.utime(folder, (60 - 60 * minute, 60 - 60 * minute))
    return folders


def test_list_shows_what_stored_states_take_and_what_they_may(
    two_states: list[Path], run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_STATES_GIB", "7")
    assert "stored states: 2, 0.0 GiB of at most 7 GiB (--states-gib)" in run_lab(None, "images", "list")
    states = json.loads(run_lab(None, "--states-gib", "3", "images", "list", "--json"))["states"]
    assert states["limit_bytes"] == 3 * 2**30
    assert [state["folder"] for state in states["stored"]] == [str(folder) for folder in two_states]
    assert {state["bytes"] for state in states["stored"]} == {2 << 20}
    assert states["stored"][1]["last_used"] == "1970-01-01T00:00:00+00:00"


def test_prune_removes_the_stored_states_above_the_limit(
    two_states: list[Path], run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoredState, "size", property(lambda _state: 2**30))
    assert f"removed {two_states[1]} (2 MiB)" in run_lab(0, "--states-gib", "1", "images", "prune")
    assert [folder.exists() for folder in two_states] == [True, False]


def test_verify_finds_a_disk_that_changed(paths: Paths, served: Mirror, disk: bytes, run_lab: RunLab) -> None:
    lines = run_lab(0, "images", "pull", UBUNTU, "fedora-44").splitlines()
    for name, line in zip((UBUNTU, "fedora-44"), lines, strict=True):
        digest = hashlib.sha256(disk + name.encode()).hexdigest()
        assert line.startswith(f"{name}: sha256 {digest[:16]} of 20")
        assert f" in {paths.images}/{name}-{digest[:16]} (" in line
    assert [line.rpartition(": ")[2] for line in run_lab(0, "images", "verify").splitlines()] == ["ok", "ok"]
    changed = folders(paths)[0]
    (changed / "disk.qcow2").chmod(0o644)
    (changed / "disk.qcow2").write_bytes(b"something else")
    told = run_lab(1, "images", "verify")
    assert f"{changed.name}: disk.qcow2 was changed: its sha256 is " in told
    assert told.count(": ok\n") == 1
    run_lab(0, "images", "verify")


def test_prune_says_what_it_removes(
    paths: Paths, served: Mirror, keys: dict[str, SigningKey], disk: bytes, run_lab: RunLab
) -> None:
    run_lab(0, "images", "pull", UBUNTU)
    [old] = folders(paths)
    served.publish(guest(UBUNTU), disk + b"newer", keys["good"])
    run_lab(0, "images", "pull", "--update", UBUNTU)
    assert f"would remove {old} (1 MiB)\n1 unused, 1 MiB\n" == run_lab(0, "images", "prune", "--dry-run")
    assert old.is_dir()
    assert f"removed {old} (1 MiB)\n1 unused, 1 MiB\n" == run_lab(0, "images", "prune")
    assert not old.exists()
    assert len(folders(paths)) == 1


def test_list_guests_shows_where_each_image_comes_from(paths: Paths, served: Mirror, run_lab: RunLab) -> None:
    told = {line.split()[0]: line for line in run_lab(0, "list", "guests").splitlines()}
    assert "built from Debian trixie packages" in told["debian-13"]
    assert f"{served.url}{path_of(guest(UBUNTU))}" in told[UBUNTU]
    assert "(no build is pinned yet)" in told["debian-12-cloud"]
