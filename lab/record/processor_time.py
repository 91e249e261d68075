"""What a run did with the processors of its host."""

from pydantic import Field

from lab.record._base import Entry, Seconds

# The most processors that are believed.
MOST_PROCESSORS = 100_000


class ProcessorTime(Entry):
    """What one session of a run, from a start or a resume to its end, did with the processors of its host.

    A run on several hosts has none: its parts overlap, so what was idle meanwhile cannot be said of each.
    All but `processors` are seconds; all but `wall` are seconds of processor time.
    """

    processors: int = Field(ge=1, le=MOST_PROCESSORS, description="How many the host has.")
    wall: Seconds = Field(description="How long the session took.")
    lanes: Seconds = Field(
        description="Of QEMU and passt of its lanes. A machine that ended by itself is not counted."
    )
    lab: Seconds = Field(description="Of the lab and of the programs that it ran, as those that build images.")
    idle: Seconds = Field(description="In which the host's processors had nothing to do.")

    @property
    def capacity(self) -> float:
        """What all processors together could do meanwhile."""
        return self.processors * self.wall

    @property
    def busy(self) -> float:
        """What the run took."""
        return self.lanes + self.lab

    @property
    def others(self) -> float:
        """What all other programs of the host took."""
        return max(0.0, self.capacity - self.busy - self.idle)

    @property
    def over_bound(self) -> float:
        """By what the session took longer than if the run had kept all processors busy; 0.1 is 10 %."""
        return self.capacity / self.busy - 1 if self.busy else 0.0
