"""The settings of a host that decide about boxlite, and in which of them two hosts differ.

The front page compares a host in the same way in the user's browser, by the rules that `host_data` gives it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lab.probes import Facts, names

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


def settings(facts: Facts, is_known: Callable[[str], bool] = lambda _: True) -> dict[str, Value]:
    """Return what decides about boxlite, by name. `is_known`: whether a fact, by its path, was read."""
    apparmor, bubblewrap = facts.apparmor, facts.bubblewrap
    found: dict[str, tuple[str, Value]] = {
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
        found[f"{path} is noexec"] = (f"mounts.{path}", _yes("noexec" in mount.options))
    for name, value in facts.sysctls.items():
        found[name] = (f"sysctls.{name}", value)
    if apparmor:
        mediates = _yes(apparmor.userns_mediation)
        found["AppArmor mediates user namespaces"] = ("apparmor.userns_mediation", mediates)
        found |= {f"{PROFILE}{name}": ("apparmor.profiles", mode) for name, mode in apparmor.profiles.items()}
    return {name: value for name, (fact, value) in found.items() if is_known(fact)}


@dataclass(frozen=True)
class Difference:
    """A setting that two hosts have in different ways."""

    name: str
    yours: Value
    theirs: Value

    @property
    def decides(self) -> bool:
        """Whether it may turn the outcome, as far as the lab knows."""
        return self.name not in VERSIONS


@dataclass(frozen=True)
class Comparison:
    """How a host's settings compare with those of a tested cell. `not_known`: what the host does not tell."""

    compared: tuple[str, ...]
    differing: tuple[Difference, ...]
    not_known: tuple[str, ...]

    @property
    def deciding(self) -> int:
        return sum(each.decides for each in self.differing)

    @property
    def distance(self) -> tuple[int, int]:
        """The smaller, the closer."""
        return self.deciding, len(self.differing)


def compare(yours: Mapping[str, Value], theirs: Mapping[str, Value]) -> Comparison:
    """Compare what a host tells with a cell's settings. What the host does not tell is no difference."""
    both = tuple(name for name in theirs if name in yours)
    differing = tuple(
        Difference(name, yours[name], theirs[name])
        for name in both
        if not _alike(name, yours[name], theirs[name])
    )
    return Comparison(both, differing, tuple(name for name in theirs if name not in yours))


def with_profiles_not_loaded(of: Mapping[str, Value], other: Mapping[str, Value]) -> dict[str, Value]:
    """Return a host's settings with those profiles as not loaded that another names, and it would, too."""
    return {name: NOT_LOADED for name in other if is_named(name)} | dict(of)


def is_named(setting: str) -> bool:
    """Whether a setting is an AppArmor profile that every host names, because it may decide about boxlite."""
    name = setting.removeprefix(PROFILE)
    return name != setting and any(fnmatchcase(name, pattern) for pattern in names.PROFILES)


def _alike(name: str, yours: Value, theirs: Value) -> bool:
    if name.startswith(LIMITS) and yours is not None and theirs is not None:
        return (yours == "0") == (theirs == "0")
    return yours == theirs


def _yes(value: bool) -> str:
    return "yes" if value else "no"
