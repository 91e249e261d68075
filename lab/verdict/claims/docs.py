"""The documentation of boxlite 0.10.8: what it says of hosts, read like a bug report.

Quoted are its FAQ, its page on getting started and its page on security, as of that release.
"""

from lab.causes.evidence import KERNEL_FILE
from lab.probes import Facts
from lab.record import CellResult, RemedyOutcome
from lab.verdict.claims._base import (
    AS_INSTALLED,
    JUNIT,
    ON_NOBLE,
    PROFILE_REMEDIES,
    UNDER_POLICY,
    BugReport,
    Claim,
    Look,
    Sight,
    Where,
    failed,
    is_ubuntu,
    nowhere,
    on_ubuntu,
    passed,
    tried,
    unseen,
    untold,
    where_blocked,
    with_facts,
)
from lab.verdict.words import FinishedCell

CONTROL = "jailer_disabled_box_starts_and_executes"
# What boxlite says of a box that does not start.
TIMEOUT = "Timeout waiting for guest ready"
EXITED = "VM subprocess exited before guest became ready"
# The profile that the documentation tells its readers to look for, and the file that it is in.
PROFILE = "bwrap-userns-restrict"
PROFILE_FILE = f"/etc/apparmor.d/{PROFILE}"
# A profile that this file has, too.
SHIPPED = "unpriv_bwrap"
LATER = "Ubuntu's kernel confines bubblewrap only once it has made its namespace, and may deny another one"
WITHOUT_KVM = where_blocked(
    "kvm-denied", only="only a cell whose user may not open /dev/kvm shows it (variant kvm-denied)"
)


def box_without_jailer_starts(cell: CellResult) -> bool:
    return not untold(cell, CONTROL) and CONTROL not in failed(cell)


def kvm_is_all(cell: FinishedCell) -> Sight:
    failing = failed(cell.result)
    if not failing:
        return Sight(True, "every test passes", (JUNIT,))
    why = f"{len(failing)} tests fail for the cause {cell.result.cause}: {cell.result.reason}"
    return Sight(False, f"a box without the jailer starts, and yet {why}", (JUNIT, "probes.json"))


def says(*messages: str) -> Look:
    """Whether boxlite says one of these."""

    def look(cell: FinishedCell) -> Sight:
        words = cell.words
        if not words.said:
            return Sight(None, "what boxlite says was not gathered")
        if message := next((message for message in messages if message in words.text), None):
            return Sight(True, f"it says: {message}", (words.file,) if words.file else ())
        first = next(test for test in cell.result.tests if test.outcome.is_failure)
        what = f"after {first.seconds:.0f} s it says: {words.said.splitlines()[0]}"
        return Sight(False, what, (JUNIT,))

    return look


@with_facts
def kvm_mode(_cell: FinishedCell, facts: Facts) -> Sight:
    kvm = facts.kvm
    if kvm is None:
        return Sight(None, "it has no /dev/kvm")
    what = f"mode {kvm.mode}, owner {kvm.owner or kvm.uid}, group {kvm.group or kvm.gid}"
    return Sight((kvm.mode, kvm.owner, kvm.group) == ("0o660", "root", "kvm"), what)


def suite_passes(cell: FinishedCell) -> Sight:
    failing = failed(cell.result)
    what = f"fail: {', '.join(failing)}" if failing else "every test passes"
    return Sight(passed(cell.result), what, (JUNIT,))


@with_facts
def profile_is_missing(_cell: FinishedCell, facts: Facts) -> Sight:
    if facts.apparmor is None:
        return Sight(None, "it has no AppArmor")
    there = PROFILE_FILE in facts.apparmor.profile_files
    return Sight(not there, f"it has {PROFILE_FILE}" if there else "it has not")


def capability_8(cell: FinishedCell) -> Sight:
    if not cell.evidence.probes.ran:
        return Sight(None, "its evidence was not gathered")
    lines = cell.evidence.denied(operation="capable")
    if not lines and not (cell.folder / KERNEL_FILE).exists():
        return Sight(None, "the kernel's log was full before the suite ended")
    denied = {(line.get("capability", "?"), line.get("comm", "?")) for line in lines}
    names = ", ".join(f"capability {number} to {program}" for number, program in sorted(denied))
    files = tuple(cell.refusals) or (KERNEL_FILE,)
    what = f"it denied {names or 'no capability'}"
    if ("8", "bwrap") in denied:
        return Sight(True, what, files)
    # Which capability is asked for first depends on when the profile begins to confine bubblewrap.
    if not is_ubuntu(cell.result, "24.04"):
        return Sight(None, f"{what}; {LATER}", files)
    return Sight(False, what, files)


def profiles_of_bubblewrap(cell: CellResult) -> list[str]:
    """The names of loaded profiles that `grep bwrap` finds, if the shipped profile is among them."""
    loaded = cell.facts.apparmor.profiles if cell.facts and cell.facts.apparmor else {}
    return sorted(name for name in loaded if "bwrap" in name) if SHIPPED in loaded else []


def aa_status(cell: FinishedCell) -> Sight:
    names = profiles_of_bubblewrap(cell.result)
    if not names:
        return Sight(None, "no profile for bubblewrap was seen to be loaded")
    return Sight(any(PROFILE in name for name in names), f"loaded: {', '.join(names)}")


CLAIMS = (
    Claim(
        "kvm-is-all",
        "Linux: Only requires access to /dev/kvm",
        "whether every test passes in each cell in which a box starts without the jailer, and so with KVM",
        Where("only a cell in which a box without the jailer starts shows it", box_without_jailer_starts),
        kvm_is_all,
    ),
    Claim(
        "kvm-group",
        "which can be granted through group membership: sudo usermod -aG kvm $USER",
        "whether the remedy kvm-group, which does that, cures a cell whose user may not open /dev/kvm",
        WITHOUT_KVM,
        tried("kvm-group"),
    ),
    Claim(
        "kvm-timeout",
        'If you see "Timeout waiting for guest ready (30s)" errors, it\'s likely a KVM permission issue. '
        "Ensure your user is in the kvm group",
        "whether boxlite says so in a cell whose user may not open /dev/kvm",
        WITHOUT_KVM,
        says(TIMEOUT),
    ),
    Claim(
        "kvm-mode",
        "ls -l /dev/kvm # Should be: crw-rw---- 1 root kvm",
        "whether a guest as installed has the device with this mode, owner and group",
        AS_INSTALLED,
        kvm_mode,
    ),
    Claim(
        "policy-timeout",
        f'Box creation fails with "{TIMEOUT} (30s)" or "{EXITED}" on Ubuntu 24.04.',
        "whether boxlite says one of the two under that policy",
        UNDER_POLICY,
        says(TIMEOUT, EXITED),
    ),
    Claim(
        "works-with-sudo",
        "Works with sudo",
        "whether every test passes on Ubuntu 24.04 if root runs them",
        on_ubuntu(
            "24.04", variant="as-root", only="could only be judged on Ubuntu 24.04 with the variant as-root"
        ),
        suite_passes,
    ),
    Claim(
        "works-on-newer",
        "Works ... on Ubuntu 25.04+.",
        "whether every test passes on Ubuntu 25.04 or newer as installed",
        on_ubuntu(
            *("25.04", "25.10", "26.04"), only="could only be judged on Ubuntu 25.04 or newer as installed"
        ),
        suite_passes,
    ),
    Claim(
        "profile-is-missing",
        "Ubuntu 24.04 restricts unprivileged user namespaces via AppArmor ... but does not ship the "
        "bwrap-userns-restrict profile that Ubuntu 25.04+ includes.",
        f"whether Ubuntu 24.04 as installed has no {PROFILE_FILE}",
        ON_NOBLE,
        profile_is_missing,
    ),
    Claim(
        "capability-8",
        'Look for: apparmor="DENIED" ... comm="bwrap" capability=8',
        "whether the kernel denied bwrap that capability while the suite ran",
        UNDER_POLICY,
        capability_8,
    ),
    Claim(
        "aa-status",
        f'aa-status | grep bwrap # Should show "{PROFILE}" if profile is installed',
        "whether a loaded profile has that name, which aa-status would list, where that file was loaded",
        Where(
            "only a cell in which that profile is loaded shows it (variant bwrap-allow-list)",
            lambda cell: cell.variant == "bwrap-allow-list" or bool(profiles_of_bubblewrap(cell)),
        ),
        aa_status,
    ),
    Claim(
        "option-a",
        "Fix (Option A): Install the bwrap AppArmor profile that Ubuntu 25.04+ ships.",
        "whether the remedy bwrap-userns-restrict, or bwrap-profile with the same effect, cures such a cell",
        UNDER_POLICY,
        tried(*PROFILE_REMEDIES),
    ),
    Claim(
        "option-b",
        "Fix (Option B): sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        "whether the remedy apparmor-restrict-off, which does that, cures such a cell",
        UNDER_POLICY,
        tried("apparmor-restrict-off"),
    ),
    Claim(
        "option-c",
        "Fix (Option C): SecurityOptions.development()",
        "whether boxes start in such a cell with the remedy jailer-off, which does that; it isolates nothing",
        UNDER_POLICY,
        tried("jailer-off", wanted=RemedyOutcome.AVOIDS),
    ),
    # The advice that boxlite logs.
    Claim(
        "reinstall-bubblewrap",
        "Fix (recommended): Install/reinstall bubblewrap: sudo apt install --reinstall bubblewrap",
        "whether the remedy install-bubblewrap, which does that, cures such a cell",
        UNDER_POLICY,
        tried("install-bubblewrap"),
    ),
    Claim(
        "security-layers",
        "Enabled: chroot, uid drop, cgroups",
        "nothing: a run holds no evidence of it",
        nowhere(
            "only a look into a running box's processes could show it; the suite looks at their namespaces "
            "alone"
        ),
        unseen,
    ),
)
REPORT = BugReport("The documentation of boxlite 0.10.8", CLAIMS)
