"""The parts of a site: functions that make its files. To add pages, add their function here.

The pages of the navigation stand there in the order in which the parts make them.
"""

from collections.abc import Callable, Iterable

from lab.site import cells, evidence_files, findings, front, matrix, runs
from lab.site.model import Site
from lab.site.page import Output

Part = Callable[[Site], Iterable[Output]]


def parts() -> list[Part]:
    """Return all parts, those for users first."""
    for_maintainers: list[Part] = [matrix.outputs, findings.outputs, runs.outputs, cells.outputs]
    return [front.outputs, *for_maintainers, evidence_files.outputs]
