"""Applying a variant to a guest, and reading back that it is in effect."""

import base64
import os
import re
import shlex
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from lab.base.errors import LabError
from lab.base.files import clean_text, cut_text
from lab.catalog import Variant
from lab.catalog.confinement import has_user_managers
from lab.guest.programs import RemoteFailed, check_reply
from lab.guest.session import ADMIN, SUITE, Session, User
from lab.probes import Facts, ProbedSuiteUser, ProbedUser, SuiteUser, script

# The paths whose mounts each guest is asked for.
MOUNTS = ("/home", "/tmp")  # noqa: S108
# The journal of the units by which a variant starts the suite, if they do not start it, and of those by which a
# login becomes a session.
JOURNAL_FILE = "journal.log"
LOGIN_UNITS = ("user@*.service", "systemd-logind.service")
# As many as the kernel's generator has for a key.
SEED_BYTES = 32
# Major and minor version.
PYTHON = re.compile(r"\d{1,2}\.\d{1,3}", re.ASCII)


@dataclass(frozen=True)
class CellStart:
    """Where a cell begins: a line in the guest's kernel log, and its clock then, in seconds since 1970."""

    text: str
    clock: float = field(default_factory=time.time)


class NotInEffect(LabError):
    """The guest, read afterwards, does not show the variant's settings."""

    lasting = True


def explain_inapplicable(variant: Variant, facts: Facts) -> str | None:
    """Why the variant makes no sense on a guest with these facts; None if it makes sense."""
    reasons = (knob.why_not(facts) for knob in variant.knobs.values())
    starters = [f"{kind} ({knob.words()})" for kind, knob in variant.knobs.items() if knob.under()]
    # A profile that confines the suite also confines what starts a container, and no profile of the variants'
    # allows that.
    twice = f"the suite cannot be started by {' and by '.join(starters)} at once" if len(starters) > 1 else None
    not_of_root = [
        f"{knob.belongs_to_user}, and root would run the suite"
        for knob in variant.knobs.values()
        if knob.belongs_to_user and "user" in variant.knobs
    ]
    return next(filter(None, [*reasons, twice, *not_of_root]), None)


def begin_cell(session: Session, variant: Variant, *, mark: CellStart, sysctls: Iterable[str]) -> Facts:
    """Set the guest's clock, seed its random numbers, mark its kernel log, apply the variant's settings.

    Returns the facts read after that; `sysctls` are names to read beside those that are always read.
    Raises RemoteFailed.
    """
    seed = base64.b64encode(os.urandom(SEED_BYTES)).decode()
    beginning = {"clock": mark.clock, "seed": seed, "mark": mark.text}
    calls: list[tuple[str, dict[str, Any]]] = [("begin", beginning)]
    settings = {name: knob.settings() for name, knob in variant.knobs.items()}
    if put_on := {name: setting for name, setting in settings.items() if setting is not None}:
        calls.append(("knobs", put_on))
    names = list(sysctls)
    calls.append(("facts", {"sysctls": names}))
    # Adding a module makes SELinux compile its whole policy again.
    printed = session.programs(calls, seconds=60)[-1]
    # Changes of the user's groups or limits take effect at the next login.
    session.log_out(SUITE)
    return check_facts(printed, names)


def read_facts(session: Session, sysctls: Iterable[str]) -> Facts:
    """Read the guest's facts; `sysctls` are names to read beside those that are always read.

    Raises RemoteFailed.
    """
    names = list(sysctls)
    return check_facts(session.program("facts", {"sysctls": names}, seconds=10), names)


def check_facts(printed: object, sysctls: Collection[str]) -> Facts:
    """The facts that a guest printed, with an answer to all that it was asked. Raises RemoteFailed."""
    facts = check_reply("facts", Facts, printed)
    wrong = [f"it does not tell {name}" for name in sysctls if name not in facts.sysctls]
    wrong += [f"it does not tell the mount of {path}" for path in MOUNTS if path not in facts.mounts]
    # Folders of the lab's own are named after it.
    if not PYTHON.fullmatch(facts.python):
        wrong.append(f"{cut_text(clean_text(facts.python), 40)!r} is not a version of Python")
    if wrong:
        raise RemoteFailed(f"`facts` in the guest: {'; '.join(wrong)}")
    return facts


def choose_login(variant: Variant) -> User:
    """Who logs in to run the suite: the administrator if it runs as root."""
    return ADMIN if "user" in variant.knobs else SUITE


def wrap_script(variant: Variant, script: str) -> str:
    """The command by which the user who logs in runs a shell script as the suite's user."""
    return f"sudo -n -H sh -c {shlex.quote(script)}" if choose_login(variant) == ADMIN else script


def find_home(variant: Variant) -> str:
    return "/root" if choose_login(variant) == ADMIN else f"/home/{SUITE}"


def get_command_prefix(variant: Variant) -> str:
    """What to put before a command so that it runs as the variant says."""
    return shlex.join(word for knob in variant.knobs.values() for word in knob.under())


def read_suite_user(session: Session, variant: Variant) -> SuiteUser:
    """Read who the suite runs as, and what confines it. Raises RemoteFailed."""
    request = {"probes": False, "links": _list_links(variant)}
    return check_reply("probe", SuiteUser, _run_probe(session, variant, request))


def probe_suite_user(session: Session, variant: Variant) -> ProbedSuiteUser:
    """As `read_suite_user`, and run the probes in the same interpreter. Raises RemoteFailed."""
    request = {"probes": True, "links": _list_links(variant)}
    return check_reply("probe", ProbedSuiteUser, _run_probe(session, variant, request))


def _list_links(variant: Variant) -> list[str]:
    return [path for knob in variant.knobs.values() for path in knob.links()]


def explain_not_in_effect(session: Session, variant: Variant, error: LabError) -> LabError:
    """Return an error of reading a variant back, with the journal of the units that are to blame, if any.

    These are the units that start the suite, and in a guest as installed those of the login's session. A suite
    that they do not start is not in effect. Raises SessionLost.
    """
    units = [unit for knob in variant.knobs.values() for unit in knob.units()]
    if not variant.knobs and isinstance(error, NotInEffect):
        units = list(LOGIN_UNITS)
    if not units:
        return error
    command = ["sudo", "-n", "journalctl", "--boot", "--no-pager", "--output=short-precise"]
    command += [f"--unit={unit}" for unit in units]
    journal = session.run(shlex.join(command), seconds=10, check=False).stdout
    return NotInEffect(
        str(error) if isinstance(error, NotInEffect) else f"variant not in effect: {error}",
        hint=f"{JOURNAL_FILE}, among the evidence, has the journal of what should start the suite or its login",
        evidence={JOURNAL_FILE: journal},
    )


def probe_user(session: Session, variant: Variant) -> ProbedUser:
    """Run the probes as the suite runs, and read who that is. Raises RemoteFailed."""
    return check_reply("probe", ProbedUser, _run_probe(session, variant, {"probes": True}))


def run_probe_script(session: Session, variant: Variant, sysctls: Iterable[str]) -> str:
    """Run the script that `lab probe` prints, as the suite runs, and return its output. Raises SessionLost."""
    words = ["sh", "-c", script.render_script(sysctls)]
    command = wrap_script(variant, f"{get_command_prefix(variant)} {shlex.join(words)}".strip())
    return session.run(command, seconds=30, user=choose_login(variant), check=False).stdout


def _run_probe(session: Session, variant: Variant, request: dict[str, Any]) -> Any:
    return session.program_as(choose_login(variant), get_command_prefix(variant), "probe", request, seconds=30)


def check_variant(variant: Variant, facts: Facts, user: SuiteUser) -> None:
    """Compare the variant with what the guest shows. Raises NotInEffect with every difference."""
    wrong = [text for knob in variant.knobs.values() for text in knob.differences(facts, user)]
    # What the suite's user is as installed, unless a setting changes just that.
    if user.uid == 0:
        by_root = any(knob.is_run_by_root for knob in variant.knobs.values())
        wrong += [] if by_root else ["the suite would run as root"]
    elif "kvm" not in variant.knobs and facts.kvm and facts.kvm.gid not in user.groups:
        wrong.append("the suite's user is not in the group of /dev/kvm")
    if not variant.knobs and facts.login_sessions:
        wrong += _find_session_faults(facts, user)
    if wrong:
        raise NotInEffect(f"variant not in effect: {'; '.join(wrong)}")


def _find_session_faults(facts: Facts, user: SuiteUser) -> list[str]:
    """What the login of a guest as installed lacks. Any setting of a variant may take that away."""
    session = user.context.session
    if session.kind != "login":
        return [f"the login of the suite's user is no session of logind but: {session.kind}"]
    if session.manager or not has_user_managers(facts):
        return []
    return ["the service manager of the suite's user does not answer"]
