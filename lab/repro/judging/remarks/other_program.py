"""A cause that blocks another program than bubblewrap."""

from collections.abc import Iterator, Sequence

from lab.repro.judging._base import BUBBLEWRAP, Finding, Remark, Remarks
from lab.repro.report import Report


class OtherProgram(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        for each in findings:
            if each.program != BUBBLEWRAP:
                yield Remark(
                    f"The audit line is about {each.program}, not about bubblewrap. A profile for bubblewrap "
                    f"(bwrap-userns-restrict, bwrap-profile) does not cure {each.program}.",
                    each.quotes,
                )
