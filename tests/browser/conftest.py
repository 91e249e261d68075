"""A site made from records that hold everything a record may hold."""

from pathlib import Path

import pytest

from tests.browser import records


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site with every status, two builds, remedies, and hostile text in all of them."""
    return records.publish(tmp_path_factory.mktemp("published"))
