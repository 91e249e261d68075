"""What decides about boxlite on a host, as named settings, and how two hosts compare in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.causes.evidence import parse_confining_profile
from lab.probes import Facts, script
from lab.probes.facts import UserSession
from lab.probes.report import HostReport

# A setting's value as text; None if the kernel has no such sysctl.
Value = str | None
# Before the name of a profile in the name of a setting.
PROFILE = "AppArmor profile "
# Settings that differ on almost every host and seldom decide: they break ties only.
VERSIONS = ("kernel", "bubblewrap")
# Limits that depend on the host's memory: only 0 is a setting of its own.
LIMITS = "user.max_"
NOT_LOADED = "not loaded"
# The profile that confines the user's programs, as a setting, and its value where none does.
CONFINED, UNCONFINED = "AppArmor confines the user by", "no profile"
# What the user's programs run in, and whether the service manager below which boxlite's groups are answers.
SESSION, MANAGER = "session", "the user's service manager answers"


def read_fact_settings(facts: Facts, is_known: Callable[[str], bool] = lambda _: True) -> dict[str, Value]:
    """Return what decides about boxlite, by name. `is_known`: whether a fact, by its path, was read."""
    apparmor, bubblewrap = facts.apparmor, facts.bubblewrap
    values: dict[str, tuple[str, Value]] = {
        "architecture": ("arch", facts.arch),
        "kernel": ("kernel", facts.kernel),
        "AppArmor": ("apparmor", "in use" if apparmor else "not in use"),
        "SELinux": ("selinux", facts.selinux.mode if facts.selinux else "not in use"),
        "bubblewrap": (
            "bubblewrap.version",
            "not installed" if bubblewrap is None else bubblewrap.version or "version not known",
        ),
        "bubblewrap is setuid": ("bubblewrap.mode", _yes(bubblewrap is not None and bubblewrap.setuid)),
        "/dev/kvm": ("kvm", "there" if facts.kvm else "not there"),
    }
    for path, mount in facts.mounts.items():
        values[f"{path} is noexec"] = (f"mounts.{path}", _yes("noexec" in mount.options))
    for name, value in facts.sysctls.items():
        values[name] = (f"sysctls.{name}", value)
    if apparmor:
        mediates = _yes(apparmor.userns_mediation)
        values["AppArmor mediates user namespaces"] = ("apparmor.userns_mediation", mediates)
        # Those that the probe script prints: no host tells the others.
        profiles = [name for name in apparmor.profiles if any(part in name for part in script.PROFILES)]
        values |= {f"{PROFILE}{name}": ("apparmor.profiles", apparmor.profiles[name]) for name in profiles}
    return {name: value for name, (fact, value) in values.items() if is_known(fact)}


def read_host_settings(report: HostReport) -> dict[str, Value]:
    """Return the settings of a reported host, and the session and the confinement of its user."""
    context = report.who.context
    values = read_fact_settings(report.facts, report.knows) | read_session_settings(context.session)
    if report.facts.apparmor is None:
        return values
    return values | {CONFINED: parse_confining_profile(context.apparmor) or UNCONFINED}


def read_session_settings(session: UserSession) -> dict[str, Value]:
    """Return what decides whether boxlite can move a box into a control group of its own, by name."""
    return {SESSION: session.kind, MANAGER: _yes(session.manager)}


@dataclass(frozen=True)
class SettingDifference:
    """A setting that two hosts have in different ways."""

    name: str
    yours: Value
    theirs: Value

    @property
    def decides(self) -> bool:
        """Whether it may turn the outcome, as far as the lab knows."""
        return self.name not in VERSIONS


@dataclass(frozen=True)
class SettingsComparison:
    """How a host's settings compare with those of a tested cell. `not_known`: what the host does not tell."""

    compared: tuple[str, ...]
    differing: tuple[SettingDifference, ...]
    not_known: tuple[str, ...]

    @property
    def deciding(self) -> int:
        return sum(difference.decides for difference in self.differing)

    @property
    def distance(self) -> tuple[int, int]:
        """The smaller, the closer."""
        return self.deciding, len(self.differing)


def compare_settings(host: Mapping[str, Value], tested: Mapping[str, Value]) -> SettingsComparison:
    """Compare what a host tells with a cell's settings. What the host does not tell is no difference.

    The front page compares hosts in the same way in a browser, by the rules that `published` gives it.
    """
    both = tuple(name for name in tested if name in host)
    differing = tuple(
        SettingDifference(name, host[name], tested[name])
        for name in both
        if not _alike(name, host[name], tested[name])
    )
    return SettingsComparison(both, differing, tuple(name for name in tested if name not in host))


def compare_report(report: HostReport, tested: Mapping[str, Value]) -> SettingsComparison:
    """Compare a reported host with a cell: a profile that one of both has is not loaded on the other."""
    host = read_host_settings(report)
    if report.facts.apparmor is not None and report.knows("apparmor.profiles"):
        profiles = [name for name in (*host, *tested) if name.startswith(PROFILE)]
        not_loaded: dict[str, Value] = dict.fromkeys(profiles, NOT_LOADED)
        host, tested = not_loaded | host, not_loaded | dict(tested)
    return compare_settings(host, tested)


def _alike(name: str, first: Value, second: Value) -> bool:
    if name.startswith(LIMITS) and first is not None and second is not None:
        return (first == "0") == (second == "0")
    return first == second


def _yes(value: bool) -> str:
    return "yes" if value else "no"
