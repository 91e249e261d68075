"""What a run on several hosts shows of them while it goes on."""

from dataclasses import dataclass

from lab.record import Status


@dataclass(frozen=True)
class HostNow:
    """A worker host: `used` of its `lanes` run parts.

    `silent`: the seconds for which it has not answered; 0 if it answers. `refused`: why it gets no more parts.
    `rests_after`: its lab failed so often in a row, and it gets no part for a while.
    """

    name: str
    lanes: int
    used: int
    kvm: bool
    silent: float = 0.0
    refused: str = ""
    gone: bool = False
    rests_after: int = 0


@dataclass(frozen=True)
class ToldCell:
    """A cell that a host says it has decided. Its result comes with that of its part, or is lost with it."""

    guest: str
    variant: str
    build: str
    lane: str
    status: Status

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the other cells of a run."""
        return self.guest, self.variant, self.build


@dataclass(frozen=True)
class HostsNow:
    """All worker hosts that have joined, in the order of their names, and how far the run is.

    `decided` of its `cells` are in the record; those that are `told` are not. `seconds_left` is None while
    nobody can tell. `is_typical`: it goes by typical times, because nothing was timed on these hosts yet.
    """

    hosts: tuple[HostNow, ...]
    told: tuple[ToldCell, ...]
    decided: int
    cells: int
    seconds_left: float | None
    is_typical: bool
