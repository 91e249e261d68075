from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from packaging.version import Version

from lab import causes
from lab.base.errors import LabError
from lab.repro.planning import HostAbilities, leading_to
from lab.repro.report import KernelStatement, Mood, Setting, Speaker, Statement
from tests.builders.reports import (
    CLONE,
    HOST,
    KNOWN,
    POLICY,
    RESTRICT,
    SWITCH,
    UNLOAD,
    architecture,
    boxlite,
    holds,
    is_built,
    plan,
    quote,
    report,
    suspected,
    system,
    tried,
    variant_of,
    words,
)

DEBIAN, ARM64 = system(), architecture("aarch64")
UBUNTU = system("ubuntu", "24.04")
POP = system("pop", None, like="ubuntu")
NEAREST = {"nearest": True}
LIMIT = "user.max_user_namespaces"
NOBODY = HostAbilities(is_built, is_built, None)
EVERYTHING = HostAbilities(lambda guest: True, lambda guest: True, HOST.releases)


@pytest.mark.parametrize(
    ("statements", "suspected", "wishes", "cells"),
    [
        # The guest of the host that the report names, in the variant that leads to the cause.
        ([DEBIAN, words("bwrap: no")], [CLONE], {}, ["debian-13/userns-clone-off/0.10.8"]),
        # A point release is its release.
        ([system("debian", "13.2")], [CLONE], {}, ["debian-13/userns-clone-off/0.10.8"]),
        ([system("debian", "12")], [CLONE], {}, ["debian-12/userns-clone-off/0.10.8"]),
        # The guest has the architecture that the report names, if there is one.
        ([DEBIAN, ARM64], [CLONE], {}, ["debian-13-arm64/userns-clone-off/0.10.8"]),
        ([POP, ARM64], [POLICY], NEAREST, ["debian-13-arm64/apparmor-userns-nocaps/0.10.8"]),
        # A report that names two architectures names none.
        ([DEBIAN, ARM64, architecture("x86_64")], [CLONE], {}, ["debian-13/userns-clone-off/0.10.8"]),
        # A distribution that the lab lacks is not replaced by another one.
        ([POP], [POLICY], {}, []),
        ([POP], [POLICY], NEAREST, ["debian-13/apparmor-userns-nocaps/0.10.8"]),
        # A guest whose kernel has the switch gets the switch, and another one the policy by a profile.
        ([UBUNTU], [POLICY], {}, ["ubuntu-24.04/apparmor-restrict-on/0.10.8"]),
        ([UBUNTU], [POLICY], {"guest": "debian-13"}, ["debian-13/apparmor-userns-nocaps/0.10.8"]),
        ([UBUNTU], [POLICY], NEAREST, ["debian-13/apparmor-userns-nocaps/0.10.8"]),
        # What the report states is set beside what leads to the cause, if it neither is nor contradicts that.
        ([DEBIAN, holds(LIMIT, "5000")], [CLONE], {}, ["debian-13/report+userns-clone-off/0.10.8"]),
        ([DEBIAN, holds(SWITCH, "0")], [CLONE], {}, ["debian-13/report/0.10.8"]),
        ([DEBIAN, holds(SWITCH, "1")], [CLONE], {}, []),
        # Several causes are several cells; one that no variant leads to is told by the guest as it is.
        (
            [DEBIAN],
            [POLICY, CLONE, "bwrap-missing-forever"],
            {},
            [f"debian-13/{name}/0.10.8" for name in ("apparmor-userns-nocaps", "userns-clone-off", "stock")],
        ),
        ([DEBIAN, boxlite("0.10.7")], [CLONE], {}, ["debian-13/userns-clone-off/0.10.7"]),
        ([DEBIAN, boxlite("0.5.13")], [CLONE], {}, []),
        ([DEBIAN, boxlite("0.5.13")], [CLONE], {"build": "0.10.8"}, ["debian-13/userns-clone-off/0.10.8"]),
    ],
)
def test_the_cells_of_a_report(
    statements: Sequence[Statement], suspected: list[str], wishes: dict[str, Any], cells: list[str]
) -> None:
    made = plan(report(*statements), *suspected, **wishes)
    assert [cell.name for cell in made.cells] == cells
    assert bool(made.why_not) is not bool(cells)


@pytest.mark.parametrize(
    ("statements", "suspected", "more", "step"),
    [
        ([DEBIAN], CLONE, {}, "guest: debian-13, for Debian 13"),
        ([system("debian", "11"), ARM64], CLONE, {}, "architecture: x86_64, not aarch64"),
        ([UBUNTU], POLICY, NEAREST, "debian-13, which is not Ubuntu 24.04: its AppArmor mediates"),
        ([UBUNTU, holds(RESTRICT, "1")], POLICY, NEAREST, f"not set: {RESTRICT}=1: the kernel of debian-13"),
        ([UBUNTU, holds(SWITCH, "1")], POLICY, NEAREST, f"set: {SWITCH}=1, as line 2 says"),
        ([DEBIAN, holds(SWITCH, "0"), holds(SWITCH, "1", 3)], CLONE, {}, "1: another line contradicts line 3"),
        (
            [DEBIAN, tried(LIMIT, "9", helped=False)],
            CLONE,
            {},
            f"{LIMIT}=9 does against {CLONE} (line 3): the lab runs variant tried-1",
        ),
        ([DEBIAN, boxlite("0.5.13")], CLONE, {"build": "0.10.8"}, "as asked for; the report is about 0.5.13"),
        ([DEBIAN, boxlite("0.5.13")], CLONE, {"host": NOBODY}, "as the report says, if the package index"),
        ([DEBIAN], CLONE, {"host": NOBODY}, "build: the newest release on the package index"),
    ],
)
def test_the_steps_say_what_is_done_and_why(
    statements: Sequence[Statement], suspected: str, more: dict[str, Any], step: str
) -> None:
    made = plan(report(*statements), suspected, **more)
    assert step in "\n".join(made.steps)
    assert made.why_not == ()
    # A plan that asks nobody leaves the build open.
    assert (made.build is None) is ("host" in more)


@pytest.mark.parametrize(
    ("statements", "suspected", "why"),
    [
        ([words("bwrap: no")], CLONE, "names no host; ask the reporter for the output of the script"),
        ([system("ubuntu", None, inferred=True, or_derivative=True)], CLONE, "its words only point to Ubuntu"),
        ([system("debian", None)], CLONE, "the report names no release of Debian; ask the reporter"),
        ([POP], POLICY, "the lab has no guest for Pop, and another distribution does not replace it"),
        ([DEBIAN, holds(SWITCH, "1")], CLONE, f"what the report states contradicts {CLONE}"),
        ([DEBIAN, boxlite("0.5.13")], CLONE, "0.5.13 is older than every release on the package index"),
        ([DEBIAN, boxlite("0.10.9")], CLONE, "boxlite 0.10.9 is not a release"),
    ],
)
def test_why_nothing_is_run(statements: Sequence[Statement], suspected: str, why: str) -> None:
    made = plan(report(*statements), suspected)
    assert made.cells == []
    assert why in made.why_not[0]


def test_an_index_that_does_not_answer_is_a_reason_and_no_guess() -> None:
    def nobody() -> list[Version]:
        raise LabError("no network")

    made = plan(report(DEBIAN, boxlite("0.10.8")), CLONE, host=HostAbilities(is_built, is_built, nobody))
    assert made.why_not == ("the releases of boxlite could not be listed: no network",)


def test_what_a_report_does_not_say() -> None:
    message, program = words("bwrap: no"), boxlite("1.0")
    assert [part.split()[-1] for part in report().missing] == ["release", "log", "boxlite"]
    asked = {"the release of Debian": "cat /etc/os-release; uname -rm"}
    assert report(system("debian", None), message, program).missing == asked
    assert report(DEBIAN, message, program).missing == {}


# -- the guest that comes nearest


@pytest.mark.parametrize(
    ("host", "suspected", "guest"),
    [
        (POP, POLICY, "debian-13"),
        (system("rocky", "9", like="rhel"), CLONE, "debian-13"),
        (system("rocky", "9", like="rhel"), "selinux-userns-deny", "debian-13-selinux"),
        (system("rocky", "9", like="rhel"), "masked-proc", "debian-13-podman"),
    ],
)
def test_the_nearest_guest_can_have_what_the_cause_needs(host: Statement, suspected: str, guest: str) -> None:
    near = plan(report(host), suspected).nearest
    assert near and near.name == guest


@pytest.mark.parametrize(
    ("host", "guest"),
    [
        (system("amzn", "2023"), "amazonlinux-2023"),
        (system("centos", "10"), "centos-stream-10"),
        (system("almalinux", "9.6", like="rhel"), "almalinux-9"),
        (system("arch", None), "arch"),
    ],
)
def test_a_guest_is_found_by_what_its_os_release_says(host: Statement, guest: str) -> None:
    chosen = plan(report(host), host=EVERYTHING).guest
    assert chosen and chosen.name == guest


@pytest.mark.parametrize(
    ("host", "guest", "why"),
    [
        (system("ubuntu", "18.04"), "ubuntu", "another release of the same distribution"),
        (POP, "ubuntu", "the host's distribution derives from its own"),
        (system("kali", None, like="debian"), "debian", "the host's distribution derives from its own"),
        (system("rocky", "9", like="rhel"), "rocky", "another release of the same distribution"),
        (system("ol", "9", like="rhel"), "almalinux", "its distribution is of the same family"),
        (system("gentoo", None), "debian", "most of the lab's results are from it"),
    ],
)
def test_of_guests_with_an_image_the_closest_relative_is_nearest(host: Statement, guest: str, why: str) -> None:
    made = plan(report(host), host=EVERYTHING)
    assert made.nearest and made.nearest.name.partition("-")[0] == guest
    assert why in made.why_nearest


def test_the_nearest_guest_is_run_only_if_asked_for_and_only_if_the_own_one_has_no_image() -> None:
    assert plan(report(UBUNTU), POLICY).is_host
    assert not plan(report(UBUNTU), POLICY, nearest=True).is_host
    assert plan(report(UBUNTU), POLICY, nearest=True, host=EVERYTHING).is_host


# -- the variants


def test_what_a_report_states_is_a_variant_that_is_expected_to_fail_for_the_cause() -> None:
    beside = variant_of(plan(report(DEBIAN, holds(LIMIT, "5000")), CLONE))
    assert beside.knobs["sysctl"].words() == f"{LIMIT}=5000, {SWITCH}=0"
    assert beside.expect.cause == CLONE
    assert variant_of(plan(report(DEBIAN, holds(SWITCH, "0")), CLONE)).expect.cause == CLONE
    assert list(plan(report(DEBIAN, holds(LIMIT, "5000")), CLONE).made_variants) == ["report"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((SWITCH, value) for value in ("off", "1; id", "1\n2", "|/bin/sh %p", "")),
        *((name, "1") for name in ("../../etc/passwd", "kernel.x\nkernel.y", "a", "kernel." + "x" * 200)),
        ("kernel.$(id)", "1"),
    ],
)
def test_what_no_sysctl_has_is_not_set(name: str, value: str) -> None:
    made = plan(report(DEBIAN, holds(name, value)), CLONE)
    assert [cell.name for cell in made.cells] == ["debian-13/userns-clone-off/0.10.8"]
    [step] = [step for step in made.steps if step.startswith("not set: ")]
    assert step.endswith("the lab has no such setting")


def test_a_setting_in_a_program_s_message_was_not_tried_by_the_reporter() -> None:
    message = words("Fix: sudo sysctl -w kernel.unprivileged_userns_clone=1", 3, Speaker.BOXLITE)
    named = Setting(message.quote, SWITCH, "1", Mood.TRIED)
    assert plan(report(DEBIAN, message, named), CLONE).checks == ()


def test_what_was_tried_is_a_cell_of_its_own_on_which_no_remedy_is_tried() -> None:
    made = plan(report(DEBIAN, tried(SWITCH, "1", helped=True)), CLONE)
    cell, cure = made.cells
    assert (cell.variant.name, cell.trials, cell.again) == ("userns-clone-off", True, "")
    assert (cure.variant.name, cure.trials, cure.again) == ("tried-1", False, "lab repro REPORT")
    assert cure.variant.knobs["sysctl"].words() == f"{SWITCH}=1"
    assert cure.variant.expect.status == "pass"


def test_settings_that_were_all_tried_are_tried_alone_and_together_on_each_cause() -> None:
    settings = tried(SWITCH, "1", helped=False), tried(RESTRICT, "0", helped=False)
    made = plan(report(UBUNTU, *settings), POLICY)
    assert [(check.written, check.variant.name) for check in made.checks if check.variant] == [
        (f"{SWITCH}=1", "tried-1"),
        (f"{RESTRICT}=0", "tried-2"),
        (f"{SWITCH}=1 and {RESTRICT}=0", "tried-3"),
    ]
    cells = plan(report(DEBIAN, tried(LIMIT, "9", helped=False)), POLICY, CLONE).cells
    assert [cell.variant.name for cell in cells][2:] == ["tried-1", "tried-2"]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        (tried(RESTRICT, "0", helped=False), "the kernel of debian-13 has no such sysctl"),
        (tried(UNLOAD, None, helped=False), "apparmor-userns-nocaps loads unprivileged_userns itself"),
        (tried("make it work", None, helped=False), "the lab has no such setting"),
    ],
)
def test_what_cannot_be_tried_on_the_nearest_guest_says_why(setting: Setting, why: str) -> None:
    [check] = plan(report(UBUNTU, setting), POLICY, nearest=True).checks
    assert check.variant is None
    assert why in check.why_not


@pytest.mark.parametrize(
    ("cause", "operation", "means", "variant"),
    [
        ("apparmor-mount-deny", "mount", "EACCES", "apparmor-mount-deny"),
        ("apparmor-mount-deny", "pivot-root", "EACCES", "apparmor-pivot-root-deny"),
        (CLONE, "namespace", "EPERM", "userns-clone-off"),
        (CLONE, "uid-map", "EACCES", None),
    ],
)
def test_no_variant_is_set_whose_message_differs_from_the_report_s(
    cause: str, operation: str, means: str, variant: str | None
) -> None:
    message = replace(words("bwrap: no"), operation=operation, means=means)
    made = plan(report(DEBIAN, message), suspected(cause, message.quote))
    [question] = made.questions
    assert (question.variant.name if question.variant else None) == variant
    assert ("no variant of the lab gives the report's message" in "\n".join(made.steps)) is (variant is None)


@pytest.mark.parametrize("name", ["6.6.87.2-microsoft-standard-WSL2", "6.6.87-WSL2"])
def test_wsl2_has_its_twin_and_no_guest_of_its_distribution(name: str) -> None:
    in_wsl = report(UBUNTU, KernelStatement(quote(2), name))
    made = plan(in_wsl)
    assert (made.guest, made.cells) == (None, [])
    assert made.why_not == (
        "the lab has no guest for Ubuntu 24.04 in WSL2, and another distribution does not replace it",
    )
    assert made.hint.startswith(
        "twin-wsl2 comes nearest: it has the security modules of WSL2, but another kernel"
    )
    twin = plan(in_wsl, nearest=True)
    assert [cell.name for cell in twin.cells] == ["twin-wsl2/stock/0.10.8"]
    assert "twin-wsl2, which is not Ubuntu 24.04: it has the security modules of WSL2" in twin.steps[0]


def test_wsl_without_a_distribution_is_no_claim_about_one_of_its_versions() -> None:
    made = plan(report(KernelStatement(quote(2), "4.4.0-19041-Microsoft")))
    assert made.why_not == ("the lab has no guest for WSL",)


def test_a_variant_that_brings_a_cause_with_some_builds_only_asks_for_it() -> None:
    variant = variant_of(plan(report(DEBIAN), "mount-symlink"))
    assert variant.name == "ca-bundle-symlink"
    # What it does is said of the newest build.
    assert variant.expect.cause is None


def test_a_cause_that_a_suite_meets_needs_no_setting() -> None:
    made = plan(report(DEBIAN), "cgroup-not-joined")
    assert [cell.name for cell in made.cells] == ["debian-13/stock/lifecycle-0.10.8"]
    assert made.why_not == ()


def test_every_cause_that_a_setting_can_bring_about_has_a_variant() -> None:
    # An old bubblewrap is a guest's own, boxlite's filter and its library are no settings of a host, no release
    # refuses a box without a control group, every login has boxlite 0.10.8's that is not joined, and every host
    # its bugs of volumes.
    without = [name for name in causes.list_causes() if not leading_to(name, KNOWN, None)]
    assert without == [
        "cgroup-unavailable",
        "bwrap-too-old",
        "runtime-library",
        "volume-not-in-sandbox",
        "volumes-exhaust-irqs",
        "shim-seccomp",
        "cgroup-not-joined",
    ]
