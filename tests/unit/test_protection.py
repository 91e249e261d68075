"""What the suite sees of a box from outside, and boxes that are less protected than others."""

import importlib.util
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from lab.base.paths import PACKAGE
from lab.record import Outcome, Protection, TestResult
from lab.report import protection
from lab.verdict import protection as words
from tests.builders.cells import box, cell
from tests.builders.runs import run_of


@pytest.fixture
def outside() -> ModuleType:
    """The module of the suite that looks at processes from outside."""
    path = PACKAGE / "suites" / "_shared" / "outside.py"
    spec = importlib.util.spec_from_file_location("outside", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def child(tmp_path: Path) -> Iterator[int]:
    """A process of this user with a limit of its own."""
    with subprocess.Popen(
        ["sh", "-c", "ulimit -n 77; echo up; exec sleep 600"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        yield process.pid
        process.kill()


def test_a_process_that_shares_all_is_seen(outside: ModuleType, child: int, tmp_path: Path) -> None:
    seen = Protection.model_validate(outside.protection(child, tmp_path, "a-box"))
    assert (seen.namespaces, seen.cgroup, seen.seccomp, seen.root) == ([], None, seen.seccomp, "/")
    assert (seen.limits["open files"], seen.own_limits) == ("77", ["open files"])
    assert seen.users == [str(os.getuid())]
    assert "/proc rw" in seen.mounts
    assert set(seen.capabilities) == {"Inh", "Prm", "Eff", "Bnd", "Amb"}
    # A mount of every process stands for the home of boxlite, whose name only one box has.
    mounts = outside.protection(child, Path("/proc"), "no-such-box")["mounts"]
    assert "HOME rw" in mounts
    assert not [mount for mount in mounts if mount.startswith("/proc")]


def test_a_limit_that_was_raised_is_none_of_its_own(
    outside: ModuleType, child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = {"open files": "10", "file size": "100"}
    monkeypatch.setattr(
        outside, "_limits", lambda of: test if of.name == "self" else {"open files": "77", "file size": "99"}
    )
    assert outside.protection(child, tmp_path, "a-box")["own_limits"] == ["file size"]


def test_a_kernel_without_seccomp_tells_nothing_of_it(
    outside: ModuleType, child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = outside._status

    def without(of: Path) -> dict[str, str]:
        return {key: value for key, value in told(of).items() if not key.startswith("Seccomp")}

    monkeypatch.setattr(outside, "_status", without)
    seen = Protection.model_validate(outside.protection(child, tmp_path, "a-box"))
    assert seen.seccomp == ["not told by the kernel"]


def test_the_most_confined_descendant_is_found(outside: ModuleType, tmp_path: Path) -> None:
    unshare = "unshare --user --mount --uts sh -c 'echo up; exec sleep 600'"
    with subprocess.Popen(["sh", "-c", f"{unshare}; :"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        if process.stdout.readline() != b"up\n":
            pytest.skip("this host lets no user make user namespaces")
        pid, apart = outside.most_confined(process.pid, {"mnt", "user", "uts"})
        assert apart == {"mnt", "user", "uts"}
        assert pid != process.pid
        assert outside.protection(pid, tmp_path, "x")["namespaces"] == ["mnt", "user", "uts"]
        for ended in (pid, process.pid):
            os.kill(ended, 9)


def passed(name: str, seen: Protection | None) -> TestResult:
    return TestResult(name=name, outcome=Outcome.PASS, protection=seen)


def test_a_box_with_less_than_the_same_test_s_elsewhere_is_a_finding() -> None:
    weak = box(seccomp=["off"], cgroup=None, mounts=["/ rw", "/usr rw", "HOME/boxes/BOX/tmp rw"])
    run = run_of(
        cell("debian-13", tests=[passed("starts", box()), passed("isolates", box())]),
        cell("fedora-44", tests=[passed("starts", weak), passed("isolates", box())]),
    )
    [weakness] = protection.weaknesses(run.cells)
    assert str(weakness) == (
        "fedora-44 stock: less protected: the box of starts lacked seccomp filter, control group of its own, "
        "a /usr that is not writable; debian-13 stock has that"
    )
    assert protection.weak_cells([weakness]) == {id(run.cells[1])}


def test_what_the_kernel_does_not_tell_other_tests_and_other_builds_are_not_compared() -> None:
    off = box(namespaces=[], no_new_privs=False, seccomp=["off"])
    untold = box(seccomp=["not told by the kernel"])
    for cells in (
        [cell(tests=[passed("starts", box())]), cell("own-kernel", tests=[passed("starts", untold)])],
        [
            cell(build="1", tests=[passed("jailed", box()), passed("control", off)]),
            cell(build="2", tests=[passed("jailed", off), passed("control", off)]),
        ],
    ):
        assert protection.weaknesses(cells) == []


def test_what_is_the_same_for_several_boxes_is_told_once() -> None:
    off = box(namespaces=[], no_new_privs=False, seccomp=["off"], limits={}, cgroup=None)
    both = [passed("jailed", box()), passed("again", box()), passed("control", off), passed("preset", None)]
    run = run_of(cell("debian-12", tests=both), cell("debian-13", tests=both))
    jailed, control = protection.given(run.cells)
    assert (jailed.tests, len(jailed.cells)) == (["jailed", "again"], 2)
    assert (control.tests, control.what) == (["control"], "no capabilities, empty bounding set")
    assert {"user namespace", "no_new_privs", "seccomp filter", "control group of its own"} < set(
        jailed.what.split(", ")
    )


@pytest.mark.parametrize(
    ("number", "where"), [(2, "debian-0 stock, debian-1 stock"), (4, "4 cells")], ids=["few", "many"]
)
def test_what_was_asked_for_and_is_not_seen_is_one_line_for_all_cells(number: int, where: str) -> None:
    seen = box(seccomp=["off"], asked={"seccomp_enabled": True})
    cells = [cell(f"debian-{n}", tests=[passed("starts", seen), passed("ends", seen)]) for n in range(number)]
    [line] = protection.not_given(cells)
    unmet = "starts, ends asked for a seccomp filter (seccomp_enabled): no thread of libkrun VM has one"
    assert str(line) == f"{where}, boxlite 0.10.8: {unmet}"
    [short] = protection.not_given(cells, seen=False)
    assert str(short) == str(line).partition(": no thread")[0]


def test_limits_of_one_kind_are_one_phrase_and_a_box_that_nothing_confines_says_so() -> None:
    seen = box(own_limits=["file size", "open files"])
    [given] = protection.given([cell(tests=[passed("starts", seen)])])
    assert given.what.endswith(", control group of its own, limits of its own on file size and open files")
    free = {"namespaces": [], "no_new_privs": False, "seccomp": ["off"], "cgroup": None}
    held = dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), "1" * 16)
    [given] = protection.given([cell(tests=[passed("control", box(**free, capabilities=held))])])
    assert given.what == "nothing"


OFF = "boxlite_shim: Seccomp disabled for network-enabled VM box_id=BOX"
NO_GROUP = "boxlite::jailer: Cgroup setup failed (continuing without cgroup limits) id=BOX"
MAXIMUM = {
    "jailer_enabled": True,
    "seccomp_enabled": True,
    "max_open_files": 1024,
    "max_file_size": 1 << 30,
    "max_processes": 100,
    "max_memory": None,
    "max_cpu_time": None,
    "network_enabled": True,
}


def asking(**other: Any) -> Protection:
    """A box that was asked for the strongest preset, and has of it what `other` says."""
    limits = {"open files": "1024", "file size": str(20 << 30), "processes": "7795"}
    tree = [{"program": "bwrap", "seccomp": ["off"], "limits": limits}] * 2
    tree.append({"program": "libkrun VM", "seccomp": ["off"], "limits": limits})
    seen = {"seccomp": ["off"], "limits": limits, "own_limits": ["file size", "open files"], "cgroup": None}
    return box(**{"asked": MAXIMUM, "processes": tree, **seen, **other})


def test_what_was_asked_for_and_is_not_seen_is_told_with_what_is_seen_and_said() -> None:
    assert list(map(str, words.unmet_options(asking()))) == [
        "asked for a seccomp filter (seccomp_enabled): no thread of libkrun VM, nor of the 2 other processes "
        "of its box, has one",
        "asked for files of at most 1 GiB (max_file_size): the limit of libkrun VM is 20 GiB",
        "asked for at most 100 processes (max_processes): libkrun VM has no lower limit than the test "
        "itself, and no control group of its own",
    ]
    # boxlite's own words are quoted.
    seccomp, _, processes = map(str, words.unmet_options(asking(warnings=[NO_GROUP, OFF])))
    assert seccomp.endswith(f'has one; boxlite\'s own log: "{OFF}"')
    assert processes.endswith(f'control group of its own; boxlite\'s own log: "{NO_GROUP}"')


def test_what_was_asked_for_and_is_given_is_no_finding() -> None:
    met = asking(
        seccomp=["filter"],
        limits={"open files": "1024", "file size": "1000", "processes": "7795"},
        cgroup="0::/boxlite/BOX",
        cgroup_limits={"pids.max": "100"},
    )
    assert words.unmet_options(met) == []
    assert words.limits_given(met) == ["max_open_files", "max_file_size", "max_processes"]
    # A record from before what was asked was recorded, and a box for which boxlite chose.
    assert words.unmet_options(box(seccomp=["off"])) == []


@pytest.mark.parametrize(
    ("other", "seen"),
    [
        ({"seccomp": ["filter", "off"]}, "only some threads of libkrun VM have one"),
        ({"seccomp": ["not told by the kernel"]}, "the kernel does not tell whether libkrun VM has one"),
        ({"processes": []}, "no thread of libkrun VM has one"),
        (
            {"processes": [{"program": "bwrap", "seccomp": ["filter"], "limits": {}}]},
            "no thread of libkrun VM has one, only bwrap",
        ),
    ],
)
def test_all_threads_and_processes_of_a_box_are_looked_at(other: dict[str, Any], seen: str) -> None:
    assert words.unmet_options(asking(**other))[0].seen == seen


def test_a_missing_jailer_and_a_limit_that_only_another_process_has_are_told_as_such() -> None:
    [jailer, *_] = words.unmet_options(asking(namespaces=[]))
    assert str(jailer) == (
        "asked for the jailer (jailer_enabled): libkrun VM shares all namespaces with the test"
    )
    tree = [{"program": "bwrap", "seccomp": ["off"], "limits": {"file size": str(1 << 30)}}]
    limits = {"open files": "1024", "processes": "100"}
    [_, size] = words.unmet_options(asking(processes=tree, limits=limits, own_limits=[]))
    assert size.seen == "nothing limits libkrun VM, only bwrap has it"


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000], ids=len)
def test_a_limit_that_no_kernel_has_is_no_number(number: str) -> None:
    limits = {"open files": "1024", "file size": number, "processes": number}
    assert words.unmet_options(asking(limits=limits))[1].seen == "nothing limits libkrun VM"
    with pytest.raises(ValidationError, match="less than 18446744073709551616"):
        asking(asked={"max_file_size": 10**400})


def test_warnings_are_read_from_another_runtime_s_log(outside: ModuleType, tmp_path: Path) -> None:
    home, first = tmp_path / "box-2", tmp_path / "box-1"
    for folder in (home / "boxes" / "aXb" / "logs", first / "logs"):
        folder.mkdir(parents=True)
    (home / "boxes" / "aXb" / "logs" / "boxlite-shim.log.2026").write_text(
        f"2026-11-27T01:39:41Z  WARN boxlite_shim: no filter in {home} box_id=aXb\n2026  INFO started aXb\n"
    )
    (first / "logs" / "boxlite.log").write_text(
        "2026-11-27T01:39:41Z  WARN cgroup failed id=other\n" + "2026  WARN cgroup failed id=aXb\n" * 2
    )
    assert outside.warnings(home, "aXb") == [
        "cgroup failed id=BOX",
        "boxlite_shim: no filter in HOME box_id=BOX",
    ]


def test_kinds_of_boxes_are_compared_and_not_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def lost(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
        compared.append(1)
        return words.lost(before, now)

    monkeypatch.setattr(protection, "lost", lost)
    boxes = [box(no_new_privs=number % 50 != 7) for number in range(200)]
    cells = [
        cell(variant=f"v{number}", tests=[TestResult(name="box_starts", outcome=Outcome.PASS, protection=seen)])
        for number, seen in enumerate(boxes)
    ]
    [weakness] = protection.weaknesses(cells)
    assert [cell.variant for cell in weakness.cells] == ["v7", "v57", "v107", "v157"]
    assert (weakness.lacking, weakness.elsewhere.variant) == (("no_new_privs",), "v0")
    assert len(compared) < 10
