"""Contradictions in a report, and warnings against wrong conclusions."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from packaging.version import InvalidVersion, Version

from lab.repro import systems
from lab.repro.report import (
    BUBBLEWRAP,
    AuditLine,
    Boxlite,
    Ended,
    Finding,
    Kernel,
    LogLine,
    Mood,
    Place,
    Probed,
    Quote,
    Remark,
    Report,
    Setting,
    Speaker,
    System,
    Words,
)

# More than any report deserves.
MOST = 20


def made(report: Report, findings: Sequence[Finding]) -> tuple[Remark, ...]:
    """Return the remarks on a report, in the order of their first lines."""
    quotes: dict[str, tuple[Quote, ...]] = {}
    for kind in KINDS:
        for remark in kind(report, findings):
            # The same remark on several lines is one.
            quotes[remark.text] = tuple(dict.fromkeys([*quotes.get(remark.text, ()), *remark.quotes]))
    remarks = [Remark(text, lines) for text, lines in quotes.items()]
    return tuple(sorted(remarks, key=lambda each: each.quotes[0].number if each.quotes else 0)[:MOST])


GUESSED = "unprivileged_userns_clone"
# The families whose kernels have it. Arch's has it too.
HAVE_IT = ("debian", "ubuntu", "arch")


def _absent_sysctl(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """Words that name a sysctl which the host's kernel lacks."""
    words = [
        each
        for each in report.of(Words)
        if GUESSED in each.text or "non-privileged user namespaces" in each.text
    ]
    hosts = [each for each in report.of(System) if each.place is Place.HOST]
    others = [each for each in hosts if (systems.family(each.id) or each.like) not in HAVE_IT]
    if words and others:
        yield Remark(
            "bubblewrap guesses that the kernel does not allow user namespaces to ordinary users (sysctl "
            f"kernel.{GUESSED}), but the kernels of {others[0].name} have no such sysctl. bubblewrap prints "
            "this guess for several causes; it proves none.",
            (words[0].quote, others[0].quote),
        )


def _damaged_probe(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """A damaged output of the probe script."""
    for each in report.of(Probed):
        if each.host is None:
            yield Remark(
                f"Of the probe's output nothing is used: {each.damaged}. Ask for it again.", (each.quote,)
            )


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


def _errno(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """The error of a namespace that was not made, and which causes it rules out."""
    for each in report.of(Words):
        if each.speaker is not Speaker.BUBBLEWRAP or not each.text.startswith(REFUSED):
            continue
        error = each.errno or ("EPERM" if each.text.startswith(REFUSED[1]) else None)
        if error in MEANING:
            yield Remark(MEANING[error], (each.quote,))


def _kernel_of_distribution(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """A kernel that the named release was not shipped with, or that is another distribution's."""
    hosts = [each for each in report.of(System) if each.place is Place.HOST and not each.inferred]
    for kernel in report.of(Kernel):
        for text, system in _told(kernel, hosts):
            yield Remark(text, (system.quote, kernel.quote))


# WSL2's kernel is one of Windows.
WSL = "windows"


def _told(kernel: Kernel, hosts: Sequence[System]) -> Iterator[tuple[str, System]]:
    told = systems.of_kernel(kernel.release)
    for system in hosts:
        known = systems.table().get(system.id)
        if told and known and told[0] == WSL and system.id != WSL:
            text = (
                f"{kernel.release} is the kernel of WSL2, in which {system.name} runs. The lab has no WSL2: a "
                f"guest of {system.name} has another kernel and another policy."
            )
            yield text, system
            return
        if told and known and told[0] not in (known.id, known.family):
            # A container shows its host's kernel.
            text = (
                f"{kernel.release} is a kernel of {told[1]}, not of {system.name}: {system.name} runs in a "
                "container, or the kernel is another host's."
            )
            yield text, system
            return
        first = known.kernels.get(system.version or "") if known else None
        series = re.match(r"\d+\.\d+", kernel.release)
        if first and series and series[0] != first:
            text = (
                f"{system.name} was released with kernel {first}, and this kernel is {series[0]}: an update "
                f"for that release, or another's kernel. A guest with kernel {first} may behave differently."
            )
            yield text, system
            return


NOT_RUN = "failed to run bwrap: Permission denied"


def _not_executed(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """A bubblewrap that could not be executed, and signs of one that ran."""
    words = [each for each in report.of(Words) if NOT_RUN in each.text]
    needs_it = [
        each for each in findings if each.name.startswith("apparmor-userns") and each.program == BUBBLEWRAP
    ]
    if words and needs_it:
        yield Remark(
            "The report shows two failures: by boxlite's words the host refuses to execute bubblewrap; by "
            "the audit line bubblewrap ran and was denied. One start of bubblewrap cannot show both.",
            (words[0].quote, *needs_it[0].quotes[:1]),
        )


# The oldest release there. Releases can be added at the other end only.
FIRST = Version("0.9.0")


def _old_release(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """A boxlite that is older than the first release on the package index."""
    for each in report.of(Boxlite):
        try:
            old = Version(each.version or "") < FIRST
        except InvalidVersion:
            continue
        if old:
            yield Remark(
                f"boxlite {each.version} is older than {FIRST}, the first release on the package index: "
                "the lab cannot run it, and a newer one may behave differently.",
                (each.quote,),
            )


def _other_program(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """A cause that blocks another program than bubblewrap."""
    for each in findings:
        if each.program != BUBBLEWRAP:
            yield Remark(
                f"The audit line is about {each.program}, not about bubblewrap. A profile for bubblewrap "
                f"(bwrap-userns-restrict, bwrap-profile) does not cure {each.program}.",
                each.quotes,
            )


SIGNAL = "SIGSYS"
# boxlite's log once bubblewrap has started the shim.
SPAWNED = "boxlite-shim subprocess spawned"


def _own_filter(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """A program that its own seccomp filter ended."""
    ended = [each for each in report.of(Ended) if each.signal == SIGNAL]
    if not ended:
        return
    started = [each for each in report.of(LogLine) if SPAWNED in each.text]
    worked = " By boxlite's log bubblewrap worked: it started the shim." if started else ""
    yield Remark(
        f"{ended[0].status} = 128 + 31, {SIGNAL}: a seccomp filter that the program set up itself ended it "
        "for a system call. A host that refuses user namespaces, and a container's filter, return an error "
        f"instead.{worked}",
        (ended[0].quote, *(each.quote for each in started[:1])),
    )


RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns"
PROFILE = "unprivileged_userns"


def _restriction_in_force(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """A reporter says that a setting does not help, and an audit line shows that it was not in force."""
    in_vain = [
        each
        for each in report.of(Setting)
        if each.name == RESTRICTION and each.value == "0" and each.helped is False
    ]
    lines = [
        each
        for each in report.of(AuditLine)
        if PROFILE in (each.fields.get("profile"), each.fields.get("target"))
    ]
    if in_vain and lines:
        yield Remark(
            f"The reporter says that {RESTRICTION}=0 does not help, but Ubuntu's kernel moves a program into "
            f"the profile {PROFILE} only while that sysctl is 1. Either the audit line is older than the "
            "change, or the change did not take effect, or the program was started inside a namespace that "
            "was made before the change, where it stays in the profile, or the rest of the failure has "
            "another cause. Ask for the value and the audit lines at the time of one failure.",
            (in_vain[0].quote, lines[0].quote),
        )


def _two_values(report: Report, findings: Sequence[Finding]) -> Iterator[Remark]:
    """Statements that cannot both be true of one host."""
    holding = [each for each in report.of(Setting) if each.mood is Mood.HOLDS and each.place is Place.HOST]
    for name in dict.fromkeys(each.name for each in holding):
        for one, other in pairwise([each for each in holding if each.name == name]):
            yield Remark(
                f"The report gives {name} two values, {one.value} and {other.value}.",
                (one.quote, other.quote),
            )
    hosts = [each for each in report.of(System) if each.place is Place.HOST]
    for first, second in pairwise(hosts):
        yield Remark(
            f"The report names two systems, {first.name} and {second.name}, and does not say which is the "
            "host.",
            (first.quote, second.quote),
        )


KINDS: tuple[Callable[[Report, Sequence[Finding]], Iterator[Remark]], ...] = (
    _absent_sysctl,
    _damaged_probe,
    _errno,
    _kernel_of_distribution,
    _not_executed,
    _old_release,
    _other_program,
    _own_filter,
    _restriction_in_force,
    _two_values,
)
