"""States that a lane can be put back into, any number of times: above all the one after a build is deployed."""

from typing import Any

import libvirt

from lab.base.errors import LabError
from lab.base.wait import Deadline, wait_for
from lab.machine.lane import Lane
from lab.machine.qemu import ANSWER_SECONDS

SAVE, LOAD, DELETE = "snapshot-save", "snapshot-load", "snapshot-delete"
# Saving takes 8 s and loading 0.5 s here under emulation; a slow disk may need much longer. These suffice for
# emulation on ordinary hardware.
SAVE_SECONDS = 180.0
LOAD_SECONDS = 60.0


class CheckpointFailed(LabError):
    """The machine's state could not be saved or loaded back; the text is QEMU's reason."""


class Checkpoint:
    """QEMU's own snapshot of memory and disk, in the lane's overlay, loaded inside the running process.

    It is QEMU's `snapshot-save` and `snapshot-load` (6.0 and newer):
    https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
    """

    def __init__(self, lane: Lane, tag: str) -> None:
        """Use a snapshot that is in the overlay already."""
        self._lane = lane
        self.tag = tag
        self._node = self._overlay_node()

    @classmethod
    def take(cls, lane: Lane, tag: str) -> "Checkpoint":
        """Save the machine as it is now under `tag`. Raises CheckpointFailed."""
        checkpoint = cls(lane, tag)
        checkpoint._job(SAVE, SAVE_SECONDS)
        return checkpoint

    def fork(self) -> None:
        """Put the lane into the checkpoint's state. Earlier SSH connections are dead then."""
        self._job(LOAD, LOAD_SECONDS)

    def drop(self) -> None:
        """Remove the snapshot from the overlay; the machine stays as it is. Raises CheckpointFailed."""
        self._job(DELETE, LOAD_SECONDS)

    def _overlay_node(self) -> str:
        """QEMU's name for the overlay as a qcow2 block device."""
        deadline = Deadline(ANSWER_SECONDS, "QEMU")
        for node in self._qmp("query-named-block-nodes", deadline, flat=True):
            if node["drv"] == "qcow2" and node["file"] == str(self._lane.overlay):
                return str(node["node-name"])
        raise CheckpointFailed(f"QEMU has no block device for {self._lane.overlay}")

    def _job(self, command: str, seconds: float) -> None:
        job = f"lab-{command}"
        # QEMU answers nothing else while it saves or loads.
        speed = self._lane.speed
        deadline = Deadline(speed.from_emulation(seconds), f"QEMU's {command}", remark=str(speed))
        memory = {} if command == DELETE else {"vmstate": self._node}
        self._qmp(command, deadline, **{"job-id": job, "tag": self.tag, "devices": [self._node], **memory})

        def concluded() -> dict[str, Any] | None:
            jobs = self._qmp("query-jobs", deadline)
            return next((j for j in jobs if j["id"] == job and j["status"] == "concluded"), None)

        outcome = wait_for(concluded, deadline, alive=self._lane.check_running, interval=0.02)
        self._qmp("job-dismiss", deadline, id=job)
        if "error" in outcome:
            raise CheckpointFailed(f"QEMU's {command}: {outcome['error']}")

    def _qmp(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        try:
            reply = self._lane.ask(command, max(deadline.remaining, ANSWER_SECONDS), **arguments)
        except libvirt.libvirtError as error:
            self._lane.check_running()
            raise CheckpointFailed(f"QEMU's {command}: {error}") from error
        if "error" in reply:
            raise CheckpointFailed(f"QEMU's {command}: {reply['error']['desc']}")
        return reply["return"]
