# ruff: noqa: E501
"""What the text of a report alone shows: causes, contradictions and warnings."""

import json

import pytest

from lab import catalog, causes
from lab.record import Confidence
from lab.repro.judging import MEASURED, judge, knowledge, measured
from lab.repro.reading import read
from lab.repro.report import Judged, Possible, Quote
from tests.builders.report_texts import FAMILY, KILLED, MANY_PROCESSES, MOVED, PROBE, TWICE

RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"
NOCAPS = "apparmor-userns-nocaps"
KNOWN = catalog.load()
LINE = 'apparmor="DENIED" operation="capable" profile="unprivileged_userns" comm="{}" capability=21 capname="sys_admin"'
# The keys of each table of `judging.toml`.
KEYS = {
    "topic": {"name", "pattern"},
    "field": {"name", "steps", "prior"},
    "chance": {"step", "errno", "program", "topic", "of", "remark", "source"},
    "shipped": {"ids", "versions", "kernels", "of", "why", "source"},
    "fact": {"topic", "engine", "of", "why", "source"},
    "setting": {"name", "value", "beside", "alone", "by_mood"},
    "check": {"cause", "command", "shows"},
}


def judged(text: str) -> Judged:
    return judge(read(text.encode()))


def named(text: str) -> list[tuple[str, str, str]]:
    """The causes that a text shows, each with how sure that is and the program that it blocks."""
    return [(finding.name, str(finding.confidence), finding.program) for finding in judged(text).findings]


def remarks(text: str) -> str:
    return "\n".join(remark.text for remark in judged(text).remarks)


def numbers(quotes: tuple[Quote, ...]) -> list[int]:
    return [quote.number for quote in quotes]


def names(possible: tuple[Possible, ...]) -> list[str]:
    return [cause.name for cause in possible]


@pytest.mark.parametrize("rows", KEYS)
def test_a_row_has_the_keys_that_are_read(rows: str) -> None:
    assert {key for row in knowledge()[rows] for key in row} == KEYS[rows]


def test_every_row_is_about_a_known_cause_and_each_has_a_command_that_tells_it() -> None:
    table = knowledge()
    odds = [row["of"] for rows in ("chance", "shipped", "fact") for row in table[rows]]
    odds += [field["prior"] for field in table["field"]]
    by_mood = [row["by_mood"] for row in table["setting"]]
    odds += [factors for moods in by_mood for factors in moods.values()]
    causes_ = {cause for row in odds for cause in row} - {"other"}
    assert causes_ <= set(causes.known())
    assert causes_ == {check["cause"] for check in table["check"]}
    assert {mood for moods in by_mood for mood in moods} <= table["moods"].keys()


def test_what_was_measured_names_its_guest_or_its_source_and_a_known_cause() -> None:
    rows = json.loads(MEASURED.read_text())
    assert rows
    for row in rows:
        assert row["cause"] in causes.known()
        assert "source" in row or (row["guest"] in KNOWN.guests and row["variant"] in KNOWN.variants)
        assert row["words"] or row["audit"]


def test_a_message_that_was_measured_under_a_cause_makes_it_possible_at_least() -> None:
    # Of a message that several causes have, the table decides which are named.
    for (step, means, program), under in measured().items():
        [field] = [field for field in knowledge()["field"] if step in field["steps"]]
        assert under & field["prior"].keys(), (step, means, program)


SERVICE = 'apparmor="DENIED" operation="mount" profile="lxc-container-default" name="/" comm="(networkd)"'
SELINUX = 'avc:  denied  {{ {} }} for  pid=1 comm="bwrap" scontext=a tcontext=b tclass={} permissive=0'
ALLOWED = 'apparmor="ALLOWED" operation="{}" {} profile="p//null-/usr/bin/bwrap" comm="bwrap"'


@pytest.mark.parametrize(
    ("lines", "causes_"),
    [
        (LINE.format("bwrap"), [(NOCAPS, "proved", "bwrap")]),
        # It only tells of the transition.
        (
            'apparmor="AUDIT" operation="userns_create" info="Userns create - transitioning profile" '
            'profile="unconfined" comm="some-desktop" target="unprivileged_userns"',
            [(NOCAPS, "likely", "some-desktop")],
        ),
        (SERVICE, []),
        ('avc:  denied  { mounton } for  comm="systemd" path="/" tclass=dir permissive=0', []),
        (f"{SERVICE}\n\nFailed to open /dev/kvm: Permission denied", [("kvm-denied", "likely", "bwrap")]),
        (SELINUX.format("create", "user_namespace"), [("selinux-userns-deny", "proved", "bwrap")]),
        (SELINUX.format("mounton", "dir"), [("selinux-mount-deny", "proved", "bwrap")]),
        (SELINUX.format("mount", "filesystem"), [("selinux-mount-deny", "proved", "bwrap")]),
        (SELINUX.format("remount", "filesystem"), [("selinux-mount-deny", "proved", "bwrap")]),
        # Each line is one of its own.
        (
            "\n".join(
                (
                    ALLOWED.format("getattr", 'name="/proc/1/fd/"'),
                    ALLOWED.format("capable", "capability=12"),
                    ALLOWED.format(
                        "open", 'info="Failed name lookup - disconnected path" error=-13 name="proc/1/uid_map"'
                    ),
                )
            ),
            [("apparmor-disconnected", "likely", "bwrap")],
        ),
        # Profiles of other programs deny these all the time.
        (LINE.format("web").replace("unprivileged_userns", "snap.web.web"), []),
        (
            'apparmor="DENIED" operation="open" info="Failed name lookup - disconnected path" error=-13 '
            'profile="/usr/sbin/cupsd" name="run/systemd/journal/socket" comm="cupsd"',
            [],
        ),
    ],
)
def test_what_audit_lines_show(lines: str, causes_: list[tuple[str, str, str]]) -> None:
    assert named(lines) == causes_


@pytest.mark.parametrize(
    ("line", "is_told"),
    [
        # Ubuntu logs these where bubblewrap works, too.
        (LINE.format("tokio-rt-worker"), False),
        (LINE.format("unshare"), False),
        (LINE.replace('comm="{}" ', ""), True),
    ],
)
def test_an_audit_line_of_no_or_of_another_program_proves_nothing(line: str, is_told: bool) -> None:
    [finding] = judged(line).findings
    assert (finding.name, finding.confidence, finding.program) == (NOCAPS, Confidence.LIKELY, "bwrap")
    assert ("names no program" in finding.why) is is_told


def test_another_program_is_not_cured_by_a_profile_for_bubblewrap() -> None:
    [finding] = judged(MOVED).findings
    assert (finding.name, finding.confidence, finding.program) == (NOCAPS, Confidence.PROVED, "some-desktop")
    assert numbers(finding.quotes) == [3, 4]
    assert "does not cure some-desktop" in remarks(MOVED)


def test_the_sysctl_and_two_messages_of_one_missing_capability_make_it_likely() -> None:
    [finding] = judged(FAMILY).findings
    assert (finding.name, finding.confidence) == (NOCAPS, Confidence.LIKELY)
    assert numbers(finding.quotes) == [6, 10, 12]
    assert "different messages come from that one cause" in finding.why
    # The uid map is denied with EACCES for the missing attach_disconnected.
    assert "capability" not in finding.why


def test_what_boxlite_read_and_tried_itself_is_evidence() -> None:
    text = (
        "clone(CLONE_NEWUSER) errno: 1 (Operation not permitted (os error 1))\n\n"
        "Cause: Unprivileged user namespaces disabled (kernel.unprivileged_userns_clone=0)."
    )
    [finding] = judged(text).findings
    assert (finding.name, finding.confidence) == ("userns-sysctl", Confidence.LIKELY)
    assert "a user namespace (EPERM)" in finding.why
    assert "kernel.unprivileged_userns_clone=0 holds" in finding.why


def test_the_output_of_the_probe_script_proves_a_cause_unless_it_is_damaged() -> None:
    [finding] = judged(PROBE).findings
    assert (finding.name, finding.confidence) == ("userns-limit", Confidence.PROVED)
    assert 1 in numbers(finding.quotes)
    damaged = "\n".join(PROBE.splitlines()[:30])
    assert judged(damaged).findings == ()
    assert "Of the probe's output nothing is used" in remarks(damaged)


@pytest.mark.parametrize(
    ("text", "remark", "lines"),
    [
        # Each has several causes, or is none of the host's.
        (
            "bwrap: Creating new namespace failed: Permission denied\n\nbwrap: Creating new namespace failed (2): Permission denied",
            "EACCES: a security module",
            [1, 3],
        ),
        ("bwrap: No permissions to create a new namespace, likely because x", "EPERM has several", [1]),
        (TWICE, "started inside a namespace that was made before the change", [19, 10]),
        # A bubblewrap that was not executed made no namespace.
        (TWICE, "One start of bubblewrap cannot show both.", None),
        (KILLED, "a seccomp filter that the program set up itself", None),
        (MANY_PROCESSES, "EAGAIN: a limit on the user's processes (RLIMIT_NPROC)", None),
        ("Debian 13, kernel 6.17.4-300.fc43.x86_64", "is a kernel of Fedora, not of Debian 13", [1]),
        ("Ubuntu 24.04, kernel 5.15.1-microsoft-standard-WSL2", "The lab has no WSL2", [1]),
        (
            "user.max_user_namespaces = 0\n\nand later\n\nuser.max_user_namespaces = 15000",
            "gives user.max_user_namespaces two values, 0 and 15000",
            [1, 5],
        ),
        ("Debian 13\n\nFedora 43", "names two systems, Debian 13 and Fedora 43", [1, 3]),
    ],
)
def test_a_contradiction_and_a_wrong_conclusion_are_remarked(
    text: str, remark: str, lines: list[int] | None
) -> None:
    [made] = [made for made in judged(text).remarks if remark in made.text]
    assert lines is None or sorted(set(numbers(made.quotes))) == sorted(lines)


def test_a_kernel_of_the_systems_family_is_not_remarked() -> None:
    assert remarks("Linux Mint 22, kernel 6.8.0-45-generic") == ""


@pytest.mark.parametrize(
    "error",
    [
        "Creating new namespace failed: Permission denied",
        "No permissions to create a new namespace, likely because the kernel does not allow",
    ],
)
def test_a_message_with_several_causes_shows_none(error: str) -> None:
    assert named(f"bwrap: {error}") == []


def test_sigsys_is_the_programs_own_filter_and_not_the_host() -> None:
    [finding] = judged(KILLED).findings
    assert (finding.name, finding.confidence) == ("shim-seccomp", Confidence.LIKELY)
    assert "bubblewrap worked: it started the shim" in finding.why


def test_a_hostile_report_is_judged_in_bounds() -> None:
    lines = [f'apparmor="DENIED" operation="userns_create" profile="p{i}" comm="prog{i}"' for i in range(300)]
    lines += [f"bwrap: message {i}: Permission denied\nkernel.a{i} = 0\nUbuntu 24.{i:02}" for i in range(99)]
    result = judged("\n".join(lines))
    assert len(result.findings) <= 10
    assert len(result.remarks) <= 20


def test_a_finding_quotes_the_settings_and_the_messages_that_show_it() -> None:
    text = (
        "user.max_user_namespaces = 0\n\nbwrap: Creating new namespace failed: x namespaces exceeded (ENOSPC)"
    )
    [finding] = judged(text).findings
    assert (finding.name, numbers(finding.quotes)) == ("userns-limit", [1, 3])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "masked-proc"),
        ("ls: cannot access '/dev/kvm': No such file or directory", "kvm-absent"),
        ("boxlite: /dev/kvm exists but access denied (permissions)", "kvm-denied"),
        ("KVM is available but access is denied", "kvm-denied"),
        ("bwrap: setuid use of bubblewrap is not supported", "bwrap-setuid"),
        ("bwrap: Can't mount on symlink destination /x", "mount-symlink"),
        ("kernel.unprivileged_userns_clone = 0", "userns-sysctl"),
        (f"With {RESTRICT}=0 it works at once.", NOCAPS),
        ("boxlite run: exit code: 159", "shim-seccomp"),
        ("bwrap: Unknown option --clearenv", "bwrap-too-old"),
        ("bwrap: Creating new namespace failed: Resource temporarily unavailable", "nproc-limit"),
        ("user.max_user_namespaces = 0", "userns-limit"),
        ("user.max_pid_namespaces = 0", "namespace-limit"),
        ("boxlite: KVM is not available on this host", "kvm-absent"),
        ("failed to run bwrap: Permission denied (os error 13)", "bwrap-exec-denied"),
        ("bwrap: pivot_root: Permission denied", "apparmor-mount-deny"),
        ("bwrap: execvp /home/me/boxes/a/bin/boxlite-shim: Permission denied", "shim-not-executable"),
        (
            "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
            "userns-limit",
        ),
        (MANY_PROCESSES, "nproc-limit"),
        (
            "Chrome on Ubuntu 24.04\n\n```\n[1:1:0101/1.1:FATAL:zygote_host_impl_linux.cc(128)] No usable sandbox! If you are running on Ubuntu 23.10+ or another Linux distro that has disabled unprivileged user namespaces with AppArmor, see https://chromium.googlesource.com/x. Otherwise see\n```",
            "apparmor-userns-nocaps",
        ),
        (
            "AppImage crashes\n\nOS: Debian 10\n\n[FATAL:setuid_sandbox_host.cc(158)] The SUID sandbox helper binary was found, but is not configured correctly.",
            "userns-sysctl",
        ),
        (
            "docker run --rm browserless/chrome\nFailed to move to new namespace: PID namespaces supported, Network namespace supported, but failed: errno = Operation not permitted\nhost: Ubuntu 20.04",
            "seccomp",
        ),
        (
            "rootless podman on CentOS 7\n\ncannot clone: Operation not permitted\nuser namespaces are not enabled in /proc/sys/user/max_user_namespaces",
            "userns-limit",
        ),
        (
            "podman on Debian 10\n\ncannot clone: Operation not permitted\nuser namespaces are not enabled in /proc/sys/kernel/unprivileged_userns_clone\nError: could not get runtime: cannot re-exec process",
            "userns-sysctl",
        ),
        (
            "[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: no space left on device",
            "userns-limit",
        ),
        (
            "buildkit rootless in Kubernetes\n\n[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: operation not permitted",
            "seccomp",
        ),
        (
            "On Ubuntu 24.04: [rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: permission denied",
            "apparmor-userns-nocaps",
        ),
        (
            "Debian 9\n\nERROR  : Failed to create user namespace: not allowed to create user namespace",
            "userns-sysctl",
        ),
        (
            "RHEL 7.9: Failed to create user namespace: maximum number of user namespaces exceeded, check /proc/sys/user/max_user_namespaces",
            "userns-limit",
        ),
        (
            "qemu-system-x86_64: Could not access KVM kernel module: No such file or directory\nI use Debian 12 in VMware",
            "kvm-absent",
        ),
        ("Error: cannot open /dev/kvm: Permission denied (os error 13)", "kvm-denied"),
        (
            'docker: Error response from daemon: error gathering device information while adding custom device "/dev/kvm": no such file or directory.',
            "kvm-absent",
        ),
        ("CPU acceleration status: This user doesn't have permissions to use KVM (/dev/kvm).", "kvm-denied"),
        (
            "emulator: ERROR: x86_64 emulation currently requires hardware acceleration!\nCPU acceleration status: /dev/kvm is not found: VT disabled in BIOS or KVM kernel module not loaded",
            "kvm-absent",
        ),
        ("INFO: Your CPU does not support KVM extensions\nKVM acceleration can NOT be used", "kvm-absent"),
        ('openat(AT_FDCWD, "/dev/kvm", O_RDWR|O_CLOEXEC) = -1 EACCES (Permission denied)', "kvm-denied"),
        ("Got permission denied while trying to open /dev/kvm", "kvm-denied"),
        (
            "virsh: error: Domain requires KVM, but it is not available. Check that virtualization is enabled in the host BIOS",
            "kvm-absent",
        ),
        ("Error creating KVM object: Permission denied (os error 13)", "kvm-denied"),
        ("bash: fork: retry: Resource temporarily unavailable\nMy ulimit -u is 1024", "nproc-limit"),
        ("RuntimeError: can't start new thread\nMax user processes is 512", "nproc-limit"),
        (
            "Could not start the jail: Resource temporarily unavailable (os error 11)\nIt sets RLIMIT_NPROC to 512.",
            "nproc-limit",
        ),
        (
            "OpenBLAS blas_thread_init: pthread_create failed for thread 12 of 64: Resource temporarily unavailable\nRLIMIT_NPROC 4096 current",
            "nproc-limit",
        ),
        ("Ubuntu 23.10\n\nbwrap: Creating new namespace failed: Permission denied", "apparmor-userns-deny"),
        ("Kubuntu 24.10: bwrap: setting up uid map: Permission denied", "apparmor-userns-nocaps"),
        (
            "bwrap: No permissions to create a new namespace, likely because the kernel does not allow non-privileged user namespaces. On e.g. debian this can be enabled with 'sysctl kernel.unprivileged_userns_clone=1'.\n\nDebian GNU/Linux 10 (buster)",
            "userns-sysctl",
        ),
        (
            "Running inside a docker container (Debian 12)\n\nbwrap: No permissions to create new namespace, likely because the kernel does not allow",
            "seccomp",
        ),
        ("bwrap: Can't create file at /etc/resolv.conf: No such file or directory", "mount-symlink"),
        ("bwrap: Can't mount proc on /proc: Operation not permitted in GitLab runner", "masked-proc"),
        (
            "podman in docker: Error: crun: mount `proc` to `proc`: Operation not permitted: OCI permission denied",
            "masked-proc",
        ),
        (
            "unshare: unshare failed: Operation not permitted\n\n$ cat /proc/sys/kernel/unprivileged_userns_clone\n0",
            "userns-sysctl",
        ),
        (
            "unshare: write failed /proc/self/uid_map: Operation not permitted\nUbuntu 24.04",
            "apparmor-userns-nocaps",
        ),
        (
            "Linux host 4.19.0-6-amd64 #1 SMP Debian 4.19.67-2+deb10u2\nerror: cloning builder process: Operation not permitted",
            "userns-sysctl",
        ),
        (
            'src/main/tools/linux-sandbox.cc:153: "clone": Operation not permitted\nI run bazel in a docker container',
            "seccomp",
        ),
        ("With `sudo sysctl -w kernel.unprivileged_userns_clone=1` the problem was solved.", "userns-sysctl"),
        (
            "The workaround is to run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
            "apparmor-userns-nocaps",
        ),
        ("Adding myself to the kvm group with `sudo usermod -aG kvm me` fixed it.", "kvm-denied"),
        ("Error: spawn /home/u/node_modules/x/bin/x EACCES\n\n/home is mounted noexec", "home-noexec"),
        ("Steam now requires user namespaces to be enabled.\nArch, linux-hardened", "userns-sysctl"),
        ("runc: nsenter: failed to unshare namespaces: Invalid argument\nCentOS Linux 7", "userns-limit"),
        (
            "bwrap: Failed to make / slave: Permission denied\nin a Docker container on Ubuntu 22.04",
            "apparmor-mount-deny",
        ),
        ("unshare(CLONE_NEWUSER) = -1 EPERM (Operation not permitted) in docker container", "seccomp"),
        ("clone(child_stack=0, flags=CLONE_NEWUSER|SIGCHLD) = -1 EUSERS (Too many users)", "userns-limit"),
        ("Sandbox: CanCreateUserNamespace() clone() failure: EPERM\nDebian 10 firefox", "userns-sysctl"),
        ("WSL2 Ubuntu 22.04\n\nCould not open /dev/kvm: Permission denied", "kvm-denied"),
        ("failed to open /dev/kvm: operation not permitted in a container", "kvm-denied"),
        ("OS: CentOS 7.6\n\nNo usable sandbox! Update your kernel", "userns-limit"),
        (
            "Puppeteer in Docker (node:18 image)\n\nError: Failed to launch the browser process!\n[0101/1.1:FATAL:zygote_host_impl_linux.cc(117)] No usable sandbox!",
            "seccomp",
        ),
        (
            "Running rootless docker on Debian 10\n\n[INFO] ...\n[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: operation not permitted",
            "userns-sysctl",
        ),
        (
            "Running rootless docker on CentOS 7\n\n[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: no space left on device",
            "userns-limit",
        ),
        ("RHEL7: podman: cannot clone: Invalid argument", "userns-limit"),
        ("Kali Linux 2020.4: bwrap: No permissions to creating new namespace, likely because", "userns-sysctl"),
        (
            "Electron app, Arch Linux (linux-hardened 5.10)\nThe SUID sandbox helper binary was found, but is not configured correctly.",
            "userns-sysctl",
        ),
        (
            "Kubernetes, node Ubuntu 22.04. podman build in a pod: Error during unshare(CLONE_NEWUSER): Operation not permitted",
            "seccomp",
        ),
        (
            "buildah in GitLab CI: Error: Error during unshare(CLONE_NEWUSER): Operation not permitted",
            "seccomp",
        ),
        ("nix build in docker: error: cloning builder process: Operation not permitted", "seccomp"),
        ("Zorin OS 18: bwrap: setting up uid map: Permission denied", "apparmor-userns-nocaps"),
        (
            "Linux Mint 22: The SUID sandbox helper binary was found, but is not configured correctly",
            "apparmor-userns-nocaps",
        ),
        ("KVM: open /dev/kvm: no such file or directory\nmacOS docker desktop", "kvm-absent"),
        (
            "multipass: launch failed: KVM support is not enabled on this machine. Please ensure the following: /dev/kvm",
            "kvm-absent",
        ),
        ("Error: Kvm error: Error opening /dev/kvm: No such file or directory (os error 2)", "kvm-absent"),
        ("krunvm: Error creating the Kvm object: Error(2)", "kvm-absent"),
        ("thread 'main' panicked: Cannot open /dev/kvm: Error(13)", "kvm-denied"),
        ("crosvm: failed to open KVM device /dev/kvm: Permission denied (os error 13)", "kvm-denied"),
        ("qemu-kvm: could not open /dev/kvm: Operation not permitted, in kubevirt pod", "kvm-denied"),
        # An error that is only inferred from a word yields to what cures.
        (
            "# vmtool is silent when /dev/kvm is not available\n\nAfter `sudo usermod -aG kvm me` it works.",
            "kvm-denied",
        ),
        ("My account has no access to /dev/kvm, and vmtool aborts.", "kvm-denied"),
        ("Adding my user to the kvm group solved it.", "kvm-denied"),
        ("After enabling VT-x in the BIOS it works.", "kvm-absent"),
        ("vmtool: /dev/kvm is inaccessible\n[root@vps ~]# dmesg\nHypervisor detected: KVM", "kvm-absent"),
        (
            "emulator: x86 emulation currently requires hardware acceleration!\n\nIt runs in VirtualBox.",
            "kvm-absent",
        ),
        ("```\n$ egrep -c '(svm|vmx)' /proc/cpuinfo\n0\n```", "kvm-absent"),
        ("I tried `egrep -c '(vmx|svm)' /proc/cpuinfo`, it prints 0.", "kvm-absent"),
        (
            "virt-host-validate: QEMU: Checking if device /dev/kvm exists   : FAIL (Check that the module is loaded)",
            "kvm-absent",
        ),
        ("Unable to find /dev/kvm, is virtualization enabled?", "kvm-absent"),
        ("vmtool: the KVM kernel module is not loaded", "kvm-absent"),
        ("Error opening '/dev/kvm': Os { code: 2 }", "kvm-absent"),
        ("You need to be in the kvm group.", "kvm-denied"),
        ("Amazon Linux 2: /dev/kvm no such file", "kvm-absent"),
        (
            "Fedora 43\n\nSELinux is preventing tool from create access on the user_namespace",
            "selinux-userns-deny",
        ),
        ("In a podman container: unshare: mount /proc failed: Operation not permitted", "masked-proc"),
        ("Ubuntu 24.04\n\nERROR  : Could not write info to setgroups: Permission denied", NOCAPS),
        ("clone: No space left on device, with podman", "userns-limit"),
        ("nohup: failed to run command '/data/tool': Permission denied; /data has noexec", "home-noexec"),
        (
            "user.max_pid_namespaces = 0\nbwrap: Creating new namespace failed: nesting depth or "
            "/proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
            "namespace-limit",
        ),
        (
            "boxlite 0.5.13\nRuntimeError: Box 01K failed to start\nExit code: 159 (unknown signal)",
            "shim-seccomp",
        ),
        # What a policy says in words.
        (
            f"Ubuntu 24.04\n\nError: sandbox unavailable\n\n{RESTRICT}: 1",
            NOCAPS,
        ),
        (
            f"Ubuntu 24.04, {RESTRICT} = 1\n\nIt enters the profile unprivileged_userns, which denies it CAP_SYS_ADMIN.\n\n"
            "write /proc/self/uid_map: Permission denied",
            NOCAPS,
        ),
        (
            "Ubuntu 24.04\n\nwrite /proc/self/setgroups (the caller\nneeds a capability): Permission denied",
            NOCAPS,
        ),
        ("# buildah clone: Operation not permitted in my docker container\n\nIt stops.", "seccomp"),
        ("podman fail clone: operation not permitted on ECS Fargate", "seccomp"),
        # Two failures, one after the other.
        (
            "In podman: bwrap: Failed to mount tmpfs: Permission denied\n\nThat was SELinux: `--security-opt label=disable` "
            "cures that.\n\nWhat remains, with --proc /proc:\n\nbwrap: Can't mount proc on /newroot/proc: Operation not permitted",
            "masked-proc",
        ),
        (
            "bwrap: Can't bind mount /oldroot/etc/hosts on /newroot/etc/hosts: Unable to mount source on destination: "
            "No such file or directory\n\n/etc/hosts is a link to /run/hosts",
            "mount-symlink",
        ),
    ],
)
def test_the_words_of_programs_and_the_named_system_make_a_cause_likely(text: str, cause: str) -> None:
    [finding] = judged(text).findings
    assert (finding.name, finding.confidence) == (cause, Confidence.LIKELY)
    assert finding.quotes


@pytest.mark.parametrize(
    "text",
    [
        "AppImage crashes\n\nOS: Linux Mint 20\n\nThe SUID sandbox helper binary was found, but is not configured correctly.",
        "enroot-nsenter: failed to create user namespace: Operation not permitted\n\nUbuntu 22.04",
        "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy",
        "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory for kvm driver",
        "bwrap: No permissions to create new namespace, likely because\n\nNixOS 24.05",
        "bash: ./run: Permission denied",
        "RuntimeError: can't start new thread",
        "RuntimeError: can't start new thread\n\nThe cgroup's pids.max is 100.",
        "vmtool: cannot open /srv/x: Permission denied; /dev/kvm is fine",
        "pthread_create failed: Resource temporarily unavailable (os error 11)",
        "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
        "On my VPS: Could not access KVM kernel module: Operation not permitted",
        "Ubuntu 24.04\n\nError: sandbox unavailable",
        # An engine that is also there says nothing.
        "Fedora 43\n\nbwrap: No permissions to create new namespace, likely because x\n\nI have podman, too.",
        "Ubuntu 24.04\n\nnewuidmap: write to uid_map failed: Operation not permitted",
        "Error clone: main.c:2517 main: Invalid argument\nDebian 12",
        "bwrap: Failed to make / slave: Operation not permitted",
        "I don't want to set kernel.unprivileged_userns_clone=1 to make it work; bwrap: x",
        "`unprivileged_userns_clone` is set to 0 by default in /etc/sysctl.d comment; works fine",
        "Ubuntu\n\nbwrap: No permissions to create new namespace, likely because the kernel does not allow",
        "Ubuntu 20.04\n\n[ERROR] No usable sandbox! Update your kernel or see https://chromium.googlesource.com/",
        "Debian 12: The SUID sandbox helper binary was found, but is not configured correctly",
        "Fedora 41: No usable sandbox!",
        "bwrap: pivot_root: Operation not permitted",
        # Every Ubuntu has it.
        f"{RESTRICT} = 1",
        f"The box starts to fail although I set {RESTRICT}=0 before",
        f"boxlite run fails even though I set {RESTRICT}=0; podman works.",
        "I tried kernel.unprivileged_userns_clone=0 but it still fails",
        # boxlite's own filter needs boxlite.
        "exit code: 159\n\nProgram terminated with signal SIGSYS, Bad system call.",
        # Microsoft's kernel has no AppArmor.
        "WSL2, Ubuntu 24.04\n\nbwrap: setting up uid map: Permission denied",
    ],
)
def test_what_may_have_several_causes_or_none_of_the_labs_makes_none_likely(text: str) -> None:
    assert named(text) == []


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ("open /srv/data/list.db: Permission denied", False),
        ("write /proc/self/uid_map: Permission denied", False),
        (
            "type=SYSCALL msg=audit(01/02/2026 06:40:01.5:7) : arch=x86_64 syscall=clone success=no exit=EACCES",
            False,
        ),
        ("open /home/me/.cache/tool/run: Permission denied\n\n/home is mounted with noexec.", True),
        ("sh: 1: /home/me/tool: Permission denied", True),
    ],
)
def test_a_refused_file_is_an_execution_only_if_something_says_so(text: str, is_named: bool) -> None:
    result = judged(text)
    named_causes = [finding.name for finding in result.findings] + [cause.name for cause in result.possible]
    assert ("home-noexec" in named_causes) is is_named


def test_a_cure_is_no_evidence_for_a_cause_that_it_cannot_cure() -> None:
    result = judged("/dev/kvm: No such file or directory\n\nAfter `sudo chmod 666 /dev/kvm` it works.")
    assert not any("chmod" in finding.why for finding in result.findings if finding.name == "kvm-absent")


def test_possible_causes_are_ranked_with_what_tells_them_apart() -> None:
    result = judged("Debian 12\n\nbwrap: No permissions to create new namespace, likely because x")
    assert names(result.possible) == ["userns-sysctl", "seccomp"]
    assert result.possible[0].share > result.possible[1].share
    assert result.possible[0].command == "sysctl kernel.unprivileged_userns_clone"
    against = judged("Fedora 43\n\nbwrap: No permissions to create new namespace, likely because x").possible
    assert names(against) == ["seccomp"]
    waved_off = judged(
        "bwrap: No permissions to create new namespace\n\nkernel.unprivileged_userns_clone = 1 here"
    )
    assert "userns-sysctl" not in names(waved_off.possible)
    assert judged("bwrap: setting up uid map: Permission denied").possible == ()


def test_a_report_may_name_two_causes_of_different_kinds() -> None:
    text = "Ubuntu 24.04\n\nFailed to open /dev/kvm: Permission denied\n\nbwrap: setting up uid map: Permission denied"
    assert [name for name, _, _ in named(text)] == ["kvm-denied", NOCAPS]
