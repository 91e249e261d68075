import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lab import catalog
from lab.base import paths
from lab.catalog import remedies
from lab.guest import programs
from lab.images import debian
from lab.record import ExperimentPolicy, RunOptions
from lab.run import start
from tests.builders.runs import KNOWN, OTHER, PLAN, SMALL, own_definitions


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_definitions(tmp_path, monkeypatch)


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return sorted(name for name in before | now if before.get(name) != now.get(name))


def test_definitions_are_those_of_the_cells_and_no_others() -> None:
    digests = start.compute_digests(SMALL[2:3], RunOptions())
    common = {"seed", "programs", "rule set", "deployment"}
    assert set(digests) == {"guest debian-13", "variant stock", "suite jailer", *common}
    assert digests.items() <= start.compute_digests(PLAN, RunOptions()).items()
    assert len(set(digests.values())) == 7


def test_a_changed_definition_changes_its_digest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = SMALL[2]
    before = start.compute_digests([cell], RunOptions())
    guest = cell.guest.model_copy(update={"memory_mib": 4096})
    assert changed(before, start.compute_digests([replace(cell, guest=guest)], RunOptions())) == [
        "guest debian-13"
    ]
    variant = cell.variant.model_copy(update={"sysctl": OTHER})
    assert changed(before, start.compute_digests([replace(cell, variant=variant)], RunOptions())) == [
        "variant stock"
    ]
    # Another way to build images changes every guest.
    monkeypatch.setattr(debian, "KERNEL", "linux-image-{}")
    assert changed(before, start.compute_digests([cell], RunOptions())) == ["guest debian-13"]


def test_remedies_are_definitions_of_a_run_that_tries_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = RunOptions(remedies=True)
    before = start.compute_digests(SMALL, tries)
    without = start.compute_digests(SMALL, RunOptions())
    all_remedies = remedies.load_remedies()
    assert changed(without, before) == sorted(f"remedy {name}" for name in all_remedies)
    # And every variant of one that makes experiments.
    made = start.compute_digests(SMALL, RunOptions(experiments=ExperimentPolicy.UNCLEAR))
    others = KNOWN.variants.keys() - {cell.variant.name for cell in SMALL}
    assert changed(without, made) == sorted(f"variant {name}" for name in others)
    other = all_remedies["jailer-off"].model_copy(update={"price": "nothing at all"})
    monkeypatch.setattr(
        remedies,
        "load_remedies",
        lambda: {**all_remedies, "jailer-off": other, "new": all_remedies["preflight"]},
    )
    after = start.compute_digests(SMALL, tries)
    assert changed(before, after) == ["remedy jailer-off", "remedy new"]


SUITE_FILES = sorted(f.name for f in KNOWN.suite.folder.iterdir() if f.is_file())
SEED_FILES = sorted(f.name for f in (paths.find_definitions() / "cloud-init").iterdir() if f.is_file())
CODE = {
    "causes/sandbox.py": "rule set",
    "causes/evidence.py": "rule set",
    "catalog/knobs.py": "rule set",
    "catalog/confinement.py": "rule set",
    "trials/remedies.py": "rule set",
    "verdict/status.py": "rule set",
    "guest/deploy.py": "deployment",
    "guest/suite.py": "deployment",
    "builds/kinds/wheel.py": "deployment",
}


def check_that_changes_are_seen(folder: Path, files: dict[str, str]) -> None:
    """Add a line to each of these files: it changes the digest of this name, and no other one."""
    before = start.compute_digests(SMALL, RunOptions())
    for file, name in files.items():
        with (folder / file).open("a") as stream:
            stream.write("# changed\n")
        now = start.compute_digests(SMALL, RunOptions())
        assert changed(before, now) == [name], file
        before = now


def test_a_changed_file_of_the_suite_or_the_seed_is_seen(own_files: Path) -> None:
    files = {f"suites/jailer/{file}": "suite jailer" for file in [*SUITE_FILES, "new.py"]}
    files |= {f"suites/_shared/{file}": "suite jailer" for file in KNOWN.suite.shared}
    check_that_changes_are_seen(own_files, files | {f"cloud-init/{file}": "seed" for file in SEED_FILES})


def test_a_renamed_file_of_the_suite_is_seen_and_what_python_leaves_there_is_not(own_files: Path) -> None:
    before = start.compute_digests(SMALL, RunOptions())
    suite = own_files / "suites" / "jailer"
    (suite / "__pycache__").mkdir(exist_ok=True)
    (suite / "__pycache__" / "boxes.cpython-313.pyc").write_bytes(b"\xff")
    assert start.compute_digests(SMALL, RunOptions()) == before
    (suite / "boxes.py").rename(suite / "boxez.py")
    assert changed(before, start.compute_digests(SMALL, RunOptions())) == ["suite jailer"]


def test_a_changed_rule_or_way_to_deploy_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = start.compute_digests(SMALL, RunOptions())
    for folder in ("images", "cloud-init"):
        (tmp_path / folder).symlink_to(paths.find_definitions() / folder)
    shutil.copytree(paths.PACKAGE, tmp_path / "lab", ignore=shutil.ignore_patterns("__pycache__", "site"))
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "lab")
    assert start.compute_digests(SMALL, RunOptions()) == before
    check_that_changes_are_seen(tmp_path / "lab", CODE)


def test_a_run_goes_by_what_it_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("images", "cloud-init"):
        shutil.copytree(paths.find_definitions() / folder, tmp_path / folder)
    shutil.copytree(remedies.FOLDER, tmp_path / "remedies")
    program = tmp_path / "begin.py"
    program.write_text("before")
    before = (
        catalog.load_catalog(tmp_path),
        remedies.load_remedies(tmp_path / "remedies"),
        programs.source(program),
    )
    (tmp_path / "cloud-init" / "variants" / "stock.toml").write_text("this is not even TOML")
    (tmp_path / "remedies" / "jailer-off.toml").unlink()
    program.write_text("after")
    assert (
        catalog.load_catalog(tmp_path),
        remedies.load_remedies(tmp_path / "remedies"),
        programs.source(program),
    ) == before
