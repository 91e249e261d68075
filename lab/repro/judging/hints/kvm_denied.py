"""A /dev/kvm that the user may not open, by boxlite's words and by those of programs that open it."""

from lab.repro.judging.hints._message import Message


class KvmDenied(Message):
    pattern = (
        r"KVM is available but access is denied|/dev/kvm exists but access denied|/dev/kvm'?: Permission denied"
    )
    why = "the message says that the user may not open /dev/kvm"
