import pytest


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose lab failed gets its next part at once, as far as the runs of this process go."""
    monkeypatch.setattr("lab.fleet.attempt.REST_SECONDS", 0.0)
