"""Stands for a runner of cells: no lane, no guest. Tests say what a suite shows and what is diagnosed."""

from pathlib import Path
from typing import Any

from lab import catalog
from lab.base.speed import Speed
from lab.builds import Build, SuiteOptions
from lab.catalog import Variant
from lab.guest import variant
from lab.guest.suite import SuiteRun
from lab.lane.cell import Applied
from lab.machine.lane import LaneDied
from lab.plan import Cell
from lab.probes import Facts
from lab.record import Finding, TestResult
from tests.unit.examples import who

SUITE = catalog.load().suite


class FakeRunner:
    """A runner, its lane and its guest in one. `facts` are those of the guest at the lane's start."""

    session = None
    is_emulated = True
    speed = Speed(emulated=True)
    alone = False

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self.facts = facts
        self.alive = True
        self.given_up = False
        self.running: Any = self
        self.guest: Any = self
        self.lane: Any = self

    @property
    def is_alive(self) -> bool:
        return self.alive

    def check_alive(self) -> None:
        if not self.alive:
            raise LaneDied("the machine is gone\nits console stayed empty")

    def check_wanted(self) -> None:
        if self.given_up:
            raise LaneDied("it was given up")

    def say(self, text: str) -> None:
        pass

    def why_not(self, cell: Cell) -> str | None:
        return variant.why_not_applicable(cell.variant, self.facts)

    def fork(self, build: Build) -> None:
        pass

    def apply(self, wanted: Variant) -> Applied:
        return Applied(self.facts, who(), variant.Mark("begins"))

    def run_suite(self, cell: Cell, _watch: object, options: SuiteOptions) -> SuiteRun:
        raise NotImplementedError

    def gather(self, _cell: Cell, folder: Path, *, mark: variant.Mark, full: bool) -> None:
        (folder / "suite.log").write_text("ran")
        if full:
            (folder / "kernel.log").write_text("DENIED")

    def diagnose(self, _cell: Cell, _folder: Path, tests: list[TestResult]) -> list[Finding]:
        raise NotImplementedError
