import ast
import shlex
from typing import Any

import pytest

from lab import catalog, knobs
from lab.base.errors import UsageError
from lab.catalog import Variant
from lab.guest.session import program_file
from lab.guest.variant import (
    Mark,
    NotInEffect,
    as_run,
    begin,
    check_in_effect,
    home,
    login,
    under,
    why_not_applicable,
)
from lab.knobs.apparmor import AppArmor
from lab.knobs.container import Kind

KNOWN = catalog.load().variants
SHIPPED_PROFILE = "/etc/apparmor.d/unprivileged_userns"
ALLOW_LIST = "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict"
WHO = {
    "uid": 1001,
    "groups": [993, 1001],
    "context": {"apparmor": "unconfined", "delegated": ["memory", "pids"]},
}


def facts(**more: Any) -> dict[str, Any]:
    """The facts of a Debian 13, but for what is given."""
    found: dict[str, Any] = {
        "sysctls": {
            "kernel.unprivileged_userns_clone": "1",
            "user.max_user_namespaces": "7794",
            "kernel.yama.ptrace_scope": "1",
            "kernel.io_uring_disabled": "0",
        },
        "command_line": "root=LABEL=root rw console=ttyS0 panic=-1",
        "lsm": ["lockdown", "capability", "landlock", "yama", "apparmor"],
        "bubblewrap": {"path": "/usr/bin/bwrap", "version": "0.12.0", "mode": "0o755"},
        "mounts": {"/home": {"on": "/", "type": "ext4", "options": ["rw", "relatime"]}},
        "login_sessions": False,
        "podman": False,
        "selinux": None,
        "cgroup": {"version": "v2", "controllers": ["cpu", "memory", "pids"]},
        "apparmor": {
            "version": "4.1.0",
            "userns_mediation": True,
            "profiles": {"unprivileged_userns": "complain"},
            "profile_files": [SHIPPED_PROFILE, ALLOW_LIST],
        },
        "kvm": {"mode": "0o660", "uid": 0, "gid": 993},
    }
    return found | more


def in_container(*, seccomp: int = 0, apparmor: str | None = "unconfined") -> dict[str, Any]:
    """Who the suite runs as in a container."""
    context: dict[str, Any] = {"apparmor": apparmor, "delegated": []}
    return {**WHO, "container": True, "seccomp": seccomp, "context": context}


def apparmor(**more: Any) -> dict[str, Any]:
    return facts(apparmor=facts()["apparmor"] | more)


# As Fedora has it.
OPEN_KVM = {"mode": "0o666", "uid": 0, "gid": 36}
UBUNTU = facts(
    sysctls=facts()["sysctls"] | {"kernel.apparmor_restrict_unprivileged_userns": "0"},
    apparmor=facts()["apparmor"] | {"profiles": {}},
)
RESTRICTED = facts(sysctls=UBUNTU["sysctls"], apparmor=UBUNTU["apparmor"] | {"profiles": {"bwrap": "enforce"}})
UBUNTUS = "its kernel has no kernel.apparmor_restrict_unprivileged_userns"
NOT_ON_DEBIAN = {
    "apparmor-restrict-off": UBUNTUS,
    "apparmor-restrict-on": UBUNTUS,
    "issue-468-settings": UBUNTUS,
    "cgroup-no-delegation": "gives its users no control groups to begin with",
    "podman": "has no podman",
    "podman-apparmor-off": "has no podman",
    "podman-no-namespaces": "has no podman",
    "podman-privileged": "has no podman",
    "podman-unconfined": "has no podman",
    "selinux-permissive": "no SELinux",
    "selinux-userns-deny": "no SELinux",
}


@pytest.mark.parametrize("name", KNOWN)
def test_every_shipped_variant_but_these_makes_sense_on_debian_13(name: str) -> None:
    assert why_not_applicable(KNOWN[name], facts()) == NOT_ON_DEBIAN.get(name)


OLD_APPARMOR = apparmor(version="3.0.8", userns_mediation=False, profile_files=[])
NO_SYSCTL = facts(sysctls={"kernel.unprivileged_userns_clone": None, "user.max_user_namespaces": "7794"})
NEEDS_ALONE = KNOWN["apparmor-userns-deny"].model_copy(update={"apparmor": AppArmor(userns=True)})


@pytest.mark.parametrize(
    ("variant", "guest", "reason"),
    [
        (KNOWN["apparmor-userns-deny"], facts(apparmor=None), "no AppArmor"),
        (NEEDS_ALONE, facts(apparmor=None), "no AppArmor"),
        (
            KNOWN["apparmor-userns-deny"],
            OLD_APPARMOR,
            "AppArmor 3.0.8 does not mediate user namespaces",
        ),
        (KNOWN["apparmor-userns-nocaps"], apparmor(profile_files=[]), f"ships no {SHIPPED_PROFILE}"),
        (KNOWN["bwrap-allow-list"], apparmor(profile_files=[SHIPPED_PROFILE]), f"ships no {ALLOW_LIST}"),
        (KNOWN["userns-clone-off"], NO_SYSCTL, "its kernel has no kernel.unprivileged_userns_clone"),
        (KNOWN["max-userns-zero"], facts(sysctls={}), "its kernel has no user.max_user_namespaces"),
        (KNOWN["kvm-denied"], facts(kvm=None), "has no /dev/kvm to begin with"),
        (KNOWN["kvm-absent"], facts(kvm=None), "has no /dev/kvm to begin with"),
        (KNOWN["kvm-denied"], facts(kvm=OPEN_KVM), "everyone may use its /dev/kvm, whatever their groups"),
        (KNOWN["bwrap-absent"], facts(bubblewrap=None), "has no bubblewrap to begin with"),
        (KNOWN["bwrap-setuid"], facts(bubblewrap={"version": "0.8.0"}), "its bubblewrap 0.8.0 is made for"),
        (KNOWN["apparmor-restrict-on"], RESTRICTED, "has the profile bwrap loaded"),
        (
            KNOWN["cgroup-no-delegation"],
            facts(cgroup={"version": "v1"}),
            "has no cgroup v2, the only one to be",
        ),
        (KNOWN["issue-468-settings"], facts(apparmor=None, sysctls=UBUNTU["sysctls"]), "no AppArmor"),
        (KNOWN["podman-apparmor-off"], facts(podman=True, apparmor=None), "no AppArmor"),
        (
            catalog.load().variant("apparmor-mount-deny-quiet+podman-privileged"),
            facts(podman=True),
            "the suite cannot be started by apparmor (",
        ),
    ],
)
def test_why_a_variant_makes_no_sense_on_a_guest(variant: Variant, guest: dict[str, Any], reason: str) -> None:
    said = why_not_applicable(variant, guest)
    assert said is not None
    assert said.startswith(reason)


def test_kvm_that_everyone_may_use_can_be_absent_all_the_same() -> None:
    assert why_not_applicable(KNOWN["kvm-absent"], facts(kvm=OPEN_KVM)) is None


def test_stock_makes_sense_everywhere() -> None:
    assert why_not_applicable(KNOWN["stock"], facts(apparmor=None, sysctls={}, kvm=None)) is None


def test_what_the_guest_shows_is_in_effect() -> None:
    check_in_effect(KNOWN["stock"], facts(), WHO)
    check_in_effect(KNOWN["max-userns-zero"], facts(sysctls={"user.max_user_namespaces": "0"}), WHO)
    check_in_effect(
        KNOWN["apparmor-userns-nocaps"],
        apparmor(profiles={"unprivileged_userns": "enforce"}),
        WHO | {"context": {"apparmor": "unprivileged_userns (enforce)"}},
    )
    check_in_effect(KNOWN["stock"], facts(kvm=None), WHO | {"groups": [1001]})
    check_in_effect(KNOWN["kvm-denied"], facts(), WHO | {"groups": [1001]})
    check_in_effect(KNOWN["kvm-absent"], facts(kvm=None), WHO)
    check_in_effect(KNOWN["bwrap-absent"], facts(bubblewrap=None), WHO)
    check_in_effect(KNOWN["bwrap-setuid"], facts(bubblewrap=facts()["bubblewrap"] | {"mode": "0o4755"}), WHO)
    check_in_effect(KNOWN["home-noexec"], facts(mounts={"/home": {"options": ["rw", "noexec"]}}), WHO)
    check_in_effect(KNOWN["as-root"], facts(), WHO | {"uid": 0, "groups": [0]})
    check_in_effect(KNOWN["cgroup-no-delegation"], facts(), WHO | {"context": {"delegated": []}})
    check_in_effect(KNOWN["issue-468-settings"], UBUNTU, WHO)
    check_in_effect(KNOWN["apparmor-off"], facts(command_line="rw apparmor=0", lsm=["yama"]), WHO)
    for name in ("podman", "podman-no-namespaces"):
        check_in_effect(KNOWN[name], facts(), in_container(seccomp=2, apparmor="containers-default (enforce)"))
    check_in_effect(KNOWN["podman"], facts(apparmor=None), in_container(seccomp=2, apparmor=None))
    check_in_effect(KNOWN["podman-apparmor-off"], facts(), in_container(seccomp=2))
    for name in ("podman-unconfined", "podman-privileged"):
        check_in_effect(KNOWN[name], facts(), in_container(apparmor="crun (unconfined)"))
    check_in_effect(KNOWN["selinux-permissive"], facts(selinux={"mode": "permissive"}), WHO)
    denying = {"mode": "enforcing", "modules": ["lab"]}
    check_in_effect(KNOWN["selinux-userns-deny"], facts(selinux=denying), WHO)


@pytest.mark.parametrize(
    ("name", "guest", "who", "differences"),
    [
        ("max-userns-zero", facts(), {}, ["user.max_user_namespaces is 7794, not 0"]),
        ("max-userns-zero", facts(sysctls={}), {}, ["user.max_user_namespaces is None, not 0"]),
        (
            "apparmor-userns-deny",
            facts(),
            {},
            ["AppArmor profile lab-bwrap-without-userns is not loaded"],
        ),
        (
            "apparmor-userns-nocaps",
            facts(),
            {},
            [
                "AppArmor profile unprivileged_userns is in complain mode",
                "the suite would run confined by 'unconfined'",
            ],
        ),
        (
            "apparmor-userns-nocaps",
            apparmor(profiles={"unprivileged_userns": "enforce"}),
            {"context": {"apparmor": "unprivileged_userns (complain)"}},
            ["the suite would run confined by 'unprivileged_userns (complain)'"],
        ),
        ("stock", facts(), {"uid": 0}, ["the suite would run as root"]),
        ("kvm-denied", facts(), {}, ["the suite's user is in the group of /dev/kvm"]),
        ("kvm-denied", facts(kvm=None), {"groups": [1001]}, ["there is no /dev/kvm"]),
        ("kvm-absent", facts(), {}, ["/dev/kvm is there"]),
        ("bwrap-absent", facts(), {}, ["bubblewrap's mode is 0o755, not None"]),
        ("bwrap-not-executable", facts(), {}, ["bubblewrap's mode is 0o755, not 0o644"]),
        ("bwrap-setuid", facts(bubblewrap=None), {}, ["bubblewrap's mode is None, not 0o4755"]),
        ("home-noexec", facts(), {}, ["/home is mounted without noexec"]),
        (
            "apparmor-off",
            facts(),
            {},
            ["booted without apparmor=0", "the security module apparmor is in use"],
        ),
        (
            "podman",
            facts(),
            {"container": False, "seccomp": 0},
            ["would run in no container", "without a seccomp filter", "confined by 'unconfined'"],
        ),
        (
            "podman-privileged",
            facts(),
            in_container(seccomp=2, apparmor="containers-default (enforce)"),
            ["under a seccomp filter", "confined by 'containers-default (enforce)'"],
        ),
        ("selinux-permissive", facts(selinux={"mode": "enforcing"}), {}, ["enforcing, not permissive"]),
        (
            "selinux-userns-deny",
            facts(selinux={"mode": "permissive", "modules": []}),
            {},
            ["SELinux is permissive, not enforcing", "the module lab is not in SELinux's policy"],
        ),
        ("as-root", facts(), {}, ["the suite would run as user 1001, not as root"]),
        ("cgroup-no-delegation", facts(), {}, ["was given the controllers memory pids"]),
        ("issue-468-settings", facts(), {}, ["userns is None, not 0", "unprivileged_userns is loaded"]),
        ("stock", facts(), {"groups": [1001]}, ["the suite's user is not in the group of /dev/kvm"]),
        (
            "max-userns-zero",
            facts(),
            {"groups": []},
            ["user.max_user_namespaces is 7794", "group of /dev/kvm"],
        ),
    ],
)
def test_every_difference_is_named(
    name: str, guest: dict[str, Any], who: dict[str, Any], differences: list[str]
) -> None:
    with pytest.raises(NotInEffect, match=r"^variant not in effect: ") as error:
        check_in_effect(KNOWN[name], guest, WHO | who)
    assert all(difference in str(error.value) for difference in differences)
    assert str(error.value).count(";") == len(differences) - 1


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("stock", ""),
        ("apparmor-userns-nocaps", "aa-exec -p unprivileged_userns --"),
        ("podman-privileged", "lab-container"),
    ],
)
def test_a_variant_decides_what_the_suite_runs_under(name: str, command: str) -> None:
    assert under(KNOWN[name]) == command


def test_the_suite_is_run_by_an_ordinary_user_unless_a_variant_says_root() -> None:
    stock, root = KNOWN["stock"], KNOWN["as-root"]
    assert (login(stock), home(stock), as_run(stock, "echo 'a'")) == ("tester", "/home/tester", "echo 'a'")
    assert (login(root), home(root)) == ("lab", "/root")
    assert shlex.split(as_run(root, "echo 'a'")) == ["sudo", "-n", "-H", "sh", "-c", "echo 'a'"]


class Guest:
    """As much of a session as putting a variant on needs: it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def programs(self, wanted: list[tuple[str, dict[str, Any]]], *, seconds: float) -> list[Any]:
        self.asked += wanted
        return [{"answer to": name} for name, _ in wanted]

    def log_out(self, user: str) -> None:
        self.asked.append(user)


def test_the_facts_of_a_variant_are_read_after_it_was_put_on_and_its_user_logs_in_after_that() -> None:
    guest = Guest()
    wanted = catalog.load().variant("apparmor-userns-deny+max-userns-zero")
    facts = begin(guest, wanted, mark=Mark("a mark", 1000.5))  # type: ignore[arg-type]
    assert facts == {"answer to": "facts"}
    assert guest.asked == [
        ("begin", {"mark": "a mark", "clock": 1000.5}),
        ("knobs/apparmor", wanted.knobs["apparmor"].settings()),
        ("knobs/sysctl", {"user.max_user_namespaces": 0}),
        ("facts", {}),
        "tester",
    ]


def test_every_kind_of_setting_that_is_put_on_has_its_program_and_every_program_its_kind() -> None:
    put_on = {
        name
        for variant in KNOWN.values()
        for name, knob in variant.knobs.items()
        if knob.settings() is not None
    }
    assert {file.stem for file in program_file("knobs/sysctl").parent.glob("*.py")} == put_on


def test_every_kind_of_setting_is_used_by_a_variant() -> None:
    assert {name for variant in KNOWN.values() for name in variant.knobs} == knobs.kinds().keys()


def test_two_containers_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="container: kind is default and privileged"):
        catalog.load().variant("podman+as-root+podman-privileged")


def test_every_kind_of_container_has_its_options() -> None:
    program = program_file("knobs/container").read_text()
    [options] = [
        node.value
        for node in ast.parse(program).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "OPTIONS"
    ]
    assert isinstance(options, ast.Dict)
    assert [ast.literal_eval(key) for key in options.keys if key] == list(Kind)
