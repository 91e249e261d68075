"""The page `findings.html`: where boxlite's own diagnosis is wrong, run by run, and what it does not give."""

from collections.abc import Iterable
from dataclasses import dataclass

from lab.report import judgements, protection
from lab.report.judgements import Review
from lab.site.model import Site
from lab.site.page import Page
from lab.site.results import Identity, Source, identity
from lab.upstream.finished import FinishedCell
from lab.upstream.words import WordsVerdict


@dataclass(frozen=True)
class ReviewedRun:
    """A run, and the review of what boxlite said about the cells whose result the site shows from it."""

    source: Source
    review: Review

    @property
    def judged(self) -> dict[WordsVerdict, int]:
        """How many failed cells got each verdict."""
        return {verdict: self.review.counts[verdict] for verdict in WordsVerdict if self.review.counts[verdict]}

    @property
    def unjudged(self) -> int:
        """How many failed cells have no proved cause, or no log of boxlite's."""
        return self.review.counts[None]


def outputs(site: Site) -> Iterable[Page]:
    """Make the page of the findings."""
    yield Page(
        "findings.html",
        title="Findings on boxlite's own diagnosis",
        template="findings.html",
        values={
            "reviews": [ReviewedRun(source, _review(site, source)) for source in site.sources],
            "not_given": protection.not_given(each.cell for each in site.cells.values()),
            "page_of": lambda cell: _page_of(site, cell),
            "causes": site.causes,
            "variants": site.catalog.variants,
            "cured": judgements.cured,
        },
        nav="Findings",
    )


def _review(site: Site, source: Source) -> Review:
    """Review the cells of a run whose result is shown: an older result of the same cell adds nothing."""
    shown = [cell for cell in source.run.cells if site.cells[identity(cell)].source is source]
    run = source.run.model_copy(update={"cells": shown})
    return judgements.review(run, source.folder, site.remedies)


def _page_of(site: Site, cell: FinishedCell) -> str:
    key: Identity = identity(cell.result)
    return site.cells[key].page
