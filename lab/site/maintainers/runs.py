"""The pages of runs: `runs.html` with the charts over all of them, and a page per run."""

from collections.abc import Iterator
from dataclasses import dataclass

from lab.record import CellResult, Status
from lab.report import table
from lab.site.charts.passrate import pass_rates
from lab.site.charts.timeline import Timeline, timelines
from lab.site.maintainers.matrix import MARKS
from lab.site.model import Site
from lab.site.page import Page, slug
from lab.site.results import Source, identity

RUNS_PAGE = "runs.html"


@dataclass(frozen=True)
class ShownRun:
    """A run of the site."""

    source: Source

    @property
    def page(self) -> str:
        return page_of_run(self.source)

    @property
    def counts(self) -> str:
        return table.counts(self.source.run)

    @property
    def builds(self) -> list[str]:
        """The builds of its cells."""
        return list(dict.fromkeys(cell.build for cell in self.source.run.cells))

    @property
    def timelines(self) -> list[Timeline]:
        found = timelines(self.source.run, self.source.folder)
        return [line.named(self.source.numbers.lane) for line in found] if self.source.numbers else found

    @property
    def spent(self) -> list[str]:
        """How busy each session kept the processors of its host."""
        return table.time_lines(self.source.run)

    @property
    def faults(self) -> list[CellResult]:
        """The cells that met faults of the lab."""
        return [cell for cell in self.source.run.cells if cell.retried]

    @property
    def missing(self) -> dict[tuple[Status, str], list[CellResult]]:
        """The cells that could not be run, by their status and the reason."""
        found: dict[tuple[Status, str], list[CellResult]] = {}
        for cell in self.source.run.cells:
            if cell.status.could_not_run:
                found.setdefault((cell.status, cell.reason), []).append(cell)
        return found


def page_of_run(source: Source) -> str:
    """Return the path of a run's page in the site."""
    return f"runs/{slug(source.id)}.html"


def outputs(site: Site) -> Iterator[Page]:
    """Make the page of all runs, and a page for each."""
    runs = [ShownRun(source) for source in site.sources]
    yield Page(
        RUNS_PAGE,
        title="Runs",
        template="runs.html",
        values={
            "listed": runs,
            "rates": pass_rates(site.history.runs),
        },
        nav="Runs",
    )
    for run in runs:
        yield Page(
            run.page,
            title=f"Run {run.source.id}",
            template="run.html",
            values={
                "run": run,
                "info": run.source.run.run,
                "mark": MARKS,
                "table": table,
                "page_of": lambda cell: site.cells[identity(cell)].page,
                "runs_page": RUNS_PAGE,
            },
        )
