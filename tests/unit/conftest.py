from pathlib import Path

import pytest

from lab.machine import ports
from lab.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A lab's folders, all of them new."""
    return Paths(cache=tmp_path / "cache", state=tmp_path / "state")


@pytest.fixture(autouse=True)
def own_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports that no lab uses, so that these tests are never in the way of one that is at work."""
    monkeypatch.setattr(ports, "FIRST", 23100)
    monkeypatch.setattr(ports, "LAST", 23149)
