"""What one cell shows of an assertion, by the name of the observer that looks for it.

Each observer gets a cell whose suite ran with the same result each time, and the arguments of the assertion. It
raises NothingShown if the cell does not tell.
"""

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lab import catalog
from lab.base import notices
from lab.base.architecture import ARCHITECTURES
from lab.causes.evidence import KERNEL_FILE
from lab.causes.sandbox import RESTRICTED, RESTRICTION
from lab.probes import Facts
from lab.probes.facts import AppArmorFacts, parse_version
from lab.record import Outcome, Protection, RemedyOutcome
from lab.verdict.protection import JAILER
from lab.verdict.words import FinishedCell

# Where a suite under pytest leaves its results.
JUNIT = "suite/junit.xml"
# What a report calls the kinds of namespaces, by their names in /proc.
NAMESPACES = {"mount": "mnt", "network": "net"}
# What confines a box: how it is recognized, and what is shown of each box. The root of a box that has its own
# holds the folders of the host that it needs, each mounted there by itself.
CONFINEMENTS: dict[str, tuple[Callable[[Protection, set[str]], bool], Callable[[Protection], str]]] = {
    "namespaces": (
        lambda box, kinds: kinds <= {*box.namespaces},
        lambda box: f"namespaces {', '.join(sorted(box.namespaces)) or 'none'}",
    ),
    "user": (lambda box, _: "0" not in box.users, lambda box: f"user {', '.join(box.users)}"),
    "root": (
        lambda box, _: "mnt" in box.namespaces and any(mount.startswith("/usr ") for mount in box.mounts),
        lambda box: f"mounts {', '.join(box.mounts[:4])}",
    ),
    "seccomp": (lambda box, _: box.seccomp == ["filter"], lambda box: f"seccomp {', '.join(box.seccomp)}"),
}


class NothingShown(Exception):
    """A cell shows nothing of an assertion. The text says why."""


class Observation(NamedTuple):
    """Whether an assertion holds by what one cell shows, and the reason.

    `file` of the cell's folder shows it; without one the record alone does.
    """

    holds: bool
    reason: str
    file: str = ""


def observe_cell(name: str, cell: FinishedCell, arguments: Mapping[str, Any]) -> Observation | NothingShown:
    """Return what a cell shows of an assertion, or why it shows nothing."""
    if not cell.result.status.is_decisive:
        return NothingShown(": ".join(filter(None, [cell.result.status, cell.result.reason])))

    def look() -> Observation | NothingShown:
        try:
            return OBSERVERS[name](cell, **arguments)
        except NothingShown as nothing:
            return nothing

    return notices.show_or_explain(look, NothingShown)


# -- what several observers ask


def _failed_tests(cell: FinishedCell) -> list[str]:
    """The tests that failed. A test that did not run shows nothing."""
    return [test.name for test in cell.result.tests if test.outcome.is_failure]


def _facts(cell: FinishedCell) -> Facts:
    if cell.result.facts is None:
        raise NothingShown("the facts of its guest were not read")
    return cell.result.facts


def _apparmor(cell: FinishedCell) -> AppArmorFacts:
    apparmor = _facts(cell).apparmor
    if apparmor is None:
        raise NothingShown(f"{cell.result.guest} has no AppArmor")
    return apparmor


def _check_system(cell: FinishedCell, system: str | None, version: str | None, *, or_newer: bool) -> None:
    """Raise NothingShown if a cell's guest is not of this distribution and release, or a newer one."""
    if system is None:
        return
    least, facts = (parse_version(version), _facts(cell).os)
    release = parse_version(facts.version_id)
    is_release = (
        release is not None and least is not None and (release == least or (or_newer and release > least))
    )
    if facts.id != system.lower() or not is_release:
        newer = " or newer" if or_newer else ""
        raise NothingShown(f"only {system} {version}{newer} shows it; --guest names a guest")


# -- the observers


def profile_shipped(
    cell: FinishedCell,
    profile: str,
    oldest: str | None = None,
    system: str | None = None,
    version: str | None = None,
    *,
    ships: bool = True,
) -> Observation:
    """Look for a profile's file. It `ships` with this release or a newer one, or is missing in this one."""
    _check_system(cell, system, version, or_newer=ships)
    apparmor = _apparmor(cell)
    release, title = parse_version(apparmor.version), f"AppArmor {apparmor.version or 'of an unknown version'}"
    if oldest and (release is None or release.major < int(oldest)):
        raise NothingShown(f"its {title} may be older than {oldest}")
    mode = apparmor.profiles.get(profile)
    if f"/etc/apparmor.d/{profile}" not in apparmor.profile_files and mode is None:
        return Observation(not ships, f"its {title} has no profile {profile}")
    state = f"loaded in {mode} mode" if mode else "not loaded"
    return Observation(ships, f"its {title} has the profile {profile}, {state}")


def profile_in_force(cell: FinishedCell, profile: str) -> Observation:
    mode = _apparmor(cell).profiles.get(profile, "not loaded")
    if profile != RESTRICTED:
        return Observation(mode == "enforce", f"the profile: {mode}")
    # The kernel moves programs into this profile only while its switch is 1.
    switch = _facts(cell).sysctls.get(RESTRICTION)
    shows = f"the profile: {mode}; {RESTRICTION}: {switch or 'not there'}"
    return Observation(mode == "enforce" and switch == "1", shows)


def kvm_mode(cell: FinishedCell, mode: str, owner: str, group: str) -> Observation:
    kvm = _facts(cell).kvm
    if kvm is None:
        raise NothingShown("it has no /dev/kvm")
    written = stat.filemode(stat.S_IFCHR | int(kvm.mode, 8))
    shows = f"mode {kvm.mode}, owner {kvm.owner or kvm.uid}, group {kvm.group or kvm.gid}"
    return Observation((written, kvm.owner, kvm.group) == (mode, owner, group), shows)


def fails(cell: FinishedCell, names: Sequence[str]) -> Observation:
    """Look whether the tests of these names fail; any test if there are none."""
    failures = _failed_tests(cell)
    passes = [test.name for test in cell.result.tests if test.outcome is Outcome.PASS and test.name in names]
    if names and not passes and not set(names) & set(failures):
        raise NothingShown(f"did not run, or were skipped: {', '.join(names)}")
    kernel = cell.result.facts.kernel if cell.result.facts else "that was not read"
    if passes or not failures:
        return Observation(False, f"passed with kernel {kernel}: {', '.join(passes) or 'every test'}", JUNIT)
    failing = [name for name in names if name in failures] or failures
    return Observation(True, f"failed with kernel {kernel}: {', '.join(failing)}", JUNIT)


def works(
    cell: FinishedCell,
    system: str | None = None,
    version: str | None = None,
    arch: str | None = None,
    twin: str | None = None,
    *,
    control: bool = False,
) -> Observation:
    """Look whether every test passes. `twin` is the guest with traits of a system that the lab cannot get.

    `control`: only a cell shows it where a box without the jailer starts, and so has KVM.
    """
    if control and catalog.load_catalog().suite.control in _failed_tests(cell):
        raise NothingShown("no box starts there, with or without the jailer")
    if twin:
        raise NothingShown(f"the lab cannot get that system; the guest {twin} has traits of it, and is not it")
    _check_system(cell, system, version, or_newer=True)
    names = {name: row.name for row in ARCHITECTURES.values() for name in (row.name, row.debian)}
    if arch and _facts(cell).arch != names.get(arch.lower()):
        raise NothingShown(f"only a guest of {arch} shows it; --guest names a guest")
    if cell.result.status.passed:
        subjects = dict.fromkeys(test.subject for test in cell.result.tests if test.subject)
        about = f", and they are about {' and '.join(subjects)}" if subjects else ""
        return Observation(True, f"every test passes{about}", JUNIT)
    cause = f"for the cause {cell.result.cause}: {cell.result.reason}"
    return Observation(False, f"failed: {', '.join(_failed_tests(cell))}; {cause}", JUNIT)


def confined(cell: FinishedCell, by: str, kinds: str = "") -> Observation:
    """Look whether each box that has the jailer is confined by something of the table CONFINEMENTS.

    `kinds` are those of the namespaces that each box is said to have for itself.
    """
    protections = [test.protection for test in cell.result.tests if test.protection]
    boxes = [protection for protection in protections if protection.asked.get(JAILER) is True]
    if not boxes:
        raise NothingShown("what confines its boxes was not read")
    holds, show = CONFINEMENTS[by]
    names = {NAMESPACES.get(kind, kind) for kind in re.findall(r"[a-z]+", kinds.lower())}
    shows = "; ".join(dict.fromkeys(map(show, boxes)))
    return Observation(all(holds(box, names) for box in boxes), f"{len(boxes)} boxes, {shows}", JUNIT)


def capability_denied(cell: FinishedCell, profile: str, capability: str) -> Observation:
    result = cell.result
    if result.status.passed:
        return Observation(False, "every test passes all the same", JUNIT)
    if not cell.evidence.probes.ran or not (cell.folder / KERNEL_FILE).exists():
        raise NothingShown("its evidence was not gathered, or the kernel's log was full")
    name = capability.lower().removeprefix("cap_")
    denied = cell.evidence.denied(operation="capable", profile=profile, capname=name)
    # The lab's own probe runs after the suite.
    programs = sorted({line.get("comm", "?") for line in denied} - {"unshare"})
    if not programs:
        return Observation(False, "the kernel logged no such denial", KERNEL_FILE)
    nothing = "" if "bwrap" in programs else ", which says nothing about bubblewrap"
    return Observation(True, f"the kernel denied it to {', '.join(programs)}{nothing}", KERNEL_FILE)


def cured(cell: FinishedCell, remedies: Sequence[str], outcome: str = RemedyOutcome.VERIFIED) -> Observation:
    """Look whether one of these remedies, each tried alone, had this result."""
    if not cell.result.status.failed:
        raise NothingShown("nothing failed that could be cured")
    trials = [trial for trial in cell.result.remedies if trial.name in remedies]
    if not trials:
        raise NothingShown(f"not tried on this cell: {', '.join(remedies)}")
    good = [trial for trial in trials if trial.result == outcome]
    shows = "; ".join(
        ": ".join(filter(None, [trial.name, trial.result, trial.reason])) for trial in good or trials
    )
    if not good and all(trial.result.says_nothing for trial in trials):
        raise NothingShown(shows)
    evidence = (file for trial in good or trials for file in trial.evidence if file.endswith("/suite.log"))
    return Observation(bool(good), shows, next(evidence, "").removeprefix(f"{cell.result.folder}/"))


# The observers by the names that `assertions.toml` has for them.
OBSERVERS: dict[str, Callable[..., Observation]] = {
    observer.__name__: observer
    for observer in (
        profile_shipped,
        profile_in_force,
        kvm_mode,
        fails,
        works,
        confined,
        capability_denied,
        cured,
    )
}
