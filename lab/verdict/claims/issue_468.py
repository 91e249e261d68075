"""boxlite-ai/boxlite issue 468: two tests of the jailer fail on hosts that block user namespaces.

Its text is quoted in each claim. It was filed for Ubuntu 24.04, whose policy the variant apparmor-userns-nocaps
puts on other guests. It mixes two causes: its audit line is that policy's, its error text that of a bubblewrap
that may not be executed, which the variant apparmor-bwrap-exec-deny brings about.
"""

from collections.abc import Callable

from lab.causes.evidence import KERNEL_FILE
from lab.probes import Facts
from lab.probes.facts import numbers
from lab.record import CellResult, Confidence, RemedyOutcome
from lab.verdict.claims._base import (
    BLOCKING,
    ONLY_UNDER_POLICY,
    POLICY,
    PROFILE_REMEDIES,
    BugReport,
    Claim,
    Sight,
    failed,
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

JUNIT = "suite/junit.xml"
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
# The switch of Ubuntu's restriction of user namespaces, which only Ubuntu's kernels have.
RESTRICTION = "kernel.apparmor_restrict_unprivileged_userns"
# The profile that exempts bubblewrap from it, on Ubuntu 25.04 and newer.
EXEMPTING = "bwrap"
USERNS_CLONE = "kernel.unprivileged_userns_clone"
# The variant that is the report's three settings.
SETTINGS = "issue-468-settings"
# Where it was measured what the restriction does.
SOURCE = "docs/ubuntu-policy.md, 28 November 2026"
# Reasons for a guest without a cell that shows the claim.
ONLY_BLOCKED = "only a cell whose user namespaces are blocked shows it"
ONLY_UBUNTUS_POLICY = "only a cell that Ubuntu's own policy blocks shows it (guest ubuntu-24.04, variant stock)"


def on_ubuntus_kernel(look: Callable[[FinishedCell], Sight]) -> Callable[[FinishedCell], Sight]:
    """Only Ubuntu's kernel shows what its policy does; a variant that imitates the policy does not."""

    def checked(cell: FinishedCell) -> Sight:
        reason = _without_policy(cell.result)
        return Sight(None, reason) if reason else look(cell)

    return checked


def _without_policy(cell: CellResult) -> str:
    """Why a cell shows nothing of Ubuntu's own policy, in words; empty if it does."""
    if cell.facts is None:
        return "its facts were not read"
    restricted = sysctl_in_effect(cell.facts, RESTRICTION, "1")
    if isinstance(restricted, str):
        return restricted
    return "its variant imitates the policy, and differs from it" if cell.differs else ""


def setting_in_vain(setting: str, in_effect: Callable[[Facts], bool]) -> Callable[[FinishedCell], Sight]:
    """Whether the preflight fails although settings are in effect; `setting` names them in a few words."""

    def look(cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None or not in_effect(facts):
            return Sight(None, f"{setting}: that is not in effect here")
        if passed(cell.result) and facts.apparmor and EXEMPTING in facts.apparmor.profiles:
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


def restriction_is(facts: Facts, value: str) -> bool:
    return facts.sysctls.get(RESTRICTION) == value


def profile_is_loaded(facts: Facts) -> bool:
    return facts.apparmor is not None and PROFILE in facts.apparmor.profiles


def sysctl_in_effect(facts: Facts, name: str, value: str) -> bool | str:
    """Whether a sysctl has this value; if the guest's kernel has no such sysctl, so in words."""
    if name not in facts.sysctls:
        return f"it was not asked for {name}"
    found = facts.sysctls[name]
    return f"its kernel has no {name}: only Ubuntu's kernel tells" if found is None else found == value


def line_of(text: str, begins: str) -> str:
    """The first line that begins with `begins`; empty if there is none."""
    return next((line for line in text.splitlines() if line.startswith(begins)), "")


def blocked_tests(cell: FinishedCell) -> Sight:
    if without := untold(cell.result, *TESTS):
        return Sight(None, without)
    failing = failed(cell.result)
    missing = [test for test in TESTS if test not in failing]
    if missing:
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
    said = ERROR_TEXT in words.text
    ran = line_of(words.text, BWRAP_FAILED)
    if audited.holds is None or not (said or ran):
        return Sight(None, "what boxlite or the kernel says was not gathered")
    files = (words.file, *audited.files)
    if said and audited.holds:
        return Sight(True, "boxlite says the one, and the kernel logs the other", files)
    if said:
        return Sight(False, "boxlite says so without the audit line: bubblewrap did not even start", files)
    # `can_create_user_namespace` in boxlite's jailer/bwrap.rs has the report's words for a bubblewrap that
    # could not be started, and these for one that ran and failed.
    return Sight(False, f"bubblewrap does start, and boxlite says other words: {ran}", files)


def fresh_ubuntu(cell: FinishedCell) -> Sight:
    if without := untold(cell.result, JAILED):
        return Sight(None, without)
    fails = JAILED in failed(cell.result)
    facts = cell.result.facts
    kernel = facts.kernel if facts else "that was not read"
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


def profile_ships(cell: FinishedCell) -> Sight:
    facts = cell.result.facts
    if facts is None:
        return Sight(None, "its facts were not read")
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


def ubuntu_default(cell: FinishedCell) -> Sight:
    facts = cell.result.facts
    if facts is None:
        return Sight(None, "its facts were not read")
    loaded = facts.apparmor.profiles if facts.apparmor else {}
    mode = loaded.get(PROFILE, "not loaded")
    switch = facts.sysctls[RESTRICTION]
    shown = f"the profile: {mode}; {RESTRICTION}: {switch or 'not there'}"
    return Sight(mode == "enforce" and switch == "1", shown)


def setting_userns_clone(cell: FinishedCell) -> Sight:
    facts = cell.result.facts
    if facts is None:
        return Sight(None, "its facts were not read")
    found = sysctl_in_effect(facts, USERNS_CLONE, "1")
    if isinstance(found, str):
        return Sight(None, found)
    if not found:
        return Sight(None, f"{USERNS_CLONE} is 1: that is not in effect here")
    return in_vain(cell, f"{USERNS_CLONE} is 1")


REPORT = BugReport(
    title="Bug report issue-468",
    claims=(
        Claim(
            name="blocked-tests",
            quote=(
                "Two integration tests in src/boxlite/tests/jailer.rs fail on hosts where unprivileged user "
                "namespaces are blocked by the kernel or AppArmor: "
                "jailer::jailer_creates_isolated_mount_namespace jailer::jailer_enabled_box_starts_and_executes"
            ),
            check="whether both tests fail in each cell that a setting of the kernel's or AppArmor blocks",
            only=ONLY_BLOCKED,
            concerns=where_blocked(*BLOCKING),
            look=blocked_tests,
        ),
        Claim(
            name="preflight-fails",
            quote=(
                "The failure surfaces during the box start preflight as: ... "
                "Sandbox preflight failed: bwrap cannot create user namespaces."
            ),
            check="whether boxlite says so, to its caller or in its log",
            only=ONLY_BLOCKED,
            concerns=where_blocked(*BLOCKING),
            look=preflight_fails,
        ),
        Claim(
            name="error-text",
            quote=ERROR_TEXT,
            check="whether boxlite says so where bubblewrap may not be executed",
            only=(
                "only a cell in which bubblewrap may not be executed shows it (variant "
                "apparmor-bwrap-exec-deny)"
            ),
            concerns=where_blocked(NOT_EXECUTED),
            look=error_text,
        ),
        Claim(
            name="audit-line",
            quote=(
                'audit: type=1400 apparmor="DENIED" operation="capable" profile="unprivileged_userns" '
                'capability=21 capname="sys_admin"'
            ),
            check="whether the kernel logged such a line while the suite ran",
            only=ONLY_UBUNTUS_POLICY,
            concerns=where_blocked(POLICY),
            look=on_ubuntus_kernel(audit_line),
            measured=(
                "it does, for boxlite's own test of clone() (comm tokio-rt-worker), which says nothing about "
                f"bubblewrap: the line is there where boxlite works, too ({SOURCE})"
            ),
        ),
        Claim(
            name="one-cause",
            quote=f'{ERROR_TEXT} ... Kernel audit log ...: operation="capable" ... capname="sys_admin"',
            check="whether a cell that shows one of the two shows the other as well",
            only=(
                "only a cell under Ubuntu 24.04's policy, or in which bubblewrap may not be executed, shows it"
            ),
            concerns=where_blocked(POLICY, NOT_EXECUTED),
            look=one_cause,
        ),
        Claim(
            name="fresh-ubuntu",
            quote=(
                "# fresh Ubuntu 24.04 EC2 host (kernel 7.0.0-1004-aws) ... "
                "make test:integration:rust FILTER=jailer_enabled_box"
            ),
            check="whether that test fails on Ubuntu 24.04 as installed, whatever its kernel",
            only="could only be judged on Ubuntu 24.04 as installed",
            concerns=on_ubuntu("24.04"),
            look=fresh_ubuntu,
        ),
        Claim(
            name="bwrap-alone",
            quote="bwrap --unshare-user --bind / / true succeeds in isolation",
            check="whether that command works for the suite's user in the cell in which boxlite fails",
            only=ONLY_UBUNTUS_POLICY,
            concerns=where_blocked(POLICY),
            look=on_ubuntus_kernel(bwrap_alone),
            measured=f"it fails by itself: bwrap: setting up uid map: Permission denied ({SOURCE})",
        ),
        Claim(
            name="libcontainer",
            quote="the libcontainer-driven preflight in the jailer",
            check="which part of boxlite says that the preflight failed, and what it ran",
            only=ONLY_BLOCKED,
            concerns=where_blocked(*BLOCKING),
            look=libcontainer,
        ),
        Claim(
            name="capability-denied",
            quote=(
                "requires CAP_SYS_ADMIN inside the userns and that is denied by the unprivileged_userns "
                "AppArmor profile"
            ),
            check="whether the evidence proves that the namespace is made and its capabilities are denied",
            only=ONLY_UBUNTUS_POLICY,
            concerns=where_blocked(POLICY),
            look=on_ubuntus_kernel(capability_denied),
            measured=(
                "the profile denies every capability in the namespace, but the first to stop bubblewrap is its "
                "missing attach_disconnected: EACCES at the uid map, where the capability alone gives EPERM "
                f"({SOURCE})"
            ),
        ),
        Claim(
            name="profile-ships",
            quote="the unprivileged_userns AppArmor profile that ships in apparmor ≥ 4.0",
            check="whether a guest with such an AppArmor, as installed, has the profile's file",
            only="only a cell as installed shows it (variant stock)",
            concerns=with_variant("stock"),
            look=profile_ships,
        ),
        Claim(
            name="ubuntu-default",
            quote="(Ubuntu 24+ default)",
            check=f"whether Ubuntu as installed enforces the profile, and {RESTRICTION} is 1",
            only="could only be judged on Ubuntu 24.04 or newer as installed",
            concerns=on_ubuntu("24.04", "26.04"),
            look=ubuntu_default,
        ),
        Claim(
            name="three-settings",
            quote=(
                "Setting: kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 "
                "apparmor_parser -R /etc/apparmor.d/unprivileged_userns "
                "does not unblock the preflight on this host."
            ),
            check=f"whether the preflight fails under the variant {SETTINGS}, which is these three settings",
            only=f"only a cell under the three settings shows it (variant {SETTINGS})",
            concerns=with_variant(SETTINGS),
            look=setting_in_vain(
                "the three settings are in effect",
                lambda facts: restriction_is(facts, "0") and not profile_is_loaded(facts),
            ),
            measured=f"with the three settings together the whole suite passes ({SOURCE})",
        ),
        # Each of the three settings alone.
        Claim(
            name="setting-userns-clone",
            quote=f"Setting: {USERNS_CLONE}=1 ... does not unblock the preflight on this host.",
            check=f"whether the preflight fails under the policy where {USERNS_CLONE} is 1",
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=setting_userns_clone,
        ),
        Claim(
            name="setting-restrict",
            quote=f"Setting: ... {RESTRICTION}=0 ... does not unblock the preflight on this host.",
            check=f"whether the preflight fails where {RESTRICTION} is 0, and nothing else is changed",
            only="only Ubuntu's kernel with this setting shows it (variant apparmor-restrict-off)",
            concerns=with_variant("apparmor-restrict-off"),
            look=setting_in_vain(f"{RESTRICTION} is 0", lambda facts: restriction_is(facts, "0")),
            measured=f"this setting alone cures, the whole suite passes ({SOURCE})",
        ),
        Claim(
            name="setting-profile",
            quote=(
                f"Setting: ... apparmor_parser -R /etc/apparmor.d/{PROFILE} "
                "does not unblock the preflight on this host."
            ),
            check=(
                "whether the preflight fails where the policy's profile is not loaded, and nothing else is "
                "changed"
            ),
            only=(
                "only Ubuntu's kernel without the profile shows it (variant apparmor-userns-profile-missing)"
            ),
            # On Ubuntu 24.04 as installed both come to the same. The first runs only on a kernel with the
            # restriction.
            concerns=with_variant("apparmor-userns-profile-missing", "apparmor-userns-profile-removed"),
            look=setting_in_vain(
                f"{RESTRICTION} is 1 and the profile {PROFILE} is not loaded",
                lambda facts: restriction_is(facts, "1") and not profile_is_loaded(facts),
            ),
            measured=(
                "the preflight fails all the same, and it is worse than before: no program gets a user "
                f"namespace ({SOURCE})"
            ),
        ),
        Claim(
            name="more-unconfinement",
            quote="The kernel/AppArmor stack appears to require additional unconfinement for bwrap.",
            check="whether a profile of bubblewrap's own, and nothing else, unblocks a cell under the policy",
            only=ONLY_UNDER_POLICY,
            concerns=where_blocked(POLICY),
            look=tried(*PROFILE_REMEDIES),
        ),
        # The report's three options for a fix.
        Claim(
            name="option-preflight",
            quote=(
                "Test-side preflight — detect userns availability at test start, skip with clear logging on "
                "unsupported hosts."
            ),
            check=(
                "whether with the remedy preflight no test fails: those that cannot pass are skipped and say "
                "why"
            ),
            only=ONLY_BLOCKED,
            concerns=where_blocked(*BLOCKING),
            look=tried("preflight", wanted=RemedyOutcome.AVOIDS),
        ),
        Claim(
            name="option-container",
            quote="Run jailer tests in a privileged container in CI (the runc / youki convention).",
            check="whether the whole suite passes with the remedy privileged-container",
            only=ONLY_BLOCKED,
            concerns=where_blocked(*BLOCKING),
            look=tried("privileged-container"),
        ),
        Claim(
            name="option-allow-list",
            quote=(
                "Document a setup script that installs an AppArmor allowlist for the test bwrap binary, "
                "similar to bubblewrap-userns-restrict overrides for snap."
            ),
            check=(
                f"whether the whole suite passes with the script of the remedy {' or '.join(PROFILE_REMEDIES)}"
            ),
            only="only a cell that AppArmor blocks shows it",
            concerns=where_blocked(POLICY, "apparmor-userns-deny"),
            look=tried(*PROFILE_REMEDIES),
        ),
        Claim(
            name="other-tests",
            quote=(
                "These two tests were among the originally-reported 14 failures in make test:all; the other "
                "12 had different root causes"
            ),
            check="nothing: it is not about the jailer",
            only="about upstream's other tests, and the lab's suite is the jailer's alone",
            concerns=nowhere,
            look=unseen,
        ),
    ),
)
