"""Trials of cells whose suites have run before, perhaps on another host.

A host is told what the suite of such a cell showed, as far as remedies and experiments need it. Of what it
sends back only the trials are taken: what the suite showed, and the evidence of it, stay as they are.
"""

import shutil
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lab.evidence import PROBES_FILE
from lab.fleet.archive import DamagedResult
from lab.lane.attempts import FAULT, fault_folder
from lab.plan import Cell
from lab.record import CellResult, TestResult
from lab.run.journal import Journal
from lab.trials import experiment, remedies, series
from lab.trials.policy import Policy

# What a host may add to a cell's result by trials. An experiment that turns the outcome may prove a cause; then
# it adds to CONCLUSIONS, too.
CONCLUSIONS = ("causes", "confidence", "reason")
OWN = ("remedies", "experiment", "bug", "unfinished", "trials_lane", *CONCLUSIONS)
TRIALS = (*OWN, "retried", "evidence", "rerun")
# How many faults of one part's trials are kept as evidence of a cell.
MOST_FAULTS = 20


class Shown(BaseModel):
    """What the suite of a cell showed, as a host needs it to make the cell's trials: about 11 KB.

    `probes` is the file of probes, with which a remedy's undo is compared; None if there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    result: CellResult
    probes: str | None = None

    @classmethod
    def of(cls, result: CellResult, run: Path) -> "Shown":
        """That of a cell in the folder of a run."""
        # Trials go by which tests passed, and not by what they said; the rest is large, or added again.
        tests = [TestResult(name=test.name, outcome=test.outcome) for test in result.tests]
        update: dict[str, object] = {"tests": tests, "unfinished": True}
        update |= {name: [] for name in ("evidence", "repeats", "rates", "retried")}
        update |= dict.fromkeys(("lane", "trials_lane", "rerun"), "")
        probes = run / result.folder / PROBES_FILE
        return cls(
            result=result.before_trials().model_copy(update=update),
            probes=probes.read_text(errors="replace") if probes.is_file() else None,
        )

    def put_evidence(self, run: Path) -> None:
        """Write what trials read of the cell's evidence into the folder of a run."""
        if self.probes is not None:
            folder = run / self.result.folder
            folder.mkdir(parents=True, exist_ok=True)
            (folder / PROBES_FILE).write_text(self.probes)


class Known(BaseModel):
    """What a host is told of earlier results.

    `shown`: what the suites of those cells of its part showed on which only trials are left. `passing`: the
    facts of other cells, with which experiments on these are compared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shown: list[Shown] = Field(default_factory=list)
    passing: list[CellResult] = Field(default_factory=list)

    @classmethod
    def of(cls, cells: Iterable[Cell], journal: Journal) -> "Known":
        """What a host has to know to make the trials of those of these cells whose suites have run."""
        shown: list[Shown] = []
        passing: dict[Path, CellResult] = {}
        for cell in cells:
            if result := journal.known(cell):
                shown.append(Shown.of(result, journal.folder))
                if near := _nearest(cell, shown[-1].result, journal):
                    passing[near.folder] = near
        return cls(shown=shown, passing=list(passing.values()))

    @property
    def results(self) -> dict[Path, CellResult]:
        """What the suites showed, by the folders of their cells."""
        return {each.result.folder: each.result for each in self.shown}

    @property
    def kept(self) -> dict[Path, CellResult]:
        """All results, as a run that begins with them keeps them."""
        return {each.folder: each for each in self.passing} | self.results

    def put_evidence(self, run: Path) -> None:
        """Write what trials read of the evidence of suites into the folder of a run."""
        for each in self.shown:
            each.put_evidence(run)


def _nearest(cell: Cell, result: CellResult, journal: Journal) -> CellResult | None:
    """The passing cell with which an experiment on a cell compares it: its facts. None without one."""
    policy = Policy(experiments=journal.info.options.experiments)
    if not (cell.trials and experiment.is_wanted(policy, result)):
        return None
    near = experiment.nearest(result, cell.variant, journal.passing(cell.build))
    if near is None:
        return None
    found = near[0]
    return CellResult(
        guest=found.guest,
        variant=found.variant,
        build=found.build,
        status=found.status,
        expected=found.expected,
        facts=found.facts,
    )


def check(told: CellResult, sent: CellResult) -> None:
    """Raise DamagedResult if a host that was told this result sends one whose suite showed something else."""
    if sent.model_copy(update=_fields(told, TRIALS)) != told:
        raise DamagedResult(f"in it the suite of {told.folder} did not show what it showed before")
    if told.experiment is not None and sent.experiment != told.experiment:
        raise DamagedResult(f"in it {told.folder} has another experiment than before")
    made = sent.experiment if told.experiment is None else None
    is_proved = made is not None and bool(made.turning) and _adds(told, sent)
    if _fields(sent, CONCLUSIONS) != _fields(told, CONCLUSIONS) and not is_proved:
        raise DamagedResult(f"in it {told.folder} has other causes than before, which no experiment proved")


def _adds(told: CellResult, sent: CellResult) -> bool:
    """Whether the conclusions are those of before, with something added to them."""
    return (
        [cause.name for cause in sent.causes] == [cause.name for cause in told.causes]
        and all(new.why.startswith(old.why) for new, old in zip(sent.causes, told.causes, strict=True))
        and sent.reason.startswith(told.reason)
    )


def joined(before: CellResult, sent: CellResult) -> CellResult:
    """The result of a cell with the trials that a host made; what the suite showed is that of before."""
    return before.model_copy(update=_fields(sent, OWN))


def keep_evidence(source: Path, target: Path, told: CellResult, sent: CellResult) -> None:
    """Put the evidence of a cell's trials beside that of its suite, in place of that of earlier trials.

    Faults are kept in any case; nothing else of `source` is. What the host was told of was not made again: its
    evidence stays.
    """
    target.mkdir(parents=True, exist_ok=True)
    if not sent.unfinished:
        _replace(source / remedies.FOLDER, target / remedies.FOLDER, {each.name for each in told.remedies})
        if told.experiment is None:
            _replace(source / series.FOLDER, target / series.FOLDER, ())
    for fault in islice(sorted(source.glob(f"{FAULT}*/")), MOST_FAULTS):
        fault.rename(fault_folder(target))


def _replace(source: Path, target: Path, staying: Collection[str]) -> None:
    """Put the folders of trials in place of those of earlier ones, except `staying`."""
    target.mkdir(exist_ok=True)
    for old in target.glob("*/"):
        if old.name not in staying:
            shutil.rmtree(old)
    for new in source.glob("*/"):
        if new.name not in staying:
            new.rename(target / new.name)


def _fields(result: CellResult, names: Iterable[str]) -> Mapping[str, object]:
    return {name: getattr(result, name) for name in names}
