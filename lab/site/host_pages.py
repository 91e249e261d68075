"""The pages for users: for each distribution what was tested, what blocks boxlite, and what cures it."""

from collections.abc import Iterator, Sequence
from itertools import chain

from lab.probes import Facts
from lab.record import Status
from lab.remedies import Remedy
from lab.site import hosts
from lab.site.answer import STOCK, Answer, Cure, Kind
from lab.site.hosts import System
from lab.site.model import Site
from lab.site.page import Output, Page, Text, slug


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
    found = [versions(system.as_installed) for system in systems]
    return [(name, [each.get(name, "-") for each in found]) for name in dict.fromkeys(chain(*found))]


def versions(answer: Answer) -> dict[str, str]:
    """Return the version of each component that was tested."""
    result = answer.result
    if result is None:
        return {}
    source, facts = result.source, result.cell.facts
    info = source.run.run
    defined = answer.site.catalog.guests.get(answer.guest)
    image = next((lane.image for lane in info.lanes if lane.guest == answer.guest), "")
    return {
        "boxlite": answer.build,
        **(_system_versions(facts) if facts else {}),
        **({"image": f"sha256 {image[:16]}"} if image else {}),
        **({"image from": defined.image.origin} if defined else {}),
        **({"virtual machine": f"QEMU {info.host.qemu}, {info.host.acceleration}"} if info.host else {}),
        "tested on": f"{info.started:%Y-%m-%d}",
        "run": source.id,
    }


def _system_versions(facts: Facts) -> dict[str, str]:
    bubblewrap, apparmor, selinux = facts.bubblewrap, facts.apparmor, facts.selinux
    return {
        "system": facts.os.pretty_name or facts.os.id or "not named",
        "kernel": facts.kernel,
        "bubblewrap": "not installed" if bubblewrap is None else bubblewrap.version or "version not known",
        "AppArmor": "not in use" if apparmor is None else apparmor.version or "in use, without its parser",
        "SELinux": "not in use" if selinux is None else f"{selinux.mode}, {selinux.policy or 'unnamed'} policy",
    }


HELPERS = {
    "STOCK": STOCK,
    "Kind": Kind,
    "commands": commands,
    "compared": compared,
    "script": script_path,
    "short": short,
    "slug": slug,
}
