"""The records in a site of what it shows, so that a later run can take these results over."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from lab.base.data import read_model
from lab.base.errors import UsageError, format_error
from lab.base.files import make_slug
from lab.check.results import identify_cell
from lab.record import RESULTS_FILE, Entry, RunResult
from lab.report.site.model import MOST_HISTORY, Site
from lab.report.site.page import TextFile

# The folder of a site that has a folder for each run, with its record and a table of its evidence.
RECORDS, PLACES = "records", "evidence.json"


class EvidencePlaces(Entry):
    """Where a site has the evidence of a run: a file of the site, by the record's name for it."""

    places: dict[str, Annotated[str, StringConstraints(pattern="^evidence/")]]


@dataclass(frozen=True)
class SiteRecord:
    """What a site holds of one run: the cells that it shows, and where it has their evidence."""

    run: RunResult
    places: dict[str, str]


def make_records(site: Site) -> Iterator[TextFile]:
    """Yield for each run the record of the cells that the site shows of it, with the evidence that it has."""
    for source in site.sources:
        places: dict[str, str] = {}
        cells = []
        for cell in source.run.cells:
            if site.cells[identify_cell(cell)].source is not source:
                continue
            copies = site.evidence[identify_cell(cell)].files
            files = {f"{cell.folder}/{copy.name}": copy.path for copy in copies}
            places |= files
            cells.append(cell.with_parts(evidence=list(files)))
        if cells:
            folder = f"{RECORDS}/{make_slug(source.id)}"
            # What its lanes did when is on the pages.
            info = source.run.run.with_values(steps=[], merged=[])
            run = RunResult(run=info, cells=cells)
            yield TextFile(f"{folder}/{RESULTS_FILE}", run.model_dump_json(by_alias=True) + "\n")
            yield TextFile(f"{folder}/{PLACES}", EvidencePlaces(places=places).model_dump_json(indent=1) + "\n")


def read_site_records(site: Path) -> list[SiteRecord]:
    """Read the records of a site's runs; none if an older lab published it. Raises UsageError."""
    records = []
    for file in sorted((site / RECORDS).glob(f"*/{RESULTS_FILE}")):
        run = RunResult.read(file.parent)
        try:
            places = read_model(EvidencePlaces, file.parent / PLACES, MOST_HISTORY)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{file.parent / PLACES}: {format_error(error)}; expected where the site has evidence",
                hint="publish the site again, or name a run",
            ) from error
        records.append(SiteRecord(run, places.places))
    return records
