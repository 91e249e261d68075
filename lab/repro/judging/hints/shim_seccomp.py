"""boxlite's own seccomp filter, by the exit status of its shim."""

from lab.repro.judging._base import Hint, Shown
from lab.repro.report import Ended, Report

SIGSYS = "SIGSYS"


class ShimSeccomp(Hint):
    def shown(self, report: Report) -> Shown | None:
        quotes = tuple(each.quote for each in report.of(Ended) if each.signal == SIGSYS)
        why = (
            "SIGSYS: a seccomp filter ended boxlite's shim, and the filter that boxlite puts it under does that"
        )
        return (why, quotes) if quotes else None
