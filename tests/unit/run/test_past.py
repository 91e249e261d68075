"""Cells of runs that are looked at again."""

from pathlib import Path
from typing import Any

import pytest

from lab import catalog
from lab.base.errors import UsageError
from lab.base.paths import Paths
from lab.builds.kinds.wheel import INDEX, Wheel
from lab.images import store
from lab.lane import prepare_image
from lab.plan import Cell
from lab.record import BuildRecord, LaneRecord, RunOptions, RunResult, Status
from lab.run import past, start
from tests.builders.cells import cell
from tests.builders.guests import base_image
from tests.builders.runs import run_of

CATALOG = catalog.load_catalog()
GUEST = CATALOG.guest("debian-13")
BUILDS = [BuildRecord(name=name, version=name, source=INDEX) for name in ("0.10.8", "0.9.0")]


def run(*cells: Any, **info: Any) -> RunResult:
    """A run of these cells, whose definitions are those of today."""
    made = run_of(*(cells or [cell(GUEST.name, "userns-clone-off", status=Status.FAIL)]))
    planned = [
        Cell(CATALOG.guest(cell.guest), CATALOG.variant(cell.variant), Wheel(cell.build, cell.build))
        for cell in made.cells
    ]
    options = info.get("options", RunOptions())
    told = {"builds": BUILDS, "definitions": start.compute_digests(planned, options), "options": options}
    return made.model_copy(update={"run": made.run.model_copy(update=told | info)})


def test_a_cell_is_found_with_its_build_and_the_lab_s_own_root_file_system(paths: Paths) -> None:
    recorded = past.find_cell(run(), "debian-13/userns-clone-off", CATALOG, paths)
    assert recorded.cell.name == "debian-13/userns-clone-off/0.10.8"
    assert recorded.cell.build.argument == "0.10.8"
    assert (recorded.result.status, recorded.own_rootfs, list(recorded.warnings)) == (Status.FAIL, None, [])


def test_a_cell_with_several_builds_needs_the_build(paths: Paths) -> None:
    several = run(cell(build="0.10.8"), cell(build="0.9.0", status=Status.FAIL))
    assert several.cell_names() == ["debian-13/stock/0.9.0", "debian-13/stock/0.10.8"]
    with pytest.raises(UsageError, match="several builds") as raised:
        past.find_cell(several, "debian-13/stock", CATALOG, paths)
    assert raised.value.hint == "name one of debian-13/stock/0.10.8, debian-13/stock/0.9.0"
    assert past.find_cell(several, "debian-13/stock/0.9.0", CATALOG, paths).cell.build.version == "0.9.0"


def layout(folder: Path) -> Path:
    (folder / "blobs").mkdir(parents=True)
    (folder / "oci-layout").write_text("{}")
    (folder / "index.json").write_text("{}")
    return folder


def test_the_run_s_root_file_system_is_used_unless_it_changed(paths: Paths, tmp_path: Path) -> None:
    own = layout(tmp_path / "rootfs")
    made = run(options=RunOptions(rootfs=str(own)))
    assert past.find_cell(made, "debian-13/userns-clone-off", CATALOG, paths).own_rootfs == own
    (own / "index.json").write_text('{"manifests": []}')
    with pytest.raises(UsageError, match=r"the root file system .* changed since"):
        past.find_cell(made, "debian-13/userns-clone-off", CATALOG, paths)


def test_definitions_that_changed_since_are_named_if_they_decide_the_cell(paths: Paths) -> None:
    made = run()
    before = made.run.definitions | {"variant userns-clone-off": "other", "variant stock": "other"}
    changed = made.model_copy(update={"run": made.run.model_copy(update={"definitions": before})})
    recorded = past.find_cell(changed, "debian-13/userns-clone-off", CATALOG, paths)
    assert recorded.warnings == [f"changed since run {made.run.id}: variant userns-clone-off"]


def test_another_image_is_told(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = base_image(tmp_path)
    monkeypatch.setattr(store, "find_image", lambda *_: image)
    monkeypatch.setattr(prepare_image, "find_prepared_image", lambda *_: image)

    def lane(digest: str) -> LaneRecord:
        return LaneRecord(guest="debian-13", image=digest, fork="memory", seconds={})

    same = run(lanes=[lane(image.manifest.disk_sha256)])
    assert past.find_cell(same, "debian-13/userns-clone-off", CATALOG, paths).warnings == []
    other = run(lanes=[lane("f" * 64)])
    recorded = past.find_cell(other, "debian-13/userns-clone-off", CATALOG, paths)
    assert recorded.warnings == [f"debian-13 has another image now than in run {other.run.id}"]
