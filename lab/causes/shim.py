"""The causes that boxlite meets with its shim, which bubblewrap starts when the sandbox stands, in this order.

They are written as those of `before_sandbox` and `sandbox`, which come first.
"""

import re

from lab.base.architecture import ARCHITECTURES
from lab.causes.evidence import SHIM, Evidence
from lab.causes.rule import CauseEvidence, add_cause, prove_if
from lab.causes.sandbox import service_filters_calls
from lab.record import Confidence, Needs

# bubblewrap's words for a program that it may not execute, here the copy of the shim beside a box.
SHIM_NOT_EXECUTED = re.compile(r"bwrap: execvp (\S+/boxlite-shim): Permission denied")
# Where the copy is, below the user's home, in the file of the modes.
COPY = re.compile(r".*/boxes/[^/]+/bin/boxlite-shim")
OWNER_MAY_EXECUTE = 0o100


# bubblewrap starts the shim when its sandbox stands; only then does the shim do anything.
@add_cause("shim-not-executable", Needs.SANDBOX)
def shim_not_executable(evidence: Evidence) -> CauseEvidence | None:
    """For the jailer boxlite copies its shim beside a box, and on a file system that clones files (btrfs,
    Fedora's default, and XFS) the copy loses its execute permission, so bubblewrap cannot start it. This is a
    fault of boxlite's, its issue 1496; SELinux and AppArmor have nothing to do with it.
    """
    match = next(filter(None, map(SHIM_NOT_EXECUTED.search, evidence.said)), None)
    if match is None:
        return None
    copies = {path: mode for path, mode in evidence.modes.items() if COPY.fullmatch(path)}
    lost = next((path for path, mode in copies.items() if not mode & OWNER_MAY_EXECUTE), None)
    if lost is not None:
        reason = f"{lost} has mode {copies[lost]:04o}, which lacks the owner's execute bit; {match[0]}"
        return CauseEvidence(Confidence.PROVED, reason)
    # What has the permission is denied by something else, and so may a copy be whose mode nobody knows.
    if copies or evidence.profile or evidence.probes.exec_home.failed:
        return None
    return CauseEvidence(Confidence.LIKELY, f"bubblewrap says: {match[0]}")


# The first version of boxlite without libkrun, which its own monitor is to replace (boxlite#1512): none yet.
WITHOUT_LIBKRUN = None
# libkrun's words, which it prints for this reason alone, and boxlite's own about that start.
NO_LIBRARY = re.compile(r"Couldn't find or load (libkrunfw\.so\S{0,20})")
VM_NOT_STARTED = "VM failed to start"
# Where boxlite unpacks its shim and the library, below the user's home.
UNPACKED_SHIM = re.compile(rf"(\.local/share/boxlite/runtimes/[^/]+)/{SHIM}")
# What the shim of boxlite 0.10.8 writes when it crashes, and its steps before and after it loads the library;
# measured on debian-13-arm64, where a core file shows the crash in the host's C library.
CRASHED, LOADING, LOADED = '"signal":"SIGSEGV"', ": engine created", ": instance created"


# Every box's shim loads the library, and only that of a box without a network is under boxlite's filter.
@add_cause("runtime-library", Needs.BOX, until=WITHOUT_LIBKRUN)
def runtime_library(evidence: Evidence) -> CauseEvidence | None:
    """The shim of boxlite cannot load libkrunfw, the library that holds the kernel of its boxes, so no box
    starts, with the jailer or without. The library is missing where boxlite unpacked its programs
    (~/.local/share/boxlite/runtimes), or this release of boxlite was built for another C library than the
    host's, as its wheels for arm64 are (its issue 1509).
    """
    is_loading = any(LOADING in log and LOADED not in log for log in evidence.logs)
    if is_loading and any(CRASHED in log for log in evidence.logs):
        return CauseEvidence(Confidence.LIKELY, f"{SHIM} crashed while it loaded libkrunfw")
    library = next((match[1] for text in evidence.said if (match := NO_LIBRARY.search(text))), None)
    if library is None or not evidence.boxlite_says(VM_NOT_STARTED):
        return None
    folders = [match[1] for path in evidence.modes if (match := UNPACKED_SHIM.fullmatch(path))]
    lost = next((folder for folder in folders if f"{folder}/{library}" not in evidence.modes), None)
    return prove_if(lost is not None, f"the shim cannot load {library}", f", and ~/{lost} has no such file")


# The shim's words for a volume's folder that it does not find, before it starts the machine.
NO_FOLDER = re.compile(r"Filesystem share directory '\w{1,40}' not found: /[^\"\n]{1,300}")


# The shim looks for each volume before it hands them to libkrun.
@add_cause("volume-not-in-sandbox", Needs.VOLUMES)
def volume_not_in_sandbox(evidence: Evidence) -> CauseEvidence | None:
    """The jailer's sandbox lacks the folder of a volume: boxlite puts the path into it that the user named, and
    its shim looks for the one behind all symlinks, so the box's machine does not start. That is a bug of
    boxlite's on every host, for a volume behind a symlink.
    """
    message = next((match[0] for text in evidence.said if (match := NO_FOLDER.search(text))), None)
    return CauseEvidence(Confidence.PROVED, f"the shim says: {message}") if message else None


# libkrun's words for a device that it has no interrupt for.
NO_INTERRUPT = "IrqsExhausted"


# libkrun adds a box's volumes before its network, and starts the machine after both.
@add_cause("volumes-exhaust-irqs", Needs.VOLUMES, until=WITHOUT_LIBKRUN)
def volumes_exhaust_irqs(evidence: Evidence) -> CauseEvidence | None:
    """A box has more volumes than libkrun has interrupts for, beside the network no more than two, so its
    machine does not start. That is a bug of boxlite's on every host (its issue 935).
    """
    if not evidence.boxlite_says(NO_INTERRUPT):
        return None
    return CauseEvidence(Confidence.PROVED, f"libkrun says of a device of the box: {NO_INTERRUPT}")


# What the shim of boxlite 0.10.8 writes into its box's folder when that signal ends it; measured on debian-13.
WRITTEN = '"signal":"SIGSYS"'
# boxlite 0.10.8's message, and how boxlite 0.5 and a shell print the shim's exit status: 128 + SIGSYS.
VIOLATION = "seccomp violation (SIGSYS)"
STATUS = re.compile(r"\bexit[ _](?:code|status)[:=]? ?159\b", re.IGNORECASE)


# The shim puts itself under boxlite's own filter after bubblewrap started it.
@add_cause("shim-seccomp", Needs.SANDBOX)
def shim_seccomp(evidence: Evidence) -> CauseEvidence | None:
    """The kernel ended boxlite's shim with SIGSYS, because it made a system call that boxlite's own seccomp
    filter does not allow. Which calls it makes depends on the host's C library, kernel and processor, and on
    what the box does; boxlite 0.10 filters only a box without a network.
    """
    if service_filters_calls(evidence):
        return None
    for line in evidence.shims_ended:
        # One number is another call on another architecture.
        call = f" for system call {line['syscall']}" if "syscall" in line else ""
        of = next((f" of {kind.name}" for kind in ARCHITECTURES.values() if kind.audit == line.get("arch")), "")
        return CauseEvidence(Confidence.PROVED, f"the kernel ended {SHIM} with SIGSYS{call}{of}")
    if any(WRITTEN in log for log in evidence.logs):
        return CauseEvidence(Confidence.PROVED, f"{SHIM} wrote that SIGSYS ended it")
    if evidence.boxlite_says(VIOLATION):
        return CauseEvidence(Confidence.LIKELY, f"boxlite says: {VIOLATION}")
    if any(map(STATUS.search, evidence.said)):
        return CauseEvidence(Confidence.LIKELY, "the shim's exit status is 159, which is 128 + SIGSYS")
    return None


# boxlite's child joins the control group right before it executes bubblewrap, and an error there is dropped.
# Only the end of a box needs the group (`reap_box` in boxlite's jailer/mod.rs), so a box runs without it.
@add_cause("cgroup-not-joined", Needs.CGROUP)
def cgroup_not_joined(evidence: Evidence) -> CauseEvidence | None:
    """Boxlite could not put a box into a control group of its own, with which it ends detached boxes and limits
    processes and memory, so `stop` and `rm --force` say success while the box lives on (its issue 1239). The
    kernel allows it only where the user may write to the group above both, so in a scope or a service of the
    user's own systemd and to root, and not in a login by SSH, a cron job, a system service or a container.
    """
    for groups in evidence.groups:
        if groups.box and set(groups.box) == {groups.caller}:
            return CauseEvidence(
                Confidence.PROVED,
                f"every process of the box is in the control group of its caller, {groups.caller}",
            )
    return None
