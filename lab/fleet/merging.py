"""Takes the result of a part into the run's record and evidence: first the evidence, then the decision."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.base.errors import LabError
from lab.base.files import plain
from lab.fleet import trials
from lab.fleet.archive import DamagedResult
from lab.fleet.names import LaneNames
from lab.plan import Cell
from lab.record import BuildRecord, CellResult, LaneRecord, RunInfo, RunResult, Status
from lab.run.journal import UNDECIDED, Journal
from lab.run.observer import Observer


class OtherBuild(LabError):
    """A host deployed other files of a build than the hosts before it: its results are not of this run."""


@dataclass
class Merger:
    """Takes in the results of one run's parts.

    `to_try` are the folders of decided cells on which this run has hosts try remedies or experiments.
    """

    journal: Journal
    observer: Observer
    to_try: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        # The lane that first ran from each image, by guest.
        self._images: dict[str, dict[str, str]] = {}
        for lane in self.journal.info.lanes:
            self._images.setdefault(lane.guest, {})[lane.image] = lane.label

    def take(
        self,
        cells: Sequence[Cell],
        result: RunResult,
        unpacked: Path,
        names: LaneNames,
        faults: Sequence[str] = (),
        shown: Mapping[Path, CellResult] | None = None,
    ) -> None:
        """Decide the cells that a host decided, unless another host did before.

        `unpacked` is the folder with the evidence; `names` are those of the part's lanes. `faults` is what
        happened to the part before; `shown` are the results that the host was told, to make trials only.
        Raises DamagedResult, OtherBuild, ResultsNotWritten.
        """
        shown = shown or {}
        wanted = {cell.folder: cell for cell in cells}
        if any(each.folder not in wanted for each in result.cells):
            raise DamagedResult("it has a cell that is not one of the part")
        self._check_builds(result.run, names.host)
        for each in result.cells:
            if each.folder in shown:
                trials.check(shown[each.folder], each)
        for lane in result.run.lanes:
            self._add_lane(lane, result.run, names)
        for build in dict.fromkeys(cell.build for cell in cells):
            for record in result.run.builds:
                if record.name == build.name:
                    self.journal.deployed(build, record.files)
        # Of a child that was ended, the rest of what it began can be tried elsewhere. One that came to its end
        # has tried everything, as often as a run on one host would.
        has_ended = result.run.finished is not None and not result.run.interrupted
        for each in result.cells:
            cell, source = wanted[each.folder], unpacked / each.folder
            update = {
                "lane": names[each.lane],
                "trials_lane": names[each.trials_lane],
                "retried": [*map(plain, faults), *each.retried],
            }
            own = each.model_copy(update=update)
            if told := shown.get(each.folder):
                if self.is_open(cell) and (has_ended or not each.unfinished):
                    self._take_trials(cell, told, own, source)
            elif not _is_undecided(each) and not self.journal.is_decided(cell):
                self._take_suite(cell, own, source, more=each.unfinished and not has_ended)

    def _take_suite(self, cell: Cell, result: CellResult, source: Path, *, more: bool) -> None:
        """Take in the result of a cell whose suite has run; `more`: trials are left for another host."""
        self._keep_evidence(source, cell.folder)
        if more:
            self.to_try.add(cell.folder)
            self.journal.decide(cell, result)
        else:
            self._close(cell, result)

    def _take_trials(self, cell: Cell, told: CellResult, result: CellResult, source: Path) -> None:
        """Take in the trials of a cell, if they were made."""
        before = self.journal.known(cell)
        assert before is not None
        trials.keep_evidence(source, self.journal.folder / cell.folder, told, result)
        made = before if result.unfinished else trials.joined(before, result)
        self._close(cell, _with_faults(made, result.retried))

    def _close(self, cell: Cell, result: CellResult) -> None:
        """Decide a cell of which this run shows nothing more."""
        result = self.journal.decide(cell, result)
        self.to_try.discard(cell.folder)
        self.observer.cell(result)

    def is_open(self, cell: Cell) -> bool:
        """Whether this run is to show more of a cell."""
        return not self.journal.is_decided(cell) or cell.folder in self.to_try

    @property
    def decided(self) -> int:
        """How many cells of the run are decided, with all that is to be tried on them."""
        return max(0, self.journal.decided - len(self.to_try))

    def give_up(self, cells: Sequence[Cell], faults: Sequence[str]) -> None:
        """Decide the cells of a part that was lost too often. Raises ResultsNotWritten."""
        reason = f"lost with its host {len(faults)} times: {'; '.join(faults)}"
        self._give_up(cells, Status.ERROR, reason, faults)

    def decide(self, cells: Sequence[Cell], status: Status, reason: str) -> None:
        """Decide cells that no host can run. Raises ResultsNotWritten."""
        with self.journal.one_write():
            self._give_up(cells, status, reason)

    def _give_up(self, cells: Sequence[Cell], status: Status, reason: str, faults: Sequence[str] = ()) -> None:
        """Decide cells that cannot be run. Those whose suites have run keep their results, and lack trials."""
        for cell in cells:
            if before := self.journal.known(cell):
                self._close(cell, _with_faults(before, faults))
                name = f"{cell.guest.name} {cell.variant.name}"
                self.observer.note(f"{name}: remedies or experiments are left to be tried: {reason}")
            else:
                result = cell.result(status, reason=reason)
                self._close(cell, result.model_copy(update={"retried": [*faults[:-1]]}))

    def _check_builds(self, info: RunInfo, host: str) -> None:
        known = {record.name: record for record in self.journal.info.builds}
        for record in info.builds:
            if record.name not in known:
                raise DamagedResult(f"it has a build that is not one of the run: {record.name[:40]!r}")
            if different := _different(record, known[record.name]):
                raise OtherBuild(
                    f"{host} deployed other files of boxlite {record.name} than hosts before it: {different}"
                )

    def _add_lane(self, lane: LaneRecord, info: RunInfo, names: LaneNames) -> None:
        update = {"label": names[lane.label], "host": lane.host or info.host}
        made = lane.model_copy(update=update)
        self.journal.add_lane(made)
        self._compare_images(made)

    def _compare_images(self, lane: LaneRecord) -> None:
        """Tell once of each image: hosts that build a guest by themselves do not get the same one."""
        known = self._images.setdefault(lane.guest, {})
        if known and lane.image not in known:
            image, label = next(iter(known.items()))
            self.observer.note(
                f"{lane.guest} is not the same image everywhere: {label} ran from {image[:12]}, "
                f"{lane.label} from {lane.image[:12]}"
            )
        known.setdefault(lane.image, lane.label)

    def _keep_evidence(self, source: Path, folder: Path) -> None:
        target = self.journal.folder / folder
        if target.exists():
            shutil.rmtree(target)
        if source.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)


def _with_faults(result: CellResult, faults: Iterable[str]) -> CellResult:
    """A result with more of what it was retried after, each once."""
    known = dict.fromkeys([*result.retried, *map(plain, faults)])
    return result.model_copy(update={"retried": [*known]})


def _is_undecided(result: CellResult) -> bool:
    """Whether the host came to its end before it came to this cell."""
    return result.status is Status.NOT_RUN and result.reason in UNDECIDED


def _different(build: BuildRecord, known: BuildRecord) -> str:
    """The files that both have and that are not the same."""
    both = build.files.keys() & known.files.keys()
    return ", ".join(sorted(name for name in both if build.files[name] != known.files[name]))
