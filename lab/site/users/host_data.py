"""What the front page compares a user's host with: the settings of each tested cell, and its answer.

`host-finder.js` reads the same settings from what a user pastes. The names of settings are those below.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lab.base.files import plain
from lab.probes import Facts, script
from lab.site.model import Site
from lab.site.page import Text
from lab.site.users.answer import (
    CONFINED,
    LIMITS,
    NOT_LOADED,
    PROFILE,
    STOCK,
    UNCONFINED,
    VERSIONS,
    Answer,
    Cure,
    Kind,
    is_named,
    settings,
)
from lab.site.users.hosts import Host, System, setting_id

DATA_FILE = "host-data.js"
BEFORE, AFTER = "lab.hosts = ", ";\n"


def output(site: Site, hosts: Sequence[Host]) -> Text:
    """Return the data as a script, because a page from file:// can load nothing else."""
    # Only ASCII: no character of a text can end the script or a line of it.
    return Text(DATA_FILE, f"{BEFORE}{json.dumps(data(site, hosts), ensure_ascii=True)}{AFTER}")


def data(site: Site, hosts: Sequence[Host]) -> Any:
    """Return the distributions, the tested cells, and the rules by which settings are compared."""
    return _plain(
        {
            "distributions": [_distribution(host) for host in hosts],
            "cells": [cell for number, host in enumerate(hosts) for cell in _cells(site, number, host)],
            "rules": {
                "profile": PROFILE,
                "shown_profiles": list(script.PROFILES),
                "confined": CONFINED,
                "unconfined": UNCONFINED,
                "versions": list(VERSIONS),
                "limits": LIMITS,
            },
        }
    )


def sysctls(site: Site) -> list[str]:
    """Return the sysctls that were read in any published cell."""
    cells = [each.cell for each in site.cells.values()]
    return sorted({name for cell in cells if cell.facts for name, _ in cell.facts.sysctls.items()})


def _distribution(host: Host) -> dict[str, Any]:
    distribution, answer = host.distribution, host.answer
    return {
        "name": distribution.name,
        "title": distribution.title,
        "page": distribution.page,
        "kind": answer.kind,
        "headline": answer.headline,
        "reason": answer.reason,
        "systems": _systems(host),
    }


def _systems(host: Host) -> list[dict[str, str | None]]:
    """Return how a distribution's systems name themselves; from the guest's name if none was ever up."""
    facts = [each.result.cell.facts for system in host.systems for each in system.answers if each.result]
    named = {(each.os.id, each.os.version_id, each.os.version_codename) for each in facts if each}
    named = named or {(*host.distribution.words, None)}
    return [
        {"id": name, "version": version, "codename": codename}
        for name, version, codename in sorted(named, key=str)
    ]


def _cells(site: Site, number: int, host: Host) -> list[dict[str, Any]]:
    found = []
    for system in host.systems:
        for each in system.answers:
            if each.result and each.kind is not Kind.UNTESTED:
                found.append({"distribution": number, **_cell(system, each)})
    _keep_profiles_that_differ(found)
    _count_changes(found)
    return found


def _cell(system: System, answer: Answer) -> dict[str, Any]:
    assert answer.result is not None
    facts = answer.result.cell.facts
    cure = answer.cures[0] if answer.cures else None
    return {
        "guest": answer.guest,
        "system": system.title,
        "variant": answer.variant,
        "title": answer.title,
        "build": answer.build,
        "kind": answer.kind,
        "headline": answer.headline,
        "causes": [why.name for why in answer.whys],
        "why": [why.explanation for why in answer.whys],
        "remedy": cure and _remedy(cure),
        "part": setting_id(answer.variant) if answer.kind in (Kind.BLOCKED, Kind.TROUBLE) else "",
        "settings": _settings(facts, answer) if facts else {},
    }


def _settings(facts: Facts, answer: Answer) -> dict[str, str | None]:
    found = settings(facts)
    return found | {CONFINED: answer.confined_by or UNCONFINED} if facts.apparmor else found


def _remedy(cure: Cure) -> dict[str, Any]:
    return {
        "name": cure.tried.name,
        "title": cure.title,
        "price": " ".join(each.price for each in cure.remedies),
        "digests": {remedy.name: remedy.digest for remedy in cure.remedies},
    }


def _keep_profiles_that_differ(cells: Sequence[dict[str, Any]]) -> None:
    """Keep the AppArmor profiles that every host names, and those that a variant loads or changes.

    All others tell no two cells apart, and no host from a cell.
    """
    names = {name for cell in cells for name in cell["settings"] if is_named(name)}
    for guest in {cell["guest"] for cell in cells}:
        profiles = [_profiles(cell) for cell in cells if cell["guest"] == guest and cell["settings"]]
        if profiles:
            first, *others = profiles
            names |= {name for name, _ in first.union(*others) - first.intersection(*others)}
    for cell in cells:
        if cell["settings"]:
            own = dict(_profiles(cell))
            kept = {name: value for name, value in cell["settings"].items() if not name.startswith(PROFILE)}
            cell["settings"] = kept | {name: own.get(name, NOT_LOADED) for name in sorted(names)}


def _profiles(cell: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(name, mode) for name, mode in cell["settings"].items() if name.startswith(PROFILE)}


def _count_changes(cells: Sequence[dict[str, Any]]) -> None:
    """Say of each cell in how many settings it differs from the same guest as installed."""
    stock = {cell["guest"]: cell["settings"] for cell in cells if cell["variant"] == STOCK}
    for cell in cells:
        before = stock.get(cell["guest"], {})
        names = before.keys() | cell["settings"].keys()
        changed = sum(before.get(name) != cell["settings"].get(name) for name in names)
        # A variant may change what no fact shows.
        cell["changed"] = changed + (cell["variant"] != STOCK)


def _plain(value: Any) -> Any:
    """Return data with all its texts made harmless, as in a page."""
    match value:
        case str():
            return plain(value)[:2000]
        case dict():
            return {plain(key): _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
    return value
