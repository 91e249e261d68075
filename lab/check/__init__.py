"""What a host's probe and published results say about the host: will boxlite work, and if not, why."""

from lab.check.answer import HostAnswer, HostOutlook, judge_host
from lab.check.published import Published, PublishedCell

__all__ = ["HostAnswer", "HostOutlook", "Published", "PublishedCell", "judge_host"]
