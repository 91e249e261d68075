"""The probe script: one POSIX shell script that says on a user's host what the lab's programs say in a guest.

What it reads and tries comes from those programs, so both have one definition. `report` reads its output.
"""

import errno
import re
import runpy
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = Path(__file__).with_name("script.sh")
# A GitHub issue form for the repository of boxlite that asks for the script's output.
ISSUE_FORM = Path(__file__).with_name("issue_form.yml")
PROGRAMS = Path(__file__).parent / "programs"

# Of the form of the output: a reader refuses a newer one.
VERSION = 1
BEGIN, END = "begin boxlite-probe", "end boxlite-probe"
# Values that are no text.
ABSENT, HIDDEN, PRIVATE, EMPTY = "(none)", "(not readable)", "(private)", "(empty)"

# The words of the kernel's command line that are shown, by the name before `=`. All others may be private.
COMMAND_LINE = ("apparmor", "security", "lsm", "selinux", "enforcing", "lockdown", "user_namespace.enable")
# AppArmor profiles, and files of such, that are shown: they may have to do with boxlite's sandbox. The names of
# others tell what is installed on a host.
PROFILES = ("*bwrap*", "*boxlite*", "*unshare*", "*userns*")

# Characters of a line, and of a value. Mail programs fold lines at 76 characters or more.
WIDTH, LONGEST = 74, 2000
# The limit of each command, in seconds.
SECONDS = 5
# Beside the folders of an ordinary user's shell: those of administration, and NixOS's.
MORE_FOLDERS = ("/usr/sbin", "/sbin", "/run/current-system/sw/bin")
# File systems that another host or a program serves, as patterns of a shell.
REMOTE = ("nfs*", "cifs", "smb*", "9p", "afs", "ceph", "lustre", "glusterfs", "fuse*", "autofs")
# Words by which a shell or a program tells an error, the longer ones first.
ERRORS = {
    errno.EACCES: "ermission denied",
    errno.EPERM: "peration not permitted",
    errno.ENXIO: "o such device or address",
    errno.ENODEV: "o such device",
    errno.ENOENT: "o such file",
    errno.EBUSY: "evice or resource busy",
}
# Names that need no quoting, and that are no path out of /proc/sys.
SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][a-z0-9_-]+)+", re.ASCII | re.IGNORECASE)


def text(sysctls: Iterable[str] = ()) -> str:
    """Return the script. It reads these sysctls beside the usual ones; a name with odd characters is left out.

    It holds no single quote, so that it can stand between two in a command line.
    """
    facts, probe = program("facts"), program("probe")
    names = dict.fromkeys([*facts["SYSCTLS"], *sysctls])
    environment = jinja2.Environment(  # noqa: S701 - a shell script of the lab's own texts
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # The usual one is part of the shell's own ${#variable}.
        comment_start_string="<#",
        comment_end_string="#>",
    )
    folders = [*facts["SEARCH_PATH"], *MORE_FOLDERS]
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        version=VERSION,
        width=WIDTH,
        longest=LONGEST,
        seconds=SECONDS,
        folders=_words(folders),
        path=":".join(folders),
        errno=errno,
        errors=ERRORS,
        remote=REMOTE,
        command_line=COMMAND_LINE,
        profiles=PROFILES,
        sysctls=_words(name for name in names if SYSCTL.fullmatch(name)),
        os_release=list(facts["OS_RELEASE"]),
        lsm=facts["LSM"],
        apparmor=facts["APPARMOR"],
        apparmor_enabled=facts["APPARMOR_ENABLED"],
        profile_folders=facts["PROFILES"],
        pam_systemd=facts["PAM_SYSTEMD"],
        selinux=facts["SELINUX"],
        priority=facts["PRIORITY"],
        cgroup=facts["CGROUP"],
        search_path=facts["SEARCH_PATH"],
        kvm=facts["KVM"],
        podman=facts["PODMAN"],
        virtualization=facts["VIRTUALIZATION"],
        mounts=facts["MOUNTS"],
        probes=probe["PROBES"],
        mount_points=probe["MOUNT_POINTS"],
        proc_mounts=probe["MOUNTS"],
        container=probe["CONTAINER"],
        program=probe["PROGRAM"],
        user_manager=probe["USER_MANAGER"].format("$uid"),
    )


def command(sysctls: Iterable[str] = ()) -> str:
    """Return the script as one command, which any shell takes as it is pasted: bash, zsh, fish and others."""
    body = text(sysctls).removeprefix("#!/bin/sh\n")
    return f"sh -c '\n{body}'"


@cache
def program(name: str) -> dict[str, Any]:
    """Return what one of the lab's programs defines."""
    return runpy.run_path(str(PROGRAMS / f"{name}.py"))


def _words(words: Iterable[str]) -> str:
    return "".join(f" \\\n        {word}" for word in words)


def issue_form(sysctls: Iterable[str] = ()) -> str:
    """Return the form as YAML. It holds the whole script, so that it needs nothing beside itself."""
    environment = jinja2.Environment(  # noqa: S701 - YAML of the lab's own texts
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(ISSUE_FORM.read_text("utf-8")).render(
        command=command(sysctls).rstrip(),
        begin=f"===== {BEGIN}",
        end=f"===== {END}",
    )
