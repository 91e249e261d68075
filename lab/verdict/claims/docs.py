"""The documentation of boxlite 0.10.8: what it says of hosts, read like a bug report.

Quoted are its FAQ, its page on getting started and its page on security, as of that release.
"""

from lab.causes.evidence import KERNEL_FILE
from lab.record import CellResult, RemedyOutcome
from lab.verdict.claims._base import (
    ONLY_UNDER_POLICY,
    POLICY,
    PROFILE_REMEDIES,
    BugReport,
    Claim,
    Sight,
    failed,
    is_ubuntu,
    nowhere,
    on_ubuntu,
    passed,
    tried,
    unseen,
    untold,
    where_blocked,
    with_variant,
)
from lab.verdict.words import FinishedCell

CONTROL = "jailer_disabled_box_starts_and_executes"
JUNIT = "suite/junit.xml"
NOT_GATHERED = "what boxlite says was not gathered"
# What boxlite says of a box that does not start.
TIMEOUT = "Timeout waiting for guest ready"
EXITED = "VM subprocess exited before guest became ready"
# The profile that the documentation tells its readers to look for, and the file that it is in.
PROFILE = "bwrap-userns-restrict"
PROFILE_FILE = f"/etc/apparmor.d/{PROFILE}"
# A profile that this file has, too.
SHIPPED = "unpriv_bwrap"
LATER = "Ubuntu's kernel confines bubblewrap only once it has made its namespace, and may deny another one"
ONLY_KVM_DENIED = "only a cell whose user may not open /dev/kvm shows it (variant kvm-denied)"


def box_without_jailer_starts(cell: CellResult) -> bool:
    return not untold(cell, CONTROL) and CONTROL not in failed(cell)


def kvm_is_all(cell: FinishedCell) -> Sight:
    failing = failed(cell.result)
    if not failing:
        return Sight(True, "every test passes", (JUNIT,))
    why = f"{len(failing)} tests fail for the cause {cell.result.cause}: {cell.result.reason}"
    return Sight(False, f"a box without the jailer starts, and yet {why}", (JUNIT, "probes.json"))


def kvm_timeout(cell: FinishedCell) -> Sight:
    words = cell.words
    if not words.said:
        return Sight(None, NOT_GATHERED)
    if TIMEOUT in words.text:
        return Sight(True, "it says so", (words.file,) if words.file else ())
    return Sight(False, f"it says: {words.said.splitlines()[0]}", (JUNIT,))


def kvm_mode(cell: FinishedCell) -> Sight:
    facts = cell.result.facts
    if facts is None or facts.kvm is None:
        return Sight(None, "it has no /dev/kvm" if facts else "its facts were not read")
    kvm = facts.kvm
    shown = f"mode {kvm.mode}, owner {kvm.owner or kvm.uid}, group {kvm.group or kvm.gid}"
    return Sight((kvm.mode, kvm.owner, kvm.group) == ("0o660", "root", "kvm"), shown)


def policy_timeout(cell: FinishedCell) -> Sight:
    words = cell.words
    if not words.said:
        return Sight(None, NOT_GATHERED)
    if found := next((text for text in (TIMEOUT, EXITED) if text in words.text), None):
        return Sight(True, f"it says: {found}", (words.file,) if words.file else ())
    first = next(test for test in cell.result.tests if test.outcome.is_failure)
    return Sight(False, f"after {first.seconds:.0f} s it says: {words.said.splitlines()[0]}", (JUNIT,))


def suite_passes(cell: FinishedCell) -> Sight:
    failing = failed(cell.result)
    said = f"fail: {', '.join(failing)}" if failing else "every test passes"
    return Sight(passed(cell.result), said, (JUNIT,))


def profile_is_missing(cell: FinishedCell) -> Sight:
    facts = cell.result.facts
    if facts is None or facts.apparmor is None:
        return Sight(None, "it has no AppArmor" if facts else "its facts were not read")
    there = PROFILE_FILE in facts.apparmor.profile_files
    return Sight(not there, f"it has {PROFILE_FILE}" if there else "it has not")


def capability_8(cell: FinishedCell) -> Sight:
    if not cell.evidence.probes.ran:
        return Sight(None, "its evidence was not gathered")
    lines = cell.evidence.denied(operation="capable")
    if not lines and not (cell.folder / KERNEL_FILE).exists():
        return Sight(None, "the kernel's log was full before the suite ended")
    denied = {(line.get("capability", "?"), line.get("comm", "?")) for line in lines}
    shown = ", ".join(f"capability {number} to {program}" for number, program in sorted(denied))
    files = tuple(cell.refusals) or (KERNEL_FILE,)
    what = f"it denied {shown or 'no capability'}"
    if ("8", "bwrap") in denied:
        return Sight(True, what, files)
    # Which capability is asked for first depends on when the profile begins to confine bubblewrap.
    if not is_ubuntu(cell.result, "24.04"):
        return Sight(None, f"{what}; {LATER}", files)
    return Sight(False, what, files)


def has_profile_for_bubblewrap(cell: CellResult) -> bool:
    return cell.variant == "bwrap-allow-list" or bool(_profiles_of_bubblewrap(cell))


def aa_status(cell: FinishedCell) -> Sight:
    names = _profiles_of_bubblewrap(cell.result)
    if not names:
        return Sight(None, "no profile for bubblewrap was seen to be loaded")
    return Sight(any(PROFILE in name for name in names), f"loaded: {', '.join(names)}")


def _profiles_of_bubblewrap(cell: CellResult) -> list[str]:
    """The names of loaded profiles that `grep bwrap` finds, if the shipped profile is among them."""
    loaded = cell.facts.apparmor.profiles if cell.facts and cell.facts.apparmor else {}
    return sorted(name for name in loaded if "bwrap" in name) if SHIPPED in loaded else []


REPORT = BugReport(
    title="The documentation of boxlite 0.10.8",
    claims=(
        Claim(
            name="kvm-is-all",
            quote="Linux: Only requires access to /dev/kvm",
            check=(
                "whether every test passes in each cell in which a box starts without the jailer, and so with "
                "KVM"
            ),
            only="only a cell in which a box without the jailer starts shows it",
            concerns=box_without_jailer_starts,
            look=kvm_is_all,
        ),
        Claim(
            name="kvm-group",
            quote="which can be granted through group membership: sudo usermod -aG kvm $USER",
            check=(
                "whether the remedy kvm-group, which does that, cures a cell whose user may not open /dev/kvm"
            ),
            only=ONLY_KVM_DENIED,
            concerns=where_blocked("kvm-denied"),
            look=tried("kvm-group"),
        ),
        Claim(
            name="kvm-timeout",
            quote=(
                'If you see "Timeout waiting for guest ready (30s)" errors, it\'s likely a KVM permission '
                "issue. Ensure your user is in the kvm group"
            ),
            check="whether boxlite says so in a cell whose user may not open /dev/kvm",
            only=ONLY_KVM_DENIED,
            concerns=where_blocked("kvm-denied"),
            look=kvm_timeout,
        ),
        Claim(
            name="kvm-mode",
            quote="ls -l /dev/kvm # Should be: crw-rw---- 1 root kvm",
            check="whether a guest as installed has the device with this mode, owner and group",
            only="only a cell as installed shows it (variant stock)",
            concerns=with_variant("stock"),
            look=kvm_mode,
        ),
        Claim(
            name="policy-timeout",
            quote=f'Box creation fails with "{TIMEOUT} (30s)" or "{EXITED}" on Ubuntu 24.04.',
            check="whether boxlite says one of the two under that policy",
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=policy_timeout,
        ),
        Claim(
            name="works-with-sudo",
            quote="Works with sudo",
            check="whether every test passes on Ubuntu 24.04 if root runs them",
            only="could only be judged on Ubuntu 24.04 with the variant as-root",
            concerns=on_ubuntu("24.04", variant="as-root"),
            look=suite_passes,
        ),
        Claim(
            name="works-on-newer",
            quote="Works ... on Ubuntu 25.04+.",
            check="whether every test passes on Ubuntu 25.04 or newer as installed",
            only="could only be judged on Ubuntu 25.04 or newer as installed",
            concerns=on_ubuntu("25.04", "25.10", "26.04"),
            look=suite_passes,
        ),
        Claim(
            name="profile-is-missing",
            quote=(
                "Ubuntu 24.04 restricts unprivileged user namespaces via AppArmor ... but does not ship the "
                "bwrap-userns-restrict profile that Ubuntu 25.04+ includes."
            ),
            check=f"whether Ubuntu 24.04 as installed has no {PROFILE_FILE}",
            only="could only be judged on Ubuntu 24.04 as installed",
            concerns=on_ubuntu("24.04"),
            look=profile_is_missing,
        ),
        Claim(
            name="capability-8",
            quote='Look for: apparmor="DENIED" ... comm="bwrap" capability=8',
            check="whether the kernel denied bwrap that capability while the suite ran",
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=capability_8,
        ),
        Claim(
            name="aa-status",
            quote=f'aa-status | grep bwrap # Should show "{PROFILE}" if profile is installed',
            check=(
                "whether a loaded profile has that name, which aa-status would list, where that file was loaded"
            ),
            only="only a cell in which that profile is loaded shows it (variant bwrap-allow-list)",
            concerns=has_profile_for_bubblewrap,
            look=aa_status,
        ),
        Claim(
            name="option-a",
            quote="Fix (Option A): Install the bwrap AppArmor profile that Ubuntu 25.04+ ships.",
            check=(
                "whether the remedy bwrap-userns-restrict, or bwrap-profile with the same effect, cures such a "
                "cell"
            ),
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=tried(*PROFILE_REMEDIES),
        ),
        Claim(
            name="option-b",
            quote="Fix (Option B): sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            check="whether the remedy apparmor-restrict-off, which does that, cures such a cell",
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=tried("apparmor-restrict-off"),
        ),
        Claim(
            name="option-c",
            quote="Fix (Option C): SecurityOptions.development()",
            check=(
                "whether boxes start in such a cell with the remedy jailer-off, which does that; it isolates "
                "nothing"
            ),
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=tried("jailer-off", wanted=RemedyOutcome.AVOIDS),
        ),
        # The advice that boxlite logs.
        Claim(
            name="reinstall-bubblewrap",
            quote="Fix (recommended): Install/reinstall bubblewrap: sudo apt install --reinstall bubblewrap",
            check="whether the remedy install-bubblewrap, which does that, cures such a cell",
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=tried("install-bubblewrap"),
        ),
        Claim(
            name="security-layers",
            quote="Enabled: chroot, uid drop, cgroups",
            check="nothing: a run holds no evidence of it",
            only=(
                "only a look into a running box's processes could show it; the suite looks at their namespaces "
                "alone"
            ),
            concerns=nowhere,
            look=unseen,
        ),
    ),
)
