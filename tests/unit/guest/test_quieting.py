"""What a guest does by itself is stopped: the program that does it, with a stand-in for systemctl."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.guest.programs import files

# Knows two units; one cannot be masked.
SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$0.log"
case "$*" in
    list-unit-files*)
        printf "%s static -\\n" apt-daily.timer fstrim.service odd.service
        exit 1
        ;;
    *odd.service)
        echo "Failed to mask unit: File '/etc/systemd/system/odd.service' already exists." >&2
        exit 1
        ;;
esac
"""


def quiet(folder: Path, monkeypatch: pytest.MonkeyPatch, **request: Any) -> Mapping[str, Any]:
    program = folder / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    argument = {
        "units": ["apt-daily.timer", "none.timer"],
        "scripts": [],
        "locks": [],
        "seconds": 0,
        "loaders": [],
        "kernel_arguments": ["no_timer_check", "tsc=nowatchdog"],
        **request,
    }
    command = [sys.executable, "-I", "-S", str(files()["quiet"]), json.dumps(argument)]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    changes: dict[str, Any] = json.loads(printed)
    return changes


def test_units_are_masked_and_only_timers_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = quiet(tmp_path, monkeypatch)
    reason = "Failed to mask unit: File '/etc/systemd/system/odd.service' already exists."
    assert changes["masked"] == ["apt-daily.timer", "fstrim.service"]
    assert changes["not_masked"] == {"odd.service": reason}
    did = (tmp_path / "systemctl.log").read_text().splitlines()
    assert did[0].endswith("apt-daily.timer none.timer")
    assert did[1:] == [
        # The guest's configuration is read again once, not for each unit.
        "mask --quiet --no-reload apt-daily.timer",
        "mask --quiet --no-reload fstrim.service",
        "mask --quiet --no-reload odd.service",
        "daemon-reload",
        "stop apt-daily.timer",
    ]


def test_a_login_s_scripts_are_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "update-motd.d"
    folder.mkdir()
    for name, mode in [("00-header", 0o755), ("50-news", 0o644)]:
        (folder / name).touch()
        (folder / name).chmod(mode)
    changes = quiet(tmp_path, monkeypatch, scripts=[str(folder), str(tmp_path / "none")])
    assert changes["not_executable"] == [str(folder / "00-header")]
    assert (folder / "00-header").stat().st_mode & 0o777 == 0o644


def test_the_kernel_gets_one_argument_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grub, entry = tmp_path / "grub.cfg", tmp_path / "fedora.conf"
    grub.write_text("menuentry Debian {\n\tlinux\t/vmlinuz root=UUID=1 ro\n\tinitrd /initrd\n}\n")
    entry.write_text("title Fedora\nlinux /vmlinuz\noptions root=UUID=2 ro\n")
    loaders = [[str(tmp_path / "grub*"), "linux"], [str(tmp_path / "*.conf"), "options"]]
    assert quiet(tmp_path, monkeypatch, loaders=loaders)["loader_files"] == [str(grub), str(entry)]
    more = " no_timer_check tsc=nowatchdog\n"
    assert f"\tlinux\t/vmlinuz root=UUID=1 ro{more}\tinitrd /initrd\n" in grub.read_text()
    assert entry.read_text() == f"title Fedora\nlinux /vmlinuz\noptions root=UUID=2 ro{more}"
    assert quiet(tmp_path, monkeypatch, loaders=loaders)["loader_files"] == []


def test_another_program_s_locks_are_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, free = tmp_path / "lock", tmp_path / "free"
    lock.touch()
    free.touch()
    locks = [str(lock), str(free), str(tmp_path / "none")]
    with lock.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert quiet(tmp_path, monkeypatch, locks=locks)["held"] == [str(lock)]
    assert quiet(tmp_path, monkeypatch, locks=locks)["held"] == []
