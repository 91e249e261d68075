"""What a guest can have, as far as its definition tells; the guest itself is asked before a cell is run."""

from collections.abc import Callable, Mapping
from typing import Any

from lab.catalog.definitions import DebianImage, Guest, Variant

# Debian's releases whose AppArmor does not mediate user namespaces.
WITHOUT_MEDIATION = ("bullseye", "bookworm")
# Distributions whose kernels have a sysctl that others lack, by the beginning of its name.
OWN_SYSCTLS = {
    "kernel.apparmor_restrict_unprivileged_userns": ("ubuntu",),
    "kernel.unprivileged_userns_clone": ("debian", "ubuntu"),
}


def _mediates_namespaces(guest: Guest) -> bool:
    if guest.image.selinux is not None:
        return False
    return not isinstance(guest.image, DebianImage) or guest.image.suite not in WITHOUT_MEDIATION


# The kinds of setting that not every guest can have: whether a guest can, and what to say of one that can.
TRAITS: Mapping[str, tuple[Callable[[Guest, Any], bool], str]] = {
    "apparmor": (lambda guest, _: _mediates_namespaces(guest), "its AppArmor mediates user namespaces"),
    "selinux": (lambda guest, _: guest.image.selinux is not None, "it enforces an SELinux policy"),
    "container": (
        lambda guest, knob: any(name.startswith(knob.engine) for name in guest.image.packages),
        "it has what starts containers",
    ),
    # A distribution's own loader decides what its kernel is booted with.
    "kernel": (lambda guest, _: isinstance(guest.image, DebianImage), ""),
}


def get_distribution(guest: Guest) -> str:
    """Return the ID of a guest's distribution."""
    return (guest.system or guest.name).partition("-")[0]


def has_sysctl(guest: Guest, name: str) -> bool:
    """Whether a guest's kernel may have a sysctl that only some distributions' kernels have."""
    return all(get_distribution(guest) in ids for begins, ids in OWN_SYSCTLS.items() if name.startswith(begins))


def can_have(guest: Guest, variant: Variant) -> bool:
    """Whether a guest may be able to have a variant."""
    able = all(TRAITS[kind][0](guest, knob) for kind, knob in variant.knobs.items() if kind in TRAITS)
    return able and all(has_sysctl(guest, name) for name in variant.sysctls)
