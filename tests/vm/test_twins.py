"""Disks with the traits of the distributions' own images: pulled, prepared and run, each as a guest of its own.

They prove the lab's way through such an image. They say nothing of the distributions: kernel and packages are
Debian's.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base.paths import Paths
from lab.catalog import loading, remedies
from lab.images import store
from lab.lane import prepare_image
from lab.record import Fault, RunResult
from tests.builders.mirror import guest
from tests.vm import cloud_disk, twins
from tests.vm.conftest import RELEASE, invoke, own_home
from tests.vm.twins import Twin

# A first boot with all its waits, and the boots and boxes of the cells, on a busy host.
pytestmark = [pytest.mark.twins, pytest.mark.timeout(5400)]


@pytest.fixture(scope="module")
def own(home: Path, paths: Paths) -> Iterator[Paths]:
    with own_home(home / "twins", paths) as made:
        yield made


@pytest.fixture(scope="module", params=twins.TWINS, ids=lambda twin: str(twin.original))
def twin(request: pytest.FixtureRequest) -> Twin:
    made: Twin = request.param
    if made.recipe.for_root and os.geteuid() != 0:
        pytest.skip(made.recipe.for_root)
    return made


@pytest.fixture(scope="module")
def run(twin: Twin, own: Paths, paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunResult]:
    """The twin is published in its distribution's layout, pinned, pulled and prepared, and its cells run.

    After that no server is left; the definitions stay until the last test of this twin.
    """
    built = cloud_disk.ensure(paths, twin.recipe)
    folder = tmp_path_factory.mktemp("twin")
    variants = [word for variant in twin.cells for word in ("-v", variant)]
    with pytest.MonkeyPatch.context() as patched:
        with twins.published(twin, built, folder, patched):
            # Nothing is pinned: the build is found in the distribution's listing.
            assert invoke("images", "pull", "--update", twin.name)[0] == 0
            # The file of pins was read already.
            loading.load_catalog.cache_clear()
            made = own.state / twin.name
            words = ["--jobs", "1", "--no-remedies", "-g", twin.name, *variants, "--build", RELEASE]
            invoke("matrix", *words, "-o", made)
        yield RunResult.read(made)


def test_every_cell_is_as_on_a_guest_that_the_lab_built(twin: Twin, run: RunResult) -> None:
    outcomes = {cell.variant: (cell.status, cell.cause, cell.verdict.confidence) for cell in run.cells}
    assert outcomes == twin.cells, [cell.reason for cell in run.cells]
    # What the lab tries again on a busy host is no fault of the twin's.
    for cell in run.cells:
        assert len(cell.history.retried) == len(cell.history.faults), cell.history.retried
        assert {*cell.history.faults} <= {Fault.TOO_SLOW}, cell.history.retried


def test_what_the_guest_does_by_itself_was_recorded(twin: Twin, run: RunResult, own: Paths) -> None:
    image = store.find_image(own, guest(twin.name))
    assert image is not None
    prepared = prepare_image.find_prepared_image(own, guest(twin.name), image)
    assert prepared is not None
    changes = json.loads((prepared.folder / prepare_image.CHANGES).read_text())
    assert changes["held"] == []
    assert set(twin.masked) <= set(changes["masked"])
    assert changes["not_executable"] == list(twin.not_executable)


def test_the_guest_is_as_the_lab_left_it(twin: Twin, run: RunResult, capfd: pytest.CaptureFixture[str]) -> None:
    checks = "\n".join(f"({check}) >/dev/null 2>&1 || echo {name!r}" for name, check in twin.checks.items())
    command = ["sh", "-c", f"{checks}\necho asked"]
    assert invoke("exec", twin.name, "--build", RELEASE, "--user", "root", "--", *command)[0] == 0
    assert capfd.readouterr().out.splitlines() == ["asked"]


def test_what_remedies_need_is_in_the_guest_without_a_network(
    twin: Twin, run: RunResult, capfd: pytest.CaptureFixture[str]
) -> None:
    for remedy, variant in twin.remedies.items():
        script = remedies.load_remedies()[remedy].script()
        # With the whole script the state is put in place, not only looked at.
        command = ["sh", "-c", script, remedy, "--yes"]
        where = [twin.name, variant, "--build", RELEASE, "--user", "root"]
        assert invoke("exec", *where, "--", *command)[0] == 0
        assert "cannot" not in capfd.readouterr().out
