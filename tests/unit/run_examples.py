"""Plans and runs to test with."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import builds, catalog, plan
from lab.base import paths
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.catalog import definitions, loading
from lab.catalog.knobs.kernel import Sysctl
from lab.plan import Cell, Shard
from lab.record import (
    RunOptions,
    RunResult,
    Status,
)
from lab.run import start
from tests.unit import index_examples

KNOWN = catalog.load()
RELEASE = Wheel("0.10.8", "0.10.8")
OTHER = Sysctl({"a.b": 1})
VARIANTS = ["stock", "max-userns-zero", "userns-clone-off", "apparmor-userns-deny"]
# One cell for each status that there is.
PLAN = plan.choose(KNOWN, guests=["debian-12", "debian-13"], variants=VARIANTS).cells([RELEASE])
# Two guests, four cells: a shard of four has one cell each.
SMALL = plan.choose(KNOWN, guests=["debian-12", "debian-13"], variants=VARIANTS[:2]).cells([RELEASE])


def begin(
    folder: Path,
    cells: Sequence[Cell] = PLAN,
    *,
    options: RunOptions | None = None,
    shard: Shard | None = None,
) -> start.PlannedRun:
    options = options or RunOptions()
    return start.begin(folder, cells, command="lab matrix", options=options, shard=shard)


def resume(run: RunResult, known: catalog.Catalog = KNOWN) -> start.PlannedRun:
    return start.resume(Path("run"), run, known)


def finish(folder: Path, begun: start.PlannedRun, statuses: Sequence[Status] = ()) -> RunResult:
    """A run as it is on disk after it ended, each cell with a file of evidence. Without statuses all pass."""
    cells = []
    for number, each in enumerate(begun.cells):
        status = statuses[number] if statuses else Status.PASS
        log = each.folder / "kernel.log"
        (folder / each.folder).mkdir(parents=True)
        (folder / log).write_text(f"{folder.name} {each.name}\n")
        # Seconds that no other cell has: a result that stands is known by them.
        more = {"evidence": [str(log)], "seconds": {"suite": float(number)}}
        cells.append(each.result(status).model_copy(update=more))
    info = begun.info.model_copy(update={"finished": datetime.now(UTC)})
    RunResult(run=info, cells=cells).write(folder)
    return RunResult.read(folder)


def make_wheel(path: Path, content: str = "") -> Build:
    more = {"boxlite/__init__.py": content.encode()}
    made = index_examples.make_wheel(path.parent, "boxlite", "0.10.8", more=more)
    return builds.resolve(str(made.rename(path)))


def names(begun: start.PlannedRun) -> list[str]:
    return [each.name for each in begun.cells]


def own_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the suites and of `cloud-init/` that the lab takes for its own."""
    shutil.copytree(paths.PACKAGE / "suites", tmp_path / "suites")
    shutil.copytree(paths.definitions() / "cloud-init", tmp_path / "cloud-init")
    monkeypatch.setattr(definitions, "PACKAGE", tmp_path)
    monkeypatch.setattr(loading, "PACKAGE", tmp_path)
    monkeypatch.setattr(paths, "definitions", lambda: tmp_path)
    return tmp_path
