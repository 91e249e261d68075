"""What the suite sees of a box from outside, and boxes that are less protected than others."""

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lab.base.paths import PACKAGE
from lab.record import Outcome, Protection, TestResult
from lab.report import protection
from lab.verdict import protection as words
from tests.builders import golden
from tests.builders.cells import box, cell
from tests.builders.facts import facts


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
    assert seen.inherited == ["no_new_privs", "seccomp filter", "no capabilities", "empty bounding set"]
    # A mount of every process stands for the home of boxlite, whose name only one box has.
    mounts = outside.protection(child, Path("/proc"), "no-such-box")["mounts"]
    assert "HOME rw" in mounts
    assert not [mount for mount in mounts if mount.startswith("/proc")]


def test_a_limit_that_was_raised_is_none_of_its_own_and_a_kernel_may_tell_nothing_of_seccomp(
    outside: ModuleType, child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = {"open files": "10", "a": "100"}
    of_box = {"open files": "77", "a": "99"}
    status = outside.read_status
    monkeypatch.setattr(outside, "read_limits", lambda of: test if of.name == "self" else of_box)
    monkeypatch.setattr(outside, "read_status", lambda of: {**status(of), "Seccomp": None})
    seen = outside.protection(child, tmp_path, "a-box")
    assert (seen["own_limits"], seen["seccomp"]) == (["a"], ["not told by the kernel"])


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
        assert protection.find_weaknesses(cells) == []


def test_boxes_of_different_architectures_are_not_compared() -> None:
    weak = box(seccomp=["off"])
    cells = [
        cell("debian-13", facts=facts(), tests=[passed("starts", box())]),
        cell("debian-13-arm64", facts=facts(arch="aarch64"), tests=[passed("starts", weak)]),
    ]
    assert protection.find_weaknesses(cells) == []
    cells.append(cell("ubuntu-arm64", facts=facts(arch="aarch64"), tests=[passed("starts", box())]))
    [weakness] = protection.find_weaknesses(cells)
    assert (weakness.lacking, weakness.elsewhere.guest) == (("seccomp filter",), "ubuntu-arm64")
    assert protection.name_weak_cells([weakness]) == {"debian-13-arm64/stock/0.10.8"}


FREE = {"namespaces": [], "no_new_privs": False, "seccomp": ["off"], "inherited": ["seccomp filter"]}


@pytest.mark.parametrize(
    ("own", "elsewhere", "lacking"),
    [
        pytest.param(FREE, FREE | {"seccomp": ["filter"]}, (), id="only-the-service-has-a-filter"),
        pytest.param(FREE, {"namespaces": []}, ("no_new_privs", "seccomp filter"), id="boxlite-gave-it-there"),
        pytest.param(
            FREE | {"no_new_privs": True, "inherited": []},
            {"namespaces": [], "inherited": ["seccomp filter"]},
            ("seccomp filter",),
            id="boxlite-took-it-here",
        ),
    ],
)
def test_what_a_box_has_from_its_test_is_no_protection_of_boxlites(
    own: dict[str, Any], elsewhere: dict[str, Any], lacking: tuple[str, ...]
) -> None:
    cells = [cell(tests=[passed("off", box(**own))]), cell("service", tests=[passed("off", box(**elsewhere))])]
    assert [weakness.lacking for weakness in protection.find_weaknesses(cells)] == (
        [lacking] if lacking else []
    )


def test_what_was_asked_for_and_is_not_seen_is_one_line_for_all_cells() -> None:
    seen = box(seccomp=["off"], asked={"seccomp_enabled": True})
    cells = [cell(f"debian-{n}", tests=[passed("starts", seen), passed("ends", seen)]) for n in range(4)]
    [few] = protection.find_unmet_options(cells[:2])
    [many] = protection.find_unmet_options(cells, in_full=False)
    assert (few.tests, few.cells, many.cells) == (["starts", "ends"], cells[:2], cells)
    # Few cells are named, many are counted.
    golden.check("unmet-options.txt", f"{few}\n{many}\n")


def test_a_box_that_nothing_confines_says_so() -> None:
    free = {"namespaces": [], "no_new_privs": False, "seccomp": ["off"], "cgroup": None}
    held = dict.fromkeys(("Inh", "Prm", "Eff", "Bnd", "Amb"), "1" * 16)
    [given] = protection.find_confinements([cell(tests=[passed("control", box(**free, capabilities=held))])])
    assert given.description == "nothing"


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
    assert list(map(str, words.list_unmet_options(asking()))) == [
        "asked for a seccomp filter (seccomp_enabled): no thread of libkrun VM, nor of the 2 other processes "
        "of its box, has one",
        "asked for files of at most 1 GiB (max_file_size): the limit of libkrun VM is 20 GiB",
        "asked for at most 100 processes (max_processes): libkrun VM has no lower limit than the test "
        "itself, and no control group of its own",
    ]
    # boxlite's own words are quoted.
    seccomp, _, processes = map(str, words.list_unmet_options(asking(warnings=[NO_GROUP, OFF])))
    assert seccomp.endswith(f'has one; boxlite\'s own log: "{OFF}"')
    assert processes.endswith(f'control group of its own; boxlite\'s own log: "{NO_GROUP}"')


def test_what_was_asked_for_and_is_given_is_no_finding() -> None:
    met = asking(
        seccomp=["filter"],
        limits={"open files": "1024", "file size": "1000", "processes": "7795"},
        cgroup="0::/boxlite/BOX",
        cgroup_limits={"pids.max": "100"},
    )
    assert words.list_unmet_options(met) == []
    assert words.limits_given(met) == ["max_open_files", "max_file_size", "max_processes"]
    # A record from before what was asked was recorded, and a box for which boxlite chose.
    assert words.list_unmet_options(box(seccomp=["off"])) == []


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
    assert words.list_unmet_options(asking(**other))[0].observation == seen


def test_a_missing_jailer_and_a_limit_that_only_another_process_has_are_told_as_such() -> None:
    [jailer, *_] = words.list_unmet_options(asking(namespaces=[]))
    assert str(jailer).startswith("asked for the jailer (jailer_enabled): libkrun VM shares all namespaces")
    tree = [{"program": "bwrap", "seccomp": ["off"], "limits": {"file size": str(1 << 30)}}]
    limits = {"open files": "1024", "processes": "100"}
    [_, size] = words.list_unmet_options(asking(processes=tree, limits=limits, own_limits=[]))
    assert size.observation == "nothing limits libkrun VM, only bwrap has it"


def test_a_limit_that_no_kernel_has_is_no_number() -> None:
    limits = {"open files": "1024", "file size": "9" * 5000, "processes": "9" * 5000}
    assert words.list_unmet_options(asking(limits=limits))[1].observation == "nothing limits libkrun VM"


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


def test_cells_whose_boxes_lack_the_same_are_one_finding() -> None:
    boxes = [box(no_new_privs=number % 50 != 7) for number in range(200)]
    cells = [cell(variant=f"v{number}", tests=[passed("starts", seen)]) for number, seen in enumerate(boxes)]
    [weakness] = protection.find_weaknesses(cells)
    assert [cell.variant for cell in weakness.cells] == ["v7", "v57", "v107", "v157"]
    assert (weakness.lacking, weakness.elsewhere.variant) == (("no_new_privs",), "v0")
