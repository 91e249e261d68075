"""Who a suite runs as: the models of what `programs/probe.py` prints."""

from pydantic import Field

from lab.probes._base import Answer, Answers
from lab.probes.probes import Probes


class Context(Answer):
    """What confines a user's processes, and what systemd delegated to the user."""

    apparmor: str | None = Field(
        description="AppArmor's label of the process: a profile's name with its mode, or unconfined. None: the "
        "kernel has no AppArmor, or it is not in use."
    )
    selinux: str | None = Field(
        description="SELinux's context of the process. None: the kernel has no SELinux, or it is not in use."
    )
    delegated: tuple[str, ...] = Field(
        description="Controllers that the user's service manager may use in its own control group; empty if it "
        "has none."
    )


class Limits(Answer):
    """Limits on what the user may use."""

    nproc: int | None = Field(
        description="RLIMIT_NPROC, the soft limit: processes and threads of the user. None: unlimited."
    )


class Link(Answer):
    """Where a path leads, as the user sees it."""

    target: str | None = Field(description="The target of the symlink. None: it is no symlink.")
    error: str = Field(description="Why the user cannot reach what is there; empty if the user can.")


class Links(Answers[Link]):
    """Each path that was asked for."""


class Who(Answer):
    """The user that a suite runs as, seen from a process that is started as the suite is."""

    uid: int = Field(description="The user's number; 0 is root.")
    groups: tuple[int, ...] = Field(description="The user's groups, by their numbers.")
    context: Context = Field(description="What confines the process.")
    seccomp: int = Field(description="Mode of seccomp: 0 none, 1 strict, 2 a filter.")
    container: bool = Field(description="Whether the process runs in a container of podman's.")


class SuiteUser(Who):
    """The user, and what else settings of variants are read back from."""

    links: Links = Field(description="Symlinks, by their paths.")
    limits: Limits = Field(description="Limits of the process.")
    bubblewrap: str | None = Field(
        description="AppArmor's label of a bubblewrap that the user runs. None: it cannot be started, or the "
        "kernel has no AppArmor in use."
    )


class Probed(Who):
    """The user, and what came of the probes that ran as this user."""

    probes: Probes = Field(description="The probes, each by its name.")
