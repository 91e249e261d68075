"""The limit on user namespaces, by bubblewrap's words for ENOSPC."""

from lab.repro.judging._base import Shown
from lab.repro.judging.hints._message import Message
from lab.repro.report import Mood, Report, Setting

LIMIT = "user.max_user_namespaces"


class UsernsLimit(Message):
    pattern = r"namespaces exceeded \(ENOSPC\)|unshare failed: No space left on device"
    why = (
        "ENOSPC: a limit on namespaces (user.max_user_namespaces, or another user.max_*_namespaces) is 0 or "
        "reached; the message does not say which"
    )

    def shown(self, report: Report) -> Shown | None:
        limits = [each for each in report.of(Setting) if each.mood is Mood.HOLDS and each.value == "0"]
        other = any(each.name.startswith("user.max_") and each.name != LIMIT for each in limits)
        return None if other else super().shown(report)
