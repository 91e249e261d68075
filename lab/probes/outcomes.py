"""The probes as the probe script tells them, made into what `programs/probe.py` prints of the same outcome."""

import os
import re
from collections.abc import Callable
from typing import Any

from lab.probes.probes import Probe, Probes
from lab.probes.script import program

# A status, or none with the number of the error that kept the command from starting; then a text.
OUTCOME = re.compile(r"(?:none(?: errno (\d{1,4}))?|(\d{1,4}))(?: (.*))?", re.DOTALL)
# Shells add the number of a signal to this.
SIGNALLED = 128


def outcomes(text: Callable[[str], str]) -> dict[str, Any]:
    """Return the fields of `Probes`; `text` gives the value of a line by its name."""
    found = {name: text(f"probes.{name}") for name in Probes.model_fields}
    commands = program("probe")["PROBES"]
    return {
        name: _command(value, commands[name]) if name in commands else _call(name, value)
        for name, value in found.items()
    }


def _command(value: str, command: list[str]) -> Probe:
    status, error, text = _split(value)
    if error is not None:
        text = str(OSError(error, os.strerror(error), command[0]))
    if status is not None and status > SIGNALLED:
        status = SIGNALLED - status
    return Probe(status=status, stderr=text, command=tuple(command))


def _call(name: str, value: str) -> Probe:
    status, _, text = _split(value)
    home_script = f"~/{program('probe')['PROGRAM']}"
    kvm, mounts = str(program("facts")["KVM"]), program("probe")["MOUNTS"]
    command, about = {
        "open_kvm": (("open", kvm), kvm),
        "unshare_nothing": (("unshare(0)",), ""),
        "proc_unmasked": ((mounts,), None),
        "exec_home": ((home_script,), home_script),
        "home_allows_exec": (("statvfs", "~"), None),
    }[name]
    if status and about is not None:
        words = os.strerror(status)
        text = str(OSError(status, words, about)) if about else words
    if status and name == "home_allows_exec":
        text = "noexec"
    return Probe(status=status, stderr=text, command=command)


def _split(value: str) -> tuple[int | None, int | None, str]:
    """Return the status, the error that kept a command from starting, and the text."""
    parts = OUTCOME.fullmatch(value)
    if parts is None:
        return None, None, value
    error, status, text = parts.groups()
    return _number(status), _number(error), (text or "").strip()


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)
