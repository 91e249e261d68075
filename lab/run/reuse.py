"""Cells whose results an earlier run has already, because nothing that decides them has changed since."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from lab.base.errors import UsageError
from lab.base.files import A_RUN, explain_full_disk, group_values, make_folder
from lab.base.paths import Paths
from lab.images.store import BaseImage
from lab.lane.prepare_image import find_ready_image
from lab.merge import copy_evidence
from lab.plan import OF_EVERY_CELL, Cell, PlannedRun
from lab.record import (
    RESULTS_FILE,
    BuildRecord,
    CellResult,
    Expectation,
    ExperimentPolicy,
    KeptFrom,
    LaneRecord,
    RunOptions,
    RunResult,
    Status,
)
from lab.report.site.model import HISTORY_FILE
from lab.report.site.records import read_site_records

# Why nobody knows whether a cell is kept: its guest has no image yet that its lanes could start from.
NO_IMAGE = "image not known before it is built"


class DecidingPart(StrEnum):
    """A part of what decides the result of a cell."""

    BUILD = "build"
    SUITE = "suite"
    GUEST = "guest"  # its definition and what its image is made from
    IMAGE = "image"  # its packages with their versions
    KERNEL = "kernel"
    VARIANT = "variant"
    CODE = "code"  # the lab's programs in guests, its rules, and how it deploys builds
    OPTIONS = "options"
    REMEDIES = "remedies"


@dataclass(frozen=True)
class Ingredients:
    """What a run knows of what decides a cell. `packages` and `kernel` are those of the cell's image."""

    build: BuildRecord
    expected: Expectation
    definitions: Mapping[str, str]
    options: RunOptions
    packages: str
    kernel: str

    def digest_parts(self, result: CellResult) -> dict[DecidingPart, str]:
        """The digest of each part that decides this result of a cell; empty if the run did not record it."""
        has_failed, tried = result.status.failed, result.trials
        options = self.options
        # A passing cell gets no remedies, and an experiment only if each cell does.
        asked = [str(options.experiments is ExperimentPolicy.ALWAYS)]
        if has_failed:
            asked = [str(options.remedies), options.experiments]
        of_suites = options.model_dump_json(include={"cold", "until_fail", "shuffle", "stress"})
        # An experiment may have tried any variant.
        variants = self._list_definitions("variant ") if tried.experiment else [f"variant {result.variant}"]
        # What a cell should do follows from its definitions by code that no digest covers.
        variant = self._digest_definitions(variants)
        remedies = self._list_definitions("remedy ") if has_failed and options.remedies else []
        return {
            DecidingPart.BUILD: self.build.digest,
            DecidingPart.SUITE: self._digest_definitions([f"suite {self.build.suite}"]),
            DecidingPart.GUEST: self._digest_definitions([f"guest {result.guest}"]),
            DecidingPart.IMAGE: self.packages,
            # A guest's own loader chooses its kernel, which is part of its image then.
            DecidingPart.KERNEL: self.kernel or self.packages,
            DecidingPart.VARIANT: variant and _digest(variant, self.expected.model_dump_json()),
            DecidingPart.CODE: self._digest_definitions(OF_EVERY_CELL),
            DecidingPart.OPTIONS: _digest(of_suites, self.definitions.get("rootfs", ""), *asked),
            DecidingPart.REMEDIES: _digest(*(f"{name} {self.definitions[name]}" for name in remedies)),
        }

    def _list_definitions(self, prefix: str) -> list[str]:
        return [name for name in sorted(self.definitions) if name.startswith(prefix)]

    def _digest_definitions(self, names: Iterable[str]) -> str:
        digests = [self.definitions.get(name, "") for name in names]
        return _digest(*digests) if all(digests) else ""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Judgement:
    """What becomes of a cell: `kept` is its result as `source` has it; if that is None, it is run.

    `reason` says in a few words from which run it is kept, or why it is run.
    """

    cell: Cell
    reason: str
    kept: CellResult | None = None
    source: "EarlierRun | None" = None


@dataclass(frozen=True)
class EarlierRun:
    """A run whose results stand for cells of a new one; none that is older than `fresh` seconds.

    `places` says where evidence is that is not in its cell's folder: files of `folder`, by the record's names.
    """

    folder: Path
    run: RunResult
    fresh: float | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def results(self) -> dict[Path, CellResult]:
        """The results of its cells, by their folders."""
        return {result.folder: result for result in self.run.cells}

    def judge_cell(
        self, cell: Cell, definitions: Mapping[str, str], options: RunOptions, image: BaseImage | None
    ) -> Judgement:
        """Say whether its result of a cell, which it must have, stands for the cell on this image.

        `definitions` and `options` are those of the new run. `image`: None if the guest has none yet.
        """
        result = self.results[cell.folder]
        if obstacle := self._find_obstacle(result, options):
            return Judgement(cell, f"not kept: {obstacle}")
        then = self._read_ingredients(result).digest_parts(result)
        if unknown := [part for part, digest in then.items() if not digest]:
            return Judgement(cell, f"not kept: that run did not record {', '.join(unknown)}")
        manifest = image.manifest if image else None
        now = Ingredients(
            cell.build.record(),
            cell.expected,
            definitions,
            options,
            packages=manifest.packages_digest if manifest else "",
            kernel=manifest.kernel_digest if manifest else "",
        ).digest_parts(result)
        of_image = () if image else (DecidingPart.IMAGE, DecidingPart.KERNEL)
        if changed := [part for part in DecidingPart if part not in of_image and now[part] != then[part]]:
            code = f"{DecidingPart.CODE} ({self._name_changed_code(definitions)})"
            names = [code if part is DecidingPart.CODE else part for part in changed]
            return Judgement(cell, f"differs: {', '.join(names)}")
        if image is None:
            return Judgement(cell, NO_IMAGE)
        kept = self._take_over(result)
        origin = kept.history.kept
        assert origin is not None
        if self.fresh is not None and datetime.now(UTC) - origin.began > timedelta(seconds=self.fresh):
            return Judgement(cell, f"older than --fresh: {origin}")
        return Judgement(cell, f"kept: {origin}", kept, self)

    def _name_changed_code(self, definitions: Mapping[str, str]) -> str:
        earlier = self.run.run.definitions
        return ", ".join(name for name in OF_EVERY_CELL if earlier.get(name) != definitions.get(name))

    def has_other_build(self, cell: Cell) -> bool:
        """Whether it ran the suite of a cell there with another build."""
        place = (cell.guest.name, cell.variant.name)
        suites = {build.name: build.suite for build in self.run.run.builds}
        others = [result for result in self.run.cells if (result.guest, result.variant) == place]
        return any(suites[result.build] == cell.suite.name for result in others)

    def _find_obstacle(self, result: CellResult, options: RunOptions) -> str:
        """What of a result itself keeps it from being taken over; empty if nothing does."""
        if result.status is Status.FLAKY or result.status.could_not_run:
            return f"it was {result.status}"
        if result.lacked_guest:
            return "no guest decided it"
        if result.met_bug or result.has_more_to_try:
            return "its trials did not end"
        if self.run.run.options.repeat < options.repeat:
            return f"it was repeated {self.run.run.options.repeat} times, and {options.repeat} are asked for"
        return ""

    def _lanes_of(self, result: CellResult) -> list[LaneRecord]:
        labels = {result.history.lane, result.history.trials_lane} - {""}
        return [lane for lane in self.run.run.lanes if lane.label in labels]

    def _read_ingredients(self, result: CellResult) -> Ingredients:
        info = self.run.run
        # Whoever changed the image in the middle of a cell's trials has no result of one image.
        packages, kernels = (
            {getattr(lane, name) for lane in self._lanes_of(result)} for name in ("packages", "kernel")
        )
        return Ingredients(
            next(build for build in info.builds if build.name == result.build),
            result.expected,
            info.definitions,
            info.options,
            packages=packages.pop() if len(packages) == 1 else "",
            kernel=kernels.pop() if len(kernels) == 1 else "",
        )

    def _take_over(self, result: CellResult) -> CellResult:
        """The result as one of another run: it names the run that ran it, also in the labels of its lanes."""
        info, history = self.run.run, result.history
        if history.kept:
            return result
        origin = KeptFrom(run=info.id, began=info.started)
        return result.with_parts(history=history.on_lanes(self._prefix.__add__).with_values(kept=origin))

    @property
    def _prefix(self) -> str:
        return f"{self.run.run.id}: "

    def take_over_lanes(self, results: Iterable[CellResult]) -> list[LaneRecord]:
        """The lanes of results that were taken over, each as a lane of another run."""
        labels = {label for result in results for label in (result.history.lane, result.history.trials_lane)}
        lanes = []
        for lane in self.run.run.lanes:
            # Lanes of results that this run had taken over itself have their run in front already.
            label = lane.label if lane.label in labels else f"{self._prefix}{lane.label}"
            if label in labels:
                lanes.append(lane.in_run(label, lane.host or self.run.run.host))
        return lanes

    def get_files(self, build: str) -> dict[str, str]:
        """The files of a build that this run deployed, each with its SHA-256."""
        return next(record.files for record in self.run.run.builds if record.name == build)

    def copy_result(self, result: CellResult, rerun: str, folder: Path) -> CellResult:
        """Copy the evidence of a result that was taken over into another run's folder; the result there.

        Raises UsageError for evidence outside of the cell's folder, LabError if it cannot be copied.
        """
        make_folder(folder)
        with explain_full_disk(folder, A_RUN):
            return copy_evidence(folder, self.folder, result, self.places).with_parts(rerun=rerun)


@dataclass(frozen=True)
class EarlierRuns:
    """The runs whose results stand for cells of a new one: one run, or those of a site."""

    runs: Sequence[EarlierRun]
    paths: Paths

    @cached_property
    def _by_folder(self) -> dict[Path, EarlierRun]:
        return {folder: earlier for earlier in self.runs for folder in earlier.results}

    def judge(
        self, cells: Iterable[Cell], definitions: Mapping[str, str], options: RunOptions
    ) -> list[Judgement]:
        """Say of each cell of a new run whether a result stands for it.

        `definitions` and `options` are those of the new run.
        """
        judged = []
        images: dict[str, BaseImage | None] = {}
        for cell in cells:
            if cell.guest.name not in images:
                images[cell.guest.name] = find_ready_image(self.paths, cell.guest)
            judged.append(self.judge_cell(cell, definitions, options, images[cell.guest.name]))
        return judged

    def judge_cell(
        self, cell: Cell, definitions: Mapping[str, str], options: RunOptions, image: BaseImage | None
    ) -> Judgement:
        """Say whether a result stands for a cell on this image; None: the guest has none yet."""
        if earlier := self._by_folder.get(cell.folder):
            return earlier.judge_cell(cell, definitions, options, image)
        if any(earlier.has_other_build(cell) for earlier in self.runs):
            return Judgement(cell, f"differs: {DecidingPart.BUILD}")
        return Judgement(cell, "not kept: not there")

    def keep(self, planned: PlannedRun, judged: Iterable[Judgement]) -> PlannedRun:
        """Take over what stands into a planned run, and copy its evidence: see `EarlierRun.copy_result`."""
        folder, info = planned.folder, planned.info
        kept: dict[Path, CellResult] = {}
        lanes = {lane.label: lane for lane in info.lanes}
        builds = {build.name: build for build in info.builds}
        for each in judged:
            if each.kept is None or each.source is None:
                continue
            result = each.source.copy_result(each.kept, each.cell.rerun(info.options), folder)
            kept[each.cell.folder] = result
            lanes |= {lane.label: lane for lane in each.source.take_over_lanes([result])}
            build = builds[result.build]
            files = {**each.source.get_files(build.name), **build.files}
            builds[build.name] = build.with_values(files=files)
        values = {"builds": list(builds.values()), "lanes": list(lanes.values())}
        return replace(planned, info=info.with_values(**values), earlier_results=kept)


def read_earlier(folder: Path, paths: Paths, fresh: float | None) -> EarlierRuns:
    """Read the run in a folder, or those of the site there, to take over their results.

    Raises UsageError for a run that cannot be read or ran no suite, and for a site without records.
    """
    if (folder / RESULTS_FILE).exists() or not (folder / HISTORY_FILE).exists():
        run = RunResult.read(folder)
        if run.run.options.predict:
            raise UsageError(
                f"--since {folder}: that run only predicted, and has no results",
                hint="name a run whose suites ran",
            )
        return EarlierRuns([EarlierRun(folder, run, fresh)], paths)
    runs = [
        EarlierRun(folder, published.run, fresh, published.places) for published in read_site_records(folder)
    ]
    if not runs:
        raise UsageError(
            f"--since {folder}: that site holds no records of its runs",
            hint="publish it again with this lab, or name a run",
        )
    return EarlierRuns(runs, paths)


def describe_judgements(judged: Iterable[Judgement]) -> list[str]:
    """Say for each reason which cells are kept, or run, for it: a line for each reason."""
    by_reason = group_values((each.reason, each.cell) for each in judged)
    lines = []
    for reason, cells in by_reason.items():
        guests = ", ".join(dict.fromkeys(cell.guest.name for cell in cells))
        lines.append(f"{len(cells)} cell{'s' * (len(cells) != 1)} of {guests}: {reason}")
    return lines
