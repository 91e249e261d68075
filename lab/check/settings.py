"""What decides about boxlite on a host, as named settings, and how two hosts compare in them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from lab.causes.evidence import parse_confining_profile
from lab.probes import Facts, script
from lab.probes.facts import LimitFacts, UserSession
from lab.probes.report import HostReport

# A setting's value as text; None if the kernel has no such sysctl.
Value = str | None
# Before the name of a profile in the name of a setting.
PROFILE = "AppArmor profile "
# Settings that differ on almost every host and seldom decide: they break ties only.
VERSIONS = ("kernel", "bubblewrap", "Landlock")
# Limits that depend on the host's memory: only 0 is a setting of its own.
LIMITS = "user.max_"
# Before the name of a limit of the user's. A higher limit than on the tested host is no difference, but where a
# limit that the variant lowered may be what blocks: after such a value stand the words of the third.
USER_LIMIT, UNLIMITED, OR_LESS = "limit ", "unlimited", " or less"
NOT_LOADED = "not loaded"
# The profile that confines the user's programs, as a setting, and its value where none does.
CONFINED, UNCONFINED = "AppArmor confines the user by", "no profile"
# What the user's programs run in, and whether the service manager below which boxlite's groups are answers.
SESSION, MANAGER = "session", "the user's service manager answers"
# The kernel allows root what it denies other users: a test that ran as root shows nothing about theirs.
ROOT = "the user is root"


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
        "Landlock": ("landlock", "not in use" if facts.landlock is None else f"version {facts.landlock}"),
    }
    if facts.kvm and facts.kvm.capabilities is not None:
        values["KVM lacks"] = ("kvm.capabilities", _join(facts.kvm.lacking))
    if facts.kernel_options is not None:
        values["kernel built without"] = ("kernel_options", _join(facts.unset_options))
    for path, mount in facts.mounts.items():
        values[f"{path} is noexec"] = (f"mounts.{path}", _yes("noexec" in mount.options))
    if "/home" in facts.mounts:
        values["/home is on"] = ("mounts./home", facts.mounts["/home"].type)
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
    """Return the settings of a reported host, and the session, the limits and the confinement of its user."""
    context = report.who.context
    values = read_fact_settings(report.facts, report.knows) | read_session_settings(context.session)
    values |= read_limit_settings(context.limits) | read_root_setting(report.who.uid == 0)
    if report.facts.apparmor is None:
        return values
    return values | {CONFINED: parse_confining_profile(context.apparmor) or UNCONFINED}


def read_session_settings(session: UserSession) -> dict[str, Value]:
    """Return what decides whether boxlite can move a box into a control group of its own, by name."""
    return {SESSION: session.kind, MANAGER: _yes(session.manager)}


def read_root_setting(is_root: bool) -> dict[str, Value]:
    """Return whether boxlite's user is root, by its name."""
    return {ROOT: _yes(is_root)}


def read_limit_settings(limits: LimitFacts) -> dict[str, Value]:
    """Return the limits of a user by their names in limits.conf(5), or words for them."""
    return {
        f"{USER_LIMIT}{name.replace('_', ' ')}": UNLIMITED if value is None else str(value)
        for name, value in dict(limits).items()
    }


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


def _alike(name: str, host_value: Value, tested: Value) -> bool:
    if name.startswith(LIMITS) and host_value is not None and tested is not None:
        return (host_value == "0") == (tested == "0")
    if name.startswith(USER_LIMIT):
        if tested is not None and tested.endswith(OR_LESS):
            return _amount(host_value) <= _amount(tested.removesuffix(OR_LESS))
        return _amount(host_value) >= _amount(tested)
    return host_value == tested


def mark_lowered_limits(values: Mapping[str, Value], stock: Mapping[str, Value]) -> dict[str, Value]:
    """Return the settings of a cell that does not work: a limit below that of stock may be the reason."""
    return dict(values) | {
        name: f"{value}{OR_LESS}"
        for name, value in values.items()
        if name.startswith(USER_LIMIT) and name in stock and _amount(value) < _amount(stock[name])
    }


def _amount(limit: Value) -> float:
    """What a limit allows; nothing if it is no number, as no lab writes it."""
    return inf if limit == UNLIMITED else int(limit) if limit and limit.isdecimal() else 0


def _join(names: Iterable[str]) -> str:
    return " ".join(names) or "nothing that was asked for"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
