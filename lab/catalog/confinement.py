"""The kinds of setting that say who runs the suite, and what confines it; `knobs` has the others."""

from typing import Any, Literal, Self

from packaging.version import Version
from pydantic import Field, model_validator

from lab.catalog.knob import MapKnob, TableKnob
from lab.probes import Facts, SuiteUser
from lab.probes.facts import ContainerEngine, UserSession, parse_label, parse_version


class User(TableKnob):
    """Root instead of the ordinary user of all other cells."""

    name: Literal["root"]

    def settings(self) -> dict[str, Any] | None:
        return None

    @property
    def is_run_by_root(self) -> bool:
        return True

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        return [] if user.uid == 0 else [f"the suite would run as user {user.uid}, not as root"]


class UserLimits(TableKnob):
    """Limits of the suite's user, hard and soft, in a file of /etc/security/limits.d."""

    nproc: int | None = Field(None, ge=1, description="Processes and threads of this user on the whole host.")
    nofile: int | None = Field(None, ge=1, description="Open files of each process.")

    def settings(self) -> dict[str, Any]:
        return self.given()

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        limits = user.context.limits
        wrong = []
        if self.nproc not in (None, limits.nproc):
            wrong.append(f"the suite's user may have {limits.nproc} processes, not {self.nproc}")
        if self.nofile and not limits.nofile == limits.nofile_hard == self.nofile:
            seen = f"{limits.nofile} files, and raise that to {limits.nofile_hard}"
            wrong.append(f"the suite's user may open {seen}, not {self.nofile}")
        return wrong


class Cgroup(TableKnob):
    """No control group is delegated to the user's service manager, so that it cannot create any."""

    delegation: Literal[False]

    def why_not(self, facts: Facts) -> str | None:
        if facts.cgroup != "v2":
            return "has no cgroup v2, and systemd gives users control groups of version 2 only"
        return None if has_user_managers(facts) else "gives its users no control groups to begin with"

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        controllers = user.context.delegated
        return [f"the suite's user was given the controllers {' '.join(controllers)}"] if controllers else []


# The kernel's argument in a guest that takes the service managers from its users.
NO_MANAGER = "systemd.mask=user@.service"


def has_user_managers(facts: Facts) -> bool:
    """Whether systemd starts a service manager for a user who logs in; the twin of WSL2 masks its unit."""
    return facts.login_sessions and NO_MANAGER not in facts.command_line.split()


# The permission bits that let everyone read and write.
EVERYONE = 0o006


class Kvm(TableKnob):
    """The group of /dev/kvm without members, no /dev/kvm at all, or /dev/null mounted on it (`masked`)."""

    state: Literal["denied", "absent", "masked"]

    def why_not(self, facts: Facts) -> str | None:
        if facts.kvm is None:
            return "has no /dev/kvm to begin with"
        if self.state == "denied" and int(facts.kvm.mode, 8) & EVERYONE == EVERYONE:
            return "everyone may use its /dev/kvm, whatever their groups"
        return None

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        kvm = facts.kvm
        if self.state == "absent":
            return ["/dev/kvm is there"] if kvm else []
        if kvm is None:
            return ["there is no /dev/kvm"]
        if self.state == "masked":
            return (
                []
                if user.create_vm.failed
                else ["/dev/kvm is not masked: it was not refused to make a machine"]
            )
        return ["the suite's user is in the group of /dev/kvm"] if kvm.gid in user.groups else []


# How the probe's answer about the folder for the sockets of boxes looks in each state.
SOCKET_FOLDERS = {"foreign": "is owned by uid", "closed": "Permission denied"}


class Sockets(TableKnob):
    """The folder /tmp/bl-UID for the sockets of boxes: made by root (`foreign`), or /tmp closed to users."""

    state: Literal["foreign", "closed"]

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        if user.socket_folder.failed_with(SOCKET_FOLDERS[self.state]):
            return []
        state = user.socket_folder.stderr or "it is usable"
        return [f"the folder for the sockets of boxes is not {self.state}: {state}"]


# The value of Seccomp in /proc/PID/status for a process with a filter.
FILTERED = 2


# What confines a container, from most to nothing. The filter of `no-namespaces` refuses namespaces, as Docker's
# default one does and podman's does not. With `unconfined` no part of /proc is masked either.
ContainerKind = Literal["no-namespaces", "default", "apparmor-off", "unconfined", "privileged"]
UNDER_A_PROFILE = ("no-namespaces", "default")
UNDER_A_FILTER = (*UNDER_A_PROFILE, "apparmor-off")


class Container(TableKnob):
    """Root starts the container. In it the same user runs the suite as in other cells.

    With `rootless` a daemon of the suite's user starts it. The container's root is that user outside, and owns
    what that user owns, so it runs the suite.
    """

    engine: ContainerEngine
    kind: ContainerKind
    kvm: bool = Field(True, description="Whether the container gets the guest's /dev/kvm.")
    rootless: bool = Field(False, description="Whether a daemon of the suite's user starts it. Docker only.")

    @model_validator(mode="after")
    def _check_rootless(self) -> Self:
        if self.rootless and self.engine != "docker":
            raise ValueError(f"rootless is of docker's daemon, and {self.engine} has none")
        return self

    @property
    def is_run_by_root(self) -> bool:
        return self.rootless

    @property
    def belongs_to_user(self) -> str:
        return "the daemon is one of the suite's usual user" if self.rootless else ""

    def why_not(self, facts: Facts) -> str | None:
        if self.engine not in facts.engines:
            return f"has no {self.engine}"
        if self.rootless and not has_user_managers(facts):
            return "starts no service manager for a user who logs in"
        needs_apparmor = self.kind == "apparmor-off" and facts.apparmor is None
        return "no AppArmor" if needs_apparmor else None

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        wrong = []
        if user.container != self.engine:
            place = f"a container of {user.container}" if user.container else "no container"
            wrong.append(f"the suite would run in {place}, not in one of {self.engine}")
        if not self.kvm and user.create_vm.worked:
            wrong.append("the container has /dev/kvm")
        filtered = user.seccomp == FILTERED
        if filtered != (self.kind in UNDER_A_FILTER):
            wrong.append(f"the suite would run {'under a' if filtered else 'without a'} seccomp filter")
        # Where a profile exempts the container's runtime, that of the container is stacked on it.
        confined = parse_label(user.context.apparmor).confines
        # Docker's daemon loads no profile without root.
        has_profile = self.kind in UNDER_A_PROFILE and facts.apparmor is not None and not self.rootless
        if confined != has_profile:
            wrong.append(f"the suite would run confined by {user.context.apparmor!r}")
        if self.rootless and user.uid != 0:
            wrong.append(f"the suite would run as user {user.uid} of the container, not as its root")
        if self.rootless and not user.uid_outside:
            wrong.append("the root of the container is root outside of it")
        return wrong

    def under(self) -> list[str]:
        return ["lab-container"]

    def units(self) -> list[str]:
        return ["user@*.service"] if self.rootless else []


# The kinds that need the service manager which systemd starts for a user who logs in.
OF_USER_MANAGER = ("user-scope", "user-unit", "linger")


class SuiteSession(TableKnob):
    """How the suite's user comes to run the suite, where that is no login by SSH with a session of logind's.

    `user-scope` and `user-unit` are of the user's service manager; `cron` is a job of the guest's cron;
    `init-scope` is the control group of systemd itself, in which WSL starts its shell; with `none` logins get
    neither a session nor a service manager; with `linger` the service manager runs without a login, too.
    """

    kind: Literal["user-scope", "user-unit", "cron", "init-scope", "none", "linger"]

    def why_not(self, facts: Facts) -> str | None:
        if not facts.systemd:
            return "has no systemd"
        if self.kind in OF_USER_MANAGER and not has_user_managers(facts):
            return "starts no service manager for a user who logs in"
        if self.kind == "none" and not facts.login_sessions:
            return "gives its users no sessions to begin with"
        if self.kind == "cron" and not facts.cron:
            return "has no cron"
        if self.kind == "init-scope" and facts.cgroup != "v2":
            return "has no cgroup v2"
        return None

    def settings(self) -> dict[str, Any] | None:
        # systemd-run makes it by itself.
        return None if self.kind == "user-scope" else super().settings()

    @property
    def belongs_to_user(self) -> str:
        return "a kind of session is one of the suite's usual user"

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        session = user.context.session
        wrong = [] if self._is_in_place(session) else [f"the suite would run in {session.cgroup}"]
        if self.kind in OF_USER_MANAGER and not session.manager:
            wrong.append("the user's service manager does not answer")
        if self.kind == "linger" and not session.lingers:
            wrong.append("the user's service manager ends with the last login")
        if self.kind == "none" and session.manager:
            wrong.append("the user's service manager answers")
        if self.kind == "none" and session.runtime_dir:
            wrong.append(f"XDG_RUNTIME_DIR is {session.runtime_dir}")
        return wrong

    def _is_in_place(self, session: UserSession) -> bool:
        """Whether the suite runs where this kind of session has its processes."""
        match self.kind:
            case "user-scope" | "user-unit":
                unit = ".scope" if self.kind == "user-scope" else ".service"
                return session.kind == "user unit" and session.cgroup.endswith(unit)
            case "cron":
                # With pam_systemd in cron's own PAM service, logind gives the job a session of its own.
                in_background = (session.login_class or "").startswith("background")
                return session.cgroup.endswith(("/cron.service", "/crond.service")) or in_background
            case "init-scope":
                return session.kind == "init.scope"
            case "none":
                return session.kind == "system service"
            case "linger":
                return session.kind == "login"

    def under(self) -> list[str]:
        if self.kind == "user-scope":
            return ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]
        return ["lab-session"] if self.kind in ("user-unit", "cron", "init-scope") else []

    def units(self) -> list[str]:
        if self.kind in OF_USER_MANAGER:
            return ["user@*.service"]
        return ["cron.service", "crond.service"] if self.kind == "cron" else []


# Where a system made of Nix's packages has its programs, and the paths that it nevertheless has.
NIX_STORE = "/nix/store"
AS_LINKS = ("/bin/sh", "/usr/bin/env")
# What is then at none of the usual places.
NOT_AT_USR = "/usr/bin/bwrap"


class Programs(TableKnob):
    """All programs and libraries are below this folder, and the loader at its usual path leads there, too.

    NixOS is so with nix-ld, which puts a loader where programs that were made elsewhere look for one. Only the
    suite and the probes see it so.
    """

    folder: Literal["/nix/store"]

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        if unknown := [path for path in self.links() if path not in user.links]:
            return [f"where {' and '.join(unknown)} lead is not known"]
        targets = {path: user.links[path].target or "" for path in AS_LINKS}
        wrong = [
            f"{path} does not lead below {self.folder} but to {target or 'itself'}"
            for path, target in targets.items()
            if not target.startswith(f"{self.folder}/")
        ]
        return wrong if user.links[NOT_AT_USR].error else [*wrong, f"{NOT_AT_USR} is there"]

    def links(self) -> list[str]:
        return [*AS_LINKS, NOT_AT_USR]

    def under(self) -> list[str]:
        return ["lab-nix-store"]


# Since this version bubblewrap calls openat2 (see its NEWS), which RestrictSUIDSGID= denies.
OPENS_WITH_OPENAT2 = Version("0.12")
# As systemd calls them. `SERVICE` in `lab/probes/programs/probe.py` has the same names.
ServiceSetting = Literal[
    "BindPaths",
    "Delegate",
    "DeviceAllow",
    "DevicePolicy",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "NoNewPrivileges",
    "PrivateDevices",
    "PrivateTmp",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadWritePaths",
    "RestrictNamespaces",
    "RestrictSUIDSGID",
    "SystemCallFilter",
]
# systemd shows these in another form than they are written in, and the last as ~ if nothing is filtered.
OTHERWISE_SHOWN = ("BindPaths", "DeviceAllow", "SystemCallFilter")


class Service(MapKnob):
    """Settings of the systemd service that the suite runs in. Root starts it; it has the suite's usual user."""

    root: dict[ServiceSetting, str]

    def why_not(self, facts: Facts) -> str | None:
        if not facts.systemd:
            return "has no systemd"
        version = parse_version(facts.bubblewrap.version) if facts.bubblewrap else None
        if "RestrictSUIDSGID" in self.root and version is not None and version < OPENS_WITH_OPENAT2:
            return f"its bubblewrap {version} does not need openat2, which the service denies"
        return None

    def differences(self, facts: Facts, user: SuiteUser) -> list[str]:
        if user.service is None:
            return ["systemd does not tell the settings of the suite's service"]
        wrong = []
        for name, value in self.root.items():
            setting = user.service.get(name, "")
            is_set = setting not in ("", "~")
            if not (is_set if name in OTHERWISE_SHOWN else sorted(setting.split()) == sorted(value.split())):
                wrong.append(f"the suite would run in a service with {name}={setting}, not {value}")
        return wrong

    def under(self) -> list[str]:
        return ["lab-service"]
