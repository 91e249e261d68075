"""The images of a run in its coordinator: one for each guest, pinned by its digest."""

from dataclasses import dataclass, field
from typing import NamedTuple

from lab.base.activity import Activity, CancelToken, Progress, Task
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.fleet import images
from lab.fleet.roster import Roster
from lab.images.store import BaseImage, ImageManifest
from lab.run.observer import Observer


class PinnedImage(NamedTuple):
    """The image of a guest. If it is ready, lanes start from it as it is; otherwise it has to be prepared."""

    image: BaseImage
    is_ready: bool


@dataclass
class RunImages:
    """The images of a run. `pins` has them by guest, but for one that is on its way from a host.

    The methods take long, so each call has a thread of its own. After `token` is cancelled, no image is built
    or downloaded any more.
    """

    paths: Paths
    roster: Roster
    observer: Observer
    offline: bool = False
    pins: dict[str, PinnedImage] = field(default_factory=dict)
    token: CancelToken = field(default_factory=CancelToken)

    def pin(self, guest: Guest) -> None:
        """Find the image of a guest; build or download it if it is not stored.

        Raises ImageNotAvailable, LabError.
        """
        lane = f"coordinator: {guest.name}"

        def show(progress: Progress) -> None:
            self.observer.lane(lane, progress.within(Activity.IMAGE, prefix="image: "))

        try:
            task = Task(show, self.token.check)
            self.pins[guest.name] = PinnedImage(
                *images.pin_image(self.paths, guest, task, offline=self.offline)
            )
        finally:
            self.observer.lane(lane, None)

    def bring(self, name: str, image: BaseImage, folder: str) -> None:
        """Bring an image into a folder of a host, where a part waits for it."""
        guest = image.manifest.guest
        self.observer.lane(f"{name}: {guest}", Progress("image: on its way to this host", Activity.IMAGE))
        try:
            if name not in self.roster.logins:
                raise LabError(f"{name} dialled in and lacks the image of {guest}: copy it there")
            images.push_image(self.roster.logins[name], image, folder)
        except Exception as error:  # Without an answer the part would wait for ever.
            self.roster.call(name, images.report_failure, folder, _describe(error))

    def refuse(self, name: str, part: int, folder: str) -> None:
        """Tell a host that no image comes into a folder, because the run has no such part any more."""
        self.roster.call(name, images.report_failure, folder, f"the run has no part {part} any more")

    def fetch(self, name: str, image: BaseImage, prepared: ImageManifest, folder: str) -> None:
        """Take over what a host has prepared from an image of the run, in a folder of its store."""
        guest, pin = image.manifest.guest, PinnedImage(image, is_ready=False)
        lane = f"coordinator: {guest}"
        self.observer.lane(lane, Progress(f"image: on its way from {name}", Activity.IMAGE))
        try:
            if name not in self.roster.logins:
                raise LabError("it dialled in")
            login = self.roster.logins[name]
            pin = PinnedImage(images.fetch_image(self.paths, login, prepared, folder), is_ready=True)
        except Exception as error:  # Without a pin the cells of the guest would wait for ever.
            reason = _describe(error)
            self.observer.note(f"{guest}: the image that {name} prepared did not come here: {reason}")
        finally:
            self.observer.lane(lane, None)
            self.pins[guest] = pin


def _describe(error: Exception) -> str:
    """An error in words; one that is a bug of the lab with its type."""
    return str(error) if isinstance(error, LabError) else repr(error)
