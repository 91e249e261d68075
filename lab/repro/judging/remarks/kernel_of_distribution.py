"""A kernel that the named release was not shipped with, or that is another distribution's."""

import re
from collections.abc import Iterator, Sequence

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.reading import distributions, inferring
from lab.repro.report import Kernel, Place, Report, System


class KernelOfDistribution(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        hosts = [each for each in report.of(System) if each.place is Place.HOST and not each.inferred]
        for kernel in report.of(Kernel):
            for text, system in _told(kernel, hosts):
                yield Remark(text, (system.quote, kernel.quote))


def _told(kernel: Kernel, hosts: Sequence[System]) -> Iterator[tuple[str, System]]:
    told = inferring.of_kernel(kernel.release)
    for system in hosts:
        known = distributions.table().get(system.id)
        if told and known and told[0] not in (known.id, known.family):
            # A container shows its host's kernel.
            text = (
                f"{kernel.release} is a kernel of {told[1]}, not of {system.name}: {system.name} runs in a "
                "container, or the kernel is another host's."
            )
            yield text, system
            return
        first = known.kernels.get(system.version or "") if known else None
        series = re.match(r"\d+\.\d+", kernel.release)
        if first and series and series[0] != first:
            text = (
                f"{system.name} was released with kernel {first}, and this kernel is {series[0]}: an update "
                f"for that release, or another's kernel. A guest with kernel {first} may behave differently."
            )
            yield text, system
            return
