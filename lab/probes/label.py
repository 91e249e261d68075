"""AppArmor's label of a process, as the kernel writes it: `NAME (MODE)`, or several names joined by `//&`."""

from dataclasses import dataclass

# Joins the profiles of a stack. Each of them has to allow what a process does.
STACKED = "//&"
# The label of a process that no profile confines. In a stack it denies nothing.
UNCONFINED = "unconfined"


@dataclass(frozen=True)
class Label:
    """The profiles of a process. `mode` is that of all of them, or `mixed`; None if no profile is left."""

    profiles: tuple[str, ...]
    mode: str | None

    @property
    def confines(self) -> bool:
        """Whether a profile restricts the process. One in unconfined mode only gives it a name."""
        return bool(self.profiles) and self.mode != UNCONFINED


def read_label(text: str | None) -> Label:
    """Read a label. `unconfined` is left out of a stack.

    A kernel that restricts changes of profile (kernel.apparmor_restrict_unprivileged_unconfined) stacks the
    profile that an unconfined process asks for: `unconfined//&NAME (enforce)`.
    """
    names, _, mode = (text or "").partition(" (")
    profiles = tuple(name for name in names.split(STACKED) if name and name != UNCONFINED)
    return Label(profiles, mode.removesuffix(")") or None if profiles else None)
