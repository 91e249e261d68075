"""The files that outlive a release: no format changes unnoticed, and each lab reads what earlier ones wrote."""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from packaging.version import Version
from pydantic import BaseModel

from lab import __version__
from lab.base import formats
from lab.base.errors import UsageError
from lab.base.formats import FORMATS, FormatVersion
from lab.catalog import load_catalog
from lab.catalog.definitions import Guest, Set, VariantFile
from lab.check.published import Published, load_published
from lab.fleet.inventory import Inventory, load_inventory
from lab.gate import baseline, expectations
from lab.gate.expectations import ExpectedFailure
from lab.probes import ProbedUser, show
from lab.probes.report import HostReport, read_host_report
from lab.record import DecidedCell, RunResult, Status
from lab.report.site.model import History, read_history
from lab.report.site.publish import publish_site
from lab.report.site.records import EvidencePlaces, read_site_records
from tests.builders.cells import done
from tests.builders.output import run_folder
from tests.compatibility import write

FOLDERS = sorted(folder for folder in write.NEXT.parent.iterdir() if (folder / write.FILES["record"]).is_file())
# The models of each format.
MODELS: dict[str, tuple[type[BaseModel], ...]] = {
    "record": (RunResult, DecidedCell, ProbedUser),
    "baseline": (baseline.BaselineFile,),
    "expectations": (ExpectedFailure,),
    "inventory": (Inventory,),
    "site's history": (History, EvidencePlaces),
    "published results": (Published,),
    "probe's output": (HostReport,),
    "definition": (Guest, VariantFile, Set),
}
NEWEST = {row.name: row for row in FORMATS}


def is_released(row: FormatVersion) -> bool:
    return Version(row.release) <= Version(__version__)


def plain(schema: Any) -> Any:
    """A JSON Schema without the texts for people: `title` and `description` may also be names of fields."""
    if isinstance(schema, dict):
        return {
            key: plain(value)
            for key, value in schema.items()
            if key not in ("title", "description") or not isinstance(value, str)
        }
    return [*map(plain, schema)] if isinstance(schema, list) else schema


def digest(name: str) -> str:
    schemas = [plain(model.model_json_schema()) for model in MODELS[name]]
    return hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", MODELS)
def test_a_format_changes_only_with_its_version(name: str) -> None:
    row, found = NEWEST[name], digest(name)
    tense = "has" if is_released(row) else "will have"
    todo = f'put "{found}" into its row of FORMATS in lab/base/formats.py'
    if is_released(row):
        todo = (
            f'add a row to FORMATS in lab/base/formats.py: ("{name}", {row.version + 1}, the next release, '
            f'"{found}"), and read both versions'
        )
    assert found == row.digest, (
        f"the models of the {name} have changed, and release {row.release} {tense} version {row.version}: "
        f"{todo}; then run `python -m tests.compatibility.write`"
    )


def test_each_format_has_its_models_and_a_file_and_its_versions_ascend() -> None:
    assert MODELS.keys() == NEWEST.keys() == write.FILES.keys()
    for name in MODELS:
        versions = formats.list_versions(name)
        assert versions == sorted({*versions})
    # The guest's program imports nothing of the lab's, so it has its version itself.
    assert NEWEST["probe's output"].version == show.VERSION


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: f"{row.name} {row.version}")
def test_each_version_has_a_file_that_its_release_wrote(row: FormatVersion) -> None:
    release = ".".join(row.release.split(".")[:2])
    folder = write.NEXT.with_name(release) if is_released(row) else write.NEXT
    file = folder / write.FILES[row.name]
    assert file.is_file(), f"{file} is missing: CONTRIBUTING.md says how a release gets its folder"
    text = file.read_text()
    key = f"begin boxlite-probe {row.version} " if row.name == "probe's output" else f"schema = {row.version}\n"
    assert key in text or f'"schema":{row.version},' in text.replace('"schema": ', '"schema":')


# -- what earlier releases wrote is read


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the files that a release wrote."""
    copy: Path = shutil.copytree(request.param, tmp_path / "old")
    return copy


def test_a_run_is_read_with_what_was_decided_beside_its_record(folder: Path) -> None:
    run = RunResult.read(folder / "run")
    # The line beside the record has decided the cell that the record has as `not-run`.
    assert {cell.status for cell in run.cells} == {*Status} - {Status.NOT_RUN}
    assert '"not-run"' in (folder / write.FILES["record"]).read_text()
    assert len({cell.build for cell in run.cells}) == 3
    assert {record.suite for record in run.run.builds} == {"jailer", "lifecycle"}
    [tried] = [cell for cell in run.cells if cell.remedies]
    assert tried.trials.experiment and tried.trials.experiment.turning
    assert [cell for cell in run.cells if cell.prediction]
    made = load_catalog().with_variants(folder / "run/variants").variant("made-for-this-run")
    assert [*made.sysctls] == ["user.max_user_namespaces"]


def test_a_baseline_a_file_of_expectations_and_an_inventory_are_read(folder: Path) -> None:
    side = baseline.read(folder / write.FILES["baseline"])
    assert {cell.status for cell in side.cells.values()} == {*Status} - {Status.NOT_RUN}
    [expected] = expectations.read_expectations(folder / write.FILES["expectations"]).expect.values()
    assert expected.covers(side.cells["debian-13", "podman"])
    assert [*load_inventory(folder / write.FILES["inventory"]).hosts] == ["lab-1"]


def test_a_probe_s_output_and_published_results_are_read(folder: Path, tmp_path: Path) -> None:
    report = read_host_report((folder / write.FILES["probe's output"]).read_text())
    assert report
    assert report.facts.os.id == "debian"
    published = load_published([str(folder / "site")], tmp_path).published
    assert [each.name for each in published.distributions if each.cells] == ["debian-13"]


def test_a_site_goes_on_with_its_history_and_old_runs_and_new_ones(folder: Path, tmp_path: Path) -> None:
    site = folder / "site"
    before = read_history(site).shown
    [earlier] = read_site_records(site)
    new = run_folder(tmp_path, done(Status.FAIL), name="new", started=write.START + timedelta(days=1))
    publish_site([folder / "run", new], site)
    history = read_history(site)
    assert history.before == before
    assert {cell.run for cell in history.shown} == {earlier.run.run.id, "new"}
    assert len(read_site_records(site)) == 2


# -- what a later release wrote is refused, with the release that reads it


def read_run(file: Path) -> object:
    return RunResult.read(file.parent)


READERS: dict[str, Callable[[Path], object]] = {
    "record": read_run,
    "baseline": baseline.read,
    "expectations": expectations.read_expectations,
    "inventory": load_inventory,
    "site's history": lambda file: read_history(file.parent),
    "published results": lambda file: load_published([str(file.parent)], file.parent),
    "probe's output": lambda file: read_host_report(file.read_text()),
    "definition": lambda file: load_catalog().with_variants(file.parent),
}


def with_version(name: str, file: Path, version: int | None, lab: str = "") -> Path:
    """The file with another version of its format or none, written by another lab if it names one."""
    text = file.read_text()
    if file.suffix == ".txt":
        file.write_text(text.replace(f"boxlite-probe {show.VERSION}", f"boxlite-probe {version}"))
        return file
    content = json.loads(text) if file.suffix == ".json" else tomlkit.parse(text).unwrap()
    del content["schema"]
    content |= {} if version is None else {"schema": version}
    if lab:
        (content["run"] if name == "record" else content)["lab"] = lab
    file.write_text((json if file.suffix == ".json" else tomlkit).dumps(content))
    return file


@pytest.mark.parametrize("name", READERS)
def test_a_newer_file_is_refused_with_the_next_step(name: str, folder: Path) -> None:
    file = with_version(name, folder / write.FILES[name], 77, lab="7.8.9")
    newer = f"has version 77 of its format, and this lab, {__version__}, reads version "
    with pytest.raises(UsageError, match=newer) as raised:
        READERS[name](file)
    assert raised.value.exit_status == 2
    # The script of `lab probe` does not say which release printed it.
    writer = "the lab that" if name == "probe's output" else "lab 7.8.9, which"
    assert raised.value.hint
    assert raised.value.hint.startswith(f"read it with {writer} wrote it, or a later release; ")


@pytest.mark.parametrize("name", READERS)
def test_a_version_that_there_never_was_is_refused(name: str, folder: Path) -> None:
    file = with_version(name, folder / write.FILES[name], 0)
    with pytest.raises(UsageError, match=r"has version 0 of its format, and this lab, .*, reads ") as raised:
        READERS[name](file)
    assert raised.value.hint


@pytest.mark.parametrize("name", [name for name in READERS if name != "probe's output"])
def test_a_file_without_a_version_has_the_newest(name: str, folder: Path) -> None:
    READERS[name](with_version(name, folder / write.FILES[name], None))


@pytest.mark.parametrize(
    "version", [True, 1.0, -1, 16**9000, [16**9000], "\x1b[31m1"], ids=lambda version: type(version).__name__
)
def test_what_is_no_version_is_told_by_its_type(version: object) -> None:
    said = f"^a file: schema: expected version 1, found a value of the type {type(version).__name__}"
    with pytest.raises(UsageError, match=said):
        formats.check_version("baseline", {"schema": version}, "a file")
