"""The pages for users: the front page, one for each distribution, what changed, the table in other forms."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from markupsafe import Markup, escape

from lab.base.files import clean_text, group_values, make_slug
from lab.catalog.remedies import Remedy
from lab.check import published
from lab.check.distributions import CellAnswer, CellTrial, make_setting_id
from lab.check.results import STOCK, AnswerKind, Results, Source, format_cell_page
from lab.probes import script
from lab.record import CellResult
from lab.report import markdown_pages, protection, run_notes
from lab.report.site.model import NOT_IN_USE, History, HistoryCell, Site, list_components
from lab.report.site.page import Output, Page, TextFile

# The groups of changes, in the order in which the page shows them: the heading, and the words of the summary.
GROUPS = {
    "changed": ("Another result", "with another result"),
    "new": ("New here", "new"),
    "gone": ("No longer published", "no longer published"),
}
# The worst news first, each with its colour by shields.io's names. What was not tested is never green.
COLOURS = {
    AnswerKind.BLOCKED: "red",
    AnswerKind.TROUBLE: "orange",
    AnswerKind.UNTESTED: "lightgrey",
    AnswerKind.WORKS: "brightgreen",
}
BLOCKED_BUT_CURED = "yellow"


@dataclass(frozen=True)
class ChangedCell:
    """A cell that the site shows with another result than before; None where it was not shown."""

    old: HistoryCell | None
    new: HistoryCell | None

    @property
    def kind(self) -> AnswerKind:
        return AnswerKind.of(self.new.status if self.new else None)


def find_changes(history: History) -> dict[str, list[ChangedCell]]:
    """Return by group the cells whose status or cause differs from what the site showed, worst news first."""
    old = {cell.identity: cell for cell in history.before}
    new = {cell.identity: cell for cell in history.shown}
    groups: dict[str, list[ChangedCell]] = {group: [] for group in GROUPS}
    for cell in sorted(old.keys() | new.keys()) if old else ():
        change = ChangedCell(old.get(cell), new.get(cell))
        if change.old is None or change.new is None:
            groups["gone" if change.old else "new"].append(change)
        elif change.old.outcome != change.new.outcome:
            groups["changed"].append(change)
    return {group: _sort_by_news(changes) for group, changes in groups.items()}


def _sort_by_news(changes: Sequence[ChangedCell]) -> list[ChangedCell]:
    by_kind = group_values((change.kind, change) for change in changes)
    return [change for kind in COLOURS for change in by_kind.get(kind, [])]


def make_changes_page(site: Site) -> Iterator[Page]:
    groups = find_changes(site.history)
    values = {
        "address": lambda cell: format_cell_page(cell.identity),
        "groups": [(group, heading, groups[group]) for group, (heading, _) in GROUPS.items()],
        "first": not site.history.before,
        "kind": lambda cell: AnswerKind.of(cell.status),
        "summary": summary_of_changes(groups),
    }
    yield Page("changes.html", "What changed", "changes.html", values)


def summary_of_changes(groups: Mapping[str, Sequence[ChangedCell]]) -> str:
    """Count the changes in a sentence without its end; empty if there are none."""
    parts = [f"{len(groups[group])} {words}" for group, (_, words) in GROUPS.items() if groups[group]]
    return f"Cells since this site was published before: {', '.join(parts)}" if parts else ""


def make_host_pages(site: Site) -> Iterator[Output]:
    """Yield a page for each distribution, and the scripts that these pages offer."""
    offered: dict[str, Remedy] = {}
    for distribution in site.distributions:
        values = {
            "STOCK": STOCK,
            "compared": compared,
            "describe_coverage": run_notes.describe_coverage,
            "distribution": distribution,
            "find_confinements": protection.find_confinements,
            "find_unmet_options": protection.find_unmet_options,
            "setting_id": make_setting_id,
            "short": short,
            "site": site,
            "slug": make_slug,
            "verified_with": verified_with,
        }
        yield Page(distribution.page, distribution.title, "host.html", values)
        offered |= distribution.cures
    for remedy in offered.values():
        yield TextFile(f"scripts/{remedy.name}.sh", remedy.script())


def short(answer: CellAnswer) -> str:
    """Return an answer in a word or two, for a square of a table."""
    match answer.kind:
        case AnswerKind.BLOCKED:
            return "blocked, has a cure" if answer.cures else "blocked"
        case AnswerKind.UNTESTED:
            # n/a is a decision: the setting does not exist on this system.
            return "does not apply" if answer.result and not answer.result.cell.lacked_guest else "not tested"
    return "works" if answer.kind is AnswerKind.WORKS else "works sometimes"


def compared(answers: Sequence[CellAnswer]) -> list[tuple[str, list[str]]]:
    """Return what was tested as installed: each component, and its version on each system."""
    versions_of = [
        versions(answer.result.source, answer.result.cell, answer.results)
        for answer in answers
        if answer.result
    ]
    return [
        (name, [of_system.get(name, "-") for of_system in versions_of])
        for name in dict.fromkeys(chain(*versions_of))
    ]


def versions(source: Source, cell: CellResult, newest: Results) -> dict[str, str]:
    """Return the version of each component with which a run tested a cell."""
    info = source.run.run
    about = {"boxlite": source.build(cell.build).version}
    if cell.facts:
        about |= list_components(cell.facts)
    if image := next((lane.image for lane in info.lanes_of(cell.guest, cell.history.lane)), ""):
        about["image"] = f"sha256 {image[:16]}"
    if defined := newest.catalog.guests.get(cell.guest):
        about["image from"] = defined.image.origin
    hosts = info.hosts(cell.guest, cell.history.lane)
    if machines := dict.fromkeys(f"QEMU {host.qemu}, {host.acceleration}" for host in hosts):
        about["virtual machine"] = " / ".join(machines)
    return about | {"tested on": f"{source.began(cell):%Y-%m-%d}", "run": source.ran_by(cell)}


def verified_with(answer: CellAnswer, cure: CellTrial) -> str:
    """Return the versions with which a remedy was verified, in one line."""
    tested_with = versions(cure.source, cure.cell, answer.results)
    names = ("boxlite", "kernel", "bubblewrap", "AppArmor", "SELinux", "image")
    return ", ".join(
        f"{name} {tested_with[name]}" for name in names if tested_with.get(name, NOT_IN_USE) != NOT_IN_USE
    )


def describe_site_coverage(site: Site) -> str:
    """Say what "works as installed" covers on each distribution of which the site says so."""
    results = [distribution.answer.result for distribution in site.distributions]
    return run_notes.describe_coverage(result.cell for result in results if result)


def make_support_files(site: Site) -> Iterator[TextFile]:
    """Yield the Markdown table, escaped as all Markdown of the lab, and the badges."""
    page = markdown_pages.render_template(
        "support.md",
        distributions=site.distributions,
        coverage=describe_site_coverage(site),
        trust=site.predictions.describe_trust(),
    )
    yield TextFile("support.md", page)
    for distribution in site.distributions:
        answer = distribution.answer
        version = "" if answer.kind is AnswerKind.UNTESTED else f"{answer.build}: "
        # What an endpoint badge of shields.io reads: https://shields.io/badges/endpoint-badge.
        badge = {
            "schemaVersion": 1,
            "label": f"boxlite on {clean_text(distribution.title)[:120]}",
            "message": clean_text(f"{version}{answer.headline}")[:80],
            "color": BLOCKED_BUT_CURED if answer.cures else COLOURS[answer.kind],
        }
        yield TextFile(distribution.badge, f"{json.dumps(badge, indent=1)}\n")


SCRIPT_FILE = "probe.sh"


def make_front_page(site: Site) -> Iterator[Output]:
    """Yield the front page, what its script compares a host with, and the probe script."""
    data = published.publish_distributions(site.distributions)
    # A page and its script are of one release.
    in_page = data.model_dump_json(exclude={"format", "lab"})
    facts = [result.cell.facts for result in site.cells.values() if result.cell.facts]
    sysctls = sorted({name for of in facts for name in of.sysctls})
    values = {
        "Kind": AnswerKind,
        "distributions": site.distributions,
        # The lab's own text, and not cut as a record's text is.
        "command": escape(script.render_script_command(sysctls)),
        "script": SCRIPT_FILE,
        "coverage": describe_site_coverage(site),
        "trust": site.predictions.describe_trust(),
        "changed": summary_of_changes(find_changes(site.history)),
        # A page from file:// can load no other file, so it holds the data. No text in it can end the element.
        "published": Markup(in_page.replace("<", "\\u003c")),  # noqa: S704
    }
    scripts = ("host-reader.js", "host-finder.js")
    yield Page("index.html", "Will boxlite work on my host?", "index.html", values, scripts)
    yield TextFile(published.FILE, data.model_dump_json(by_alias=True))
    yield TextFile(SCRIPT_FILE, script.render_script(sysctls))
