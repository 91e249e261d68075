"""What a host's probe and published results say about the host: will boxlite work, and if not, why."""

from lab.check.answer import Advice, Answer, Outcome, Refused, judge
from lab.check.published import Cell, Published

__all__ = ["Advice", "Answer", "Cell", "Outcome", "Published", "Refused", "judge"]
