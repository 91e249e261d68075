"""The probe script: a shell script that runs the lab's programs on a user's host. `report` reads its output."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from lab.probes import PROGRAMS, show

TEMPLATE = Path(__file__).with_name("script.sh")
# A GitHub issue form for the repository of boxlite that asks for the script's output.
ISSUE_FORM = Path(__file__).with_name("issue_form.yml")

# The programs that it runs on a user's host.
SOURCES = [PROGRAMS / "facts.py", PROGRAMS / "probe.py", Path(show.__file__)]
BEGIN, END = "begin boxlite-probe", "end boxlite-probe"

# The words of the kernel's command line that are shown, by the name before `=`. All others may be private.
COMMAND_LINE = ("apparmor", "security", "lsm", "selinux", "enforcing", "lockdown", "user_namespace.enable")
# Parts of the names of AppArmor profiles, and of files of such, that are shown: they may have to do with
# boxlite's sandbox. The names of others tell what is installed on a host.
PROFILES = ("bwrap", "boxlite", "unshare", "userns")
# Where programs are looked for: the folders of an ordinary user's shell, those of administration, and NixOS's.
PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin")
# The limit of one command.
SECONDS = 5
# Modules of the standard library that some distributions leave out of their smallest Python.
MODULES = "ctypes, fcntl, json, socket, struct, subprocess, sys, termios, urllib.parse, zlib"
# Names that need no quoting, and that are no path out of /proc/sys.
SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][a-z0-9_-]+)+", re.ASCII | re.IGNORECASE)
# Whole lines of comments, and empty ones.
COMMENT = re.compile(r"^\s*(?:#.*)?\n", re.MULTILINE)


def render_script(sysctls: Iterable[str] = ()) -> str:
    """Return the script. It reads these sysctls beside the usual ones; a name with odd characters is left out.

    It holds no single quote, so that it can stand between two in a command line.
    """
    request = {
        "sysctls": [name for name in dict.fromkeys(sysctls) if SYSCTL.fullmatch(name)],
        "shown": {"profiles": PROFILES, "words": COMMAND_LINE},
        "seconds": SECONDS,
    }
    return _rendered(
        TEMPLATE,
        version=show.VERSION,
        programs={file.stem: COMMENT.sub("", file.read_text("utf-8")).strip() for file in SOURCES},
        modules=MODULES,
        seconds=SECONDS,
        path=":".join(PATH),
        request=json.dumps(request).replace('"', '\\"'),
    )


def render_script_command(sysctls: Iterable[str] = ()) -> str:
    """Return the script as one command, which any shell takes as it is pasted: bash, zsh, fish and others."""
    body = render_script(sysctls).removeprefix("#!/bin/sh\n")
    return f"sh -c '\n{body}'"


def render_issue_form(sysctls: Iterable[str] = ()) -> str:
    """Return the form as YAML. It holds the whole script, so that it needs nothing beside itself."""
    return _rendered(
        ISSUE_FORM,
        command=render_script_command(sysctls).rstrip(),
        begin=f"===== {BEGIN}",
        end=f"===== {END}",
    )


def _rendered(template: Path, **values: object) -> str:
    import jinja2  # Readers of what a script printed need none.

    environment = jinja2.Environment(  # noqa: S701 - a shell script and YAML of the lab's own texts
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(template.read_text("utf-8")).render(values)
