"""Everything that a site shows, loaded once: runs, results, evidence, history and definitions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from lab.base.data import read_model
from lab.base.errors import UsageError, format_error
from lab.base.files import make_slug
from lab.causes.evidence import explain_unreadable
from lab.check import distributions, results
from lab.check.distributions import TestedDistribution
from lab.check.results import Identity, NewestResult, Results, Source
from lab.probes import Facts
from lab.record import (
    CellHistory,
    CellResult,
    CellVerdict,
    Entry,
    Host,
    LaneRecord,
    LaneStep,
    RunInfo,
    RunResult,
    Status,
)
from lab.report import predictions, protection
from lab.report.predictions import PredictionScore
from lab.report.protection import Weakness
from lab.report.site.page import Copy


class HostNumbers:
    """Puts a number in place of each host's name, the same one in all runs of a site.

    A site is public, and what a host is called may not be. A name is in the record of the host. A run over
    several hosts also has names in the labels of lanes, in their steps, and in what it says of hosts.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def of(self, name: str) -> str:
        """What a host of this name is called instead."""
        return self._numbers.setdefault(name, f"host {len(self._numbers) + 1}") if name else ""

    def run(self, result: RunResult) -> RunResult:
        """A run without the names of its hosts."""
        names = {name for info in (result.run, *result.run.merged) for name in info.host_names}
        longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        pattern = re.compile(rf"(?<![\w.-])(?:{longest_first})(?![\w-])")

        def numbered(value: Any) -> Any:
            match value:
                case str():
                    return pattern.sub(lambda match: self.of(match[0]), value) if names else value
                case list():
                    return [numbered(entry) for entry in value]
                case Host():
                    return value.model_copy(update={"name": self.of(value.name)})
                case RunInfo():
                    fields = ["host", "lanes", "steps", "host_names", "merged"]
                case LaneRecord():
                    fields = ["host", "label"]
                case LaneStep():
                    fields = ["lane", "text"]
                case CellResult():
                    # Other reasons are about boxlite.
                    fields = ["history", *(["verdict"] if value.status.could_not_run else [])]
                case CellHistory():
                    fields = ["lane", "trials_lane", "retried"]
                case CellVerdict():
                    fields = ["reason"]
                case _:
                    return value
            return value.model_copy(update={field: numbered(getattr(value, field)) for field in fields})

        return result.model_copy(update={"run": numbered(result.run), "cells": numbered(result.cells)})


HISTORY_FILE: Final = "history.json"
FORMAT: Final = "boxlite-lab site"
# Bytes. Measured: 0.6 MB for 1,500 cells.
MOST_HISTORY: Final = 8 << 20


class HistoryCell(Entry):
    """What a cell did in a run."""

    guest: str
    variant: str
    build: str
    status: Status
    cause: str | None = None
    run: str = Field(description="The run's id.")

    @property
    def identity(self) -> Identity:
        return self.guest, self.variant, self.build

    @property
    def outcome(self) -> tuple[Status, str | None]:
        return self.status, self.cause


class History(Entry):
    """`history.json`: what the cells did in the published runs, so that the next `lab publish` shows changes.

    The file also marks a folder as a site of the lab's, and names what the lab put there.
    """

    model_config = ConfigDict(extra="forbid", validate_by_alias=True, validate_by_name=True)

    format: Literal["boxlite-lab site"] = FORMAT
    version: Literal[1] = Field(default=1, alias="schema")
    lab: str = Field(default="", description="The release of the lab that wrote it.")
    entries: list[str] = Field(
        default_factory=list, description="The files and folders at the top of the site that the lab made."
    )
    shown: list[HistoryCell] = Field(default_factory=list, description="The results that the site shows.")
    before: list[HistoryCell] = Field(
        default_factory=list, description="The results that it showed before, where they were others."
    )

    def published(self, cells: Mapping[Identity, NewestResult]) -> "History":
        results = [
            HistoryCell(
                guest=published.cell.guest,
                variant=published.cell.variant,
                build=published.cell.build,
                status=published.cell.status,
                cause=published.cell.cause,
                run=published.source.id,
            )
            for published in cells.values()
        ]
        new, old = ({cell.identity: cell.outcome for cell in side} for side in (results, self.shown))
        return History(shown=results, before=self.before if new == old else self.shown)


def read_history(folder: Path) -> History:
    """Read the history in a site's folder; an empty one if the folder has none. Raises UsageError."""
    path = folder / HISTORY_FILE
    try:
        return read_model(History, path, MOST_HISTORY, "site's history")
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}", hint="publish into another folder"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path}: {format_error(error)}; expected the history that `lab publish` writes",
            hint="restore the file, or publish into another folder; nothing was changed",
        ) from error


MIB = 1 << 20
LARGEST = 1 * MIB  # bytes of one file
TOTAL = 100 * MIB  # bytes of all files of a site


@dataclass(frozen=True)
class CellEvidence:
    """The evidence of one cell that the site has, and why it lacks the rest: a reason by a file's name."""

    files: list[Copy] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def plan_evidence(
    cells: Iterable[NewestResult], largest: int = LARGEST, total: int = TOTAL
) -> Mapping[Identity, CellEvidence]:
    """Decide which files are copied; the first cells are served first. Sizes are in bytes."""
    planned: dict[Identity, CellEvidence] = {}
    taken: set[str] = set()
    room = total
    for published in cells:
        planned[published.identity] = evidence = CellEvidence()
        folder, run = published.cell.folder, published.source.folder
        for file in published.cell.evidence:
            path = PurePosixPath(file)
            name = str(path.relative_to(folder)) if path.is_relative_to(folder) else file
            reason = explain_unreadable(run, file)
            size = 0 if reason else (run / file).stat().st_size
            if size > largest:
                reason = f"larger than {largest / MIB:g} MiB ({size / MIB:.1f} MiB)"
            elif size > room:
                reason = f"the site has {total / MIB:g} MiB of evidence already"
            if reason:
                evidence.left_out[name] = reason
                continue
            room -= size
            target = _target(published, name)
            while target in taken:  # `log` and `log.txt` of one cell
                target += ".txt"
            taken.add(target)
            evidence.files.append(Copy(target, run / file, size, name))
    return planned


def _target(published: NewestResult, name: str) -> str:
    """Return where the copy goes. It ends in `.txt`, so that a browser shows it and executes nothing in it."""
    cell = [make_slug(part) for part in published.identity]
    *folders, last = [make_slug(part) for part in PurePosixPath(name).parts]
    # A folder's name never is a copy's: `notes` and `notes.txt/b` may be evidence of one cell.
    inside = [folder.replace(".txt", "-txt") for folder in folders]
    return "/".join(["evidence", *cell, *inside, last if last.endswith(".txt") else f"{last}.txt"])


# What the lab did not read, and a security module that the kernel does not have, or does not use.
UNKNOWN, NOT_IN_USE = "not known: the lab did not read it", "not in use"


def list_components(facts: Facts) -> dict[str, str]:
    """Return what a guest was like: the version of each component, or what else tells it from others."""
    bubblewrap, apparmor, selinux = facts.bubblewrap, facts.apparmor, facts.selinux
    about = {
        "system": facts.os.pretty_name or facts.os.id or UNKNOWN,
        "architecture": facts.arch,
        "kernel": facts.kernel,
        "bubblewrap": "not installed",
        "AppArmor": NOT_IN_USE,
        "SELinux": f"{selinux.mode} ({selinux.policy or 'unnamed'} policy)" if selinux else NOT_IN_USE,
        "security modules": ", ".join(facts.lsm) if facts.lsm is not None else UNKNOWN,
        "Landlock": NOT_IN_USE if facts.landlock is None else f"version {facts.landlock}",
        "/dev/kvm": facts.kvm.mode if facts.kvm else "none",
        "Python, glibc": f"{facts.python}, {facts.glibc}",
    }
    if facts.kvm and facts.kvm.lacking:
        about["KVM lacks"] = " ".join(facts.kvm.lacking)
    if facts.unset_options:
        about["kernel built without"] = " ".join(facts.unset_options)
    if bubblewrap:
        setuid = ", set-user-ID" if bubblewrap.setuid else ""
        about["bubblewrap"] = f"{bubblewrap.version or 'version unknown'} ({bubblewrap.path}{setuid})"
    if apparmor:
        mediates = "mediates" if apparmor.userns_mediation else "does not mediate"
        about["AppArmor"] = f"{apparmor.version or 'version unknown'} ({mediates} user namespaces)"
    return about


@dataclass(frozen=True)
class Site(Results):
    """Everything that the pages show."""

    evidence: Mapping[Identity, CellEvidence]
    history: History

    @cached_property
    def distributions(self) -> list[TestedDistribution]:
        return distributions.load_distributions(self)

    @cached_property
    def weaknesses(self) -> list[Weakness]:
        return protection.find_weaknesses([published.cell for published in self.cells.values()])

    @cached_property
    def predictions(self) -> PredictionScore:
        """How often the probes alone were right about the cells that the site shows."""
        return predictions.score_predictions(
            (published.cell, published.source.build(published.cell.build).suite)
            for published in self.cells.values()
        )

    def weaknesses_of(self, cell: CellResult) -> list[Weakness]:
        return [
            weakness for weakness in self.weaknesses if any(weak.name == cell.name for weak in weakness.cells)
        ]


def load_site(folders: Sequence[Path], history: History, *, host_names: bool = False) -> Site:
    """Read the runs to publish; `history` is that of the site that this one replaces.

    Hosts have numbers instead of their names, unless `host_names` is set. Raises UsageError for a run that
    cannot be read or has no cells.
    """
    runs = [RunResult.read(folder) for folder in folders]
    if not host_names:
        runs = list(map(HostNumbers().run, runs))
    sources = [Source(run, folder) for run, folder in zip(runs, folders, strict=True)]
    newest = results.choose_newest_results(sources)
    return Site(
        **vars(newest),
        evidence=plan_evidence(newest.cells.values()),
        history=history.published(newest.cells),
    )
