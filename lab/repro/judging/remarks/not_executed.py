"""A bubblewrap that could not be executed, and signs of one that ran."""

from collections.abc import Iterator, Sequence

from lab.repro.judging._base import BUBBLEWRAP, Finding, Remark, Remarks
from lab.repro.report import Report, Words

TEXT = "failed to run bwrap: Permission denied"


class NotExecuted(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        words = [each for each in report.of(Words) if TEXT in each.text]
        needs_it = [
            each for each in findings if each.name.startswith("apparmor-userns") and each.program == BUBBLEWRAP
        ]
        if words and needs_it:
            yield Remark(
                "The report shows two failures: by boxlite's words the host refuses to execute bubblewrap; by "
                "the audit line bubblewrap ran and was denied. One start of bubblewrap cannot show both.",
                (words[0].quote, *needs_it[0].quotes[:1]),
            )
