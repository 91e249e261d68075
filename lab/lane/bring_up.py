"""Bringing a lane's guest up: from a stored state if there is one, otherwise by a boot that is then stored."""

from dataclasses import dataclass, field

from lab.base.activity import Activity, Step
from lab.base.errors import LabError
from lab.base.wait import DeadlineExpired
from lab.lane.guest import LaneGuest
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.lane import LaneDied, WriteFailed
from lab.machine.states import Damaged, Known, States, StoredState

# The name of the snapshot of a stored boot.
BOOT = "boot"


@dataclass
class BringUp:
    """How one guest comes up.

    `states` holds its stored states, None if none may be used; `agent`: whether it gets an agent. After `run`,
    `restored` tells whether a stored state was used, and `files` what was deployed in that state (each with its
    SHA-256).
    """

    guest: LaneGuest
    states: States | None = None
    agent: bool = True
    restored: bool = False
    files: dict[str, str] = field(default_factory=dict)

    def run(self, deployment: str) -> None:
        """Bring the guest up, if possible with `deployment`; empty: with no build deployed. Raises LabError."""
        self.restored = self._restore(deployment) or self._restore()
        if not self.restored:
            self._boot()
            self._store_boot()

    def _restore(self, deployment: str = "") -> bool:
        """Restore a stored state; False without one, or if it cannot be used. A bad one is dropped."""
        stored = self.states.find(deployment) if self.states else None
        if stored is None:
            return False
        what = "restoring the deployed build" if deployment else "restoring its boot"
        self.guest.say(Step(what, Activity.START))
        try:
            with self.guest.watch.step("boot"):
                self._load(stored)
        except (LabError, OSError) as error:
            self.guest.lane.check_wanted()
            if isinstance(error, (CheckpointFailed, DeadlineExpired, Damaged)):
                stored.refuse(str(error))
            self.guest.add_note(f"a stored state could not be used: {str(error).splitlines()[0]}")
            self._reset()
            return False
        return True

    def _load(self, stored: StoredState) -> None:
        guest, lane = self.guest, self.guest.lane
        known = stored.known()
        lane.adopt(stored)
        guest.session.use(lane.endpoint)
        lane.start(paused=True)
        snapshot = guest.snapshot(known.tag)
        snapshot.fork()
        # A checkpoint of this lane may use the same name, and needs the room.
        snapshot.drop()
        lane.resume()
        guest.wait_restored(known.programs)
        # The stored keys were on disk, so this lane continues with a client key of its own.
        guest.renew_key()
        self.files = known.files

    def _store_boot(self) -> None:
        """Store this boot for later lanes, and go on. A stored boot that is bad shows when it is used."""
        if self.states is None or not self.states.wanted():
            return
        guest, lane = self.guest, self.guest.lane
        guest.say(Step("storing its boot", Activity.START))
        guest.session.close()
        known = Known(BOOT, lane.endpoint.client_key, lane.endpoint.host_key, programs=guest.agent_programs)
        with guest.watch.step("boot"):
            try:
                snapshot = guest.take_snapshot(BOOT)
            except CheckpointFailed:
                return  # The checkpoint of the deployed build will say why.
            # QEMU writes nothing to the overlay meanwhile, and has written all that it kept in memory.
            with lane.standing_still():
                self.states.keep_copy(lane.overlay, known)
            # A checkpoint of this lane needs the room.
            snapshot.drop()
            # The one that the guest knows is in the store.
            guest.renew_key()

    def _boot(self) -> None:
        """Boot; once more if the machine dies before it is up, as emulated machines sometimes do.

        A full disk of the host would end the second boot, too.
        """
        guest, lane = self.guest, self.guest.lane
        # The step begins after the wait for processors: it measures the boot alone.
        with guest.holding(Step("booting", Activity.START)), guest.watch.step("boot"):
            try:
                lane.start()
                guest.wait_up()
            except WriteFailed:
                raise
            except LaneDied as error:
                guest.add_note(f"booted twice: {str(error).splitlines()[0]}")
                guest.close()
                lane.stop()
                lane.new_overlay(lane.image.disk)
                lane.start()
                guest.wait_up()
            if self.agent:
                guest.start_agent()

    def _reset(self) -> None:
        """Go back to an empty overlay and to keys of the lane's own."""
        self.guest.close()
        self.guest.lane.stop()
        self.guest.lane.set_up_disk()
        self.guest.session.use(self.guest.lane.endpoint)
