"""Score how `lab repro --text-only` reads a folder of labelled reports.

    python -m benchmarks.reports FOLDER [--folds 5] [--tsv FILE]

FOLDER holds NAME.md, a report as its user wrote it, and NAME.toml, what an expert says of it. For the system
and for the cause this prints how many were right, missed and wrong, and each report that was not right.

The cause of a label is determinate unless the label says `open` or `unknown`. Of a determinate one, right means
that a cause of the label is named and no other; wrong, that another one is named; missed, that none is. Of the
others, wrong means that a cause is named as proved, or one that the label excludes.

The judging has one learned number: the odds from which a cause is called likely. With --folds the folder is
split by the names' digests; that number is learned on all but one fold and scored on the one left out, which
says more about the next report than the score on the whole folder.
"""

import argparse
import collections
import hashlib
import statistics
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.repro import judging, reading
from lab.repro import report as reports
from lab.repro.report import Report

RIGHT, MISSED, WRONG = "right", "missed", "wrong"
# Odds that are tried as the least ones of a likely cause, as probabilities, and the share that must be right.
LEAST_ODDS = [number / 100 for number in range(30, 96, 5)]
CALIBRATED = 0.9


@dataclass(frozen=True)
class Labelled:
    """A report that was read, with its label and the seconds that reading it took."""

    name: str
    label: Mapping[str, Any]
    report: Report
    seconds: float


@dataclass(frozen=True)
class Score:
    """One report's score: its system, its cause, and the causes that were named."""

    name: str
    system: str
    cause: str
    label: Mapping[str, Any]
    named: Sequence[tuple[str, str]]


def load(folder: Path) -> list[Labelled]:
    """Read every labelled report of a folder."""
    labelled = []
    for path in sorted(folder.glob("*.toml")):
        began = time.perf_counter()
        report = reading.read_report(path.with_suffix(".md").read_bytes())
        judging.judge_report(report)
        seconds = time.perf_counter() - began
        labelled.append(Labelled(path.stem, tomllib.loads(path.read_text()), report, seconds))
    return labelled


def score(labelled: Labelled, least: float | None = None) -> Score:
    """Score one report, with the given least odds of a likely cause instead of the ones that judging has."""
    judged = (
        judging.judge_report(labelled.report) if least is None else judging.judge_report(labelled.report, least)
    )
    document = reports.make_report_document(labelled.report, judged)
    named = [
        (finding["cause"], str(finding["confidence"]))
        for finding in document["findings"]
        if finding["confidence"] in ("proved", "likely")
    ]
    label = labelled.label
    return Score(labelled.name, of_system(label, document), of_cause(label, named), label, named)


def of_system(label: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Whether the system was read that the label has: the host's, or the container's if it is about that."""
    systems = [each["says"] for each in document["statements"] if each["kind"] == "system"]
    hosts = [system for system in systems if system["place"] != "container"]
    pick = next((system for system in hosts if not system["inferred"]), hosts[0] if hosts else None)
    ids = [name for name in label["system_id"].split("|") if name]
    versions = [version for version in label["system_version"].split("|") if version]
    if label.get("place") == "container":
        inside = (s for s in systems if s["place"] == "container" and (not ids or s["id"] in ids))
        pick = next(inside, pick)
    if not ids:
        return RIGHT if pick is None else WRONG
    if pick is None:
        return WRONG if len(hosts) < len(systems) else MISSED
    if pick["id"] not in ids:
        return WRONG
    if not versions:
        return RIGHT
    version = pick["version"]
    if version is None:
        return RIGHT if label["system_by"] == "inferred" else MISSED
    near = (version == v or version.startswith(f"{v}.") or v.startswith(f"{version}.") for v in versions)
    return RIGHT if any(near) else WRONG


def of_cause(label: Mapping[str, Any], named: Sequence[tuple[str, str]]) -> str:
    """Whether the causes that were named are those of the label."""
    right = {label["cause"], *label["also_right"]}
    if is_open(label):
        bad = any(
            (sure == "proved" and cause not in right) or cause in label["must_not"] for cause, sure in named
        )
        return WRONG if bad else RIGHT
    if any(cause not in right for cause, _ in named):
        return WRONG
    return RIGHT if named else MISSED


def is_open(label: Mapping[str, Any]) -> bool:
    return label["confidence"] == "open" or label["cause"] in ("unknown", "open")


def learn(reports: Sequence[Labelled]) -> float:
    """Return the least odds with which most causes are right while nine in ten of those named are."""
    best, most = LEAST_ODDS[-1], -1
    for least in reversed(LEAST_ODDS):
        scores = [score(each, least) for each in reports]
        right = sum(one.cause == RIGHT and not is_open(one.label) for one in scores)
        wrong = sum(one.cause == WRONG for one in scores)
        if right and right / (right + wrong) >= CALIBRATED and right > most:
            best, most = least, right
    return best


def folds(reports: Sequence[Labelled], count: int) -> list[list[Labelled]]:
    """Split reports into folds of nearly one size, by the digests of their names."""
    mixed = sorted(reports, key=lambda each: hashlib.sha256(each.name.encode()).digest())
    return [list(mixed[index::count]) for index in range(count)]


def cross_validated(reports: Sequence[Labelled], count: int) -> list[Score]:
    """Score each fold with what is learned on the others."""
    parts = folds(reports, count)
    scores = []
    for part in parts:
        least = learn([each for other in parts if other is not part for each in other])
        scores += [score(each, least) for each in part]
    return scores


def table(scores: Iterable[Score]) -> dict[str, collections.Counter[str]]:
    """Count the scores: of systems, of causes, and of each label."""
    sums: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in scores:
        sums["system"][one.system] += 1
        sums["cause, open or unknown" if is_open(one.label) else "cause, determinate"][one.cause] += 1
        for cause, sure in one.named:
            right = {one.label["cause"], *one.label["also_right"]}
            sums[f"named {sure}"][RIGHT if cause in right else WRONG] += 1
    for one in scores:
        sums[f"  {one.label['cause']}"][one.cause] += 1
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=0, help="cross-validate with so many folds")
    parser.add_argument("--tsv", type=Path, help="write one line for each report into this file")
    options = parser.parse_args()
    reports = load(options.folder)
    scores = [score(each) for each in reports]
    for one in scores:
        if (one.system, one.cause) != (RIGHT, RIGHT):
            label = f"{one.label['cause']} ({one.label['confidence']})"
            named = "; ".join(f"{cause} ({sure})" for cause, sure in one.named) or "none"
            print(f"{one.name:26} system {one.system:7} label {label}; named {named}: {one.cause}")
    for name, counter in table(scores).items():
        print(f"{name}: " + ", ".join(f"{count} {word}" for word, count in counter.most_common()))
    times = [each.seconds for each in reports]
    print(f"seconds for one report: median {statistics.median(times):.3f}, most {max(times):.3f}")
    if options.folds:
        print(f"cross-validated with {options.folds} folds:")
        for name, counter in table(cross_validated(reports, options.folds)).items():
            if not name.startswith(" "):
                print(f"  {name}: " + ", ".join(f"{count} {word}" for word, count in counter.most_common()))
    if options.tsv:
        lines = ("\t".join((one.name, one.system, one.cause, str(list(one.named)))) for one in scores)
        options.tsv.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
