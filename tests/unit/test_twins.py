"""Twins are the distributions' own definitions, with another server, and never under a distribution's name."""

from pathlib import Path

import pytest

from lab import catalog
from lab.catalog import TWIN
from lab.record import Status
from tests.builders.mirror import SigningKey, cloud, key_ring
from tests.vm import cloud_disk, twins
from tests.vm.twins import Twin

URL = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with key_ring() as ring:
        return twins.with_twins(tmp_path_factory.mktemp("definitions") / "own", URL, SigningKey(ring, "twins"))


@pytest.mark.parametrize("twin", twins.TWINS, ids=lambda twin: str(twin.original))
def test_a_twin_is_defined_as_its_original_under_a_name_of_its_own(root: Path, twin: Twin) -> None:
    definitions = catalog.load(root)
    own, original = definitions.guest(twin.name), definitions.guest(twin.original)
    # The build is found in a listing, not taken from the original's pin.
    same = cloud(original).model_copy(update={"build": None, "digest": None})
    assert cloud(own) == same
    assert own.title == f"A twin of {original.title}: Debian 13 packages with its traits"
    assert cloud(own).url.startswith(URL)
    # What is expected of it, is of variants that exist.
    for variant in [*twin.cells, *twin.remedies.values()]:
        assert definitions.variant(variant)


@pytest.mark.parametrize("twin", twins.TWINS, ids=lambda twin: str(twin.original))
def test_a_twin_runs_boxlite_where_it_works_and_where_two_settings_block_it(twin: Twin) -> None:
    # The one twin on btrfs is where boxlite does not work as installed.
    assert twin.cells["stock"] == (twins.FAILS_ON_BTRFS if twin is twins.FEDORA else twins.PASS)
    assert [status for status, _, _ in twin.cells.values()].count(Status.XFAIL) >= 2


def test_no_twin_of_a_distribution_is_among_the_lab_s_own_guests() -> None:
    own = [guest for name, guest in catalog.load().guests.items() if name.startswith(TWIN)]
    # Nobody publishes a disk of WSL2.
    named = {guest.name: guest.title.partition(":")[0] for guest in own}
    assert named == {"twin-wsl2": "Twin of WSL2, not WSL2"}


def test_a_twin_s_disk_is_told_where_its_packages_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(command: list[str | Path], **_: object) -> str:
        Path(command[-1]).write_bytes(Path(command[-2]).read_bytes())
        return ""

    monkeypatch.setattr("lab.base.process.run", convert)
    page = twins.PLACE.ljust(twins.PLACE_SIZE, b"#")
    (tmp_path / "disk.qcow2").write_bytes(b"\0" * 4096 + page + b"after")
    made = twins.with_sources(cloud_disk.CloudDisk(tmp_path), tmp_path / "copy.qcow2", "http://10.0.2.2:80/")
    content = made.read_bytes()
    assert content[4096:].startswith(b"deb [trusted=yes] http://10.0.2.2:80/ ./\n#")
    assert content.endswith(b"#after")
    assert len(content) == 4096 + twins.PLACE_SIZE + len(b"after")


def test_the_package_that_preparing_installs_is_not_in_the_disk() -> None:
    for recipe in (cloud_disk.SMALL, *(twin.recipe for twin in twins.TWINS)):
        assert "bubblewrap" not in recipe.packages
        assert recipe.file.is_file()


def test_a_changed_file_makes_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_disk, "RECIPES", tmp_path)
    (tmp_path / "some").mkdir()
    for name in ("common.sh", "some.sh", "some/program"):
        (tmp_path / name).write_text("before")
    recipe = cloud_disk.Recipe("some")
    before = recipe.digest
    (tmp_path / "some" / "program").write_text("after")
    assert recipe.digest != before
