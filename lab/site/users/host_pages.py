"""The pages for users: for each distribution what was tested, what blocks boxlite, and what cures it."""

from collections.abc import Iterator, Sequence
from itertools import chain

from lab.probes import Facts
from lab.record import CellResult, Status
from lab.remedies import Remedy
from lab.report import protection
from lab.report.protection import Given, NotGiven, Weakness
from lab.site.model import Site
from lab.site.page import Output, Page, Text, slug
from lab.site.results import Source
from lab.site.users import hosts
from lab.site.users.answer import STOCK, Answer, Cure, Kind
from lab.site.users.hosts import System

# A security module that the kernel does not have, or does not use.
NOT_IN_USE = "not in use"


def outputs(site: Site) -> Iterator[Output]:
    """Yield a page for each distribution, and the scripts that these pages offer."""
    offered: dict[str, Remedy] = {}
    for host in hosts.load(site):
        yield Page(host.distribution.page, host.distribution.title, "host.html", {**HELPERS, "host": host})
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
    results = [(system.site, system.as_installed.result) for system in systems]
    found = [versions(result.source, result.cell, site) for site, result in results if result]
    return [(name, [each.get(name, "-") for each in found]) for name in dict.fromkeys(chain(*found))]


def versions(source: Source, cell: CellResult, site: Site) -> dict[str, str]:
    """Return the version of each component with which a run tested a cell."""
    info, facts, build = source.run.run, cell.facts, source.build(cell.build)
    defined = site.catalog.guests.get(cell.guest)
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
    found = versions(cure.source, cure.cell, answer.site)
    names = ("boxlite", "kernel", "bubblewrap", "AppArmor", "SELinux", "image")
    return ", ".join(f"{name} {found[name]}" for name in names if found.get(name, NOT_IN_USE) != NOT_IN_USE)


def given(answer: Answer) -> list[Given]:
    """Return what confined the boxes of the cell that an answer is from."""
    return protection.given([answer.result.cell]) if answer.result else []


def not_given(answer: Answer) -> list[NotGiven]:
    """Return what the tests of that cell asked boxlite for and what is not to be seen."""
    return protection.not_given([answer.result.cell]) if answer.result else []


def weaknesses(answer: Answer) -> list[Weakness]:
    """Return what boxes of that cell lack and those of another cell have."""
    return answer.site.weaknesses_of(answer.result.cell) if answer.result else []


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
    "weaknesses": weaknesses,
    "script": script_path,
    "short": short,
    "slug": slug,
    "verified_with": verified_with,
}
