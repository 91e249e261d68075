"""The pages for maintainers: the matrix, its cells, boxlite's wrong diagnoses, and the runs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from lab.base import notices
from lab.base.errors import LabError
from lab.base.files import group_values, make_slug
from lab.catalog import load_suites
from lab.causes.evidence import AUDIT_FILE, KERNEL_FILE, PROBES_FILE, find_refusals
from lab.check.results import Identity, NewestResult, Source, identify_cell
from lab.probes import Probe
from lab.probes.facts import UserSession
from lab.record import Omission, Status
from lab.report import judgements, protection, run_notes, sections, table
from lab.report.site.charts import draw_timelines
from lab.report.site.model import UNKNOWN, CellEvidence, Site, list_components
from lab.report.site.page import Copy, Page, make_stand_in
from lab.verdict import words
from lab.verdict.words import WordsVerdict

MATRIX_PAGE, RUNS_PAGE = "matrix.html", "runs.html"

# What the shape and the colour of a mark say. The word beside them is the status itself.
MARKS = {status: table.LOOKS[status].mark for status in Status}


def page_of_run(source: Source) -> str:
    return f"runs/{make_slug(source.id)}.html"


def _columns(site: Site) -> dict[str, list[str]]:
    """Return the builds of each variant. A column without any cell is left out."""
    occurring = {(variant, build) for _, variant, build in site.cells}
    return {
        variant: [build for build in site.builds if (variant, build) in occurring] for variant in site.variants
    }


def order(site: Site) -> list[Identity]:
    """Return the identities of all cells as the table has them, row by row."""
    columns = [(variant, build) for variant, builds in _columns(site).items() for build in builds]
    places = [(guest, *column) for guest in site.guests for column in columns]
    return [place for place in places if place in site.cells]


def make_matrix_page(site: Site) -> Iterable[Page]:
    """Make the page of the matrix: a row per guest; for each variant a column per build."""
    cells = [published.cell for published in site.cells.values()]
    columns = _columns(site)
    outcomes: dict[tuple[str, str], set[tuple[Status, str | None]]] = {}
    for cell in cells:
        if not cell.lacked_guest:
            outcomes.setdefault((cell.guest, cell.variant), set()).add((cell.status, cell.cause))
    # The filters by their names in the address: each value that occurs, and how many cells have it.
    causes = sorted({cell.cause for cell in cells if cell.cause})
    filters: dict[str, tuple[Iterable[str], Counter[str]]] = {
        "guest": (site.guests, Counter(cell.guest for cell in cells)),
        "variant": (columns, Counter(cell.variant for cell in cells)),
        "build": (site.builds, Counter(cell.build for cell in cells)),
        "status": (map(str, Status), Counter(str(cell.status) for cell in cells)),
        "cause": ([*causes, ""], Counter(cell.cause or "" for cell in cells)),
    }
    values = {
        "columns": columns,
        "filters": {
            name: [(value, counts[value]) for value in ordered if counts[value]]
            for name, (ordered, counts) in filters.items()
        },
        # Guests and variants in which builds have different statuses or causes.
        "differing": {place for place, of_builds in outcomes.items() if len(of_builds) > 1},
        "weak": protection.name_weak_cells(site.weaknesses),
        "kernel": lambda guest: table.format_kernel(result.cell for result in site.of_guest(guest)),
        "site": site,
        "pages_of_guests": {guest: of.page for of in site.distributions for guest in of.guests},
        "marks": MARKS,
        "meanings": {status: table.LOOKS[status].meaning for status in Status if filters["status"][1][status]},
        "format_note": table.format_note,
        "attention": [status for status in table.LOOKS if not status.as_expected],
    }
    yield Page(MATRIX_PAGE, "The whole matrix", "matrix.html", values, ("matrix.js",))


def make_findings_page(site: Site) -> Iterable[Page]:
    reviews = {}
    for source in site.sources:
        # An older result of a cell that is shown adds nothing.
        newest = [cell for cell in source.run.cells if site.cells[identify_cell(cell)].source is source]
        run = source.run.model_copy(update={"cells": newest})
        reviews[source.id] = judgements.review_words(run, source.folder)
    values = {
        "reviews": reviews,
        "verdicts": list(WordsVerdict),
        "known_bugs": _find_known_bugs(site),
        "unmet": protection.find_unmet_options(published.cell for published in site.cells.values()),
        "page_of": lambda cell: site.cells[identify_cell(cell)].page,
        "causes": site.causes,
        "cured": judgements.count_cures,
    }
    yield Page("findings.html", "Findings on boxlite's own diagnosis", "findings.html", values)


def _find_known_bugs(site: Site) -> dict[str, list[NewestResult]]:
    """Return the cells that show a bug of boxlite's that their suite knows, by the suite's words about it."""
    suites = {suite.name: suite for suite in load_suites() if suite.expect.cause}
    pairs = (
        (suite.because, published)
        for published in site.cells.values()
        if (suite := suites.get(published.source.build(published.cell.build).suite))
        and suite.expect.cause in [cause.name for cause in published.cell.causes]
    )
    return group_values(pairs)


def make_run_pages(site: Site) -> Iterator[Page]:
    values: dict[str, Any] = {
        "sources": site.sources,
        "count_statuses": table.count_statuses,
        "page_of_run": page_of_run,
    }
    yield Page(RUNS_PAGE, "Runs", "runs.html", values)
    for source in site.sources:
        missing = [cell for cell in source.run.cells if cell.status.could_not_run]
        values = {
            "run": source.run,
            "missing": group_values(((cell.status, cell.reason), cell) for cell in missing),
            "timelines": draw_timelines,
            "mark": MARKS,
            "count_statuses": table.count_statuses,
            "group_hosts": run_notes.group_hosts,
            "describe_hosts": run_notes.describe_hosts,
            "describe_time": run_notes.describe_time,
            "page_of": lambda cell: site.cells[identify_cell(cell)].page,
            "runs_page": RUNS_PAGE,
        }
        yield Page(page_of_run(source), f"Run {source.id}", "run.html", values)


# What a page shows of a file; the rest is in the file.
MOST_LINES = 12
LONGEST_LINE = 400  # characters


def make_cell_pages(site: Site) -> Iterable[Page]:
    cells = [site.cells[key] for key in order(site)]
    for previous, published, following in zip([None, *cells], cells, [*cells[1:], None], strict=False):
        make = partial(_page, site, published, previous, following)
        title = " ".join(published.identity)
        yield notices.show_or_explain(make, partial(make_stand_in, published.page, title))


def _page(
    site: Site, published: NewestResult, previous: NewestResult | None, following: NewestResult | None
) -> Page:
    guest, variant, build = published.identity
    evidence = site.evidence[published.identity]
    boxlite_words = published.finished.words if evidence.files else words.BoxliteMessage()
    values = {
        "cell": published.cell,
        "published": published,
        "source": published.source,
        "files": _files(evidence),
        "left_out": evidence.left_out,
        "refusals": _refusals(published, evidence),
        "probes": _probes(published, evidence),
        "environment": _environment(published),
        "omissions": _omissions(published),
        "digests": _digests(published),
        "confinements": protection.find_confinements([published.cell]),
        "unmet": protection.find_unmet_options([published.cell]),
        "weaknesses": site.weaknesses_of(published.cell),
        "mark": MARKS,
        "format_square": table.format_square,
        "format_command": sections.format_command,
        "remedies": sections.sort_remedies(published.cell),
        "experiment": sections.describe_experiment(published.cell),
        "rates": run_notes.list_rates_of_cell(published.cell),
        "rates_note": run_notes.explain_rates(published.source.run),
        "causes": site.causes,
        "all_remedies": site.remedies,
        "variant": site.catalog.variants.get(variant),
        "words": boxlite_words,
        "judged": words.judge_words(published.cell, boxlite_words, site.remedies),
        "other_builds": [
            site.cells[guest, variant, other]
            for other in site.builds
            if other != build and (guest, variant, other) in site.cells
        ],
        "previous": previous,
        "following": following,
        "matrix_page": MATRIX_PAGE,
        "page_of_run": page_of_run,
    }
    return Page(published.page, f"{guest}, {variant}, boxlite {build}", "cell.html", values)


def _files(evidence: CellEvidence) -> Mapping[str, list[Copy]]:
    """Return the copied files by their folder; the cell's own come first, under an empty name."""

    def folder(file: Copy) -> str:
        parts = PurePosixPath(file.name).parts
        return "" if len(parts) == 1 or parts[0] in ("suite", "boxlite") else "/".join(parts[:2])

    ordered = sorted(evidence.files, key=lambda file: (folder(file), file.name))
    return {name: list(files) for name, files in groupby(ordered, key=folder)}


def _refusals(published: NewestResult, evidence: CellEvidence) -> list[tuple[Copy, list[str], int]]:
    """Return what the kernel refused: a file that the site has, some lines, and how many more there are."""
    copied = {file.name: file for file in evidence.files}
    names = [name for name in (KERNEL_FILE, AUDIT_FILE) if name in copied]
    return [
        (
            copied[name],
            [line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} …" for line in lines[:MOST_LINES]],
            max(len(lines) - MOST_LINES, 0),
        )
        for name, lines in find_refusals(published.finished.folder, names).items()
    ]


def _probes(published: NewestResult, evidence: CellEvidence) -> dict[str, Probe]:
    """Return the probes that ran; none if their file is missing or damaged."""
    if not any(file.name == PROBES_FILE for file in evidence.files):
        return {}
    try:
        probes = published.finished.evidence.probes.by_name()
    except LabError:
        return {}
    return {name: probe for name, probe in probes.items() if probe.status is not None}


def _environment(published: NewestResult) -> dict[str, str]:
    """Return what the cell ran on; what the lab did not read is named as such."""
    cell, run = published.cell, published.source.run.run
    environment = list_components(cell.facts) if cell.facts else {"guest": UNKNOWN}
    environment["suite confined by"] = UNKNOWN
    if context := cell.suite.context:
        confined = f"AppArmor {context.apparmor or 'none'}, SELinux {context.selinux or 'none'}"
        environment["suite confined by"] = confined
        environment["session"] = _describe_session(context.session)
        limits = {name: value for name, value in dict(context.limits).items() if value is not None}
        environment["limits"] = ", ".join(f"{name} {value}" for name, value in limits.items()) or "none"
    if cell.suite.stress:
        environment["load"] = ", ".join(cell.suite.stress)
    build = published.source.build(cell.build)
    environment["boxlite"] = f"{build.version} from {build.source}"
    hosts = run.hosts(cell.guest, cell.history.lane)
    if len(run_notes.name_hosts(run)) > 1:
        environment["run by"] = " / ".join(dict.fromkeys(host.name for host in hosts))
    about: dict[str, dict[str, None]] = {}
    for host in hosts:  # Where they differ, what each of them has.
        for name, value in {
            "host": f"{host.system}, kernel {host.kernel}, {host.cpus} CPUs, {host.memory_mib} MiB",
            "libvirt, QEMU": f"{host.libvirt}, {host.qemu}",
            "acceleration": f"{host.acceleration}: {host.acceleration_reason}",
        }.items():
            about.setdefault(name, {})[value] = None
    return environment | ({name: " / ".join(values) for name, values in about.items()} or {"host": UNKNOWN})


def _describe_session(session: UserSession) -> str:
    """Return what the suite ran in, in one line."""
    words = [session.kind, f"control group {session.cgroup}"]
    words += [f"class {session.login_class}"] if session.login_class else []
    words += [f"XDG_RUNTIME_DIR {session.runtime_dir or 'not set'}"]
    words += [f"the user's service manager {'answers' if session.manager else 'does not answer'}"]
    return ", ".join([*words, "lingering"] if session.lingers else words)


def _omissions(published: NewestResult) -> list[Omission]:
    """Return what the cell's guest lacks beside a fresh installation."""
    cell, run = published.cell, published.source.run.run
    return next((lane.omissions for lane in run.lanes_of(cell.guest, cell.history.lane)), [])


def _digests(published: NewestResult) -> dict[str, str]:
    """Return the SHA-256 of what was tested: the image of the cell's lane, and the files of the build.

    Of a cell whose lane has no record, the images of all lanes of the guest.
    """
    cell, source = published.cell, published.source
    images = dict.fromkeys(lane.image for lane in source.run.run.lanes_of(cell.guest, cell.history.lane))
    several = len(images) > 1
    digests = {f"image {number}" if several else "image": image for number, image in enumerate(images, 1)}
    return digests | source.build(cell.build).files
