"""A /proc that is partly hidden, by bubblewrap's words."""

from lab.repro.judging.hints._message import Message


class MaskedProc(Message):
    pattern = r"Can't mount proc on (?:/newroot)?/proc: Operation not permitted"
    why = (
        "bubblewrap makes its namespaces and cannot mount /proc (EPERM), as where mounts hide parts of /proc, "
        "for example in a container that is not privileged"
    )
