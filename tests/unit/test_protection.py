"""What the suite sees of a box from outside, and boxes that are less protected than others."""

import importlib.util
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from lab.base.paths import PACKAGE
from lab.record import Outcome, Protection, Status, TestResult
from lab.report import markdown, protection, terminal
from tests.unit.examples import JAILED, cell, run_of


def box(**other: Any) -> Protection:
    return Protection.model_validate(JAILED | other)


@pytest.fixture
def outside() -> ModuleType:
    """The module of the suite that looks at processes from outside."""
    path = PACKAGE / "suites" / "jailer" / "outside.py"
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


def test_a_process_that_shares_all_with_the_test_is_seen_as_it_is(
    outside: ModuleType, child: int, tmp_path: Path
) -> None:
    seen = Protection.model_validate(outside.protection(child, tmp_path, "a-box"))
    assert (seen.namespaces, seen.cgroup, seen.seccomp, seen.root) == ([], None, seen.seccomp, "/")
    assert seen.limits["open files"] == "77"
    assert seen.users == [str(os.getuid())]
    assert "/proc rw" in seen.mounts
    assert set(seen.capabilities) == {"Inh", "Prm", "Eff", "Bnd", "Amb"}


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
        for each in (pid, process.pid):
            os.kill(each, 9)


def test_names_that_only_one_box_has_are_not_told(
    outside: ModuleType, child: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [home] = {"/proc"}  # A mount of every process stands for the home of boxlite.
    mounts = outside.protection(child, Path(home), "no-such-box")["mounts"]
    assert "HOME rw" in mounts
    assert not [mount for mount in mounts if mount.startswith("/proc")]


def passed(name: str, seen: Protection | None) -> TestResult:
    return TestResult(name=name, outcome=Outcome.PASS, protection=seen)


def test_a_box_with_less_than_the_same_test_s_elsewhere_is_a_finding() -> None:
    weak = box(seccomp=["off"], cgroup=None, mounts=["/ rw", "/usr rw", "HOME/boxes/BOX/tmp rw"])
    run = run_of(
        cell("debian-13", status=Status.PASS, tests=[passed("starts", box()), passed("isolates", box())]),
        cell("fedora-44", status=Status.PASS, tests=[passed("starts", weak), passed("isolates", box())]),
    )
    [found] = protection.weaknesses(run)
    assert str(found) == (
        "fedora-44 stock: less protected: the box of starts lacked seccomp filter, control group of its own, "
        "a /usr that is not writable; debian-13 stock has that"
    )
    assert protection.weak_cells([found]) == {id(run.cells[1])}


def test_a_filter_of_which_the_kernel_does_not_tell_is_not_called_lacking() -> None:
    run = run_of(
        cell("debian-13", status=Status.PASS, tests=[passed("starts", box())]),
        cell(
            "own-kernel", status=Status.PASS, tests=[passed("starts", box(seccomp=["not told by the kernel"]))]
        ),
    )
    assert protection.weaknesses(run) == []


def test_other_tests_and_other_builds_are_not_compared() -> None:
    off = box(namespaces=[], no_new_privs=False, seccomp=["off"])
    run = run_of(
        cell(
            "debian-13", build="1", status=Status.PASS, tests=[passed("jailed", box()), passed("control", off)]
        ),
        cell("debian-13", build="2", status=Status.PASS, tests=[passed("jailed", off), passed("control", off)]),
    )
    assert protection.weaknesses(run) == []


def test_what_is_the_same_for_several_boxes_is_told_once() -> None:
    off = box(namespaces=[], no_new_privs=False, seccomp=["off"], limits={}, cgroup=None)
    both = [passed("jailed", box()), passed("again", box()), passed("control", off), passed("preset", None)]
    run = run_of(
        cell("debian-12", status=Status.PASS, tests=both), cell("debian-13", status=Status.PASS, tests=both)
    )
    jailed, control = protection.given(run)
    assert (jailed.tests, len(jailed.cells)) == (["jailed", "again"], 2)
    assert (control.tests, control.what) == (["control"], ("no capabilities", "empty bounding set"))
    assert {"user namespace", "no_new_privs", "seccomp filter", "control group of its own"} < set(jailed.what)


def test_limits_are_one_phrase_and_no_line_is_empty_twice() -> None:
    limits = {"open files": "1024", "processes": "7800"}
    run = run_of(cell("debian-13", status=Status.PASS, tests=[passed("starts", box(limits=limits))]))
    page = markdown.render(run)
    assert ", control group of its own, 2 limits | 1 cell |" in page
    assert "\n\n\n" not in page.partition("## What confines a box")[2]
    off = box(namespaces=[], no_new_privs=False, seccomp=["off"], limits={}, cgroup=None)
    weak = box(
        capabilities=dict.fromkeys(off.capabilities, "1" * 16), **off.model_dump(exclude={"capabilities"})
    )
    [given] = protection.given(run_of(cell("debian-13", tests=[passed("control", weak)])))
    assert given.summary == "nothing"


def test_a_weakness_is_in_the_table_and_below_it(tmp_path: Path) -> None:
    run = run_of(
        cell("debian-13", status=Status.PASS, tests=[passed("starts", box())]),
        cell("fedora-44", status=Status.PASS, tests=[passed("starts", box(namespaces=["mnt", "user"]))]),
    )
    page = markdown.render(run)
    assert "pass, less protected |" in page
    assert "- fedora-44 stock: less protected: the box of starts lacked ipc namespace, pid namespace" in page
    console = Console(width=200, record=True, file=io.StringIO())
    terminal.summary(console, run, tmp_path)
    printed = console.export_text()
    assert "pass, less protected" in printed
    assert printed.count("fedora-44 stock: less protected: the box of starts lacked ipc namespace") == 1
