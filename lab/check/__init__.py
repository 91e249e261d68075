"""What a host's probe and published results say about the host: will boxlite work, and if not, why."""

from lab.check.answer import Answer, Outcome, judge
from lab.check.published import Cell, Published

__all__ = ["Answer", "Cell", "Outcome", "Published", "judge"]
