"""Putting a variant on a guest, and reading back that it is in force."""

import time
from dataclasses import dataclass, field
from typing import Any

from lab.catalog import AppArmorProfile, Feature, Variant
from lab.errors import LabError
from lab.guest.session import SUITE, Session

Facts = dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """Where a cell begins: a line in the guest's kernel log, and its clock then, in seconds since 1970."""

    text: str
    clock: float = field(default_factory=time.time)


class NotInEffect(LabError):
    """The guest, asked afterwards, does not show the variant's settings."""


def why_not_applicable(variant: Variant, facts: Facts) -> str | None:
    """Why the variant makes no sense on a guest with these facts, or None where it does."""
    apparmor = facts["apparmor"]
    if apparmor is None and (variant.apparmor or Feature.APPARMOR_USERNS in variant.needs):
        return "no AppArmor"
    if Feature.APPARMOR_USERNS in variant.needs and not apparmor["userns_mediation"]:
        return f"AppArmor {apparmor['version']} does not mediate user namespaces"
    for profile in variant.apparmor:
        if profile.shipped and profile.shipped not in apparmor["profile_files"]:
            return f"ships no {profile.shipped}"
    for name in variant.sysctl:
        if facts["sysctls"].get(name) is None:
            return f"its kernel has no {name}"
    return None


def begin(session: Session, variant: Variant, *, mark: Mark) -> Facts:
    """Set the guest's clock, mark its kernel log, put the variant's settings on; the guest's facts then."""
    settings = {
        "clock": mark.clock,
        "mark": mark.text,
        "sysctl": variant.sysctl,
        "apparmor": [profile.model_dump() for profile in variant.apparmor],
    }
    _, facts = session.programs([("apply", settings), ("facts", {})], seconds=20)
    return dict(facts)


def read_facts(session: Session) -> Facts:
    """What the guest is: system, kernel, security modules, bubblewrap, sysctls, /dev/kvm, mounts."""
    facts: Facts = session.program("facts", {}, seconds=10)
    return facts


def under(variant: Variant) -> str:
    """What to put before a command so that it runs confined as the variant says."""
    profile = variant.confine_suite_by
    return f"aa-exec -p {profile} --" if profile else ""


def probe(session: Session, variant: Variant, *, probes: bool) -> dict[str, Any]:
    """Who the suite runs as and confined by what; with `probes`, what the kernel allows it."""
    found: dict[str, Any] = session.program(
        "probe", {"probes": probes}, seconds=30, user=SUITE, under=under(variant)
    )
    return found


def check_in_effect(variant: Variant, facts: Facts, who: dict[str, Any]) -> None:
    """Compare the variant with what the guest shows. Raises NotInEffect with every difference."""
    wrong = [
        f"{name} is {facts['sysctls'].get(name)}, not {value}"
        for name, value in variant.sysctl.items()
        if facts["sysctls"].get(name) != str(value)
    ]
    wrong += [text for profile in variant.apparmor if (text := _profile_wrong(profile, facts))]
    confined = who["context"]["apparmor"]
    if variant.confine_suite_by and confined != f"{variant.confine_suite_by} (enforce)":
        wrong.append(f"the suite would run confined by {confined!r}")
    if who["uid"] == 0:
        wrong.append("the suite would run as root")
    if facts["kvm"] and facts["kvm"]["gid"] not in who["groups"]:
        wrong.append("the suite's user is not in the group of /dev/kvm")
    if wrong:
        raise NotInEffect(f"variant not in effect: {'; '.join(wrong)}")


def _profile_wrong(profile: AppArmorProfile, facts: Facts) -> str | None:
    mode = facts["apparmor"]["profiles"].get(profile.name)
    if mode == profile.mode:
        return None
    return f"AppArmor profile {profile.name} is {'not loaded' if mode is None else f'in {mode} mode'}"
