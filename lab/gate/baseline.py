"""Baselines: what each cell did with one build, as a small TOML file made for git.

The file is the same whenever the cells did the same: it has a stable order, one line for each cell and guest,
and neither times nor names of hosts nor paths.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import tomlkit
from pydantic import Field, model_validator
from tomlkit.items import InlineTable

from lab import __version__
from lab.base.errors import UsageError
from lab.base.files import open_regular, write_atomically
from lab.catalog import toml
from lab.gate import results
from lab.gate.results import PARTS, WITHOUT_TESTS, BuildResults, CellSummary, Identity, compute_short_digest
from lab.record import RESULTS_FILE, Outcome, RunResult, Status
from lab.record.folders import find_folder

SCHEMA: Final = 1
# The first line, by which a baseline is told from any other file before it is replaced.
HEADER: Final = "# Baseline of boxlite's compatibility lab: what each cell did with one build."
SECOND: Final = (
    "# `lab baseline RUN -o FILE` writes this file, and `lab gate RUN --against FILE` compares a run with it."
)
NOT_PASSED: Final = tuple(outcome for outcome in Outcome if outcome is not Outcome.PASS)


class CellLine(toml.Definition):
    """One cell. Tests of the file's list that are named in no other key passed."""

    status: Status
    cause: str | None = None
    fail: list[str] = Field(default_factory=list)
    error: list[str] = Field(default_factory=list)
    skip: list[str] = Field(default_factory=list)
    not_run: list[str] = Field(default_factory=list, alias="not-run")
    absent: list[str] = Field(default_factory=list, description="Tests that the cell does not have.")
    protection: str = Field(default="", description="The entry of the file's `protection`; empty: never read.")
    environment: dict[str, str] = Field(
        default_factory=dict, description="What differs from the line of its guest; empty text: never read."
    )

    def outcomes(self, tests: Iterable[str]) -> dict[str, Outcome]:
        outcomes = {name: outcome for outcome in NOT_PASSED for name in self.tests_with(outcome)}
        return {name: outcomes.get(name, Outcome.PASS) for name in tests if name not in self.absent}

    def tests_with(self, outcome: Outcome) -> list[str]:
        names: list[str] = getattr(self, outcome.replace("-", "_"))
        return names


class BaselineFile(toml.Definition):
    """The whole file."""

    lab: str = Field(default="", description="The release of the lab that wrote the file.")
    build: str
    version: str
    count: int = Field(description="The number of cells: a file that was cut off has fewer.")
    tests: list[str]
    definitions: dict[str, str] = Field(default_factory=dict)
    guests: dict[str, dict[str, str]] = Field(default_factory=dict)
    # What is compared of the box of each test. Most cells have the same, so each is written once.
    protection: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    cells: dict[str, dict[str, CellLine]]

    @model_validator(mode="after")
    def _is_complete(self) -> "BaselineFile":
        cells = sum(map(len, self.cells.values()))
        if cells != self.count:
            raise ValueError(f"count says {self.count} cells, found {cells}: the file is not complete")
        for guest, variants in self.cells.items():
            for variant, line in variants.items():
                tests = [*line.absent, *(name for outcome in NOT_PASSED for name in line.tests_with(outcome))]
                where = f"cells.{guest}.{variant}"
                if line.protection and line.protection not in self.protection:
                    raise ValueError(f"{where}: protection: expected a key of it, found {line.protection}")
                if unknown := sorted(set(tests) - set(self.tests)):
                    raise ValueError(f"{where}: expected names of the list tests, found {', '.join(unknown)}")
        return self


def read(file: Path) -> BuildResults:
    """Read a baseline. Raises UsageError with the file, the key, and what was expected."""
    try:
        content = toml.validate_table(file, toml.read_versioned(file, "baseline"), BaselineFile)
    except UsageError as error:
        hint = "write it again with: lab baseline RUN -o FILE, or name another baseline or a run"
        raise UsageError(error.args[0], hint=error.hint or hint) from error
    cells: dict[Identity, CellSummary] = {}
    for guest, variants in content.cells.items():
        for variant, line in variants.items():
            has_tests = line.status not in WITHOUT_TESTS
            environment = {} if line.status.could_not_run else content.guests.get(guest, {}) | line.environment
            cells[guest, variant] = CellSummary(
                guest=guest,
                variant=variant,
                status=line.status,
                cause=line.cause,
                tests=line.outcomes(content.tests) if has_tests else {},
                protection=content.protection.get(line.protection, {}) if has_tests else {},
                environment={part: value for part, value in environment.items() if value},
            )
    return BuildResults(
        source=f"baseline {file}",
        build=content.build,
        version=content.version,
        # A release has its version as its name. Nothing else can be found again by what a baseline holds.
        argument=content.version if content.build == content.version else None,
        cells=cells,
        definitions=content.definitions,
    )


def write_baseline(results: BuildResults, file: Path) -> None:
    """Write a baseline in one step. Raises UsageError if the file is another one's or cannot be written."""
    write_file(file, render(results), header=HEADER)


def write_file(file: Path, text: str, *, header: str = "") -> None:
    """Write the file of an option -o in one step. A file that does not begin with the header is not replaced.

    Raises UsageError.
    """
    try:
        if file.exists():
            with open_regular(file) as stream:
                is_replaced = stream.read(len(header)) == header.encode()
            if not is_replaced:
                raise UsageError(
                    f"-o {file}: this file is not a baseline, so it is not replaced", hint="name another"
                )
        write_atomically(file, text)
    except OSError as error:
        raise UsageError(
            f"-o {file}: cannot be written: {error.strerror or os.strerror(error.errno or 0)}",
            hint="name a file in a folder that exists",
        ) from error


def render(results: BuildResults) -> str:
    cells = sorted(results.cells.values(), key=lambda cell: cell.identity)
    tests = sorted({name for cell in cells for name in cell.tests})
    document = tomlkit.document()
    for line in (HEADER, SECOND):
        document.add(tomlkit.comment(line.removeprefix("# ")))
    document.update({"schema": SCHEMA, "lab": __version__, "build": results.build, "version": results.version})
    document["count"] = len(cells)
    document["tests"] = tomlkit.item(tests).multiline(True)
    document["definitions"] = dict(sorted(results.definitions.items()))
    if protections := {
        compute_short_digest(cell.protection): cell.protection for cell in cells if cell.protection
    }:
        document["protection"] = {key: dict(sorted(protections[key].items())) for key in sorted(protections)}
    # The environment of a guest is that of its stock cell, or else of the first that has one.
    common: dict[str, Mapping[str, str]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.guest, cell.variant != "stock")):
        if cell.environment:
            common.setdefault(cell.guest, cell.environment)
    document["guests"] = {guest: _inline(environment) for guest, environment in common.items()}
    lines: dict[str, dict[str, InlineTable]] = {}
    for cell in cells:
        lines.setdefault(cell.guest, {})[cell.variant] = _line(cell, tests, common.get(cell.guest, {}))
    document["cells"] = lines
    return tomlkit.dumps(document)


def _inline(values: Mapping[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    table.update(values)
    return table


def _line(cell: CellSummary, tests: list[str], common: Mapping[str, str]) -> InlineTable:
    """Return the line of a cell: what is said for its guest, and tests that passed, are left out."""
    line: dict[str, Any] = {"status": str(cell.status)}
    if cell.cause is not None:
        line["cause"] = cell.cause
    for outcome in NOT_PASSED:
        line[outcome] = sorted(name for name, of_test in cell.tests.items() if of_test is outcome)
    # A cell without a result has no tests at all.
    line["absent"] = [name for name in tests if name not in cell.tests] if cell.tests else []
    line["protection"] = compute_short_digest(cell.protection) if cell.protection else ""
    if cell.environment:
        parts = {part: cell.environment.get(part, "") for part in PARTS}
        line["environment"] = {part: text for part, text in parts.items() if text != common.get(part, "")}
    if line.get("environment"):
        line["environment"] = _inline(line["environment"])
    return _inline({str(key): value for key, value in line.items() if value})


# How to compare with one build of a run that tested several.
OF_SEVERAL = "lab baseline RUN -o FILE --build"


def read_side(runs: Path, name: str, build: str | None = None, option: str = OF_SEVERAL) -> BuildResults:
    """Read a run or a baseline; `build`, named by `option`, is needed for a run of several builds.

    Raises UsageError if there is no such thing, or if it cannot be read.
    """
    file = find_baseline_file(name)
    if file is None:
        folder, run = read_run(runs, name)
        return results.reduce_run(run, folder, results.choose_build(run, build, option))
    side = read(file)
    if build not in (None, side.build, side.version):
        raise UsageError(f"{option} {build}: {file} is a baseline of {side.build}", hint=f"leave out {option}")
    return side


def read_run(runs: Path, name: str) -> tuple[Path, RunResult]:
    """Read a run, which may also be named by its `results.json`. Raises UsageError."""
    path = Path(name)
    folder = path.parent if path.is_file() and path.name == RESULTS_FILE else find_folder(runs, name)
    return folder, RunResult.read(folder)


def find_baseline_file(name: str) -> Path | None:
    """Return the file if a name is that of a baseline, None if it is that of a run. Raises UsageError."""
    path = Path(name)
    if path.is_file() and path.name != RESULTS_FILE:
        return path
    if path.suffix == ".toml" and not path.exists():
        raise UsageError(f"{path}: no such file", hint=f"write a baseline with: lab baseline RUN -o {path}")
    return None
