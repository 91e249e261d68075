"""What the kernel allows a user: the models of the probes that `programs/probe.py` runs."""

from pydantic import Field

from lab.probes._base import Answer


class Probe(Answer):
    """One thing that was tried, and what came of it."""

    status: int | None = Field(
        description="Exit status of the command or errno of the call; 0 if it worked. None: it did not run, or "
        "did not end in time."
    )
    stderr: str = Field(description="What the command wrote to standard error, or the text of the error.")
    command: tuple[str, ...] = Field(description="The command line, or a name for the call.")

    @property
    def worked(self) -> bool:
        """Whether it ran and succeeded."""
        return self.status == 0

    @property
    def failed(self) -> bool:
        """Whether it ran and did not succeed."""
        return self.status not in (0, None)

    def failed_with(self, text: str) -> bool:
        """Whether it failed and its error holds this text."""
        return self.failed and text in self.stderr


NOT_RUN = Probe(status=None, stderr="not run", command=())


class Probes(Answer):
    """The probes, each by its name."""

    unshare_user: Probe = Field(description="Make a user namespace.")
    unshare_user_root: Probe = Field(description="Make a user namespace and become root in it.")
    bwrap_user: Probe = Field(description="Have bubblewrap make a user namespace.")
    bwrap_all: Probe = Field(description="Have bubblewrap make every namespace that boxlite wants, with /proc.")
    open_kvm: Probe = Field(description="Open /dev/kvm for reading and writing.")
    unshare_nothing: Probe = Field(
        description="Call unshare(0), which the kernel grants to everyone: only a seccomp filter refuses it."
    )
    proc_unmasked: Probe = Field(
        description="Look for mounts on parts of /proc. With any, a user namespace cannot mount its own /proc."
    )
    exec_home: Probe = Field(description="Execute a script in the user's home.")
    home_allows_exec: Probe = Field(description="Look whether the home's file system is mounted noexec.")

    def by_name(self) -> dict[str, Probe]:
        """Every probe by its name."""
        return dict(self)

    @property
    def ran(self) -> bool:
        """Whether any probe ran."""
        return any(probe.status is not None for probe in self.by_name().values())


# Stands for the probes of a cell that none were run in.
NONE_RUN = Probes.model_validate(dict.fromkeys(Probes.model_fields, NOT_RUN))
