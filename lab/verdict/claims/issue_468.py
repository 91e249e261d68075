"""boxlite-ai/boxlite issue 468: two tests of the jailer fail on hosts that block user namespaces.

Its text is quoted in each claim. It was filed for Ubuntu 24.04, whose policy the variant apparmor-userns-nocaps
puts on other guests. It mixes two causes: its audit line is that policy's, its error text that of a bubblewrap
that may not be executed, which the variant apparmor-bwrap-exec-deny brings about.
"""

from lab.causes.evidence import KERNEL_FILE
from lab.causes.rules import RESTRICTION, USERNS_CLONE
from lab.probes import Facts
from lab.probes.facts import numbers
from lab.record import Confidence, RemedyOutcome
from lab.verdict.claims._base import (
    AS_INSTALLED,
    BLOCKING,
    JUNIT,
    ON_NOBLE,
    POLICY,
    PROFILE_REMEDIES,
    UNDER_POLICY,
    BugReport,
    Claim,
    Look,
    Sight,
    failed,
    nowhere,
    on_ubuntu,
    passed,
    tried,
    unseen,
    untold,
    where_blocked,
    with_facts,
    with_variant,
)
from lab.verdict.words import FinishedCell

# Upstream's names, and the suite's.
JAILED = "jailer_enabled_box_starts_and_executes"
TESTS = ("jailer_creates_isolated_mount_namespace", JAILED)
# The cause of the report's error text.
NOT_EXECUTED = "bwrap-exec-denied"
# The report's words, which are boxlite's for a bubblewrap that cannot be started.
ERROR_TEXT = "failed to run bwrap: Permission denied (os error 13)"
# What boxlite says if its preflight fails, and if the bubblewrap that the preflight runs fails.
PREFLIGHT = "Sandbox preflight failed: bwrap cannot create user namespaces."
BWRAP_FAILED = "bwrap --unshare-user failed"
# The report's command.
COMMAND = ("bwrap", "--unshare-user", "--bind", "/", "/", "true")
# The profile through which the policy denies capabilities, and its file.
PROFILE = "unprivileged_userns"
PROFILE_FILE = f"/etc/apparmor.d/{PROFILE}"
# The profile that exempts bubblewrap from it, on Ubuntu 25.04 and newer.
EXEMPTING = "bwrap"
# The variant that is the report's three settings.
SETTINGS = "issue-468-settings"
IN_VAIN = "does not unblock the preflight on this host."
# Where it was measured what the restriction does.
SOURCE = "docs/ubuntu-policy.md, 28 November 2026"

BLOCKED = where_blocked(*BLOCKING, only="only a cell whose user namespaces are blocked shows it")
UBUNTUS_POLICY = where_blocked(
    POLICY, only="only a cell that Ubuntu's own policy blocks shows it (guest ubuntu-24.04, variant stock)"
)


def sysctl_in_effect(facts: Facts, name: str, value: str) -> bool | str:
    """Whether a sysctl has this value; if the guest's kernel has no such sysctl, so in words."""
    if name not in facts.sysctls:
        return f"it was not asked for {name}"
    current = facts.sysctls[name]
    return f"its kernel has no {name}: only Ubuntu's kernel tells" if current is None else current == value


def on_ubuntus_kernel(look: Look) -> Look:
    """Only Ubuntu's kernel shows what its policy does; a variant that imitates the policy does not."""

    @with_facts
    def checked(cell: FinishedCell, facts: Facts) -> Sight:
        restricted = sysctl_in_effect(facts, RESTRICTION, "1")
        if isinstance(restricted, str):
            return Sight(None, restricted)
        if cell.result.differs:
            return Sight(None, "its variant imitates the policy, and differs from it")
        return look(cell)

    return checked


def setting_in_vain(setting: str, restriction: str, *, without_profile: bool = False) -> Look:
    """Whether the preflight fails although settings are in effect; `setting` names them in a few words.

    They are in effect if the restriction has this value and, if so said, the policy's profile is not loaded.
    """

    @with_facts
    def look(cell: FinishedCell, facts: Facts) -> Sight:
        loaded = facts.apparmor.profiles if facts.apparmor else {}
        in_effect = facts.sysctls.get(RESTRICTION) == restriction
        if not in_effect or (without_profile and PROFILE in loaded):
            return Sight(None, f"{setting}: that is not in effect here")
        if passed(cell.result) and EXEMPTING in loaded:
            return Sight(None, f"nothing blocks it: bubblewrap has its profile {EXEMPTING} here")
        return in_vain(cell, setting)

    return on_ubuntus_kernel(look)


def in_vain(cell: FinishedCell, setting: str) -> Sight:
    """Whether the preflight fails although a setting is in effect."""
    if passed(cell.result):
        return Sight(False, f"every test passes; {setting}", (JUNIT,))
    if PREFLIGHT in cell.words.text:
        what = f"{setting}, and the preflight fails all the same: {cell.result.reason}"
        return Sight(True, what, (cell.words.file,))
    return Sight(None, f"what fails is not the preflight: {cell.result.reason}", (JUNIT,))


def line_of(text: str, begins: str) -> str:
    """The first line that begins with `begins`; empty if there is none."""
    return next((line for line in text.splitlines() if line.startswith(begins)), "")


def blocked_tests(cell: FinishedCell) -> Sight:
    if without := untold(cell.result, *TESTS):
        return Sight(None, without)
    failing = failed(cell.result)
    if missing := [test for test in TESTS if test not in failing]:
        return Sight(False, f"passed: {', '.join(missing)}", (JUNIT,))
    others = [test for test in failing if test not in TESTS]
    more = f", and so do: {', '.join(others)}" if others else ", and no other"
    return Sight(True, f"both fail{more}", (JUNIT,))


def preflight_fails(cell: FinishedCell) -> Sight:
    words = cell.words
    if PREFLIGHT in words.said:
        return Sight(True, "boxlite says so to its caller", (JUNIT,))
    if PREFLIGHT in words.logged:
        return Sight(True, f"boxlite says so in its log; its caller gets: {words.said}", (words.file,))
    if not words.file:
        return Sight(None, "no log of boxlite's was gathered")
    return Sight(False, f"boxlite says: {words.essence}", (words.file,))


def error_text(cell: FinishedCell) -> Sight:
    words = cell.words
    if ERROR_TEXT in words.text:
        return Sight(True, "boxlite says so", (words.file,))
    if ran := line_of(words.text, BWRAP_FAILED):
        return Sight(False, f"it says: {ran}", (words.file,))
    return Sight(None, "what boxlite says of bubblewrap was not gathered")


def audit_line(cell: FinishedCell) -> Sight:
    if not cell.evidence.probes.ran:
        return Sight(None, "its evidence was not gathered")
    denied = cell.evidence.denied(operation="capable", profile=PROFILE, capability="21", capname="sys_admin")
    # The lab's own probe runs after the suite.
    lines = [line for line in denied if line.get("comm") != "unshare"]
    if not lines and not (cell.folder / KERNEL_FILE).exists():
        return Sight(None, "the kernel's log was full before the suite ended")
    if not lines:
        return Sight(False, "it did not", (KERNEL_FILE,))
    programs = sorted({line.get("comm", "?") for line in lines})
    nothing = "" if "bwrap" in programs else ", which says nothing about bubblewrap"
    return Sight(True, f"it did, for {', '.join(programs)}{nothing}", tuple(cell.refusals))


def one_cause(cell: FinishedCell) -> Sight:
    """Look whether the report's error text and its audit line tell of one failure."""
    words, audited = cell.words, audit_line(cell)
    says_so = ERROR_TEXT in words.text
    ran = line_of(words.text, BWRAP_FAILED)
    if audited.holds is None or not (says_so or ran):
        return Sight(None, "what boxlite or the kernel says was not gathered")
    files = (words.file, *audited.files)
    if says_so and audited.holds:
        return Sight(True, "boxlite says the one, and the kernel logs the other", files)
    if says_so:
        return Sight(False, "boxlite says so without the audit line: bubblewrap did not even start", files)
    # `can_create_user_namespace` in boxlite's jailer/bwrap.rs has the report's words for a bubblewrap that
    # could not be started, and these for one that ran and failed.
    return Sight(False, f"bubblewrap does start, and boxlite says other words: {ran}", files)


def fresh_ubuntu(cell: FinishedCell) -> Sight:
    if without := untold(cell.result, JAILED):
        return Sight(None, without)
    fails = JAILED in failed(cell.result)
    kernel = cell.result.facts.kernel if cell.result.facts else "that was not read"
    return Sight(fails, f"it {'fails' if fails else 'passes'} with kernel {kernel}", (JUNIT,))


def bwrap_alone(cell: FinishedCell) -> Sight:
    probe = cell.evidence.probes.bwrap_user
    if probe.status is None or probe.command != COMMAND:
        return Sight(None, "that command was not tried")
    if probe.worked:
        return Sight(True, "it works", ("probes.json",))
    return Sight(False, f"it fails: {probe.stderr}", ("probes.json",))


def libcontainer(cell: FinishedCell) -> Sight:
    words = cell.words
    if PREFLIGHT not in words.text:
        return Sight(None, "boxlite's words were not gathered, or tell of no preflight")
    if "libcontainer" in f"{words.module} {words.text}":
        return Sight(True, f"{words.module or 'boxlite'} says so", (words.file,))
    if ran := line_of(words.text, BWRAP_FAILED):
        what = f"only bubblewrap failed: {words.module or 'boxlite'} says: {ran}"
        return Sight(False, what, (words.file,))
    return Sight(None, "boxlite does not say what it ran")


def capability_denied(cell: FinishedCell) -> Sight:
    if passed(cell.result):
        return Sight(False, "every test passes all the same", (JUNIT,))
    probes = cell.evidence.probes
    stripped = probes.unshare_user.worked and probes.unshare_user_root.failed
    is_proved = cell.result.cause == POLICY and cell.result.confidence is Confidence.PROVED
    if not (stripped and is_proved):
        return Sight(None, "the evidence does not prove it")
    what = f"`unshare -U` works and `unshare -Ur` does not; {cell.result.reason}"
    if probes.bwrap_user.failed_with("setting up uid map: Permission denied"):
        what += "; it is the profile's missing attach_disconnected that stops bubblewrap first"
    return Sight(True, what, ("probes.json", *cell.refusals))


@with_facts
def profile_ships(_cell: FinishedCell, facts: Facts) -> Sight:
    apparmor = facts.apparmor
    if apparmor is None:
        return Sight(None, "it has no AppArmor")
    release = numbers(apparmor.version)
    if release is None:
        return Sight(None, "it does not tell the version of its AppArmor")
    version = f"AppArmor {apparmor.version}"
    if release.major < 4:
        return Sight(None, f"its {version} is older")
    if PROFILE_FILE not in apparmor.profile_files:
        return Sight(False, f"its {version} has no {PROFILE_FILE}")
    mode = apparmor.profiles.get(PROFILE)
    loaded = f"loaded in {mode} mode" if mode else "not loaded"
    return Sight(True, f"its {version} has {PROFILE_FILE}, {loaded}")


@with_facts
def ubuntu_default(_cell: FinishedCell, facts: Facts) -> Sight:
    loaded = facts.apparmor.profiles if facts.apparmor else {}
    mode = loaded.get(PROFILE, "not loaded")
    switch = facts.sysctls[RESTRICTION]
    what = f"the profile: {mode}; {RESTRICTION}: {switch or 'not there'}"
    return Sight(mode == "enforce" and switch == "1", what)


@with_facts
def setting_userns_clone(cell: FinishedCell, facts: Facts) -> Sight:
    in_effect = sysctl_in_effect(facts, USERNS_CLONE, "1")
    if isinstance(in_effect, str):
        return Sight(None, in_effect)
    if not in_effect:
        return Sight(None, f"{USERNS_CLONE} is 1: that is not in effect here")
    return in_vain(cell, f"{USERNS_CLONE} is 1")


CLAIMS = (
    Claim(
        "blocked-tests",
        "Two integration tests in src/boxlite/tests/jailer.rs fail on hosts where unprivileged user namespaces "
        "are blocked by the kernel or AppArmor: "
        "jailer::jailer_creates_isolated_mount_namespace jailer::jailer_enabled_box_starts_and_executes",
        "whether both tests fail in each cell that a setting of the kernel's or AppArmor blocks",
        BLOCKED,
        blocked_tests,
    ),
    Claim(
        "preflight-fails",
        f"The failure surfaces during the box start preflight as: ... {PREFLIGHT}",
        "whether boxlite says so, to its caller or in its log",
        BLOCKED,
        preflight_fails,
    ),
    Claim(
        "error-text",
        ERROR_TEXT,
        "whether boxlite says so where bubblewrap may not be executed",
        where_blocked(
            NOT_EXECUTED,
            only="only a cell in which bubblewrap may not be executed shows it "
            "(variant apparmor-bwrap-exec-deny)",
        ),
        error_text,
    ),
    Claim(
        "audit-line",
        'audit: type=1400 apparmor="DENIED" operation="capable" profile="unprivileged_userns" '
        'capability=21 capname="sys_admin"',
        "whether the kernel logged such a line while the suite ran",
        UBUNTUS_POLICY,
        on_ubuntus_kernel(audit_line),
        measured="it does, for boxlite's own test of clone() (comm tokio-rt-worker), which says nothing about "
        f"bubblewrap: the line is there where boxlite works, too ({SOURCE})",
    ),
    Claim(
        "one-cause",
        f'{ERROR_TEXT} ... Kernel audit log ...: operation="capable" ... capname="sys_admin"',
        "whether a cell that shows one of the two shows the other as well",
        where_blocked(
            *(POLICY, NOT_EXECUTED),
            only="only a cell under Ubuntu 24.04's policy, or in which bubblewrap may not be executed, "
            "shows it",
        ),
        one_cause,
    ),
    Claim(
        "fresh-ubuntu",
        "# fresh Ubuntu 24.04 EC2 host (kernel 7.0.0-1004-aws) ... "
        "make test:integration:rust FILTER=jailer_enabled_box",
        "whether that test fails on Ubuntu 24.04 as installed, whatever its kernel",
        ON_NOBLE,
        fresh_ubuntu,
    ),
    Claim(
        "bwrap-alone",
        "bwrap --unshare-user --bind / / true succeeds in isolation",
        "whether that command works for the suite's user in the cell in which boxlite fails",
        UBUNTUS_POLICY,
        on_ubuntus_kernel(bwrap_alone),
        measured=f"it fails by itself: bwrap: setting up uid map: Permission denied ({SOURCE})",
    ),
    Claim(
        "libcontainer",
        "the libcontainer-driven preflight in the jailer",
        "which part of boxlite says that the preflight failed, and what it ran",
        BLOCKED,
        libcontainer,
    ),
    Claim(
        "capability-denied",
        "requires CAP_SYS_ADMIN inside the userns and that is denied by the unprivileged_userns "
        "AppArmor profile",
        "whether the evidence proves that the namespace is made and its capabilities are denied",
        UBUNTUS_POLICY,
        on_ubuntus_kernel(capability_denied),
        measured="the profile denies every capability in the namespace, but the first to stop bubblewrap is "
        "its missing attach_disconnected: EACCES at the uid map, where the capability alone gives EPERM "
        f"({SOURCE})",
    ),
    Claim(
        "profile-ships",
        "the unprivileged_userns AppArmor profile that ships in apparmor ≥ 4.0",
        "whether a guest with such an AppArmor, as installed, has the profile's file",
        AS_INSTALLED,
        profile_ships,
    ),
    Claim(
        "ubuntu-default",
        "(Ubuntu 24+ default)",
        f"whether Ubuntu as installed enforces the profile, and {RESTRICTION} is 1",
        on_ubuntu("24.04", "26.04", only="could only be judged on Ubuntu 24.04 or newer as installed"),
        ubuntu_default,
    ),
    Claim(
        "three-settings",
        f"Setting: {USERNS_CLONE}=1 {RESTRICTION}=0 apparmor_parser -R {PROFILE_FILE} {IN_VAIN}",
        f"whether the preflight fails under the variant {SETTINGS}, which is these three settings",
        with_variant(SETTINGS, only=f"only a cell under the three settings shows it (variant {SETTINGS})"),
        setting_in_vain("the three settings are in effect", "0", without_profile=True),
        measured=f"with the three settings together the whole suite passes ({SOURCE})",
    ),
    # Each of the three settings alone.
    Claim(
        "setting-userns-clone",
        f"Setting: {USERNS_CLONE}=1 ... {IN_VAIN}",
        f"whether the preflight fails under the policy where {USERNS_CLONE} is 1",
        UNDER_POLICY,
        setting_userns_clone,
    ),
    Claim(
        "setting-restrict",
        f"Setting: ... {RESTRICTION}=0 ... {IN_VAIN}",
        f"whether the preflight fails where {RESTRICTION} is 0, and nothing else is changed",
        with_variant(
            "apparmor-restrict-off",
            only="only Ubuntu's kernel with this setting shows it (variant apparmor-restrict-off)",
        ),
        setting_in_vain(f"{RESTRICTION} is 0", "0"),
        measured=f"this setting alone cures, the whole suite passes ({SOURCE})",
    ),
    Claim(
        "setting-profile",
        f"Setting: ... apparmor_parser -R {PROFILE_FILE} {IN_VAIN}",
        "whether the preflight fails where the policy's profile is not loaded, and nothing else is changed",
        # On Ubuntu 24.04 as installed both come to the same. The first runs only on a kernel with the
        # restriction.
        with_variant(
            *("apparmor-userns-profile-missing", "apparmor-userns-profile-removed"),
            only="only Ubuntu's kernel without the profile shows it (variant apparmor-userns-profile-missing)",
        ),
        setting_in_vain(
            f"{RESTRICTION} is 1 and the profile {PROFILE} is not loaded", "1", without_profile=True
        ),
        measured="the preflight fails all the same, and it is worse than before: no program gets a user "
        f"namespace ({SOURCE})",
    ),
    Claim(
        "more-unconfinement",
        "The kernel/AppArmor stack appears to require additional unconfinement for bwrap.",
        "whether a profile of bubblewrap's own, and nothing else, unblocks a cell under the policy",
        UNDER_POLICY,
        tried(*PROFILE_REMEDIES),
    ),
    # The report's three options for a fix.
    Claim(
        "option-preflight",
        "Test-side preflight — detect userns availability at test start, skip with clear logging on "
        "unsupported hosts.",
        "whether with the remedy preflight no test fails: those that cannot pass are skipped and say why",
        BLOCKED,
        tried("preflight", wanted=RemedyOutcome.AVOIDS),
    ),
    Claim(
        "option-container",
        "Run jailer tests in a privileged container in CI (the runc / youki convention).",
        "whether the whole suite passes with the remedy privileged-container",
        BLOCKED,
        tried("privileged-container"),
    ),
    Claim(
        "option-allow-list",
        "Document a setup script that installs an AppArmor allowlist for the test bwrap binary, "
        "similar to bubblewrap-userns-restrict overrides for snap.",
        f"whether the whole suite passes with the script of the remedy {' or '.join(PROFILE_REMEDIES)}",
        where_blocked(POLICY, "apparmor-userns-deny", only="only a cell that AppArmor blocks shows it"),
        tried(*PROFILE_REMEDIES),
    ),
    Claim(
        "other-tests",
        "These two tests were among the originally-reported 14 failures in make test:all; the other 12 had "
        "different root causes",
        "nothing: it is not about the jailer",
        nowhere("about upstream's other tests, and the lab's suite is the jailer's alone"),
        unseen,
    ),
)
REPORT = BugReport("Bug report issue-468", CLAIMS)
