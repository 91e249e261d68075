"""Takes the result of a part into the run's record and evidence: first the evidence, then the decision."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.base.errors import LabError
from lab.base.files import plain
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
    """Takes in the results of one run's parts."""

    journal: Journal
    observer: Observer

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
    ) -> None:
        """Decide the cells that a host decided, unless another host did before.

        `unpacked` is the folder with the evidence; `names` are those of the part's lanes. `faults` is what
        happened to the part before. Raises DamagedResult, OtherBuild, ResultsNotWritten.
        """
        wanted = {cell.folder: cell for cell in cells}
        if any(each.folder not in wanted for each in result.cells):
            raise DamagedResult("it has a cell that is not one of the part")
        self._check_builds(result.run, names.host)
        found = {
            each.folder: each
            for each in result.cells
            if not _is_undecided(each) and not self.journal.is_decided(wanted[each.folder])
        }
        for lane in result.run.lanes:
            self._add_lane(lane, result.run, names)
        for build in dict.fromkeys(cell.build for cell in cells):
            for record in result.run.builds:
                if record.name == build.name:
                    self.journal.deployed(build, record.files)
        for folder, each in found.items():
            self._keep_evidence(unpacked / folder, folder)
            own = {
                "lane": names[each.lane],
                "trials_lane": names[each.trials_lane],
                "retried": [*map(plain, faults), *each.retried],
            }
            self.observer.cell(self.journal.decide(wanted[folder], each.model_copy(update=own)))

    def give_up(self, cells: Sequence[Cell], faults: Sequence[str]) -> None:
        """Decide the cells of a part that was lost too often. Raises ResultsNotWritten."""
        reason = f"lost with its host {len(faults)} times: {'; '.join(faults)}"
        for cell in cells:
            result = cell.result(Status.ERROR, reason=reason).model_copy(update={"retried": [*faults[:-1]]})
            self.observer.cell(self.journal.decide(cell, result))

    def decide(self, cells: Sequence[Cell], status: Status, reason: str) -> None:
        """Decide cells that no host can run. Raises ResultsNotWritten."""
        with self.journal.one_write():
            for cell in cells:
                result = self.journal.decide(cell, cell.result(status, reason=reason))
                self.observer.cell(result)

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


def _is_undecided(result: CellResult) -> bool:
    """Whether the host came to its end before it came to this cell."""
    return result.status is Status.NOT_RUN and result.reason in UNDECIDED


def _different(build: BuildRecord, known: BuildRecord) -> str:
    """The files that both have and that are not the same."""
    both = build.files.keys() & known.files.keys()
    return ", ".join(sorted(name for name in both if build.files[name] != known.files[name]))
