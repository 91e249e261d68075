"""The error of a namespace that was not made, and which causes it rules out."""

from collections.abc import Iterator, Sequence

from lab.repro.judging._base import Finding, Remark, Remarks
from lab.repro.report import Report, Speaker, Words

# What bubblewrap prints if the kernel refuses its namespaces.
REFUSED = ("Creating new namespace failed", "No permissions to creat")
MEANING = {
    "EAGAIN": (
        "EAGAIN: a limit on the user's processes (RLIMIT_NPROC) is reached. AppArmor and SELinux (EACCES), "
        "kernel.unprivileged_userns_clone (EPERM) and user.max_user_namespaces (ENOSPC) give other errors."
    ),
    "ENOSPC": (
        "ENOSPC: a limit user.max_*_namespaces is 0 or reached. AppArmor and SELinux (EACCES) and the sysctl "
        "kernel.unprivileged_userns_clone (EPERM) give other errors."
    ),
    "EACCES": (
        "EACCES: a security module (AppArmor or SELinux) denied the namespace. Its line in the kernel's audit "
        "log says which profile or domain; this message does not. The sysctl kernel.unprivileged_userns_clone "
        "(EPERM) and user.max_user_namespaces (ENOSPC) give other errors."
    ),
    "EPERM": (
        "EPERM has several causes: kernel.unprivileged_userns_clone=0, a container's seccomp filter, or an "
        "AppArmor policy that denies the capabilities in the namespace. bubblewrap prints the same message and "
        "the same guess for each of them: it proves none."
    ),
}


class Errno(Remarks):
    def of(self, report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
        for each in report.of(Words):
            if each.speaker is not Speaker.BUBBLEWRAP or not each.text.startswith(REFUSED):
                continue
            error = each.errno or ("EPERM" if each.text.startswith(REFUSED[1]) else None)
            if error in MEANING:
                yield Remark(MEANING[error], (each.quote,))
