"""A boxlite that is older than the first release on the package index."""

from collections.abc import Iterator, Sequence

from packaging.version import InvalidVersion, Version

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import Boxlite, Report

# The oldest release there. Releases can be added at the other end only.
FIRST = Version("0.9.0")


class OldRelease(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        for each in report.of(Boxlite):
            try:
                old = Version(each.version or "") < FIRST
            except InvalidVersion:
                continue
            if old:
                yield Remark(
                    f"boxlite {each.version} is older than {FIRST}, the first release on the package index: "
                    "the lab cannot run it, and a newer one may behave differently.",
                    (each.quote,),
                )
