"""The guests of a run whose image is not there and cannot be fetched: found before any lane is opened."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.catalog import CloudImage, Guest
from lab.images import cloud, download, store
from lab.lane import prepare_image

NEXT = (
    "lab images pull fetches images beforehand, lab images import FILE --as GUEST takes a disk that you have; "
    "with --offline no server is asked"
)


# Why a guest's image cannot be had with --offline, by whether it is stored.
OFFLINE = {
    True: "it is not prepared yet, and --offline forbids installing packages in it",
    False: "it is not in the store, and --offline forbids fetching it",
}


@dataclass(frozen=True)
class Absent:
    """Why each of these guests, by name, has no image."""

    reasons: dict[str, str]

    def note(self) -> str:
        """All of them, with the next step."""
        by_reason: dict[str, list[str]] = {}
        for guest, reason in self.reasons.items():
            by_reason.setdefault(reason, []).append(guest)
        told = "; ".join(f"{', '.join(guests)} ({reason})" for reason, guests in by_reason.items())
        return f"no image, so their cells are not-run: {told}\n  next: {NEXT}"


def find(paths: Paths, guests: Iterable[Guest], *, offline: bool) -> Absent:
    """Find the guests whose lanes could not start. Takes a few seconds at most, none if all images are stored.

    `offline` forbids the use of a network. Otherwise only the servers of published disks are asked whether they
    can be reached: whether a guest can be built shows when it is.
    """
    if offline:
        # Preparing an image needs a network, too.
        unprepared = [guest for guest in guests if not prepare_image.is_ready(paths, guest)]
        return Absent({guest.name: OFFLINE[_is_stored(paths, guest)] for guest in unprepared})
    missing = [guest for guest in guests if not _is_stored(paths, guest)]
    published = {guest.name: guest.image for guest in missing if isinstance(guest.image, CloudImage)}
    reasons = {name: why for name, image in published.items() if (why := cloud.why_unpinned(image))}
    addresses = {name: str(image.address) for name, image in published.items() if name not in reasons}
    gone = download.unreachable(addresses.values()) if addresses else {}
    for name, address in addresses.items():
        host = urlsplit(address).netloc
        if host in gone:
            reasons[name] = f"{host} cannot be reached: {gone[host]}"
    return Absent(reasons)


def _is_stored(paths: Paths, guest: Guest) -> bool:
    try:
        return store.find(paths, guest) is not None
    except LabError:  # An image that cannot be read: whoever needs it says so.
        return True
