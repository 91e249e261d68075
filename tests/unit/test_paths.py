from pathlib import Path

import pytest

from lab.base.paths import Paths, definitions


def test_lab_home_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    paths = Paths.default()
    cached = (paths.images, paths.downloads, paths.states, paths.acceleration)
    assert all(path.is_relative_to(tmp_path / "home" / "cache") for path in cached)
    kept = (paths.lanes, paths.runs)
    assert all(path.is_relative_to(tmp_path / "home" / "state") for path in kept)
    assert len({*cached, *kept}) == 6


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    paths = Paths.default()
    assert not (tmp_path / "home").exists()
    assert paths.make(paths.lanes).is_dir()


def test_the_definitions_are_found() -> None:
    assert (definitions() / "images").is_dir()
    assert (definitions() / "cloud-init" / "user-data.yaml").is_file()
