"""The rule that setup.sh adds and removes, with a copy of what it reads, on a host of stand-ins."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import PACKAGE
from tests.unit import test_rules

ROOT = PACKAGE.parent
STUBS = {
    **{f"bin/{name}": text for name, text in test_rules.STUBS.items()},
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
        for name, text in STUBS.items():
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
