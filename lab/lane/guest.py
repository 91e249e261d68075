"""A lane's guest: its machine, the session to it, and what was measured and noted about it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from lab.base.stopwatch import Stopwatch
from lab.catalog import Variant
from lab.guest import ready, remedy_script, variant
from lab.guest.remedy_script import Steps
from lab.guest.session import Session
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.checkpoint import Checkpoint
from lab.machine.lane import Lane, LaneDied
from lab.probes import Probed, Who
from lab.remedies import Remedy

Say = Callable[[str], None]


@contextmanager
def holding(processors: Processors, count: int, what: str, *, how: Acceleration, say: Say) -> Iterator[None]:
    """Hold `count` processors for work that keeps an emulated guest's busy; under KVM nobody waits."""
    if how.kvm:
        say(what)
        yield
        return
    with processors.turn(count, lambda: say("waiting for a processor")):
        say(what)
        yield


@dataclass
class LaneGuest:
    """The guest of one lane. `watch` adds up the seconds of the lane's own steps; `note` is for its record."""

    lane: Lane
    processors: Processors
    say: Say
    watch: Stopwatch = field(default_factory=Stopwatch)
    note: str = ""

    def __post_init__(self) -> None:
        self.session = Session(self.lane.endpoint, alive=self.lane.check_alive, factor=self.acceleration.factor)

    @property
    def acceleration(self) -> Acceleration:
        return self.lane.acceleration

    @property
    def is_emulated(self) -> bool:
        return not self.acceleration.kvm

    @property
    def is_alive(self) -> bool:
        """Whether its machine still runs."""
        try:
            self.lane.check_alive()
        except LaneDied:
            return False
        return True

    def holding(self, count: int, what: str) -> AbstractContextManager[None]:
        """Hold processors of the host for `what`, which is shown."""
        return holding(self.processors, count, what, how=self.acceleration, say=self.say)

    def fork(self, checkpoint: Checkpoint) -> None:
        """Put the guest into the checkpoint's state and wait until it answers. Raises LabError."""
        self.session.close()
        checkpoint.fork()
        if checkpoint.boots:
            self.wait_up()
        else:
            self.wait_answering()

    def wait_up(self) -> None:
        """Wait for a guest that was just started. Raises BootFailed, LaneDied."""
        ready.wait_up(self.session, self.lane, factor=self.acceleration.factor)

    def wait_answering(self) -> None:
        """Wait for a guest whose SSH server was up when its state was saved. Raises DeadlineExpired."""
        self.session.wait_open(ready.BOOT_SECONDS * self.acceleration.factor, listening=True)

    def probe(self, wanted: Variant) -> Probed:
        """What the kernel allows the suite's user, confined as under this variant. Raises LabError."""
        return variant.probe(self.session, wanted)

    def read_who(self, wanted: Variant) -> Who:
        """Who the suite runs as under this variant, and confined by what. Raises LabError."""
        return variant.read_who(self.session, wanted)

    def apply_remedy(self, remedy: Remedy) -> Steps:
        """Run a remedy's script until it is in place, and once more. Raises LabError."""
        return remedy_script.apply(self.session, remedy.name, remedy.script(), about_user=remedy.about_user)

    def undo_remedy(self, remedy: Remedy) -> Steps:
        """Undo what `apply_remedy` did. Raises LabError."""
        return remedy_script.undo(self.session, remedy.name, remedy.script(), about_user=remedy.about_user)

    def add_note(self, text: str) -> None:
        """Show something and keep it for the lane's record."""
        self.say(text)
        self.note = "; ".join(filter(None, [self.note, text]))
