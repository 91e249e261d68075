"""The reports whose claims are known: a table for each, in the order of its text, and what its cells show.

The documentation is that of boxlite 0.10.8: its FAQ, its pages on getting started and on security. Issue 468 of
boxlite-ai/boxlite says that two tests of the jailer fail on hosts that block user namespaces. It was filed for
Ubuntu 24.04, whose policy the variant apparmor-userns-nocaps puts on other guests, and mixes two causes: its
audit line is that policy's, its error text that of a bubblewrap that may not be executed, which the variant
apparmor-bwrap-exec-deny brings about.
"""

from lab.base.errors import unknown_name
from lab.causes.evidence import KERNEL_FILE, PROBES_FILE
from lab.causes.rules import BWRAP_NOT_RUN, RESTRICTED, RESTRICTION, USERNS_CLONE
from lab.probes.facts import numbers
from lab.record import CellResult, Confidence, Outcome, RemedyOutcome
from lab.verdict.claims import (
    JUNIT,
    BugReport,
    Claim,
    Look,
    NotShown,
    Sight,
    Where,
    denied_capabilities,
    facts_of,
    failed,
    failed_of,
    is_ubuntu,
    loaded_profiles,
    on_ubuntu,
    passed,
    says,
    suite_passes,
    sysctl_of,
    tried,
    where_blocked,
    with_variant,
)
from lab.verdict.words import FinishedCell

# The cause that stands for Ubuntu 24.04's policy, on any guest.
POLICY = "apparmor-userns-nocaps"
# The remedies that give bubblewrap a profile: each is a set-up script, `lab remedies show NAME --script`.
PROFILE_REMEDIES = ("bwrap-userns-restrict", "bwrap-profile")

# The places that several claims have.
UNDER_POLICY = where_blocked(
    POLICY, only="only a cell under Ubuntu 24.04's policy shows it (variant apparmor-userns-nocaps)"
)
UBUNTUS_POLICY = where_blocked(
    POLICY, only="only a cell that Ubuntu's own policy blocks shows it (guest ubuntu-24.04, variant stock)"
)
BLOCKED = where_blocked(
    *("userns-sysctl", "userns-limit", "apparmor-userns-deny", POLICY),
    only="only a cell whose user namespaces are blocked shows it",
)
WITHOUT_KVM = where_blocked(
    "kvm-denied", only="only a cell whose user may not open /dev/kvm shows it (variant kvm-denied)"
)
AS_INSTALLED = with_variant("stock", only="only a cell as installed shows it (variant stock)")
ON_NOBLE = on_ubuntu("24.04", only="could only be judged on Ubuntu 24.04 as installed")


# -- the documentation

# What boxlite says of a box that does not start.
TIMEOUT = "Timeout waiting for guest ready"
EXITED = "VM subprocess exited before guest became ready"
# The profile that the documentation tells its readers to look for, and another one of the same file.
RESTRICT = "bwrap-userns-restrict"
SHIPPED = "unpriv_bwrap"


def starts_without_jailer(cell: CellResult) -> bool:
    control = "jailer_disabled_box_starts_and_executes"
    return any(test.name == control and test.outcome is Outcome.PASS for test in cell.tests)


def kvm_mode(cell: FinishedCell) -> Sight:
    kvm = facts_of(cell).kvm
    if kvm is None:
        raise NotShown("it has no /dev/kvm")
    what = f"mode {kvm.mode}, owner {kvm.owner or kvm.uid}, group {kvm.group or kvm.gid}"
    return Sight((kvm.mode, kvm.owner, kvm.group) == ("0o660", "root", "kvm"), what)


def ships(profile: str, *, since: int = 0, missing: bool = False) -> Look:
    """Whether a profile's file is installed, or `missing`; on an AppArmor of the release `since` or newer."""

    def look(cell: FinishedCell) -> Sight:
        apparmor = facts_of(cell).apparmor
        if apparmor is None:
            raise NotShown("it has no AppArmor")
        release, version = numbers(apparmor.version), f"AppArmor {apparmor.version or 'of an unknown version'}"
        if since and (release is None or release.major < since):
            raise NotShown(f"its {version} may be older than {since}")
        if f"/etc/apparmor.d/{profile}" not in apparmor.profile_files:
            return Sight(missing, f"its {version} has no profile {profile}")
        mode = apparmor.profiles.get(profile)
        loaded = f"loaded in {mode} mode" if mode else "not loaded"
        return Sight(not missing, f"its {version} has the profile {profile}, {loaded}")

    return look


def capability_8(cell: FinishedCell) -> Sight:
    lines = denied_capabilities(cell)
    denied = {(line.get("capability", "?"), line.get("comm", "?")) for line in lines}
    names = ", ".join(f"capability {number} to {program}" for number, program in sorted(denied))
    files = tuple(cell.refusals) or (KERNEL_FILE,)
    what = f"it denied {names or 'no capability'}"
    is_denied = ("8", "bwrap") in denied
    # Which capability is asked for first depends on when the profile begins to confine bubblewrap.
    if not is_denied and not is_ubuntu(cell.result, "24.04"):
        later = "Ubuntu's kernel confines bubblewrap once it has made its namespace, and may deny another one"
        raise NotShown(f"{what}; {later}", files)
    return Sight(is_denied, what, files)


def aa_status(cell: FinishedCell) -> Sight:
    """Look for the names that `grep bwrap` finds, if the shipped profile is loaded."""
    loaded = loaded_profiles(cell.result)
    if SHIPPED not in loaded:
        raise NotShown("no profile for bubblewrap was seen to be loaded")
    names = sorted(name for name in loaded if "bwrap" in name)
    return Sight(any(RESTRICT in name for name in names), f"loaded: {', '.join(names)}")


DOCS = {
    "kvm-is-all": Claim(
        "Linux: Only requires access to /dev/kvm",
        "whether every test passes in each cell in which a box starts without the jailer, and so with KVM",
        Where("only a cell in which a box without the jailer starts shows it", starts_without_jailer),
        suite_passes,
    ),
    "kvm-group": Claim(
        "which can be granted through group membership: sudo usermod -aG kvm $USER",
        "whether the remedy kvm-group, which does that, cures a cell whose user may not open /dev/kvm",
        WITHOUT_KVM,
        tried("kvm-group"),
    ),
    "kvm-timeout": Claim(
        'If you see "Timeout waiting for guest ready (30s)" errors, it\'s likely a KVM permission issue. '
        "Ensure your user is in the kvm group",
        "whether boxlite says so in a cell whose user may not open /dev/kvm",
        WITHOUT_KVM,
        says(TIMEOUT),
    ),
    "kvm-mode": Claim(
        "ls -l /dev/kvm # Should be: crw-rw---- 1 root kvm",
        "whether a guest as installed has the device with this mode, owner and group",
        AS_INSTALLED,
        kvm_mode,
    ),
    "policy-timeout": Claim(
        f'Box creation fails with "{TIMEOUT} (30s)" or "{EXITED}" on Ubuntu 24.04.',
        "whether boxlite says one of the two under that policy",
        UNDER_POLICY,
        says(TIMEOUT, EXITED),
    ),
    "works-with-sudo": Claim(
        "Works with sudo",
        "whether every test passes on Ubuntu 24.04 if root runs them",
        on_ubuntu(
            "24.04", variant="as-root", only="could only be judged on Ubuntu 24.04 with the variant as-root"
        ),
        suite_passes,
    ),
    "works-on-newer": Claim(
        "Works ... on Ubuntu 25.04+.",
        "whether every test passes on Ubuntu 25.04 or newer as installed",
        on_ubuntu(
            *("25.04", "25.10", "26.04"), only="could only be judged on Ubuntu 25.04 or newer as installed"
        ),
        suite_passes,
    ),
    "profile-is-missing": Claim(
        "Ubuntu 24.04 restricts unprivileged user namespaces via AppArmor ... but does not ship the "
        "bwrap-userns-restrict profile that Ubuntu 25.04+ includes.",
        f"whether Ubuntu 24.04 as installed has no /etc/apparmor.d/{RESTRICT}",
        ON_NOBLE,
        ships(RESTRICT, missing=True),
    ),
    "capability-8": Claim(
        'Look for: apparmor="DENIED" ... comm="bwrap" capability=8',
        "whether the kernel denied bwrap that capability while the suite ran",
        UNDER_POLICY,
        capability_8,
    ),
    "aa-status": Claim(
        f'aa-status | grep bwrap # Should show "{RESTRICT}" if profile is installed',
        "whether a loaded profile has that name, which aa-status would list, where that file was loaded",
        Where(
            "only a cell in which that profile is loaded shows it (variant bwrap-allow-list)",
            lambda cell: cell.variant == "bwrap-allow-list" or SHIPPED in loaded_profiles(cell),
        ),
        aa_status,
    ),
    "option-a": Claim(
        "Fix (Option A): Install the bwrap AppArmor profile that Ubuntu 25.04+ ships.",
        "whether the remedy bwrap-userns-restrict, or bwrap-profile with the same effect, cures such a cell",
        UNDER_POLICY,
        tried(*PROFILE_REMEDIES),
    ),
    "option-b": Claim(
        "Fix (Option B): sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        "whether the remedy apparmor-restrict-off, which does that, cures such a cell",
        UNDER_POLICY,
        tried("apparmor-restrict-off"),
    ),
    "option-c": Claim(
        "Fix (Option C): SecurityOptions.development()",
        "whether boxes start in such a cell with the remedy jailer-off, which does that; it isolates nothing",
        UNDER_POLICY,
        tried("jailer-off", wanted=RemedyOutcome.AVOIDS),
    ),
}


# -- issue 468

# Upstream's names, and the suite's.
JAILED = "jailer_enabled_box_starts_and_executes"
TESTS = ("jailer_creates_isolated_mount_namespace", JAILED)
# The cause of the report's error text.
NOT_EXECUTED = "bwrap-exec-denied"
# What boxlite says if its preflight fails, and if the bubblewrap that the preflight runs fails. For one that
# could not be started it has the report's words: see `can_create_user_namespace` in its jailer/bwrap.rs.
PREFLIGHT = "Sandbox preflight failed: bwrap cannot create user namespaces."
BWRAP_FAILED = "bwrap --unshare-user failed"
# The report's command.
COMMAND = ("bwrap", "--unshare-user", "--bind", "/", "/", "true")
# The profile that exempts bubblewrap from it, on Ubuntu 25.04 and newer.
EXEMPTING = "bwrap"
IN_VAIN = "does not unblock the preflight on this host."

error_text = says(BWRAP_NOT_RUN, otherwise=BWRAP_FAILED)


def on_ubuntus_kernel(look: Look) -> Look:
    """Only Ubuntu's kernel shows what its policy does; a variant that imitates the policy does not."""

    def checked(cell: FinishedCell) -> Sight:
        sysctl_of(cell, RESTRICTION)
        if cell.result.differs:
            raise NotShown("its variant imitates the policy, and differs from it")
        return look(cell)

    return checked


def in_vain(setting: str, sysctl: str, value: str, *, without: str = "") -> Look:
    """Whether the preflight fails although a sysctl has this value and, if named, a profile is not loaded.

    `setting` says so in a few words.
    """

    def look(cell: FinishedCell) -> Sight:
        loaded = loaded_profiles(cell.result)
        if sysctl_of(cell, sysctl) != value or without in loaded:
            raise NotShown(f"{setting}: that is not in effect here")
        if passed(cell) and EXEMPTING in loaded:
            raise NotShown(f"nothing blocks it: bubblewrap has its profile {EXEMPTING} here")
        if passed(cell):
            return Sight(False, f"every test passes; {setting}", (JUNIT,))
        if PREFLIGHT not in cell.words.text:
            raise NotShown(f"what fails is not the preflight: {cell.result.reason}", (JUNIT,))
        what = f"{setting}, and the preflight fails all the same: {cell.result.reason}"
        return Sight(True, what, (cell.words.file,))

    return look


def blocked_tests(cell: FinishedCell) -> Sight:
    blocked = failed_of(cell, *TESTS)
    if passing := [test for test in TESTS if test not in blocked]:
        return Sight(False, f"passed: {', '.join(passing)}", (JUNIT,))
    others = [test for test in failed(cell) if test not in TESTS]
    more = f", and so do: {', '.join(others)}" if others else ", and no other"
    return Sight(True, f"both fail{more}", (JUNIT,))


def fresh_ubuntu(cell: FinishedCell) -> Sight:
    fails = bool(failed_of(cell, JAILED))
    kernel = cell.result.facts.kernel if cell.result.facts else "that was not read"
    return Sight(fails, f"it {'fails' if fails else 'passes'} with kernel {kernel}", (JUNIT,))


def audit_line(cell: FinishedCell) -> Sight:
    lines = denied_capabilities(cell, profile=RESTRICTED, capability="21", capname="sys_admin")
    if not lines:
        return Sight(False, "it did not", (KERNEL_FILE,))
    programs = sorted({line.get("comm", "?") for line in lines})
    nothing = "" if "bwrap" in programs else ", which says nothing about bubblewrap"
    return Sight(True, f"it did, for {', '.join(programs)}{nothing}", tuple(cell.refusals))


def one_cause(cell: FinishedCell) -> Sight:
    """Look whether the report's error text and its audit line tell of one failure."""
    told, audited = error_text(cell), audit_line(cell)
    files = (*told.files, *audited.files)
    if told.holds and audited.holds:
        return Sight(True, "boxlite says the one, and the kernel logs the other", files)
    if told.holds:
        return Sight(False, "boxlite says so without the audit line: bubblewrap did not even start", files)
    return Sight(False, f"bubblewrap does start, and boxlite says other words: {told.what}", files)


def bwrap_alone(cell: FinishedCell) -> Sight:
    probe = cell.evidence.probes.bwrap_user
    if probe.status is None or probe.command != COMMAND:
        raise NotShown("that command was not tried")
    return Sight(probe.worked, "it works" if probe.worked else f"it fails: {probe.stderr}", (PROBES_FILE,))


def capability_denied(cell: FinishedCell) -> Sight:
    if passed(cell):
        return Sight(False, "every test passes all the same", (JUNIT,))
    probes = cell.evidence.probes
    stripped = probes.unshare_user.worked and probes.unshare_user_root.failed
    if not stripped or cell.result.cause != POLICY or cell.result.confidence is not Confidence.PROVED:
        raise NotShown("the evidence does not prove it")
    what = f"`unshare -U` works and `unshare -Ur` does not; {cell.result.reason}"
    if probes.bwrap_user.failed_with("setting up uid map: Permission denied"):
        what += "; it is the profile's missing attach_disconnected that stops bubblewrap first"
    return Sight(True, what, (PROBES_FILE, *cell.refusals))


def ubuntu_default(cell: FinishedCell) -> Sight:
    switch = facts_of(cell).sysctls[RESTRICTION]
    mode = loaded_profiles(cell.result).get(RESTRICTED, "not loaded")
    what = f"the profile: {mode}; {RESTRICTION}: {switch or 'not there'}"
    return Sight(mode == "enforce" and switch == "1", what)


ISSUE_468 = {
    "blocked-tests": Claim(
        "Two integration tests in src/boxlite/tests/jailer.rs fail on hosts where unprivileged user namespaces "
        "are blocked by the kernel or AppArmor: "
        "jailer::jailer_creates_isolated_mount_namespace jailer::jailer_enabled_box_starts_and_executes",
        "whether both tests fail in each cell that a setting of the kernel's or AppArmor blocks",
        BLOCKED,
        blocked_tests,
    ),
    "preflight-fails": Claim(
        f"The failure surfaces during the box start preflight as: ... {PREFLIGHT}",
        "whether boxlite says so, to its caller or in its log",
        BLOCKED,
        says(PREFLIGHT),
    ),
    # The report's words are boxlite's for a bubblewrap that cannot be started.
    "error-text": Claim(
        BWRAP_NOT_RUN,
        "whether boxlite says so where bubblewrap may not be executed",
        where_blocked(
            NOT_EXECUTED,
            only="only a cell in which bubblewrap may not be executed shows it "
            "(variant apparmor-bwrap-exec-deny)",
        ),
        error_text,
    ),
    "audit-line": Claim(
        'audit: type=1400 apparmor="DENIED" operation="capable" profile="unprivileged_userns" '
        'capability=21 capname="sys_admin"',
        "whether the kernel logged such a line while the suite ran",
        UBUNTUS_POLICY,
        on_ubuntus_kernel(audit_line),
    ),
    "one-cause": Claim(
        f'{BWRAP_NOT_RUN} ... Kernel audit log ...: operation="capable" ... capname="sys_admin"',
        "whether a cell that shows one of the two shows the other as well",
        where_blocked(
            *(POLICY, NOT_EXECUTED),
            only="only a cell under Ubuntu 24.04's policy, or where bubblewrap may not be executed, shows it",
        ),
        one_cause,
    ),
    "fresh-ubuntu": Claim(
        "# fresh Ubuntu 24.04 EC2 host (kernel 7.0.0-1004-aws) ... "
        "make test:integration:rust FILTER=jailer_enabled_box",
        "whether that test fails on Ubuntu 24.04 as installed, whatever its kernel",
        ON_NOBLE,
        fresh_ubuntu,
    ),
    "bwrap-alone": Claim(
        "bwrap --unshare-user --bind / / true succeeds in isolation",
        "whether that command works for the suite's user in the cell in which boxlite fails",
        UBUNTUS_POLICY,
        on_ubuntus_kernel(bwrap_alone),
    ),
    "libcontainer": Claim(
        "the libcontainer-driven preflight in the jailer",
        "which part of boxlite says that the preflight failed, and what it ran",
        BLOCKED,
        says("libcontainer", otherwise=BWRAP_FAILED),
    ),
    "capability-denied": Claim(
        "requires CAP_SYS_ADMIN inside the userns and that is denied by the unprivileged_userns "
        "AppArmor profile",
        "whether the evidence proves that the namespace is made and its capabilities are denied",
        UBUNTUS_POLICY,
        on_ubuntus_kernel(capability_denied),
    ),
    "profile-ships": Claim(
        "the unprivileged_userns AppArmor profile that ships in apparmor ≥ 4.0",
        "whether a guest with such an AppArmor, as installed, has the profile's file",
        AS_INSTALLED,
        ships(RESTRICTED, since=4),
    ),
    "ubuntu-default": Claim(
        "(Ubuntu 24+ default)",
        f"whether Ubuntu as installed enforces the profile, and {RESTRICTION} is 1",
        on_ubuntu("24.04", "26.04", only="could only be judged on Ubuntu 24.04 or newer as installed"),
        ubuntu_default,
    ),
    "three-settings": Claim(
        f"Setting: {USERNS_CLONE}=1 {RESTRICTION}=0 apparmor_parser -R /etc/apparmor.d/{RESTRICTED} {IN_VAIN}",
        "whether the preflight fails under the variant issue-468-settings, which is these three settings",
        with_variant(
            "issue-468-settings",
            only="only a cell under the three settings shows it (variant issue-468-settings)",
        ),
        on_ubuntus_kernel(in_vain("the three settings are in effect", RESTRICTION, "0", without=RESTRICTED)),
    ),
    # Each of the three settings alone.
    "setting-userns-clone": Claim(
        f"Setting: {USERNS_CLONE}=1 ... {IN_VAIN}",
        f"whether the preflight fails under the policy where {USERNS_CLONE} is 1",
        UNDER_POLICY,
        in_vain(f"{USERNS_CLONE} is 1", USERNS_CLONE, "1"),
    ),
    "setting-restrict": Claim(
        f"Setting: ... {RESTRICTION}=0 ... {IN_VAIN}",
        f"whether the preflight fails where {RESTRICTION} is 0, and nothing else is changed",
        with_variant(
            "apparmor-restrict-off",
            only="only Ubuntu's kernel with this setting shows it (variant apparmor-restrict-off)",
        ),
        on_ubuntus_kernel(in_vain(f"{RESTRICTION} is 0", RESTRICTION, "0")),
    ),
    "setting-profile": Claim(
        f"Setting: ... apparmor_parser -R /etc/apparmor.d/{RESTRICTED} {IN_VAIN}",
        "whether the preflight fails where the policy's profile is not loaded, and nothing else is changed",
        # On Ubuntu 24.04 as installed both come to the same. The first runs only on a kernel with the
        # restriction.
        with_variant(
            *("apparmor-userns-profile-missing", "apparmor-userns-profile-removed"),
            only="only Ubuntu's kernel without the profile shows it (variant apparmor-userns-profile-missing)",
        ),
        on_ubuntus_kernel(
            in_vain(
                f"{RESTRICTION} is 1 and the profile {RESTRICTED} is not loaded",
                *(RESTRICTION, "1"),
                without=RESTRICTED,
            )
        ),
    ),
    "more-unconfinement": Claim(
        "The kernel/AppArmor stack appears to require additional unconfinement for bwrap.",
        "whether a profile of bubblewrap's own, and nothing else, unblocks a cell under the policy",
        UNDER_POLICY,
        tried(*PROFILE_REMEDIES),
    ),
    # The report's three options for a fix.
    "option-preflight": Claim(
        "Test-side preflight — detect userns availability at test start, skip with clear logging on "
        "unsupported hosts.",
        "whether with the remedy preflight no test fails: those that cannot pass are skipped and say why",
        BLOCKED,
        tried("preflight", wanted=RemedyOutcome.AVOIDS),
    ),
    "option-container": Claim(
        "Run jailer tests in a privileged container in CI (the runc / youki convention).",
        "whether the whole suite passes with the remedy privileged-container",
        BLOCKED,
        tried("privileged-container"),
    ),
    "option-allow-list": Claim(
        "Document a setup script that installs an AppArmor allowlist for the test bwrap binary, "
        "similar to bubblewrap-userns-restrict overrides for snap.",
        f"whether the whole suite passes with the script of the remedy {' or '.join(PROFILE_REMEDIES)}",
        where_blocked(POLICY, "apparmor-userns-deny", only="only a cell that AppArmor blocks shows it"),
        tried(*PROFILE_REMEDIES),
    ),
}

# The reports whose claims are known, by their names on the command line.
REPORTS = {
    "docs": BugReport("The documentation of boxlite 0.10.8", DOCS),
    "issue-468": BugReport("Bug report issue-468", ISSUE_468),
}


def find(report: str) -> BugReport:
    """A report whose claims are known. Raises UsageError for an unknown report."""
    if report not in REPORTS:
        raise unknown_name("report", report, REPORTS)
    return REPORTS[report]
