"""The pages for users: the front page, one for each distribution, what changed, the table in other forms."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from markupsafe import Markup, escape

from lab.base.files import plain, slug
from lab.catalog.remedies import Remedy
from lab.check import distributions, published, tested
from lab.check.distributions import STOCK, Answer, Cure, Host, System
from lab.check.published import Kind
from lab.check.results import Results, Source, cell_page
from lab.probes import Facts, script
from lab.record import CellResult, Status
from lab.report import markdown, protection
from lab.report.protection import Given, NotGiven, Weakness
from lab.report.site.model import History, Seen, Site
from lab.report.site.page import Output, Page, Text


class Group(StrEnum):
    """The kinds of changes, in the order in which the page shows them."""

    CHANGED = "Another result"
    NEW = "New here"
    GONE = "No longer published"


@dataclass(frozen=True)
class Change:
    """A cell that the site shows with another result than before; None where it was not shown."""

    before: Seen | None
    now: Seen | None

    @property
    def group(self) -> Group:
        """Whether the cell is new, gone, or has another result."""
        if self.before is None:
            return Group.NEW
        return Group.GONE if self.now is None else Group.CHANGED

    @property
    def cell(self) -> Seen:
        """The cell, whichever of both names it."""
        cell = self.now or self.before
        assert cell is not None
        return cell


def find_changes(history: History) -> list[Change]:
    """Return the cells whose status or cause differs from what the site showed before, worst news first."""
    if not history.before:
        return []
    before = {seen.identity: seen for seen in history.before}
    now = {seen.identity: seen for seen in history.shown}
    pairs = [Change(before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())]
    return sorted((pair for pair in pairs if _result(pair.before) != _result(pair.now)), key=_urgency)


def changes_page(site: Site) -> Iterator[Page]:
    """Yield the page with all changes."""
    changes = find_changes(site.history)
    values = {
        "address": lambda change: cell_page(change.cell.identity),
        "groups": {group: inside for group in Group if (inside := of_group(changes, group))},
        "first": not site.history.before,
        "kind": _kind,
        "result": result_in_words,
        "summary": summary_of_changes(changes),
    }
    yield Page("changes.html", "What changed", "changes.html", values, nav="Changes")


def of_group(changes: Sequence[Change], group: Group) -> list[Change]:
    return [change for change in changes if change.group is group]


def summary_of_changes(changes: Sequence[Change]) -> str:
    """Count the changes in a sentence without its end; empty if there are none."""
    counts = Counter(change.group for change in changes)
    words = {Group.CHANGED: "with another result", Group.NEW: "new", Group.GONE: "no longer published"}
    parts = [f"{counts[group]} {words[group]}" for group in Group if counts[group]]
    return f"Cells since this site was published before: {', '.join(parts)}" if parts else ""


def result_in_words(seen: Seen) -> str:
    """Return a result in a few words."""
    return f"{seen.status}: {seen.cause}" if seen.cause else str(seen.status)


def _result(seen: Seen | None) -> tuple[str, str | None] | None:
    return (seen.status, seen.cause) if seen else None


def _kind(seen: Seen | None) -> Kind:
    return Kind.of(seen.status if seen else None)


def _urgency(change: Change) -> int:
    order: Sequence[Kind] = (Kind.BLOCKED, Kind.TROUBLE, Kind.UNTESTED, Kind.WORKS)
    return order.index(_kind(change.now))


# A security module that the kernel does not have, or does not use.
NOT_IN_USE = "not in use"


def host_pages(site: Site) -> Iterator[Output]:
    """Yield a page for each distribution, and the scripts that these pages offer."""

    def weaknesses(answer: Answer) -> list[Weakness]:
        """Return what boxes of the answer's cell lack and those of another cell have."""
        return site.weaknesses_of(answer.result.cell) if answer.result else []

    offered: dict[str, Remedy] = {}
    for host in distributions.load(site):
        values = {**HELPERS, "host": host, "weaknesses": weaknesses}
        yield Page(host.distribution.page, host.distribution.title, "host.html", values)
        offered |= host.cures
    for remedy in offered.values():
        yield Text(script_path(remedy), remedy.script())


def script_path(remedy: Remedy) -> str:
    return f"scripts/{remedy.name}.sh"


def commands(cure: Cure) -> list[str]:
    """Return the commands that put a remedy in place, after its scripts were downloaded."""
    return [f"sudo sh {remedy.name}.sh" for remedy in cure.scripts]


def short(answer: Answer) -> str:
    """Return an answer in a word or two, for a square of a table."""
    match answer.kind:
        case Kind.BLOCKED:
            return "blocked, has a cure" if answer.cures else "blocked"
        case Kind.UNTESTED:
            # n/a is a decision: the setting does not exist on this system.
            na = answer.result is not None and answer.result.cell.status is Status.NOT_APPLICABLE
            return "does not apply" if na else "not tested"
    return "works" if answer.kind is Kind.WORKS else "works sometimes"


def compared(systems: Sequence[System]) -> list[tuple[str, list[str]]]:
    """Return what was tested as installed: each component, and its version on each system."""
    results = [(system.results, system.as_installed.result) for system in systems]
    components = [versions(result.source, result.cell, newest) for newest, result in results if result]
    return [
        (name, [versions_there.get(name, "-") for versions_there in components])
        for name in dict.fromkeys(chain(*components))
    ]


def versions(source: Source, cell: CellResult, newest: Results) -> dict[str, str]:
    """Return the version of each component with which a run tested a cell."""
    info, facts, build = source.run.run, cell.facts, source.build(cell.build)
    defined = newest.catalog.guests.get(cell.guest)
    hosts = info.hosts(cell.guest, cell.lane)
    machines = dict.fromkeys(f"QEMU {host.qemu}, {host.acceleration}" for host in hosts)
    image = next((lane.image for lane in info.lanes_of(cell.guest, cell.lane)), "")
    return {
        "boxlite": build.version,
        **(_system_versions(facts) if facts else {}),
        **({"image": f"sha256 {image[:16]}"} if image else {}),
        **({"image from": defined.image.origin} if defined else {}),
        **({"virtual machine": " / ".join(machines)} if machines else {}),
        "tested on": f"{info.started:%Y-%m-%d}",
        "run": source.id,
    }


def verified_with(answer: Answer, cure: Cure) -> str:
    """Return the versions with which a remedy was verified, in one line."""
    tested_with = versions(cure.source, cure.cell, answer.results)
    names = ("boxlite", "kernel", "bubblewrap", "AppArmor", "SELinux", "image")
    return ", ".join(
        f"{name} {tested_with[name]}" for name in names if tested_with.get(name, NOT_IN_USE) != NOT_IN_USE
    )


def given(answer: Answer) -> list[Given]:
    """Return what confined the boxes of the cell that an answer is from."""
    return protection.given([answer.result.cell]) if answer.result else []


def not_given(answer: Answer) -> list[NotGiven]:
    """Return what the tests of that cell asked boxlite for and what is not to be seen."""
    return protection.not_given([answer.result.cell]) if answer.result else []


def _system_versions(facts: Facts) -> dict[str, str]:
    bubblewrap, apparmor, selinux = facts.bubblewrap, facts.apparmor, facts.selinux
    return {
        "system": facts.os.pretty_name or facts.os.id or "not named",
        "kernel": facts.kernel,
        "bubblewrap": "not installed" if bubblewrap is None else bubblewrap.version or "version not known",
        "AppArmor": NOT_IN_USE if apparmor is None else apparmor.version or "in use, without its parser",
        "SELinux": NOT_IN_USE if selinux is None else f"{selinux.mode}, {selinux.policy or 'unnamed'} policy",
    }


HELPERS = {
    "STOCK": STOCK,
    "Kind": Kind,
    "commands": commands,
    "compared": compared,
    "given": given,
    "not_given": not_given,
    "script": script_path,
    "short": short,
    "slug": slug,
    "verified_with": verified_with,
}


# Names of shields.io's colours. What was not tested is never green.
COLOURS = {
    Kind.WORKS: "brightgreen",
    Kind.BLOCKED: "red",
    Kind.TROUBLE: "orange",
    Kind.UNTESTED: "lightgrey",
}
BLOCKED_BUT_CURED = "yellow"


def support_files(site: Site) -> Iterator[Text]:
    """Yield the Markdown table and the badges."""
    hosts = distributions.load(site)
    yield Text("support.md", support_table(site, hosts))
    for host in hosts:
        yield Text(host.distribution.badge, badge(host))


def support_table(site: Site, known: Sequence[Host]) -> str:
    """Return the support table as Markdown, escaped as all Markdown of the lab."""
    return markdown.page("support.md", site=site, hosts=known, words=answer_in_words)


def badge(host: Host) -> str:
    """Return what an endpoint badge of shields.io reads: https://shields.io/badges/endpoint-badge."""
    answer = host.answer
    colour = BLOCKED_BUT_CURED if answer.cures else COLOURS[answer.kind]
    content = {
        "schemaVersion": 1,
        "label": f"boxlite on {plain(host.distribution.title)[:80]}",
        "message": plain(answer_in_words(answer))[:80],
        "color": colour,
    }
    return f"{json.dumps(content, indent=1)}\n"


def answer_in_words(answer: Answer) -> str:
    """Return the headline with the version that it holds for."""
    return answer.headline if answer.kind is Kind.UNTESTED else f"{answer.build}: {answer.headline}"


SCRIPT_FILE = "probe.sh"


def front_page(site: Site) -> Iterator[Output]:
    """Yield the front page, what its script compares a host with, and the probe script."""
    hosts = distributions.load(site)
    data = tested.of_hosts(hosts).model_dump_json()
    sysctls = tested.sysctls(site)
    values = {
        **HELPERS,
        "site": site,
        "hosts": hosts,
        # The lab's own text, and not cut as a record's text is.
        "command": escape(script.command(sysctls)),
        "script": SCRIPT_FILE,
        "changed": summary_of_changes(find_changes(site.history)),
        # A page from file:// can load no other file, so it holds the data. No text in it can end the element.
        "published": Markup(data.replace("<", "\\u003c")),  # noqa: S704
    }
    scripts = ("host-reader.js", "host-finder.js")
    yield Page("index.html", "Will boxlite work on my host?", "index.html", values, "Hosts", scripts)
    yield Text(published.FILE, data)
    yield Text(SCRIPT_FILE, script.text(sysctls))
