"""Outputs of the probe script, and what they must agree with: what the lab's own programs print."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lab import catalog
from lab.probes import Facts, Probed, script
from lab.probes.report import HostReport

SCRIPT = script.text(catalog.load().sysctls())


def differences(report: HostReport, facts: Facts, probed: Probed, home: str) -> dict[str, tuple[Any, Any]]:
    """In what a report differs from what the lab's own programs say of the same host and user."""
    theirs, ours = _flat(report.facts), _flat(_shown(facts))
    ours |= {f"who.{name}": value for name, value in _flat(_who(probed)).items()}
    theirs |= {f"who.{name}": value for name, value in _flat(_who(report.who)).items()}
    for name, probe in probed.probes.by_name().items():
        told = report.probes.by_name()[name]
        ours[name] = (probe.status, probe.stderr.replace(home, "~"))
        theirs[name] = (told.status, told.stderr)
        ours[f"{name} command"] = tuple(word.replace(home, "~") for word in probe.command)
        theirs[f"{name} command"] = told.command
    known = {name for name in ours.keys() | theirs.keys() if report.knows(name)}
    missing = object()
    return {
        name: (theirs.get(name), ours.get(name))
        for name in sorted(known)
        if theirs.get(name, missing) != ours.get(name, missing)
    }


def _shown(facts: Facts) -> Facts:
    """The facts without what the script keeps to itself."""
    found = facts.model_dump()
    words = facts.command_line.split()
    found["command_line"] = " ".join(word for word in words if word.partition("=")[0] in script.COMMAND_LINE)
    for mount in found["mounts"].values():
        mount["options"] = [word for word in mount["options"] if "=" not in word]
    if found["apparmor"]:
        apparmor = found["apparmor"]
        apparmor["profiles"] = {name: mode for name, mode in apparmor["profiles"].items() if _relevant(name)}
        apparmor["profile_files"] = [path for path in apparmor["profile_files"] if _relevant(Path(path).name)]
    return Facts.model_validate(found)


def _relevant(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in script.PROFILES)


def _who(who: Any) -> Any:
    return who.model_copy(update={"groups": tuple(sorted(who.groups)), "probes": None})


def _flat(model: Any) -> dict[str, Any]:
    """A model's values by their paths."""
    found: dict[str, Any] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, each in value.items():
                add(f"{path}.{key}" if path else key, each)
        else:
            found[path] = value

    add("", model.model_dump(exclude={"probes"}))
    return found
