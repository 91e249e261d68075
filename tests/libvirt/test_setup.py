"""setup.sh starts libvirt's real daemons, from nothing, on a host without systemd.

Each test has a /run, logs and processes of its own, so the host's daemons are neither seen nor touched.
"""

import os
import subprocess
from pathlib import Path

import pytest

from lab.base.paths import PACKAGE
from tests.builders.facts import executable

SETUP = PACKAGE.parent / "setup.sh"
STARTS = 25
# The part of setup.sh about libvirt, with what it uses of the rest.
PART = r"""
set -euf
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log/libvirt
PATH=$1:$PATH:/usr/sbin:/sbin dry='' bare=''
say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }
run() { "$@" </dev/null >&2; }
look_up() { case $1 in daemons) found='virtlogd libvirtd' ;; units) found=libvirtd.service ;; esac; }
eval "$(sed -n '/^# --- libvirt -/,/^# libvirt.s first look/p' "$2")"
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root starts the system's daemons and has namespaces for a /run of its own"
)


def run_part(folder: Path, script: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the part and a script; programs in `folder` come before those of the host."""
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child"]
    return subprocess.run(
        [*command, "sh", "-c", PART + script, "sh", folder, SETUP],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def test_each_of_many_starts_from_nothing_succeeds(tmp_path: Path) -> None:
    # The other half of setup.sh asks libvirtd for its version at the same time.
    done = run_part(
        tmp_path,
        f"""
        for number in $(seq {STARTS}); do
            ! answers || die 'the daemon of the last start is still there'
            (start_libvirt) & start=$!
            libvirtd --version >/dev/null
            wait $start
            answers && echo answered
            # libvirtd may ignore SIGTERM while it looks at the host.
            kill -9 $(cat /run/libvirtd.pid) $(cat /run/virtlogd.pid)
            umount --lazy /run
            mount -t tmpfs tmpfs /run
        done
        """,
    )
    assert (done.stdout.splitlines(), done.returncode) == (["answered"] * STARTS, 0), done.stderr


def test_a_process_of_the_daemons_name_is_not_taken_for_the_daemon(tmp_path: Path) -> None:
    done = run_part(
        tmp_path,
        """
        cp /usr/bin/sleep /run/libvirtd
        /run/libvirtd 200 &
        until pidof libvirtd >/dev/null; do sleep 0.1; done
        start_libvirt
        answers && echo answered
        """,
    )
    assert (done.stdout, done.returncode) == ("answered\n", 0), done.stderr


def test_a_start_that_fails_is_tried_again(tmp_path: Path) -> None:
    executable(
        tmp_path / "libvirtd",
        f'#!/bin/sh\n[ -e {tmp_path}/tried ] && exec /usr/sbin/libvirtd "$@"\ntouch {tmp_path}/tried; exit 1\n',
    )
    done = run_part(tmp_path, "start_libvirt; answers && echo answered")
    assert (done.stdout, done.returncode) == ("answered\n", 0), done.stderr


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", "; it never started, and /var/log/libvirt/libvirtd.log does not exist or is empty"),
        (
            "first\\nno room for a socket\\n",
            "; its log, /var/log/libvirt/libvirtd.log, ends with:\nfirst\nno room for a socket",
        ),
    ],
    ids=["no log", "log"],
)
def test_a_daemon_that_never_answers_is_told_with_what_is_known(
    tmp_path: Path, log: str, expected: str
) -> None:
    executable(
        tmp_path / "libvirtd",
        f"#!/bin/sh\nprintf '{log}' >/var/log/libvirt/libvirtd.log\necho 'cannot bind' >&2\nexit 1\n",
    )
    done = run_part(tmp_path, "sleep() { :; }\nstart_libvirt")
    first = "setup: libvirtd does not answer on qemu:///system; its start printed: cannot bind"
    assert (done.stderr, done.returncode) == (f"{first}{expected}\n", 3)
