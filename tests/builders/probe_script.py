"""Outputs of the probe script, and what they must agree with: what the lab's own programs print."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import catalog
from lab.probes import Facts, Probe, ProbedUser, script, show
from lab.probes.report import HostReport
from tests.builders.facts import ALL_WORK
from tests.builders.facts import probed as a_probed

SCRIPT = script.render_script(catalog.load_catalog().sysctls())


def output(
    facts: Mapping[str, Any],
    probes: Mapping[str, Probe] = {},
    *,
    unreadable: Sequence[str] = (),
    id_like: Sequence[str] = (),
    **who: Any,
) -> str:
    """What the script prints on a host with these facts, where all but these probes work."""
    document = {"facts": facts, "unreadable": list(unreadable), "id_like": list(id_like)}
    all_probes = ALL_WORK | dict(probes)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        show.main(document, a_probed(all_probes, **who).model_dump(mode="json"))
    return printed.getvalue()


def differences(report: HostReport, facts: Facts, probed: ProbedUser, home: str) -> dict[str, tuple[Any, Any]]:
    """In what a report differs from what the lab's own programs say of the same host and user."""
    theirs = _flat(report.model_dump(exclude={"unreadable", "id_like"}))
    who = probed.model_dump(exclude={"probes"})
    ours = _flat({"facts": _shown(facts), "who": who, "probes": probed.probes.model_dump()})
    # The kernel names a user's groups in no order.
    for document in (ours, theirs):
        document["who.groups"] = sorted(document["who.groups"])
    ours = {name: _without(home, value) for name, value in ours.items()}
    names = {name for name in ours.keys() | theirs.keys() if report.knows(name.removeprefix("facts."))}
    missing = object()
    return {
        name: (theirs.get(name), ours.get(name))
        for name in sorted(names)
        if theirs.get(name, missing) != ours.get(name, missing)
    }


def _without(home: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_without(home, word) for word in value)
    return value.replace(home, "~") if isinstance(value, str) else value


def _shown(facts: Facts) -> Any:
    """The facts without what the script keeps to itself."""
    document = facts.model_dump()
    words = facts.command_line.split()
    document["command_line"] = " ".join(word for word in words if word.partition("=")[0] in script.COMMAND_LINE)
    for mount in document["mounts"].values():
        mount["options"] = tuple(word for word in mount["options"] if "=" not in word)
    if apparmor := document["apparmor"]:
        apparmor["profiles"] = {name: mode for name, mode in apparmor["profiles"].items() if _relevant(name)}
        apparmor["profile_files"] = tuple(
            path for path in apparmor["profile_files"] if _relevant(Path(path).name)
        )
    return document


def _relevant(name: str) -> bool:
    return any(part in name for part in script.PROFILES)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            name: inner
            for key, member in value.items()
            for name, inner in _flat(member, f"{path}.{key}" if path else key).items()
        }
    return {path: value}
