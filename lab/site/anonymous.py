"""Runs without the names of their hosts: a site is public, and what a host is called may not be."""

from collections.abc import Iterable

from lab.record import Host, RunInfo, RunResult


def without_names(runs: Iterable[RunResult]) -> list[RunResult]:
    """The runs with a number in place of each host's name, the same one in all of them."""
    numbers: dict[str, str] = {}

    def host(of: Host | None) -> Host | None:
        if of is None or not of.name:
            return of
        number = numbers.setdefault(of.name, f"host {len(numbers) + 1}")
        return of.model_copy(update={"name": number})

    def info(of: RunInfo) -> RunInfo:
        lanes = [lane.model_copy(update={"host": host(lane.host)}) for lane in of.lanes]
        return of.model_copy(
            update={"host": host(of.host), "lanes": lanes, "merged": [info(each) for each in of.merged]}
        )

    return [run.model_copy(update={"run": info(run.run)}) for run in runs]
