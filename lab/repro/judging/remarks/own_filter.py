"""A program that its own seccomp filter ended."""

from collections.abc import Iterator, Sequence

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import Ended, LogLine, Report

SIGNAL = "SIGSYS"
# boxlite's log once bubblewrap has started the shim.
SPAWNED = "boxlite-shim subprocess spawned"


class OwnFilter(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        ended = [each for each in report.of(Ended) if each.signal == SIGNAL]
        if not ended:
            return
        started = [each for each in report.of(LogLine) if SPAWNED in each.text]
        worked = " By boxlite's log bubblewrap worked: it started the shim." if started else ""
        yield Remark(
            f"{ended[0].status} = 128 + 31, {SIGNAL}: a seccomp filter that the program set up itself ended it "
            "for a system call. A host that refuses user namespaces, and a container's filter, return an error "
            f"instead.{worked}",
            (ended[0].quote, *(each.quote for each in started[:1])),
        )
