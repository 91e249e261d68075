"""The parts of a site: functions that make its files. To add pages, add their function here.

The pages of the navigation stand there in the order in which the parts make them.
"""

from collections.abc import Callable, Iterable

from lab.site import evidence_files
from lab.site.maintainers import cells, findings, matrix, runs
from lab.site.model import Site
from lab.site.page import Output
from lab.site.users import changes, front, host_pages, support

Part = Callable[[Site], Iterable[Output]]


def parts() -> list[Part]:
    """Return all parts, those for users first."""
    for_users: list[Part] = [front.outputs, host_pages.outputs, changes.outputs, support.outputs]
    for_maintainers: list[Part] = [matrix.outputs, findings.outputs, runs.outputs, cells.outputs]
    return [*for_users, *for_maintainers, evidence_files.outputs]
