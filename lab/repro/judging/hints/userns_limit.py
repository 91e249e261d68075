"""The limit on user namespaces, by bubblewrap's words for ENOSPC."""

from lab.repro.judging.hints._message import Message


class UsernsLimit(Message):
    pattern = r"namespaces exceeded \(ENOSPC\)|unshare failed: No space left on device"
    why = (
        "ENOSPC: a limit on namespaces (user.max_user_namespaces, or another user.max_*_namespaces) is 0 or "
        "reached; the message does not say which"
    )
