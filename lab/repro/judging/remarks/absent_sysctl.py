"""Words that name a sysctl which the host's kernel lacks."""

from collections.abc import Iterator, Sequence

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.reading import distributions
from lab.repro.report import Place, Report, System, Words

SYSCTL = "unprivileged_userns_clone"
# The families whose kernels have it. Arch's has it too.
HAVE_IT = ("debian", "ubuntu", "arch")


class AbsentSysctl(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        words = [
            each
            for each in report.of(Words)
            if SYSCTL in each.text or "non-privileged user namespaces" in each.text
        ]
        hosts = [each for each in report.of(System) if each.place is Place.HOST]
        others = [each for each in hosts if (distributions.family(each.id) or each.like) not in HAVE_IT]
        if words and others:
            yield Remark(
                "bubblewrap guesses that the kernel does not allow user namespaces to ordinary users (sysctl "
                f"kernel.{SYSCTL}), but the kernels of {others[0].name} have no such sysctl. bubblewrap prints "
                "this guess for several causes; it proves none.",
                (words[0].quote, others[0].quote),
            )
