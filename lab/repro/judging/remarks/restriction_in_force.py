"""A reporter who says that a setting does not help, and an audit line that shows that it was not in force."""

from collections.abc import Iterator, Sequence

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import AuditLine, Report, Setting

SYSCTL = "kernel.apparmor_restrict_unprivileged_userns"
PROFILE = "unprivileged_userns"


class RestrictionInForce(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        in_vain = [
            each
            for each in report.of(Setting)
            if each.name == SYSCTL and each.value == "0" and each.helped is False
        ]
        lines = [
            each
            for each in report.of(AuditLine)
            if PROFILE in (each.fields.get("profile"), each.fields.get("target"))
        ]
        if in_vain and lines:
            yield Remark(
                f"The reporter says that {SYSCTL}=0 does not help, but Ubuntu's kernel moves a program into "
                f"the profile {PROFILE} only while that sysctl is 1. Either the audit line is older than the "
                "change, or the change did not take effect, or the program was started inside a namespace that "
                "was made before the change, where it stays in the profile, or the rest of the failure has "
                "another cause. Ask for the value and the audit lines at the time of one failure.",
                (in_vain[0].quote, lines[0].quote),
            )
