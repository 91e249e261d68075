"""rules.sh on a folder that stands for a host, with stand-ins for the programs that load rules."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.host import rule
from lab.machine import network
from lab.machine.domain import Network
from lab.machine.network import Verdict

# The end of the file that Debian's and Ubuntu's package passt installs.
ABSTRACTION = "  abi <abi/4.0>,\n  include <abstractions/base>\n  /usr/bin/passt.avx2\t\t\tix,\n"
STUBS = {
    "apparmor_parser": 'echo "apparmor_parser $*" >>"$ROOT/called"',
    "restorecon": 'echo "restorecon $*" >>"$ROOT/called"',
    # The labels that were added by hand decide before those of the policy.
    "semanage": r"""printf '%s\n' "semanage $*" >>"$ROOT/called"
case $2 in --add) echo virt_log_t ;; *) echo var_lib_t ;; esac >"$ROOT/label" """,
    "matchpathcon": 'echo "system_u:object_r:$(cat "$ROOT/label"):s0"',
}


class Host:
    """A host with AppArmor's rules for passt, and a policy of SELinux."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.abstraction = root / "apparmor.d/abstractions/passt"
        self.abstraction.parent.mkdir(parents=True)
        self.abstraction.write_text(ABSTRACTION)
        (root / "apparmor.d/usr.bin.passt").write_text("profile passt {}")
        (root / "label").write_text("var_lib_t\n")
        (root / "bin").mkdir()
        for name, text in STUBS.items():
            (root / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (root / "bin" / name).chmod(0o755)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        script = self.root / "rules.sh"
        script.write_text(rule.RULES.read_text().replace("/etc/apparmor.d", f"{self.root}/apparmor.d"))
        environment = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "ROOT": str(self.root)}
        return subprocess.run(
            ["sh", script, *arguments], capture_output=True, text=True, check=False, env=environment
        )

    @property
    def called(self) -> list[str]:
        file = self.root / "called"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_rule_for_passt_is_added_once_and_loaded(host: Host) -> None:
    for _ in range(2):
        assert host.run("add", "passt").returncode == 0
    text = host.abstraction.read_text()
    assert text.startswith(ABSTRACTION)
    added = text.removeprefix(ABSTRACTION).splitlines()
    assert [line.strip() for line in added] == [
        "# boxlite-lab: begin",
        "/usr/bin/passt{,.avx2} mr,",
        "owner @{run}/user/[0-9]*/libvirt/qemu/run/passt/* rw,",
        "owner @{run}/libvirt/qemu/passt/* rw,",
        "# boxlite-lab: end",
    ]
    assert host.called == [f"apparmor_parser --replace {host.root}/apparmor.d/usr.bin.passt"] * 2


def test_it_is_seen_whether_the_rules_for_passt_lack_it(
    host: Host, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "APPARMOR", host.root / "apparmor.d")
    assert rule.passt_lacks_it(paths)
    host.run("add", "passt")
    assert not rule.passt_lacks_it(paths)
    host.abstraction.unlink()
    assert not rule.passt_lacks_it(paths)


def test_the_rule_for_passt_is_removed_without_a_trace(host: Host) -> None:
    host.run("add", "passt")
    for _ in range(2):
        assert host.run("remove", "passt").returncode == 0
        assert host.abstraction.read_text() == ABSTRACTION


def test_a_host_without_rules_for_passt_is_left_alone(host: Host) -> None:
    host.abstraction.unlink()
    done = host.run("add", "passt")
    assert done.returncode == 3
    assert "passt has no profile of AppArmor" in done.stderr
    (host.root / "apparmor.d/usr.bin.passt").unlink()
    assert host.run("remove", "passt").returncode == 0
    assert (host.abstraction.exists(), host.called) == (False, [])


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


@pytest.mark.parametrize("arguments", [[], ["add"], ["add", "all"], ["drop", "passt"], ["add", "consoles"]])
def test_what_is_no_rule_changes_nothing(host: Host, arguments: list[str]) -> None:
    assert host.run(*arguments).returncode == 3
    assert (host.called, host.abstraction.read_text()) == ([], ABSTRACTION)


def test_a_rule_is_shown_without_being_added(host: Host, paths: Paths) -> None:
    shown = rule.show("passt", paths)
    assert shown.startswith("at the end of /etc/apparmor.d/abstractions/passt:\n")
    assert "owner @{run}/user/[0-9]*/libvirt/qemu/run/passt/* rw," in shown
    assert rule.show("consoles", paths) == f"the SELinux label virt_log_t on {paths.state} and all below it"
    host.run("show", "passt")
    assert (host.called, host.abstraction.read_text()) == ([], ABSTRACTION)


@pytest.mark.parametrize(("kept", "printed"), [("passt", "passt\n"), ("", "\n"), (None, "\n")])
def test_setup_reads_which_rule_the_last_doctor_asked_for(
    tmp_path: Path, kept: str | None, printed: str
) -> None:
    paths = Paths(tmp_path / "cache", tmp_path / "state")
    if kept is not None:
        network.keep(paths, Verdict(key="", network=Network.PASST, proved="", rule=kept))
    done = subprocess.run(
        [sys.executable, "-m", "lab.host.rule"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LAB_HOME": str(tmp_path)},
        cwd=rule.RULES.parents[2],
    )
    assert (done.stdout, done.stderr) == (printed, "")
