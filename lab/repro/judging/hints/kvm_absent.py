"""A host without /dev/kvm, by boxlite's words and by those of programs that look for the device."""

from lab.repro.judging.hints._message import Message


class KvmAbsent(Message):
    pattern = r"KVM is not available|/dev/kvm does not exist|/dev/kvm'?: No such file or directory"
    why = "the message says that the host has no /dev/kvm"
