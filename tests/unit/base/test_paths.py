from pathlib import Path

import pytest

from lab.base.paths import Paths


def test_lab_home_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    paths = Paths.default()
    cached = (paths.images, paths.downloads, paths.states, paths.acceleration)
    assert all(path.is_relative_to(tmp_path / "home" / "cache") for path in cached)
    kept = (paths.lanes, paths.runs)
    assert all(path.is_relative_to(tmp_path / "home" / "state") for path in kept)
    assert len({*cached, *kept}) == 6
    # Nothing is made before it is asked for.
    assert not (tmp_path / "home").exists()
    assert paths.make(paths.lanes).is_dir()
