"""Guests for a report: the one that is its host, and the nearest one that can be run instead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.catalog import Catalog, DebianImage, Guest, Variant
from lab.repro.report import Place, Report, System

# The guest that most of the lab's results are from.
USUAL = "debian-13"
# Debian's releases whose AppArmor does not mediate user namespaces.
WITHOUT_MEDIATION = ("bullseye", "bookworm")
# Distributions whose kernels have a sysctl that others lack, by the beginning of its name.
OWN_SYSCTLS = {
    "kernel.apparmor_restrict_unprivileged_userns": ("ubuntu",),
    "kernel.unprivileged_userns_clone": ("debian", "ubuntu"),
}
# Distributions that derive from the same one.
FAMILIES = (
    ("debian", "ubuntu", "pop", "linuxmint", "raspbian", "kali"),
    ("fedora", "rhel", "centos", "rocky", "almalinux"),
)
# What stands for the host of a report: its policy, by the cause that this policy leads to.
POLICIES = {"apparmor-userns-nocaps": "under Ubuntu's policy"}


@dataclass(frozen=True)
class Nearest:
    """A guest that is run although it is not the report's host, and why this one."""

    guest: Guest
    why: str


def host_of(report: Report) -> System | None:
    """Return the system of the host that the report names, a named one first; None if it names none."""
    hosts = [each for each in report.of(System) if each.place is Place.HOST]
    return next((each for each in hosts if not each.inferred), hosts[0] if hosts else None)


def exact(catalog: Catalog, system: System) -> Guest | None:
    """Return the catalog's guest of this distribution and release; guests are named after both."""
    version = system.version if not system.inferred else None
    while version:
        if found := catalog.guests.get(f"{system.id}-{version}"):
            return found
        # A point release, for example 24.04.3 or 13.2, has the VERSION_ID of its release.
        version = version.rpartition(".")[0]
    return None


def nearest(
    catalog: Catalog, system: System | None, variants: list[Variant], is_stored: Callable[[Guest], bool]
) -> Nearest | None:
    """Return the guest that comes nearest to a system among those that can be run here.

    `variants` are those that it must be able to have. `is_stored` tells whether a guest's image is here; only a
    guest that is built from packages can be had without.
    """
    candidates = [
        guest
        for guest in catalog.guests.values()
        if (isinstance(guest.image, DebianImage) or is_stored(guest))
        and all(why_not(guest, each) is None for each in variants)
    ]
    if not candidates:
        return None

    def distance(guest: Guest) -> tuple[object, ...]:
        return (_distance(guest, system), guest.name != USUAL, not is_stored(guest), guest.name)

    chosen = min(candidates, key=distance)
    reasons = [TRAITS[kind] for each in variants for kind in each.knobs if kind in TRAITS]
    reasons += [NEAR[_distance(chosen, system)]]
    return Nearest(chosen, "; ".join(dict.fromkeys(reasons)))


def why_not(guest: Guest, variant: Variant) -> str | None:
    """Why a guest cannot have a variant, as far as its definition tells; None if it may.

    The guest itself is asked again before a cell is run.
    """
    missing = [name for name in variant.sysctls if not has_sysctl(guest, name)]
    if missing:
        return f"the kernel of {guest.name} has no {missing[0]}"
    lacking = [kind for kind in variant.knobs if kind in HAS and not HAS[kind](guest)]
    return f"{guest.name} is no guest for the setting {lacking[0]}" if lacking else None


def has_sysctl(guest: Guest, name: str) -> bool:
    """Whether a guest's kernel may have a sysctl that only some distributions' kernels have."""
    return all(distribution(guest) in ids for begins, ids in OWN_SYSCTLS.items() if name.startswith(begins))


def distribution(guest: Guest) -> str:
    """Return the ID of a guest's distribution."""
    return guest.name.partition("-")[0]


def _distance(guest: Guest, system: System | None) -> int:
    """Return how far a guest is from a system: 0 is the same distribution, 3 another family."""
    if system is None:
        return 3
    own = distribution(guest)
    if own == system.id:
        return 0
    if own == system.like:
        return 1
    together = any(own in family and not {system.id, system.like}.isdisjoint(family) for family in FAMILIES)
    return 2 if together else 3


def _mediates_namespaces(guest: Guest) -> bool:
    image = guest.image
    if image.selinux is not None:
        return False
    return not isinstance(image, DebianImage) or image.suite not in WITHOUT_MEDIATION


def _has_podman(guest: Guest) -> bool:
    return isinstance(guest.image, DebianImage) and "podman" in guest.image.packages


HAS: Mapping[str, Callable[[Guest], bool]] = {
    "apparmor": _mediates_namespaces,
    "selinux": lambda guest: guest.image.selinux is not None,
    "container": _has_podman,
    # A distribution's own loader decides what its kernel is booted with.
    "kernel": lambda guest: isinstance(guest.image, DebianImage),
}
# What speaks for a guest: what it can have, and how far it is from the host.
TRAITS = {
    "apparmor": "its AppArmor mediates user namespaces",
    "selinux": "it enforces an SELinux policy",
    "container": "it has podman",
}
NEAR = (
    "it is another release of the same distribution",
    "the host's distribution derives from its own",
    "its distribution is of the same family",
    "most of the lab's results are from it",
)
