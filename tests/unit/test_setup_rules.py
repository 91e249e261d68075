"""The question that setup.sh asks about a rule, in a copy of what it needs, on a host of stand-ins."""

import os
import pty
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
    # Something is broken until the rule was added that a proof asks for.
    "copy/.venv/bin/lab": 'echo "lab $*"; exit "$(cat "$ROOT/status")"',
    "copy/.venv/bin/python": """case "$*" in
    "-m lab.machine.proof")
        echo proof >>"$ROOT/proofs"; grep -q virt_log_t "$ROOT/label" || cat "$ROOT/wanted" ;;
esac""",
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
        (root / "wanted").write_text("consoles\n")
        (root / "status").write_text("3\n")

    def run(self, *arguments: str, answer: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run setup.sh; with an answer, at a terminal."""
        environment = {
            "PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/bin",
            "ROOT": str(self.root),
            "HOME": str(self.root),
            "LAB_HOME": str(self.root / "home"),
            "LAB_CONNECT": "test:///default",
        }
        ours, theirs = pty.openpty()
        try:
            if answer is not None:
                os.write(ours, f"{answer}\n".encode())
            return subprocess.run(
                ["sh", self.folder / "setup.sh", *arguments],
                stdin=subprocess.DEVNULL if answer is None else theirs,
                capture_output=True,
                text=True,
                check=False,
                env=environment,
            )
        finally:
            os.close(ours)
            os.close(theirs)

    @property
    def has_rule(self) -> bool:
        return (self.root / "label").read_text() == "virt_log_t\n"


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.mark.parametrize(("answer", "added"), [("y", True), ("yes", True), ("n", False), ("", False)])
def test_a_rule_is_added_at_a_terminal_only_if_the_answer_is_yes(copy: Copy, answer: str, added: bool) -> None:
    done = copy.run("doctor", answer=answer)
    assert "Add the rule consoles, which --forbid=consoles removes again? [y/N]" in done.stderr
    assert copy.has_rule is added
    # With the rule, everything is proved again.
    assert done.stdout == "lab doctor\n" * (2 if added else 1)
    assert done.returncode == 3
    if added:
        assert f"the SELinux label virt_log_t on {copy.root}/home/state" in done.stderr


@pytest.mark.parametrize(
    ("wanted", "command", "terminal"),
    [("consoles", "doctor", False), ("", "doctor", True), ("consoles", "clean", True)],
)
def test_nothing_is_asked_without_need(copy: Copy, wanted: str, command: str, terminal: bool) -> None:
    (copy.root / "wanted").write_text(f"{wanted}\n")
    done = copy.run(command, answer="y" if terminal else None)
    assert "Add the rule" not in done.stderr
    assert (copy.has_rule, done.stdout, done.returncode) == (False, f"lab {command}\n", 3)


def test_where_nothing_is_broken_no_machine_is_started_once_more(copy: Copy) -> None:
    (copy.root / "status").write_text("0\n")
    done = copy.run("doctor", answer="y")
    assert (done.stdout, done.returncode, (copy.root / "proofs").exists()) == ("lab doctor\n", 0, False)


def test_a_rule_that_was_named_is_added_and_removed_without_a_question(copy: Copy) -> None:
    for change, has_rule in (("allow", True), ("allow", True), ("forbid", False)):
        done = copy.run(f"--{change}=consoles", "doctor")
        assert (copy.has_rule, done.stdout) == (has_rule, "lab doctor\n")
