"""Statements that cannot both be true of one host."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import Mood, Place, Report, Setting, System


class TwoValues(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        holding = [each for each in report.of(Setting) if each.mood is Mood.HOLDS and each.place is Place.HOST]
        for name in dict.fromkeys(each.name for each in holding):
            for one, other in pairwise([each for each in holding if each.name == name]):
                yield Remark(
                    f"The report gives {name} two values, {one.value} and {other.value}.",
                    (one.quote, other.quote),
                )
        hosts = [each for each in report.of(System) if each.place is Place.HOST]
        for first, second in pairwise(hosts):
            yield Remark(
                f"The report names two systems, {first.name} and {second.name}, and does not say which is the "
                "host.",
                (first.quote, second.quote),
            )
