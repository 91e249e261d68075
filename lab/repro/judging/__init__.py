"""What the text of a report alone shows, before anything boots.

The rules of the causes judge it as they judge a cell: what the report says is made into the evidence of a cell,
as far as it goes. Hints are for what a text tells and the evidence of a cell does not hold. Only an audit line
that names the program and the output of the probe script prove a cause; all else makes it likely at most.
"""

from lab.repro.judging import findings, remarks
from lab.repro.judging._base import Finding, Judged, Remark
from lab.repro.report import Report

__all__ = ["Finding", "Judged", "Remark", "judge"]


def judge(report: Report) -> Judged:
    """Judge what a report's text shows."""
    found = findings.found(report)
    return Judged(found, remarks.made(report, found))
