"""Twins are the distributions' own definitions, with another server, and never under a distribution's name."""

from pathlib import Path

import pytest

from lab import catalog
from lab.catalog import TWIN
from tests.builders.mirror import SigningKey, cloud, key_ring
from tests.vm import twins
from tests.vm.twins import Twin

URL = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with key_ring() as ring:
        return twins.with_twins(tmp_path_factory.mktemp("definitions") / "own", URL, SigningKey(ring, "twins"))


@pytest.mark.parametrize("twin", twins.TWINS, ids=lambda twin: str(twin.original))
def test_a_twin_is_defined_as_its_original_under_a_name_of_its_own(root: Path, twin: Twin) -> None:
    definitions = catalog.load_catalog(root)
    own, original = definitions.guest(twin.name), definitions.guest(twin.original)
    # The build is found in a listing, not taken from the original's pin.
    assert cloud(own) == cloud(original).model_copy(update={"build": None, "digest": None})
    assert own.title == f"A twin of {original.title}: Debian 13 packages with its traits"
    assert cloud(own).url.startswith(URL)
    # What is expected of it, is of variants that exist.
    for variant in [*twin.cells, *twin.remedies.values()]:
        assert definitions.variant(variant)


def test_no_twin_of_a_distribution_is_among_the_lab_s_own_guests() -> None:
    own = [guest for name, guest in catalog.load_catalog().guests.items() if name.startswith(TWIN)]
    # Nobody publishes a disk of WSL2.
    named = {guest.name: guest.title.partition(":")[0] for guest in own}
    assert named == {"twin-wsl2": "Twin of WSL2, not WSL2"}
