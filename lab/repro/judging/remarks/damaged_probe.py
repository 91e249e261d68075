"""A damaged output of the probe script."""

from collections.abc import Iterator, Sequence

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import Probed, Report


class DamagedProbe(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        for each in report.of(Probed):
            if each.host is None:
                yield Remark(
                    f"Of the probe's output nothing is used: {each.damaged}. Ask for it again.", (each.quote,)
                )
