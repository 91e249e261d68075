"""A systemd unit that keeps a host worker running."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

# Longer than machines take to be taken down, in seconds.
STOP_SECONDS = 120

_TEMPLATE = """\
# A host worker of the lab. {where}
[Unit]
Description=boxlite lab host worker
{after}StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
{environment}Restart=always
RestartSec=30
# The worker takes its guests down by itself; what is left after that is killed.
KillMode=mixed
TimeoutStopSec={stop}
# A guest that takes too much memory must not end the worker.
OOMPolicy=continue
# Core files would hold the private key.
LimitCORE=0
UMask=0077
{hardening}
[Install]
WantedBy={target}
"""

# Settings that take namespaces, setuid programs, devices or /proc away are left out: guests need /dev/kvm,
# passt and image builds make user namespaces, and an ordinary user builds images with newuidmap (setuid).
_SYSTEM = """\
ProtectSystem=full
ProtectHome=read-only
ProtectHostname=yes
RestrictRealtime=yes
LockPersonality=yes
"""
_USER = """\
# Nothing else can be taken away from a user's service: each setting that does implies NoNewPrivileges,
# and newuidmap, with which an ordinary user builds images, is setuid.
"""


def text(program: Sequence[str], arguments: Sequence[str], *, system: bool | None = None) -> str:
    """The unit for `program` with the arguments of `lab worker`; for root it is one of the system.

    A relative program is made absolute, as systemd asks for.
    """
    system = os.geteuid() == 0 if system is None else system
    words = [str(Path(program[0]).absolute()), *program[1:], *arguments]
    if system:
        where = (
            "Put it into /etc/systemd/system/lab-worker.service, then:\n#   systemctl enable --now lab-worker"
        )
    else:
        where = (
            "Put it into ~/.config/systemd/user/lab-worker.service, then:\n"
            "#   systemctl --user enable --now lab-worker; loginctl enable-linger"
        )
    home = os.environ.get("LAB_HOME")
    return _TEMPLATE.format(
        where=where,
        # A user's manager does not know the units of the system.
        after="Wants=network-online.target\nAfter=network-online.target libvirtd.service virtqemud.socket\n"
        if system
        else "",
        command=" ".join(_quoted(word).replace("$", "$$") for word in words),
        environment=f"Environment={_quoted(f'LAB_HOME={home}')}\n" if home else "",
        stop=STOP_SECONDS,
        hardening=_SYSTEM + _writable(home) if system else _USER,
        target="multi-user.target" if system else "default.target",
    )


def _writable(home: str | None) -> str:
    """The line for a LAB_HOME that ProtectHome might cover; the minus lets it be missing."""
    return f"ReadWritePaths={_quoted(f'-{home}')}\n" if home else ""


def _quoted(word: str) -> str:
    """A word as systemd reads it back."""
    escaped = word.replace("\\", "\\\\").replace("%", "%%").replace("\n", "\\n").replace('"', '\\"')
    return escaped if re.fullmatch(r"[\w@+:,./=$%-]+", escaped) else f'"{escaped}"'
