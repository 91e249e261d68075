"""A lane at work, with a machine that is not there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog, matrix, serve
from lab.builds import Build
from lab.errors import LabError
from lab.guest import ready
from lab.machine.acceleration import Acceleration
from lab.machine.keys import generate
from lab.machine.lane import Endpoint, LaneDied
from lab.paths import Paths
from lab.plan import Cell

KNOWN = catalog.load()


class Machine:
    """A lane that dies at its first boots, as often as it is told."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        self.did: list[str] = []
        self.acceleration = Acceleration(False, "")
        self.guest = KNOWN.guest("debian-13")
        self.image = SimpleNamespace(disk=Path("base"))
        self.endpoint = Endpoint(1, generate("a"), generate("b"))

    def start(self) -> None:
        self.did.append("start")
        if self.did.count("start") <= self.deaths:
            raise LaneDied("stopped at once\nits console stayed empty")

    def stop(self) -> None:
        self.did.append("stop")

    def new_overlay(self, backing: Path) -> None:
        self.did.append(f"overlay on {backing}")

    def check_alive(self) -> None:
        raise LaneDied("the machine is gone")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Any, Machine]]:
    monkeypatch.setattr(ready, "wait_ready", lambda session, factor: None)

    def make(deaths: int) -> tuple[Any, Machine]:
        machine = Machine(deaths)
        work = serve.Work(Paths(tmp_path, tmp_path), tmp_path, KNOWN.suite, tmp_path)
        lane: Any = machine
        return serve.Service(work, lane, lambda text: None), machine

    return make


def test_a_machine_that_dies_while_booting_is_booted_again_from_a_new_overlay(
    service: Callable[[int], tuple[Any, Machine]],
) -> None:
    served, machine = service(1)
    served._boot()
    assert machine.did == ["start", "stop", "overlay on base", "start"]
    assert served.note == "booted twice: stopped at once"


def test_a_machine_that_dies_twice_is_given_up(service: Callable[[int], tuple[Any, Machine]]) -> None:
    served, machine = service(2)
    with pytest.raises(LaneDied):
        served._boot()
    assert machine.did.count("start") == 2


def test_the_first_error_of_a_cell_is_not_lost_behind_its_dead_machine(tmp_path: Path) -> None:
    def run(_cell: Cell) -> None:
        raise LabError("the first error")

    cell = Cell(KNOWN.guest("debian-13"), KNOWN.variant("stock"), Build("0.10.8", "0.10.8"))
    served: Any = SimpleNamespace(run=run, lane=Machine(0))
    observer: Any = None
    whole = matrix.MatrixRun(
        [cell], KNOWN.suite, Paths(tmp_path, tmp_path), tmp_path, "", matrix.Options("", 1), observer
    )
    with pytest.raises(LaneDied, match=r"the first error\nthe machine is gone"):
        whole._run(served, cell)
