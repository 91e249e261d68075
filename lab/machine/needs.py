"""What the guests of a plan need of the host, and which requirements only other guests have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.catalog import CloudImage, DebianImage, Firmware, Guest
from lab.images import store

# Whether a guest needs something that not every guest needs.
Need = Callable[[Paths, Guest], bool]


@dataclass(frozen=True)
class Plan:
    """The guests that are to be run, and all guests of the catalog."""

    paths: Paths
    guests: Sequence[Guest]
    catalog: Sequence[Guest]

    def needing(self, need: Need) -> list[str]:
        """The names of all guests of the catalog that need this."""
        return [guest.name for guest in self.catalog if need(self.paths, guest)]

    def has_any(self, names: Sequence[str]) -> bool:
        """Whether one of these guests is to be run."""
        return any(guest.name in names for guest in self.guests)

    @property
    def memory_mib(self) -> int:
        """The memory of the largest guest that is to be run."""
        return max((guest.memory_mib for guest in self.guests), default=0)


def is_built(paths: Paths, guest: Guest) -> bool:
    """Whether the guest's image still has to be built from Debian's packages."""
    return isinstance(guest.image, DebianImage) and not _is_stored(paths, guest)


def is_labelled(paths: Paths, guest: Guest) -> bool:
    """Whether the guest's image still has to be built with SELinux labels."""
    return is_built(paths, guest) and isinstance(guest.image, DebianImage) and guest.image.selinux is not None


def is_verified(paths: Paths, guest: Guest) -> bool:
    """Whether the guest's disk still has to be downloaded and its signature verified."""
    image = guest.image
    return isinstance(image, CloudImage) and image.checksums is not None and not _is_stored(paths, guest)


def starts_from_uefi(_paths: Paths, guest: Guest) -> bool:
    """Whether UEFI starts the guest."""
    return isinstance(guest.image, CloudImage) and guest.image.firmware is Firmware.UEFI


def nobody(_paths: Paths, _guest: Guest) -> bool:
    """No guest needs this; a command that runs no cells does."""
    return False


def _is_stored(paths: Paths, guest: Guest) -> bool:
    try:
        return store.find(paths, guest) is not None
    except LabError:  # An image that cannot be read has to be made again.
        return False
