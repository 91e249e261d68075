"""The question that setup.sh asks about a rule, in a copy of what it needs, on a host of stand-ins."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import PACKAGE

ROOT = PACKAGE.parent
ABSTRACTION = "  /usr/bin/passt.avx2\t\t\tix,\n"
STUBS = {
    "bin/id": "echo 0",
    "bin/dpkg-query": "echo install ok installed",
    "bin/rpm": "true",
    "bin/apparmor_parser": "true",
    # It asks for the rule until that was added.
    "copy/.venv/bin/lab": 'echo "lab $*"; exit 3',
    "copy/.venv/bin/python": """case "$*" in
    "-m lab.host.rule") grep -q boxlite-lab "$ROOT/apparmor.d/abstractions/passt" || cat "$ROOT/wanted" ;;
esac""",
}


class Copy:
    """The files of the project that setup.sh reads, and a host whose last `lab doctor` wanted a rule."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "copy"
        for name in ("setup.sh", "pyproject.toml", "requirements", "lab/base/hosts.table", "lab/host/rules.sh"):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, target)
        rules = self.folder / "lab/host/rules.sh"
        rules.write_text(rules.read_text().replace("/etc/apparmor.d", f"{root}/apparmor.d"))
        for name, text in STUBS.items():
            program = root / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        self.abstraction = root / "apparmor.d/abstractions/passt"
        self.abstraction.parent.mkdir(parents=True)
        self.abstraction.write_text(ABSTRACTION)
        (root / "wanted").write_text("passt\n")

    def run(self, *arguments: str, answer: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run setup.sh; with an answer, at a terminal."""
        environment = {
            "PATH": f"{self.root}/bin:/usr/sbin:/usr/bin:/bin",
            "ROOT": str(self.root),
            "HOME": str(self.root),
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
        return "boxlite-lab: begin" in self.abstraction.read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.mark.parametrize(("answer", "added"), [("y", True), ("yes", True), ("n", False), ("", False)])
def test_a_rule_is_added_at_a_terminal_only_if_the_answer_is_yes(copy: Copy, answer: str, added: bool) -> None:
    done = copy.run("doctor", answer=answer)
    assert "Add the rule passt, which --forbid=passt removes again? [y/N]" in done.stderr
    assert copy.has_rule is added
    # With the rule, everything is proved again.
    assert done.stdout == "lab doctor\n" * (2 if added else 1)
    assert done.returncode == 3
    if added:
        assert "owner @{run}/libvirt/qemu/passt/* rw," in done.stderr


@pytest.mark.parametrize(
    ("wanted", "command", "terminal"),
    [("passt", "doctor", False), ("", "doctor", True), ("passt", "clean", True)],
)
def test_nothing_is_asked_without_a_terminal_a_missing_rule_or_doctor(
    copy: Copy, wanted: str, command: str, terminal: bool
) -> None:
    (copy.root / "wanted").write_text(f"{wanted}\n")
    done = copy.run(command, answer="y" if terminal else None)
    assert "Add the rule" not in done.stderr
    assert (copy.has_rule, done.stdout, done.returncode) == (False, f"lab {command}\n", 3)


def test_a_rule_that_was_named_is_added_and_removed_without_a_question(copy: Copy) -> None:
    for change, has_rule in (("allow", True), ("allow", True), ("forbid", False)):
        done = copy.run(f"--{change}=passt", "doctor")
        assert (copy.has_rule, done.stdout) == (has_rule, "lab doctor\n")
    assert copy.abstraction.read_text() == ABSTRACTION
