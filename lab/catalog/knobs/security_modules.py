"""The kernel's security modules: `[apparmor]` and `[selinux]`."""

import re
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lab.catalog.knobs._base import Conflict, Table, TableKnob
from lab.probes import Facts, SuiteUser
from lab.probes.facts import read_label

# The file of a profile is named like the profile.
FOLDER = "/etc/apparmor.d"
# The profile for bubblewrap that AppArmor ships, in bwrap-userns-restrict.
BWRAP = "bwrap"
# The first line of a profile that AppArmor attaches to bubblewrap by the program's path.
ATTACHED = r"(?m)^(?:profile[ \t]+)?\"?%s\"?[ \t]+\"?/[^\s{]*bwrap\b"


class Mode(StrEnum):
    ENFORCE = "enforce"
    COMPLAIN = "complain"
    # The profile only gives the program a name, and on Ubuntu exempts it from restrictions.
    UNCONFINED = "unconfined"


class Profile(Table):
    """A profile that the variant loads: from the variant's own text, or a file of the guest in another mode."""

    name: str
    mode: Mode = Mode.ENFORCE
    text: str | None = None
    shipped: str | None = Field(None, description="Path in the guest of the profile's own file.")

    @model_validator(mode="after")
    def _one_source(self) -> "Profile":
        if (self.text is None) == (self.shipped is None):
            raise ValueError("exactly one of `text` and `shipped` must be given")
        return self

    @property
    def is_for_bubblewrap(self) -> bool:
        """Whether AppArmor attaches it to bubblewrap, so that every bubblewrap has to run in it."""
        if self.text is None:
            return self.name == BWRAP
        return bool(re.search(ATTACHED % re.escape(self.name), self.text))


class AppArmor(TableKnob):
    """Profiles, and the profile that the suite starts in."""

    userns: bool = Field(default=False, description="Whether AppArmor must mediate user namespaces.")
    profiles: list[Profile] = Field(
        default_factory=list,
        description="Profiles that are loaded: `name`, `text` or the path of a `shipped` file, and `mode` "
        "(enforce, complain or unconfined)",
    )
    removed: list[str] = Field(default_factory=list, description="Shipped profiles that are unloaded.")
    without: list[str] = Field(
        default_factory=list,
        description="Profiles with which the variant would do something else: AppArmor applies neither of two "
        "profiles for one path",
    )
    confine_suite_by: str | None = Field(
        default=None, description="Profile under which the suite and the probes are run."
    )

    def why_not(self, facts: Facts) -> str | None:
        apparmor = facts.apparmor
        if apparmor is None:
            return "no AppArmor"
        if self.userns and not apparmor.userns_mediation:
            return f"AppArmor {apparmor.version or 'of an unknown version'} does not mediate user namespaces"
        wanted = [profile.shipped for profile in self.profiles if profile.shipped]
        wanted += [f"{FOLDER}/{name}" for name in self.removed]
        missing = [path for path in wanted if path not in apparmor.profile_files]
        if missing:
            return f"ships no {missing[0]}"
        loaded = [name for name in self.without if name in apparmor.profiles]
        return f"has the profile {loaded[0]} loaded" if loaded else None

    def settings(self) -> dict[str, Any] | None:
        return {
            "profiles": [profile.model_dump() for profile in self.profiles],
            "removed": [f"{FOLDER}/{name}" for name in self.removed],
        }

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        loaded = facts.apparmor.profiles if facts.apparmor else {}
        wrong = []
        for profile in self.profiles:
            mode = loaded.get(profile.name)
            if mode != profile.mode:
                shown = "not loaded" if mode is None else f"in {mode} mode"
                wrong.append(f"AppArmor profile {profile.name} is {shown}")
            elif profile.is_for_bubblewrap and not _is_in(who.bubblewrap, profile.name):
                wrong.append(
                    f"bubblewrap runs as {who.bubblewrap!r}, not under {profile.name}: "
                    "is another profile attached to its path?"
                )
        wrong += [f"AppArmor profile {name} is loaded" for name in self.removed if name in loaded]
        if self.confine_suite_by and not self._confined(who):
            wrong.append(f"the suite would run confined by {who.context.apparmor!r}")
        return wrong

    def _confined(self, who: SuiteUser) -> bool:
        label = read_label(who.context.apparmor)
        modes = {profile.name: profile.mode for profile in self.profiles}
        wanted = modes.get(self.confine_suite_by or "", Mode.ENFORCE)
        return (label.profiles, label.mode) == ((self.confine_suite_by,), wanted)

    def combined(self, other: Self) -> Self:
        mine = {profile.name: profile for profile in self.profiles}
        for profile in other.profiles:
            if mine.setdefault(profile.name, profile) != profile:
                raise Conflict(f"profile {profile.name} is defined in two ways")
        removed = sorted({*self.removed, *other.removed})
        if both := mine.keys() & set(removed):
            raise Conflict(f"profile {min(both)} is loaded and removed")
        names = {name for name in (self.confine_suite_by, other.confine_suite_by) if name}
        if len(names) > 1:
            raise Conflict(f"the suite cannot start in two profiles: {', '.join(sorted(names))}")
        return self.model_copy(
            update={
                "userns": self.userns or other.userns,
                "profiles": list(mine.values()),
                "removed": removed,
                "without": sorted({*self.without, *other.without}),
                "confine_suite_by": next(iter(names), None),
            }
        )

    def parts(self) -> list[Self]:
        confine: dict[str, Any] = {"confine_suite_by": self.confine_suite_by}
        # Without the part that loads its own profile, the suite could not start in it: both are one part.
        own = [profile for profile in self.profiles if profile.text and profile.name == self.confine_suite_by]
        made = [{"profiles": [each], **(confine if each in own else {})} for each in self.profiles]
        made += [{"removed": [name]} for name in self.removed]
        made += [confine] if self.confine_suite_by and not own else []
        nothing: dict[str, Any] = {"profiles": [], "removed": [], "confine_suite_by": None}
        return [self.model_copy(update=nothing | settings) for settings in made]

    def words(self) -> str:
        said = [f"profile {profile.name} ({profile.mode})" for profile in self.profiles]
        said += [f"profile {name} unloaded" for name in self.removed]
        said += [f"suite confined by {self.confine_suite_by}"] if self.confine_suite_by else []
        return ", ".join(said)

    @classmethod
    def leading(cls, here: Facts, there: Facts) -> list[Self]:
        """Each profile that has another mode there, or is not loaded, and has a file on this guest."""
        if here.apparmor is None or there.apparmor is None:
            return []
        mine, theirs = here.apparmor.profiles, there.apparmor.profiles
        made = []
        for name in sorted(mine.keys() | theirs.keys()):
            path, mode = f"{FOLDER}/{name}", theirs.get(name)
            if mine.get(name) == mode or path not in here.apparmor.profile_files:
                continue
            if mode is None:
                made.append(cls(removed=[name]))
            elif mode in list(Mode):
                made.append(cls(profiles=[Profile(name=name, mode=Mode(mode), shipped=path)]))
        return made

    def under(self) -> list[str]:
        return ["aa-exec", "-p", self.confine_suite_by, "--"] if self.confine_suite_by else []


def _is_in(label: str | None, profile: str) -> bool:
    """Whether a process with this label is in a profile; also true without a label, so without a process."""
    return label is None or profile in read_label(label).profiles


# The name of the added module in the guest.
SELINUX_MODULE = "lab"


class Selinux(TableKnob):
    """The mode, and a module added to the policy. The guest then need not enforce its own policy."""

    mode: Literal["enforcing", "permissive"] = "enforcing"
    module: str | None = Field(
        default=None, description="Text of a module in SELinux's Common Intermediate Language."
    )

    def why_not(self, facts: Facts) -> str | None:
        return None if facts.selinux else "no SELinux"

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        if facts.selinux is None:
            return ["SELinux is not in use"]
        mode, modules = facts.selinux.mode, facts.selinux.modules
        wrong = [] if mode == self.mode else [f"SELinux is {mode}, not {self.mode}"]
        if self.module and SELINUX_MODULE not in modules:
            wrong.append(f"the module {SELINUX_MODULE} is not in SELinux's policy")
        return wrong
