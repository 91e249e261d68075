"""A kernel that the named release was not shipped with."""

import re
from collections.abc import Iterator, Sequence

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.reading import distributions
from lab.repro.report import Kernel, Place, Report, System


class KernelOfDistribution(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        for system in report.of(System):
            known = distributions.table().get(system.id)
            first = known.kernels.get(system.version or "") if known else None
            if known is None or first is None or system.place is not Place.HOST:
                continue
            for kernel in report.of(Kernel):
                series = re.match(r"\d+\.\d+", kernel.release)
                if series and series[0] != first and "WSL" not in kernel.release:
                    yield Remark(
                        f"{known.id} {system.version} was released with kernel {first}, and this kernel is "
                        f"{series[0]}: an update for that release, or the kernel of another. A guest with "
                        f"kernel {first} may behave differently.",
                        (system.quote, kernel.quote),
                    )
