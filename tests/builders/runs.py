"""Runs as a record has them, plans of runs that begin, end and are resumed, and what a run told."""

import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab import builds, catalog, plan
from lab.base import paths
from lab.base.activity import Progress
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.catalog import definitions, loading
from lab.catalog.knobs import Sysctl
from lab.images.store import BaseImage
from lab.plan import Cell, PlannedRun, Shard
from lab.record import (
    BuildRecord,
    CellResult,
    CellVerdict,
    Host,
    Prediction,
    RunInfo,
    RunOptions,
    RunResult,
    Status,
    SuiteResult,
)
from lab.run import start
from lab.run.observer import Observer
from tests.builders import packages
from tests.builders.processes import SECONDS

KNOWN = catalog.load_catalog()
RELEASE = Wheel("0.10.8", "0.10.8")
OTHER = Sysctl({"a.b": 1})
VARIANTS = ["stock", "max-userns-zero", "userns-clone-off", "apparmor-userns-deny"]
# One cell for each status that there is.
PLAN = plan.choose_cells(KNOWN, guests=["debian-12", "debian-13"], variants=VARIANTS).cells([RELEASE])
# Two guests, four cells: a shard of four has one cell each.
SMALL = plan.choose_cells(KNOWN, guests=["debian-12", "debian-13"], variants=VARIANTS[:2]).cells([RELEASE])


def host(**more: Any) -> Host:
    """A host without KVM, as a run's record has it."""
    values: dict[str, Any] = {
        "name": "host.example",
        "kernel": "6.12",
        "system": "Debian",
        "cpus": 2,
        "memory_mib": 24_000,
        "libvirt": "11.3.0",
        "qemu": "10.0.13",
        "connect": "qemu:///system",
        "acceleration": "emulation",
        "acceleration_reason": "/dev/kvm does not exist",
    }
    return Host(**(values | more))


def run_of(*cells: CellResult, **more: Any) -> RunResult:
    started = datetime(2026, 11, 24, 16, 0, tzinfo=UTC)
    builds = dict.fromkeys(cell.build for cell in cells)
    more.setdefault("builds", [BuildRecord(name=name, version=name, source="PyPI") for name in builds])
    info = RunInfo(id="20261124-160000", started=started, command="lab matrix", lab="0.1.0", **more)
    return RunResult(run=info, cells=list(cells))


def begin(
    folder: Path,
    cells: Sequence[Cell] = PLAN,
    *,
    options: RunOptions | None = None,
    shard: Shard | None = None,
) -> PlannedRun:
    options = options or RunOptions()
    return start.begin_run(folder, cells, command="lab matrix", options=options, shard=shard)


def resume(run: RunResult, definitions: catalog.Catalog = KNOWN) -> PlannedRun:
    return start.resume_run(Path("run"), run, definitions)


def finish(folder: Path, begun: PlannedRun, statuses: Sequence[Status] = ()) -> RunResult:
    """A run as it is on disk after it ended, each cell with a file of evidence. Without statuses all pass."""
    cells = []
    for number, cell in enumerate(begun.cells):
        status = statuses[number] if statuses else Status.PASS
        log = cell.folder / "kernel.log"
        (folder / cell.folder).mkdir(parents=True)
        (folder / log).write_text(f"{folder.name} {cell.name}\n")
        # Seconds that no other cell has: a result that stands is known by them.
        suite = SuiteResult(seconds={"suite": float(number)})
        result = cell.judged_result(suite, CellVerdict(status=status))
        cells.append(result.with_parts(evidence=[str(log)]))
    info = begun.info.model_copy(update={"finished": datetime.now(UTC)})
    RunResult(run=info, cells=cells).write(folder)
    return RunResult.read(folder)


Shards = list[tuple[Path, RunResult]]


def runs_of_shards(folder: Path, count: int = 2, cells: Sequence[Cell] = SMALL) -> Shards:
    """The shards of a plan, run on one host and ended well."""
    shards = []
    for number in range(1, count + 1):
        shard = folder / f"shard-{number}"
        shards.append((shard, finish(shard, begin(shard, cells, shard=Shard(number, count)))))
    return shards


def make_wheel(path: Path, content: str = "") -> Build:
    more = {"boxlite/__init__.py": content.encode()}
    made = packages.make_wheel(path.parent, "boxlite", "0.10.8", more=more)
    return builds.resolve_build(str(made.rename(path)))


def names(begun: PlannedRun) -> list[str]:
    return [cell.name for cell in begun.cells]


def own_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the suites and of `cloud-init/` that the lab takes for its own."""
    shutil.copytree(paths.PACKAGE / "suites", tmp_path / "suites")
    shutil.copytree(paths.find_definitions() / "cloud-init", tmp_path / "cloud-init")
    monkeypatch.setattr(definitions, "PACKAGE", tmp_path)
    monkeypatch.setattr(loading, "PACKAGE", tmp_path)
    monkeypatch.setattr(paths, "find_definitions", lambda: tmp_path)
    loading.load_catalog.cache_clear()
    return tmp_path


class Told(Observer):
    """What a run told, in order; a test can wait for it, or act on what a lane begins."""

    def __init__(self, on_lane: Callable[[str, str], None] = lambda _lane, _text: None) -> None:
        self.notes: list[str] = []
        self.lanes: list[tuple[str, str]] = []
        self.cells: list[CellResult] = []
        self.predictions: list[tuple[str, str]] = []
        self.lefts: list[float | None] = []
        self.images: list[BaseImage] = []
        self._on_lane = on_lane
        self._changed = threading.Condition()

    def _tell[T](self, told: list[T], what: T) -> None:
        with self._changed:
            told.append(what)
            self._changed.notify_all()

    def lane(self, lane: str, progress: Progress | None) -> None:
        text = progress.text if progress else ""
        self._tell(self.lanes, (lane, text))
        self._on_lane(lane, text)

    def prediction(self, cell: Cell, prediction: Prediction) -> None:
        self._tell(self.predictions, (cell.name, str(prediction)))

    def cell(self, result: CellResult) -> None:
        self._tell(self.cells, result)

    def note(self, text: str) -> None:
        self._tell(self.notes, text)

    def time_left(self, seconds: float | None) -> None:
        self._tell(self.lefts, seconds)

    def image(self, image: BaseImage) -> None:
        self._tell(self.images, image)

    def wait(self, for_what: Callable[[], object]) -> None:
        """Wait until something was told."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(for_what()), SECONDS), (self.notes, self.lanes)

    def noted(self, text: str) -> bool:
        return any(text in note for note in self.notes)
