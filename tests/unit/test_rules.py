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
        for name, text in STUBS.items():
            self.put(f"bin/{name}", text)

    def put(self, name: str, text: str) -> None:
        program = self.root / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    def run(self, *arguments: str | Path, script: Path = RULES) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.root}/bin:/usr/sbin:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "HOME": str(self.root),
            "LAB_HOME": str(self.root / "home"),
            "LAB_CONNECT": "test:///default",
        }
        command = ["sh", script, *arguments]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
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

COPIED = ("setup.sh", "pyproject.toml", "requirements", "lab/base/hosts.table", "lab/machine/rules.sh")
SETUP_STUBS = {
    "bin/id": "echo 0",
    "bin/dpkg-query": "echo install ok installed",
    "bin/rpm": "true",
    "copy/.venv/bin/lab": 'echo "lab $*"',
    "copy/.venv/bin/python": "true",
}


def test_a_rule_is_added_and_removed_where_the_lab_keeps_its_lanes(host: Host, tmp_path: Path) -> None:
    for name in COPIED:
        target = tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, target)
    for name, text in SETUP_STUBS.items():
        host.put(name, text)
    setup = tmp_path / "copy" / "setup.sh"
    # A host under SELinux.
    setup.write_text(setup.read_text().replace("/sys/fs/selinux/enforce", f"{tmp_path}/label"))
    for change, label in (("allow", "virt_log_t\n"), ("allow", "virt_log_t\n"), ("forbid", "var_lib_t\n")):
        done = host.run(f"--{change}=consoles", "doctor", script=setup)
        assert ((tmp_path / "label").read_text(), done.stdout) == (label, "lab doctor\n")
        assert f"the SELinux label virt_log_t on {tmp_path}/home/state" in done.stderr
