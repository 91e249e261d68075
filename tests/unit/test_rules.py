"""rules.sh and setup.sh on a folder that stands for a host, with stand-ins for the programs that load rules."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import PACKAGE

ROOT = PACKAGE.parent
RULES = PACKAGE / "machine" / "rules.sh"
# A policy of SELinux. The labels that were added by hand decide before those of the policy.
STUBS = {
    "restorecon": 'echo "restorecon $*" >>"$ROOT/called"',
    "semanage": r"""printf '%s\n' "semanage $*" >>"$ROOT/called"
case $2 in --add) echo virt_log_t ;; *) echo var_lib_t ;; esac >"$ROOT/label" """,
    "matchpathcon": 'echo "system_u:object_r:$(cat "$ROOT/label"):s0"',
}


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "label").write_text("var_lib_t\n")
        (root / "bin").mkdir()
        for name, text in STUBS.items():
            (root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (root / "bin" / name).chmod(0o755)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "ROOT": str(self.root)}
        return subprocess.run(
            ["sh", RULES, *arguments], capture_output=True, text=True, check=False, env=environment
        )

    @property
    def called(self) -> list[str]:
        file = self.root / "called"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_label_for_consoles_is_added_once_and_removed(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    for _ in range(2):
        assert host.run("add", "consoles", folder).returncode == 0
    add, restore = f"semanage fcontext --add --type virt_log_t {folder}(/.*)?", f"restorecon -R -F {folder}"
    assert host.called == [add, restore, restore]
    assert folder.is_dir()
    for _ in range(2):
        assert host.run("remove", "consoles", folder).returncode == 0
    assert host.called[3:] == [f"semanage fcontext --delete {folder}(/.*)?", restore, restore]


def test_the_label_is_for_that_folder_alone_whatever_its_name(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "lab.1+(a|b)[c]{d}^$*?\\"
    for action in ("add", "remove"):
        assert host.run(action, "consoles", folder).returncode == 0
    for line in (host.called[0], host.called[2]):
        pattern = line.split(maxsplit=3 if "--delete" in line else 5)[-1]
        assert re.fullmatch(pattern, f"{folder}/console")
        assert not re.fullmatch(pattern, f"{tmp_path}/lab-1a")


@pytest.mark.parametrize(
    "arguments", [[], ["add"], ["add", "all", "/x"], ["drop", "consoles", "/x"], ["add", "consoles"]]
)
def test_what_is_no_rule_changes_nothing(host: Host, arguments: list[str]) -> None:
    assert host.run(*arguments).returncode == 3
    assert host.called == []


def test_a_rule_is_shown_without_being_added(host: Host, tmp_path: Path) -> None:
    printed = host.run("show", "consoles", tmp_path / "state")
    assert printed.stdout == f"the SELinux label virt_log_t on {tmp_path}/state and all below it\n"
    assert (host.called, (tmp_path / "state").exists()) == ([], False)


# -- setup.sh, with a copy of what it reads

SETUP_STUBS = {
    **{f"bin/{name}": text for name, text in STUBS.items()},
    "bin/id": "echo 0",
    "bin/dpkg-query": "echo install ok installed",
    "bin/rpm": "true",
    "copy/.venv/bin/lab": 'echo "lab $*"',
    "copy/.venv/bin/python": "true",
}


class Copy:
    """The files of the project that setup.sh reads, and a host under SELinux on which a rule is missing."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "copy"
        for name in (
            "setup.sh",
            "pyproject.toml",
            "requirements",
            "lab/base/hosts.table",
            "lab/machine/rules.sh",
        ):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, target)
        setup = self.folder / "setup.sh"
        setup.write_text(setup.read_text().replace("/sys/fs/selinux/enforce", f"{root}/label"))
        for name, text in SETUP_STUBS.items():
            program = root / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        (root / "label").write_text("var_lib_t\n")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/bin",
            "ROOT": str(self.root),
            "HOME": str(self.root),
            "LAB_HOME": str(self.root / "home"),
            "LAB_CONNECT": "test:///default",
        }
        command = ["sh", str(self.folder / "setup.sh"), *arguments]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
        )

    @property
    def has_rule(self) -> bool:
        return (self.root / "label").read_text() == "virt_log_t\n"


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_a_rule_is_added_and_removed_where_the_lab_keeps_its_lanes(copy: Copy) -> None:
    for change, has_rule in (("allow", True), ("allow", True), ("forbid", False)):
        done = copy.run(f"--{change}=consoles", "doctor")
        assert (copy.has_rule, done.stdout) == (has_rule, "lab doctor\n")
        assert f"the SELinux label virt_log_t on {copy.root}/home/state" in done.stderr
