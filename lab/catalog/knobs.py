"""The kinds of setting that variants consist of: what a kind sets, and how a guest shows it.

The classes only read definitions and facts. The program that changes a guest is `lab/guest/remote/knobs.py`.
"""

import posixpath
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from packaging.version import Version
from pydantic import AfterValidator, Field, PlainValidator, model_validator

from lab.catalog.confinement import (
    Cgroup,
    Container,
    Kvm,
    Programs,
    Service,
    Sockets,
    SuiteSession,
    User,
    UserLimits,
)
from lab.catalog.knob import Conflict, Knob, MapKnob, TableKnob
from lab.catalog.toml import Definition
from lab.probes import Facts, SuiteUser
from lab.probes.facts import parse_label, parse_version

# -- the kernel, which takes arguments at boot


class KernelArguments(TableKnob):
    """Arguments of the kernel's command line."""

    arguments: list[str] = Field(min_length=1)
    without: list[str] = Field(
        default_factory=list, description="Security modules that are not in use then, as the kernel calls them."
    )
    cgroup: Literal["v1"] | None = Field(None, description="The version of control groups that is in use then.")

    def settings(self) -> dict[str, Any] | None:
        return None

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        arguments = facts.command_line.split()
        wrong = [f"the kernel was booted without {word}" for word in self.arguments if word not in arguments]
        if facts.lsm is None:
            wrong += [f"whether the security module {name} is in use is not known" for name in self.without]
        else:
            wrong += [f"the security module {name} is in use" for name in self.without if name in facts.lsm]
        if self.cgroup and facts.cgroup != self.cgroup:
            wrong.append(f"control groups are of version {facts.cgroup}")
        return wrong

    def combined(self, other: Self) -> Self:
        arguments = list(dict.fromkeys([*self.arguments, *other.arguments]))
        without = sorted({*self.without, *other.without})
        cgroup = self.cgroup or other.cgroup
        return self.model_copy(update={"arguments": arguments, "without": without, "cgroup": cgroup})

    def kernel_arguments(self) -> list[str]:
        return self.arguments


# Neither 007 nor -0: a value that is read back has the digits that were set.
NUMBER = re.compile(r"0|-?[1-9][0-9]{0,19}")
# No part begins with a slash, so that no name leads out of /proc/sys.
NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_][A-Za-z0-9_:@/-]*)+")


def checked(name: str) -> str:
    """A name as sysctl(8) prints it: a dot between two parts, a slash for a dot within a part."""
    if not NAME.fullmatch(name):
        raise ValueError("expected a name like kernel.printk or net.ipv4.conf.eth0/1.forwarding")
    return name


def canonical(value: Any) -> int | str:
    """A value in its one form: a number as a number, anything else as text with single spaces.

    The kernel prints the numbers of a list with tabs between them.
    """
    if isinstance(value, list) and all(type(number) is int for number in value):
        value = " ".join(map(str, value))
    if type(value) is int:
        return value
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text or not text.isprintable():
        raise ValueError("expected a number, a text in one line, or a list of numbers")
    return int(text) if NUMBER.fullmatch(text) else text


Name = Annotated[str, AfterValidator(checked)]
Value = Annotated[int | str, PlainValidator(canonical)]


class Sysctl(MapKnob):
    """Values of sysctls: a number, a text, or a list of numbers. They persist over a reboot."""

    root: dict[Name, Value]

    def sysctls(self) -> list[str]:
        return list(self.root)

    def why_not(self, facts: Facts) -> str | None:
        missing = [name for name in self.root if facts.sysctls[name] is None]
        return f"its kernel has no {missing[0]}" if missing else None

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        return [
            f"{name} is {facts.sysctls[name]}, not {value}"
            for name, value in self.root.items()
            if _as_set(facts.sysctls[name]) != value
        ]

    @classmethod
    def leading(cls, facts: Facts, goal: Facts) -> list[Self]:
        """Each sysctl that was read in both guests and has a different value in `goal`."""
        knobs = []
        for name, value in facts.sysctls.items():
            goal_value = _as_set(goal.sysctls.get(name))
            if value is not None and goal_value is not None and goal_value != _as_set(value):
                knobs.append(cls.model_validate({name: goal_value}))
        return knobs


def _as_set(text: str | None) -> int | str | None:
    """The value that a guest shows; None if its kernel has no such sysctl, or shows nothing that can be set."""
    try:
        return canonical(text)
    except ValueError:
        return None


# -- security modules

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


class Profile(Definition):
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
        files = [profile.shipped for profile in self.profiles if profile.shipped]
        files += [f"{FOLDER}/{name}" for name in self.removed]
        missing = [path for path in files if path not in apparmor.profile_files]
        if missing:
            return f"ships no {missing[0]}"
        loaded = [name for name in self.without if name in apparmor.profiles]
        return f"has the profile {loaded[0]} loaded" if loaded else None

    def settings(self) -> dict[str, Any] | None:
        return {
            "profiles": [profile.model_dump() for profile in self.profiles],
            "removed": [f"{FOLDER}/{name}" for name in self.removed],
        }

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        loaded = facts.apparmor.profiles if facts.apparmor else {}
        wrong = []
        for profile in self.profiles:
            mode = loaded.get(profile.name)
            if mode != profile.mode:
                state = "not loaded" if mode is None else f"in {mode} mode"
                wrong.append(f"AppArmor profile {profile.name} is {state}")
            elif profile.is_for_bubblewrap and not _is_in(user.bubblewrap, profile.name):
                wrong.append(
                    f"bubblewrap runs as {user.bubblewrap!r}, not under {profile.name}: "
                    "is another profile attached to its path?"
                )
        wrong += [f"AppArmor profile {name} is loaded" for name in self.removed if name in loaded]
        if self.confine_suite_by and not self._confined(user):
            wrong.append(f"the suite would run confined by {user.context.apparmor!r}")
        return wrong

    def _confined(self, user: SuiteUser) -> bool:
        label = parse_label(user.context.apparmor)
        modes = {profile.name: profile.mode for profile in self.profiles}
        mode = modes.get(self.confine_suite_by or "", Mode.ENFORCE)
        return (label.profiles, label.mode) == ((self.confine_suite_by,), mode)

    def combined(self, other: Self) -> Self:
        profiles = {profile.name: profile for profile in self.profiles}
        for profile in other.profiles:
            if profiles.setdefault(profile.name, profile) != profile:
                raise Conflict(f"profile {profile.name} is defined in two ways")
        removed = sorted({*self.removed, *other.removed})
        if both := profiles.keys() & set(removed):
            raise Conflict(f"profile {min(both)} is loaded and removed")
        names = {name for name in (self.confine_suite_by, other.confine_suite_by) if name}
        if len(names) > 1:
            raise Conflict(f"the suite cannot start in two profiles: {', '.join(sorted(names))}")
        return self.model_copy(
            update={
                "userns": self.userns or other.userns,
                "profiles": list(profiles.values()),
                "removed": removed,
                "without": sorted({*self.without, *other.without}),
                "confine_suite_by": next(iter(names), None),
            }
        )

    # Profiles are settings of their own.
    giving_way_to = Knob.giving_way_to

    def parts(self) -> list[Self]:
        confine: dict[str, Any] = {"confine_suite_by": self.confine_suite_by}
        # Without the part that loads its own profile, the suite could not start in it: both are one part.
        own_profiles = [
            profile for profile in self.profiles if profile.text and profile.name == self.confine_suite_by
        ]
        tables = [
            {"profiles": [profile], **(confine if profile in own_profiles else {})} for profile in self.profiles
        ]
        tables += [{"removed": [name]} for name in self.removed]
        tables += [confine] if self.confine_suite_by and not own_profiles else []
        nothing: dict[str, Any] = {"profiles": [], "removed": [], "confine_suite_by": None}
        return [self.model_copy(update=nothing | settings) for settings in tables]

    def words(self) -> str:
        words = [f"profile {profile.name} ({profile.mode})" for profile in self.profiles]
        words += [f"profile {name} unloaded" for name in self.removed]
        words += [f"suite confined by {self.confine_suite_by}"] if self.confine_suite_by else []
        return ", ".join(words)

    @classmethod
    def leading(cls, facts: Facts, goal: Facts) -> list[Self]:
        """Each profile that has another mode in `goal`, or is not loaded there, if this guest has its file."""
        if facts.apparmor is None or goal.apparmor is None:
            return []
        modes, goal_modes = facts.apparmor.profiles, goal.apparmor.profiles
        knobs = []
        for name in sorted(modes.keys() | goal_modes.keys()):
            path, mode = f"{FOLDER}/{name}", goal_modes.get(name)
            if modes.get(name) == mode or path not in facts.apparmor.profile_files:
                continue
            if mode is None:
                knobs.append(cls(removed=[name]))
            elif mode in list(Mode):
                knobs.append(cls(profiles=[Profile(name=name, mode=Mode(mode), shipped=path)]))
        return knobs

    def under(self) -> list[str]:
        return ["aa-exec", "-p", self.confine_suite_by, "--"] if self.confine_suite_by else []


def _is_in(label: str | None, profile: str) -> bool:
    """Whether a process with this label is in a profile; also true without a label, so without a process."""
    return label is None or profile in parse_label(label).profiles


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

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        if facts.selinux is None:
            return ["SELinux is not in use"]
        mode, modules = facts.selinux.mode, facts.selinux.modules
        wrong = [] if mode == self.mode else [f"SELinux is {mode}, not {self.mode}"]
        if self.module and SELINUX_MODULE not in modules:
            wrong.append(f"the module {SELINUX_MODULE} is not in SELinux's policy")
        return wrong


# -- files of the guest, and what they are on


def _path(text: str) -> str:
    if not (text.isprintable() and text.startswith("/") and posixpath.normpath(text) == text != "/"):
        raise ValueError("expected an absolute path without . and .. in it")
    return text


def _target(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("expected a path: absolute, or relative to the folder of the symlink")
    return text


class Files(MapKnob):
    """Symlinks by their paths. What is at a path is moved to the symlink's target."""

    root: dict[Annotated[str, AfterValidator(_path)], Annotated[str, AfterValidator(_target)]]

    def links(self) -> list[str]:
        return list(self.root)

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        wrong = []
        for path, target in self.root.items():
            link = user.links.get(path)
            if link is None:
                wrong.append(f"whether {path} is a symlink is not known")
            elif link.target != target:
                state = f"a symlink to {link.target}" if link.target else "no symlink"
                wrong.append(f"{path} is {state}, not one to {target}")
            elif link.error:
                wrong.append(f"the suite's user cannot reach what {path} leads to: {link.error}")
        return wrong


# The kinds of file system that are made by mounting them.
WITHOUT_DISK = ("overlay", "tmpfs")


class Filesystem(MapKnob):
    """File systems by folder. The folder's content moves to a new one: in memory, or in a file of the guest's.

    An overlay has the folder as it was below it.
    """

    root: dict[Literal["/home"], Literal["btrfs", "overlay", "tmpfs", "xfs"]]

    def why_not(self, facts: Facts) -> str | None:
        for path, kind in self.root.items():
            if facts.mounts[path].type == kind:
                return f"its {path} is on {kind} to begin with"
        missing = [kind for kind in self.root.values() if kind not in (*facts.mkfs, *WITHOUT_DISK)]
        return f"has no mkfs.{missing[0]}" if missing else None

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        return [
            f"{path} is on {facts.mounts[path].type}, not on {kind}"
            for path, kind in self.root.items()
            if facts.mounts[path].type != kind
        ]


# The folders whose mounts are among the facts.
Folder = Literal["/home", "/tmp"]  # noqa: S108


class Mount(MapKnob):
    """Mount options by folder. The folder becomes a mount of its own with the same content."""

    root: dict[Folder, list[Literal["noexec"]]]

    def words(self) -> str:
        return ", ".join(f"{path} {','.join(options)}" for path, options in self.root.items())

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        return [
            f"{path} is mounted without {option}"
            for path, options in self.root.items()
            for option in options
            if option not in facts.mounts[path].options
        ]


# Since this version bubblewrap refuses to run setuid, unless it is built with support for it (see its NEWS).
NEVER_SETUID = Version("0.11.2")


# By the states that a variant may name: as in the facts, octal; None for an absent program.
BUBBLEWRAP_MODES = {"absent": None, "not-executable": "0o644", "setuid": "0o4755"}


class Bubblewrap(TableKnob):
    """The program removed, or with another mode. The copy that boxlite ships is not changed."""

    state: Literal["absent", "not-executable", "setuid"]

    def why_not(self, facts: Facts) -> str | None:
        if facts.bubblewrap is None:
            return "has no bubblewrap to begin with"
        version = parse_version(facts.bubblewrap.version)
        if self.state == "setuid" and version is not None and version < NEVER_SETUID:
            return f"its bubblewrap {facts.bubblewrap.version} is made for being setuid"
        return None

    def settings(self) -> dict[str, str | None]:
        return {"mode": BUBBLEWRAP_MODES[self.state]}

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        mode = facts.bubblewrap.mode if facts.bubblewrap else None
        expected = BUBBLEWRAP_MODES[self.state]
        return [] if mode == expected else [f"bubblewrap's mode is {mode}, not {expected}"]

    @classmethod
    def leading(cls, facts: Facts, goal: Facts) -> list[Self]:
        """The state of the program in `goal`, if it is another one and a variant can set it."""
        mode, goal_mode = (each.bubblewrap and each.bubblewrap.mode for each in (facts, goal))
        if mode is None or mode == goal_mode:
            return []
        states = [state for state, known_mode in BUBBLEWRAP_MODES.items() if known_mode == goal_mode]
        return [cls.model_validate({"state": state}) for state in states]


# By the names of their tables in a variant's TOML, and of their functions in the guest. A variant's settings
# are put on a guest in this order.
KINDS: dict[str, type[Knob]] = {
    "apparmor": AppArmor,
    "bubblewrap": Bubblewrap,
    "cgroup": Cgroup,
    "container": Container,
    "files": Files,
    "filesystem": Filesystem,
    "kernel": KernelArguments,
    "kvm": Kvm,
    "limits": UserLimits,
    "mount": Mount,
    "programs": Programs,
    "selinux": Selinux,
    "service": Service,
    "session": SuiteSession,
    "sockets": Sockets,
    "sysctl": Sysctl,
    "user": User,
}
