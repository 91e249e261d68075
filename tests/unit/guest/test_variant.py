import ast
import base64
import runpy
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from lab import catalog
from lab.base.errors import UsageError
from lab.catalog import Variant, knobs
from lab.catalog.confinement import AS_LINKS, NO_MANAGER, NOT_AT_USR, ContainerKind, ServiceSetting
from lab.catalog.knobs import AppArmor, Profile, Sysctl
from lab.guest.programs import Call, Keep, RemoteFailed, read_sources, refuse_file
from lab.guest.variant import (
    CellStart,
    NotInEffect,
    begin_cell,
    check_variant,
    choose_login,
    explain_inapplicable,
    find_home,
    probe_user,
    read_facts,
    read_suite_user,
    wrap_script,
)
from lab.probes import PROGRAMS, Facts, SuiteUser
from lab.trials import experiment
from tests.builders.facts import LOGIN, context, facts, printed_facts, who
from tests.builders.lanes import FakeSession

KNOWN = catalog.load_catalog().variants
SHIPPED_PROFILE = "/etc/apparmor.d/unprivileged_userns"
ALLOW_LIST = "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict"


def in_container(
    *, engine: str = "podman", seccomp: int = 0, apparmor: str | None = "unconfined", **more: Any
) -> SuiteUser:
    """SuiteUser the suite runs as in a container."""
    return who(**more, container=engine, seccomp=seccomp, context={"apparmor": apparmor, "delegated": []})


def apparmor(**more: Any) -> Facts:
    return facts(apparmor=more)


LIMIT = "user.max_user_namespaces"
V1 = "rw systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
NOEXEC = {"on": "/home", "type": "ext4", "options": ["rw", "noexec"]}
# As Fedora has them.
BTRFS = {"on": "/home", "type": "btrfs", "options": ["rw", "relatime"]}
OPEN_KVM = {"mode": "0o666", "gid": 36}
NO_IOCTL = {"status": 25, "stderr": "[Errno 25] Inappropriate ioctl for device"}
FOREIGN = {"status": 1, "stderr": "/tmp/bl-1001 is owned by uid 0"}
CLOSED = {"status": 13, "stderr": "[Errno 13] Permission denied: '/tmp/.lab-probe'"}
SWITCH_OFF = {"kernel.apparmor_restrict_unprivileged_userns": "0"}
UBUNTU = facts(sysctls=SWITCH_OFF, apparmor={"profiles": {}})
RESTRICTED = facts(sysctls=SWITCH_OFF, apparmor={"profiles": {"bwrap": "enforce"}})
UBUNTUS = "its kernel has no kernel.apparmor_restrict_unprivileged_userns"
IMITATED = {"unprivileged_userns": "enforce", "unprivileged_userns_unshare": "enforce"}
NOT_ON_DEBIAN = {
    "apparmor-restrict-off": UBUNTUS,
    "apparmor-restrict-on": UBUNTUS,
    "apparmor-userns-profile-missing": UBUNTUS,
    "issue-468-settings": UBUNTUS,
    "cgroup-no-delegation": "gives its users no control groups to begin with",
    "docker": "has no docker",
    "docker-kvm": "has no docker",
    "docker-privileged": "has no docker",
    "docker-rootless": "has no docker",
    "docker-unconfined": "has no docker",
    "home-btrfs": "has no mkfs.btrfs",
    "home-xfs": "has no mkfs.xfs",
    "podman": "has no podman",
    "podman-apparmor-off": "has no podman",
    "podman-no-namespaces": "has no podman",
    "podman-privileged": "has no podman",
    "podman-unconfined": "has no podman",
    "session-cron": "has no cron",
    "session-linger": "starts no service manager for a user who logs in",
    "session-none": "gives its users no sessions to begin with",
    "session-user-scope": "starts no service manager for a user who logs in",
    "session-user-unit": "starts no service manager for a user who logs in",
    "selinux-permissive": "no SELinux",
    "selinux-userns-deny": "no SELinux",
    "selinux-mount-deny": "no SELinux",
}


@pytest.mark.parametrize("name", KNOWN)
def test_every_shipped_variant_but_these_makes_sense_on_debian_13(name: str) -> None:
    assert explain_inapplicable(KNOWN[name], facts()) == NOT_ON_DEBIAN.get(name)


WSL2 = facts(login_sessions=True, command_line="lsm=landlock systemd.mask=user@.service")
OLD_APPARMOR = apparmor(version="3.0.8", userns_mediation=False, profile_files=[])
NO_SYSCTL = facts(sysctls={"kernel.unprivileged_userns_clone": None})
NEEDS_ALONE = KNOWN["apparmor-userns-deny"].model_copy(update={"apparmor": AppArmor(userns=True)})


@pytest.mark.parametrize(
    ("variant", "guest", "reason"),
    [
        (NEEDS_ALONE, facts(apparmor=None), "no AppArmor"),
        (KNOWN["apparmor-userns-deny"], OLD_APPARMOR, "AppArmor 3.0.8 does not mediate user namespaces"),
        (
            KNOWN["issue-468-settings"],
            facts(sysctls=SWITCH_OFF, apparmor={"profile_files": []}),
            f"ships no {SHIPPED_PROFILE}",
        ),
        (KNOWN["bwrap-allow-list"], apparmor(profile_files=[SHIPPED_PROFILE]), f"ships no {ALLOW_LIST}"),
        (KNOWN["userns-clone-off"], NO_SYSCTL, "its kernel has no kernel.unprivileged_userns_clone"),
        (KNOWN["max-userns-zero"], facts(sysctls={LIMIT: None}), f"its kernel has no {LIMIT}"),
        (KNOWN["kvm-absent"], facts(kvm=None), "has no /dev/kvm to begin with"),
        (KNOWN["kvm-denied"], facts(kvm=OPEN_KVM), "everyone may use its /dev/kvm, whatever their groups"),
        (KNOWN["home-btrfs"], facts(), "has no mkfs.btrfs"),
        (KNOWN["home-xfs"], facts(mkfs=["btrfs"]), "has no mkfs.xfs"),
        (KNOWN["home-btrfs"], facts(mounts={"/home": BTRFS}), "its /home is on btrfs to begin with"),
        (KNOWN["bwrap-absent"], facts(bubblewrap=None), "has no bubblewrap to begin with"),
        (KNOWN["bwrap-setuid"], facts(bubblewrap={"version": "0.8.0"}), "its bubblewrap 0.8.0 is made for"),
        (KNOWN["apparmor-restrict-on"], RESTRICTED, "has the profile bwrap loaded"),
        (KNOWN["apparmor-pivot-root-deny"], RESTRICTED, "has the profile bwrap loaded"),
        (KNOWN["cgroup-no-delegation"], facts(cgroup="v1"), "has no cgroup v2, and systemd gives"),
        (KNOWN["issue-468-settings"], facts(apparmor=None, sysctls=SWITCH_OFF), "no AppArmor"),
        (KNOWN["podman-apparmor-off"], facts(engines=["podman"], apparmor=None), "no AppArmor"),
        (KNOWN["service-restrict-namespaces"], facts(systemd=False), "has no systemd"),
        (KNOWN["session-cron"], facts(systemd=False, cron=True), "has no systemd"),
        (KNOWN["session-init-scope"], facts(cgroup="v1"), "has no cgroup v2"),
        (KNOWN["session-user-unit"], WSL2, "starts no service manager for a user who logs in"),
        (KNOWN["cgroup-no-delegation"], WSL2, "gives its users no control groups to begin with"),
        (
            catalog.load_catalog().variant("service-delegate+session-init-scope"),
            facts(),
            "the suite cannot be started by service (Delegate=yes) and by session (kind=init-scope) at once",
        ),
        (
            catalog.load_catalog().variant("podman+session-cron"),
            facts(engines=["podman"], cron=True),
            "the suite cannot be started by container (",
        ),
        (
            catalog.load_catalog().variant("as-root+session-linger"),
            facts(login_sessions=True),
            "a kind of session is one of the suite's usual user, and root would run the suite",
        ),
        (KNOWN["service-restrict-suid"], facts(bubblewrap={"version": "0.8.0"}), "its bubblewrap 0.8.0 d"),
        (
            catalog.load_catalog().variant("apparmor-mount-deny-quiet+podman-privileged"),
            facts(engines=["podman"]),
            "the suite cannot be started by apparmor (",
        ),
    ],
)
def test_why_a_variant_makes_no_sense_on_a_guest(variant: Variant, guest: Facts, reason: str) -> None:
    why_not = explain_inapplicable(variant, guest)
    assert why_not is not None
    assert why_not.startswith(reason)


@pytest.mark.parametrize(
    ("name", "guest"),
    [
        ("kvm-absent", facts(kvm=OPEN_KVM)),
        ("stock", facts(apparmor=None, sysctls={}, kvm=None)),
        ("bwrap-setuid", facts(bubblewrap={"version": "a build of mine"})),
        ("session-cron", facts(cron=True)),
        ("session-user-scope", facts(login_sessions=True)),
        ("session-linger", facts(login_sessions=True)),
        ("session-none", facts(login_sessions=True)),
    ],
)
def test_a_variant_makes_sense_all_the_same(name: str, guest: Facts) -> None:
    assert explain_inapplicable(KNOWN[name], guest) is None


BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
BUNDLE_TARGET = "../../ca-certificates/extracted/tls-ca-bundle.pem"


def linked(target: str | None, error: str = "") -> SuiteUser:
    return who(links={BUNDLE: {"target": target, "error": error}})


IN_PLACE: dict[str, str | None] = {"target": None, "error": ""}


def in_store(**changed: dict[str, str | None]) -> SuiteUser:
    """What leads below /nix/store, and /usr/bin/bwrap, which is not there."""
    below = {path: f"/nix/store/lab-system/bin/{Path(path).name}" for path in AS_LINKS}
    links = {path: {"target": target, "error": ""} for path, target in below.items()}
    return who(links={**links, NOT_AT_USR: {"target": None, "error": "No such file or directory"}} | changed)


UNCONFINED = apparmor(profiles={"lab-bwrap-unconfined": "unconfined"})
WITHOUT_KVM = apparmor(profiles={"lab-without-kvm": "enforce"})
DENYING = facts(selinux={"mode": "enforcing", "modules": ["lab"]})
APP_SLICE = "/user.slice/user-1001.slice/user@1001.service/app.slice"
IN_SCOPE = {"kind": "user unit", "cgroup": f"{APP_SLICE}/*.scope", "login_class": None}
IN_UNIT = IN_SCOPE | {"cgroup": f"{APP_SLICE}/*.service"}
IN_INIT_SCOPE = IN_SCOPE | {"kind": "init.scope", "cgroup": "/init.scope"}
IN_CRON = IN_SCOPE | {"kind": "system service", "cgroup": "/system.slice/cron.service", "runtime_dir": None}
IN_SSHD = IN_CRON | {"cgroup": "/system.slice/ssh.service", "manager": False}


def in_session(**changes: Any) -> SuiteUser:
    """The suite's user in another session."""
    return who(context={"session": LOGIN | changes})


IN_CONTAINER = "containers-default (enforce)"
IN_DOCKER: dict[str, Any] = {"engine": "docker", "seccomp": 2, "apparmor": "docker-default (enforce)"}
ROOTLESS: dict[str, Any] = {"engine": "docker", "seccomp": 2, "uid": 0, "groups": [0]}
NO = {"RestrictNamespaces": "no"}


@pytest.mark.parametrize(
    ("name", "guest", "user"),
    [
        ("stock", facts(), who()),
        ("stock", facts(login_sessions=True), who()),
        # No guest is blamed for what it does not have, or for what its definition takes away.
        ("stock", facts(), in_session(**IN_SSHD)),
        (
            "stock",
            facts(login_sessions=True, command_line=f"rw {NO_MANAGER}"),
            in_session(manager=False),
        ),
        (
            "apparmor-userns-nocaps",
            apparmor(profiles=IMITATED),
            who(bubblewrap="unprivileged_userns (enforce)"),
        ),
        ("apparmor-kvm-deny", WITHOUT_KVM, who(context={"apparmor": "lab-without-kvm (enforce)"})),
        # A kernel that restricts changes of profile stacks the one that an unconfined program asks for.
        ("apparmor-kvm-deny", WITHOUT_KVM, who(context={"apparmor": "unconfined//&lab-without-kvm (enforce)"})),
        ("apparmor-bwrap-unconfined", UNCONFINED, who(bubblewrap="lab-bwrap-unconfined (unconfined)")),
        ("apparmor-bwrap-unconfined", UNCONFINED, who(bubblewrap=None)),
        ("stock", facts(kvm=None), who(groups=[1001])),
        ("kvm-denied", facts(), who(groups=[1001])),
        ("kvm-absent", facts(kvm=None), who()),
        ("bwrap-absent", facts(bubblewrap=None), who()),
        ("bwrap-setuid", facts(bubblewrap={"mode": "0o4755"}), who()),
        ("home-noexec", facts(mounts={"/home": NOEXEC}), who()),
        ("home-btrfs", facts(mounts={"/home": BTRFS}), who()),
        ("kvm-masked", facts(kvm={"mode": "0o666", "gid": 0}), who(create_vm=NO_IOCTL)),
        ("socket-folder-foreign", facts(), who(socket_folder=FOREIGN)),
        ("tmp-closed", facts(), who(socket_folder=CLOSED)),
        ("as-root", facts(), who(uid=0, groups=[0])),
        ("cgroup-no-delegation", facts(), who(context={"delegated": []})),
        ("issue-468-settings", UBUNTU, who()),
        ("apparmor-off", facts(command_line="rw apparmor=0", lsm=["yama"]), who()),
        ("cgroup-v1", facts(command_line=V1, cgroup="v1"), who()),
        ("podman", facts(), in_container(seccomp=2, apparmor=IN_CONTAINER)),
        ("podman", facts(apparmor=None), in_container(seccomp=2, apparmor=None)),
        # Where crun has a profile of its own, that of the container is stacked on it.
        ("podman", facts(), in_container(seccomp=2, apparmor="containers-default//&crun (mixed)")),
        ("podman-apparmor-off", facts(), in_container(seccomp=2)),
        ("docker-kvm", facts(), in_container(**IN_DOCKER)),
        ("docker", facts(), in_container(**IN_DOCKER, create_vm=NO_IOCTL)),
        ("docker-rootless", facts(), in_container(**ROOTLESS, uid_outside=1001)),
        ("home-overlay", facts(mounts={"/home": {**BTRFS, "type": "overlay"}}), who()),
        ("nofile-256", facts(), who(context=dict(context(nofile=256, nofile_hard=256)))),
        ("podman-privileged", facts(), in_container(apparmor="crun (unconfined)")),
        ("selinux-permissive", facts(selinux={"mode": "permissive"}), who()),
        ("selinux-userns-deny", DENYING, who()),
        ("nproc-400", facts(), who(context=dict(context(nproc=400)))),
        ("service-restrict-namespaces", facts(), who(service={"RestrictNamespaces": "yes"})),
        ("service-delegate", facts(), who(service={"Delegate": "yes"})),
        ("session-user-scope", facts(), in_session(**IN_SCOPE)),
        ("session-user-unit", facts(), in_session(**IN_UNIT)),
        ("session-init-scope", facts(), in_session(**IN_INIT_SCOPE)),
        ("session-cron", facts(), in_session(**IN_CRON)),
        # As on Fedora, where pam_systemd is in cron's PAM service.
        ("session-cron", facts(), in_session(login_class="background")),
        ("session-none", facts(), in_session(**IN_SSHD)),
        ("session-linger", facts(), in_session(lingers=True)),
        # systemd shows the calls of a group, and the kinds of namespace in its own order.
        ("service-system-calls", facts(), who(service={"SystemCallFilter": "accept accept4"})),
        ("ca-bundle-symlink", facts(), linked(BUNDLE_TARGET)),
        ("nix-store", facts(), in_store()),
    ],
)
def test_what_the_guest_shows_is_in_effect(name: str, guest: Facts, user: SuiteUser) -> None:
    check_variant(KNOWN[name], guest, user)


@pytest.mark.parametrize(
    "name",
    [
        "apparmor-bwrap-complain",
        "apparmor-bwrap-unconfined",
        "apparmor-mount-deny",
        "apparmor-pivot-root-deny",
        "apparmor-userns-deny",
        "bwrap-allow-list",
    ],
)
def test_a_profile_that_is_loaded_but_not_what_bubblewrap_runs_in_is_not_in_effect(name: str) -> None:
    [profile] = profiles(KNOWN[name])
    guest = apparmor(profiles={profile.name: profile.mode, "other": "enforce"})
    for label in (f"{profile.name} ({profile.mode})", f"unprivileged_userns//&{profile.name} (mixed)", None):
        check_variant(KNOWN[name], guest, who(bubblewrap=label))
    # Two profiles for one path: the kernel attaches neither.
    for label in ("unconfined", "other (enforce)"):
        with pytest.raises(NotInEffect) as error:
            check_variant(KNOWN[name], guest, who(bubblewrap=label))
        assert f"bubblewrap runs as {label!r}, not under {profile.name}" in str(error.value)


def profiles(variant: Variant) -> list[Profile]:
    knob = variant.knobs["apparmor"]
    assert isinstance(knob, AppArmor)
    return knob.profiles


def test_only_a_profile_that_is_attached_to_bubblewrap_is_looked_for_there() -> None:
    for name in ("apparmor-kvm-deny", "apparmor-bwrap-exec-deny"):
        [profile] = profiles(KNOWN[name])
        assert not profile.is_for_bubblewrap
    imitated = profiles(KNOWN["apparmor-userns-nocaps"])
    assert [profile.name for profile in imitated if profile.is_for_bubblewrap] == ["unprivileged_userns"]
    written = "profile a /opt/x/bwrap {\n}\nprofile b /usr/bin/bwrapper {\n}\n/usr/bin/bwrap {\n}\n"
    made = [Profile(name=name, text=written, shipped=None) for name in "ab"]
    assert [profile.is_for_bubblewrap for profile in made] == [True, False]


@pytest.mark.parametrize(
    ("name", "guest", "user", "differences"),
    [
        ("home-btrfs", facts(), who(), ["/home is on ext4, not on btrfs"]),
        ("max-userns-zero", facts(sysctls={LIMIT: None}), who(), [f"{LIMIT} is None, not 0"]),
        ("apparmor-userns-deny", facts(), who(), ["AppArmor profile lab-bwrap-without-userns is not loaded"]),
        (
            "apparmor-userns-nocaps",
            facts(),
            who(),
            [
                "AppArmor profile unprivileged_userns is in complain mode",
                "AppArmor profile unprivileged_userns_unshare is not loaded",
            ],
        ),
        (
            "apparmor-userns-nocaps",
            apparmor(profiles=IMITATED),
            who(bubblewrap="unconfined"),
            ["bubblewrap runs as 'unconfined', not under unprivileged_userns: is another profile attached"],
        ),
        *(
            (
                "apparmor-kvm-deny",
                WITHOUT_KVM,
                who(context={"apparmor": label}),
                [f"the suite would run confined by {label!r}"],
            )
            for label in ("lab-without-kvm (complain)", "other//&lab-without-kvm (enforce)")
        ),
        (
            "apparmor-bwrap-unconfined",
            apparmor(profiles={"lab-bwrap-unconfined": "enforce"}),
            who(),
            ["AppArmor profile lab-bwrap-unconfined is in enforce mode"],
        ),
        ("stock", facts(), who(uid=0), ["the suite would run as root"]),
        ("kvm-denied", facts(), who(), ["the suite's user is in the group of /dev/kvm"]),
        ("kvm-denied", facts(kvm=None), who(groups=[1001]), ["there is no /dev/kvm"]),
        ("kvm-absent", facts(), who(), ["/dev/kvm is there"]),
        ("kvm-masked", facts(), who(), ["/dev/kvm is not masked"]),
        ("kvm-masked", facts(kvm=None), who(), ["there is no /dev/kvm"]),
        ("socket-folder-foreign", facts(), who(), ["is not foreign: it is usable"]),
        ("tmp-closed", facts(), who(socket_folder=FOREIGN), ["is not closed: /tmp/bl-1001 is owned by uid 0"]),
        ("bwrap-absent", facts(), who(), ["bubblewrap's mode is 0o755, not None"]),
        ("bwrap-not-executable", facts(), who(), ["bubblewrap's mode is 0o755, not 0o644"]),
        ("bwrap-setuid", facts(bubblewrap=None), who(), ["bubblewrap's mode is None, not 0o4755"]),
        ("home-noexec", facts(), who(), ["/home is mounted without noexec"]),
        (
            "apparmor-off",
            facts(),
            who(),
            ["booted without apparmor=0", "the security module apparmor is in use"],
        ),
        # systemd 258 knows no version 1.
        ("cgroup-v1", facts(command_line=V1), who(), ["control groups are of version v2"]),
        (
            "podman",
            facts(),
            who(container=None, seccomp=0),
            [
                "would run in no container, not in one of podman",
                "without a seccomp filter",
                "confined by 'unconfined'",
            ],
        ),
        (
            "podman-privileged",
            facts(),
            in_container(seccomp=2, apparmor=IN_CONTAINER),
            ["under a seccomp filter", f"confined by {IN_CONTAINER!r}"],
        ),
        (
            "docker",
            facts(),
            in_container(seccomp=2, apparmor=IN_CONTAINER),
            ["would run in a container of podman, not in one of docker", "the container has /dev/kvm"],
        ),
        # Root's own daemon would start it, or the daemon would have another user in the container.
        (
            "docker-rootless",
            facts(),
            in_container(**ROOTLESS, uid_outside=0),
            ["the root of the container is root outside of it"],
        ),
        (
            "docker-rootless",
            facts(),
            in_container(**ROOTLESS | {"uid": 1001, "groups": [993]}),
            ["would run as user 1001 of the container, not as its root"],
        ),
        ("home-tmpfs", facts(), who(), ["/home is on ext4, not on tmpfs"]),
        (
            "nofile-1024",
            facts(),
            who(),
            ["may open 1024 files, and raise that to 524288, not 1024"],
        ),
        ("selinux-permissive", facts(selinux={"mode": "enforcing"}), who(), ["enforcing, not permissive"]),
        (
            "selinux-userns-deny",
            facts(selinux={"mode": "permissive", "modules": []}),
            who(),
            ["SELinux is permissive, not enforcing", "the module lab is not in SELinux's policy"],
        ),
        ("ca-bundle-symlink", facts(), linked(None), [f"{BUNDLE} is no symlink, not one to ../"]),
        ("ca-bundle-symlink", facts(), linked("b"), [f"is a symlink to b, not one to {BUNDLE_TARGET}"]),
        # Its folder has mode 0700.
        ("ca-bundle-symlink", facts(), linked(BUNDLE_TARGET, "no"), [f"reach what {BUNDLE} leads to: no"]),
        (
            "nix-store",
            facts(),
            in_store(**{"/bin/sh": IN_PLACE, NOT_AT_USR: IN_PLACE}),
            ["/bin/sh does not lead below /nix/store but to itself", "/usr/bin/bwrap is there"],
        ),
        # An experiment asks it of a guest that was read for another variant.
        ("nix-store", facts(), who(), ["where /bin/sh and /usr/bin/env and /usr/bin/bwrap lead is not known"]),
        ("ca-bundle-symlink", facts(), who(), [f"whether {BUNDLE} is a symlink is not known"]),
        ("nproc-400", facts(), who(), ["the suite's user may have 3897 processes, not 400"]),
        ("service-restrict-namespaces", facts(), who(service={}), ["with RestrictNamespaces=, not yes"]),
        ("service-restrict-namespaces", facts(), who(service=NO), ["with RestrictNamespaces=no, not yes"]),
        ("service-restrict-namespaces", facts(), who(service=None), ["systemd does not tell the settings"]),
        ("service-system-calls", facts(), who(service={"SystemCallFilter": "~"}), ["=~, not @system-service"]),
        ("service-delegate", facts(), who(service={"Delegate": "no"}), ["with Delegate=no, not yes"]),
        ("session-user-scope", facts(), who(), ["would run in /user.slice/user-1001.slice/session-*.scope"]),
        ("session-user-unit", facts(), in_session(**IN_SCOPE), [f"would run in {APP_SLICE}/*.scope"]),
        ("session-init-scope", facts(), in_session(**IN_SSHD), ["would run in /system.slice/ssh.service"]),
        ("session-cron", facts(), in_session(**IN_SSHD), ["would run in /system.slice/ssh.service"]),
        (
            "session-none",
            facts(),
            who(),
            ["session-*.scope", "service manager answers", "XDG_RUNTIME_DIR is /run/user/1001"],
        ),
        (
            "session-linger",
            facts(),
            in_session(manager=False),
            ["service manager does not answer", "service manager ends with the last login"],
        ),
        ("as-root", facts(), who(), ["the suite would run as user 1001, not as root"]),
        ("cgroup-no-delegation", facts(), who(), ["was given the controllers memory pids"]),
        ("issue-468-settings", facts(), who(), ["userns is None, not 0", "unprivileged_userns is loaded"]),
        (
            "stock",
            facts(login_sessions=True),
            in_session(**IN_SSHD),
            ["is no session of logind but: system service"],
        ),
        (
            "stock",
            facts(login_sessions=True),
            in_session(manager=False),
            ["the service manager of the suite's user does not answer"],
        ),
        ("stock", facts(), who(groups=[1001]), ["the suite's user is not in the group of /dev/kvm"]),
        ("max-userns-zero", facts(), who(groups=[]), ["user.max_user_namespaces is 7794", "group of /dev/kvm"]),
    ],
)
def test_every_difference_is_named(name: str, guest: Facts, user: SuiteUser, differences: list[str]) -> None:
    with pytest.raises(NotInEffect, match=r"^variant not in effect: ") as error:
        check_variant(KNOWN[name], guest, user)
    assert all(difference in str(error.value) for difference in differences)
    assert str(error.value).count(";") == len(differences) - 1


def test_the_suite_is_run_by_an_ordinary_user_unless_a_variant_says_root() -> None:
    stock, root = KNOWN["stock"], KNOWN["as-root"]
    assert (choose_login(stock), find_home(stock), wrap_script(stock, "echo 'a'")) == (
        "tester",
        "/home/tester",
        "echo 'a'",
    )
    assert (choose_login(root), find_home(root)) == ("lab", "/root")
    assert shlex.split(wrap_script(root, "echo 'a'")) == ["sudo", "-n", "-H", "sh", "-c", "echo 'a'"]


WHO_PRINTED = who().model_dump(mode="json")


class Guest(FakeSession):
    """A guest whose programs print this; `requests` is what it was asked."""

    def __init__(self, **printed: Any) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.printed: dict[str, Any] = {"facts": printed_facts(), "probe": WHO_PRINTED} | printed

    def programs(self, calls: Sequence[Call], *, seconds: float, keep: Keep = refuse_file) -> list[Any]:
        self.requests += calls
        return [self.printed.get(name) for name, _ in calls]

    def program_as(self, user: str, under: str, name: str, argument: dict[str, Any], *, seconds: float) -> Any:
        self.requests.append((user, under))
        return self.program(name, argument, seconds=seconds)

    def log_out(self, user: str) -> None:
        self.requests.append(f"{user} is logged out")


def test_the_facts_of_a_variant_are_read_after_it_was_put_on_and_its_user_logs_in_anew() -> None:
    guest = Guest()
    two = catalog.load_catalog().variant("apparmor-userns-deny+max-userns-zero")
    read = begin_cell(guest, two, mark=CellStart("a mark", 1000.5), sysctls=["user.max_pid_namespaces"])
    assert read == facts()
    assert guest.requests.pop() == "tester is logged out"
    name, beginning = guest.requests.pop(0)
    assert len(base64.b64decode(beginning.pop("seed"))) == 32
    assert (name, beginning) == ("begin", {"mark": "a mark", "clock": 1000.5})
    assert guest.requests == [
        ("knobs", {"apparmor": two.knobs["apparmor"].settings(), "sysctl": {"user.max_user_namespaces": 0}}),
        ("facts", {"sysctls": ["user.max_pid_namespaces"]}),
    ]


@pytest.mark.parametrize(
    ("printed", "sysctls", "messages"),
    [
        (
            {"kernel": None, "weather": "rain", "systemd": "perhaps"},
            [],
            ["kernel: Input should be a valid string", "systemd: Input should be", "weather: Extra inputs"],
        ),
        ({}, ["user.max_ipc_namespaces"], ["it does not tell user.max_ipc_namespaces"]),
        ({"mounts": {}}, [], ["it does not tell the mount of /home; it does not tell the mount of /tmp"]),
        ({"python": "\u0663.\u0661\u0663"}, [], ["is not a version of Python"]),
        ({"python": "\x1b[2J3.13\n"}, [], ["'3.13\\n' is not a version of Python"]),
    ],
)
def test_facts_have_to_fit_and_to_answer_the_question(
    printed: dict[str, Any], sysctls: list[str], messages: list[str]
) -> None:
    guest = Guest(facts=printed_facts() | printed)
    with pytest.raises(RemoteFailed, match="`facts` in the guest") as failed:
        read_facts(guest, sysctls)
    assert [message for message in messages if message not in str(failed.value)] == []
    with pytest.raises(RemoteFailed, match="`facts` in the guest"):
        begin_cell(guest, KNOWN["stock"], mark=CellStart("a mark"), sysctls=sysctls)


@pytest.mark.parametrize("printed", [None, {"uid": 0}, who().model_dump() | {"probes": {}}])
def test_a_user_that_does_not_fit_is_a_fault_of_the_program(printed: Any) -> None:
    with pytest.raises(RemoteFailed, match="`probe` in the guest"):
        read_suite_user(Guest(probe=printed), KNOWN["stock"])
    with pytest.raises(RemoteFailed, match="probes: Field required"):
        probe_user(Guest(), KNOWN["stock"])


IPC = "user.max_ipc_namespaces"
IPC_ZERO = KNOWN["stock"].model_copy(update={"name": "no-ipc", "sysctl": Sysctl({IPC: 0})})


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0, "0"),
        ([4, 4, 1, 7], "4\t4\t1\t7"),
        ("4 4  1 7", "4\t4\t1\t7"),
        ("|/bin/false %p", "|/bin/false %p"),
        ("007", "007"),
    ],
)
def test_values_are_read_back_whatever_the_spaces_in_them(value: Any, read: str) -> None:
    variant = KNOWN["stock"].model_copy(update={"sysctl": Sysctl.model_validate({"kernel.any": value})})
    check_variant(variant, facts(sysctls={"kernel.any": read}), who())
    for other in ("4 4 1 8", "4417", "", "7 "[::-1] + "7", None):
        with pytest.raises(NotInEffect, match=r"kernel\.any is "):
            check_variant(variant, facts(sysctls={"kernel.any": other}), who())


def test_the_sysctls_of_every_variant_are_asked_for_and_of_those_that_are_made_for_one_run() -> None:
    definitions = catalog.load_catalog()
    both = definitions.variant("userns-clone-off+max-userns-zero")
    assert both.sysctls == ["kernel.unprivileged_userns_clone", "user.max_user_namespaces"]
    assert definitions.variant("stock").sysctls == []
    sysctls = definitions.sysctls([IPC_ZERO.combined(both)])
    assert IPC in sysctls
    assert IPC not in definitions.sysctls()
    for variant in [*definitions.variants.values(), both, IPC_ZERO]:
        assert set(variant.sysctls) <= set(sysctls)
    # An experiment's changes are made of these variants' settings.
    for change in [*experiment.of_catalog(definitions), *experiment.undoing(both)]:
        assert set(change.on(both).sysctls) <= set(sysctls)


def test_every_kind_of_setting_that_is_put_on_has_its_function_and_every_function_its_kind() -> None:
    put_on = {
        name
        for variant in KNOWN.values()
        for name, knob in variant.knobs.items()
        if knob.settings() is not None
    }
    functions = {name: getattr(function, "id", None) for name, function in table("KINDS").items()}
    assert functions == {name: name for name in put_on}
    assert {name for variant in KNOWN.values() for name in variant.knobs} == knobs.KINDS.keys()
    assert list(table("OPTIONS")) == list(get_args(ContainerKind))


def table(name: str) -> dict[str, ast.expr]:
    """A table of the program that puts settings on."""
    [value] = [
        node.value
        for node in ast.parse(read_sources()["knobs"]).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name
    ]
    assert isinstance(value, ast.Dict)
    return {ast.literal_eval(key): item for key, item in zip(value.keys, value.values, strict=True) if key}


def test_the_settings_of_a_service_are_those_that_the_probe_reads_back() -> None:
    probe = runpy.run_path(str(PROGRAMS / "probe.py"))
    assert set(get_args(ServiceSetting)) == probe["SERVICE"].keys()


def test_two_containers_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="container: kind is default and privileged"):
        catalog.load_catalog().variant("podman+as-root+podman-privileged")
