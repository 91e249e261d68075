from pathlib import Path

import pytest
from packaging.version import Version

from lab import causes
from lab.base.errors import LabError, UsageError
from lab.repro import questions
from lab.repro.planning import Host, Plan
from lab.repro.report import Boxlite, Mood, Report, Setting, Speaker
from lab.run import journal
from tests.builders.reports import (
    CLONE,
    HOST,
    KNOWN,
    POLICY,
    RESTRICT,
    SWITCH,
    UNLOAD,
    boxlite,
    holds,
    is_built,
    no_image,
    plan,
    report,
    system,
    tried,
    words,
)

UBUNTU = system("ubuntu", "24.04")
POP = system("pop", None, like="ubuntu")


def names(made: Plan) -> list[str]:
    return [cell.name for cell in made.cells("lab repro")]


def test_the_guest_of_the_host_that_a_report_names_is_run_in_the_variant_that_leads_to_the_cause() -> None:
    made = plan(report(system(), words("bwrap: no")), CLONE)
    assert names(made) == ["debian-13/userns-clone-off/0.10.8"]
    assert made.is_host
    assert made.why_not == ()
    assert "guest: debian-13, for Debian 13" in made.steps


@pytest.mark.parametrize(("version", "guest"), [("13.2", "debian-13"), ("12", "debian-12")])
def test_a_point_release_is_its_release(version: str, guest: str) -> None:
    made = plan(report(system("debian", version)), CLONE)
    assert made.guest is not None
    assert made.guest.name == guest


def test_a_distribution_that_the_lab_lacks_is_not_replaced_and_the_nearest_guest_is_named() -> None:
    made = plan(report(POP), POLICY)
    assert (made.guest, made.cells("lab repro")) == (None, [])
    [why] = made.why_not
    assert "the lab has no guest for Pop, which another distribution does not replace" in why
    assert made.hint == (
        "debian-13 comes nearest: its AppArmor mediates user namespaces; its distribution is of the same "
        "family; --nearest runs it"
    )


def test_the_nearest_guest_is_run_only_if_asked_for_and_only_if_the_own_one_has_no_image() -> None:
    said = report(UBUNTU)
    alone = plan(said, POLICY)
    assert alone.guest is not None
    assert (alone.guest.name, alone.is_host) == ("ubuntu-24.04", True)
    nearest = plan(said, POLICY, nearest=True)
    assert names(nearest) == ["debian-13/apparmor-userns-nocaps/0.10.8"]
    assert not nearest.is_host
    assert any(step.startswith("guest: debian-13, which is not Ubuntu 24.04: ") for step in nearest.steps)
    everything = Host(lambda guest: True, lambda guest: None, HOST.releases)
    assert plan(said, POLICY, nearest=True, host=everything).is_host


def test_a_guest_whose_kernel_has_the_switch_gets_the_switch_and_another_one_the_policy_by_a_profile() -> None:
    assert names(plan(report(UBUNTU), POLICY)) == ["ubuntu-24.04/apparmor-restrict-on/0.10.8"]
    assert names(plan(report(UBUNTU), POLICY, guest="debian-13")) == ["debian-13/apparmor-userns-nocaps/0.10.8"]


def test_the_nearest_guest_can_have_what_the_cause_needs() -> None:
    rocky = report(system("rocky", "9"))
    for cause, guest in (("selinux-userns-deny", "debian-13-selinux"), ("masked-proc", "debian-13-podman")):
        near = plan(rocky, cause).nearest
        assert near is not None
        assert near.guest.name == guest


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (report(words("bwrap: no")), "the report names no host"),
        (
            report(system("ubuntu", None, inferred=True, or_derivative=True)),
            "only its words tell of Ubuntu or a",
        ),
        (report(system("debian", None)), "the report names no release of Debian"),
    ],
)
def test_a_report_that_names_no_host_is_not_run_and_the_probe_is_asked_for(said: Report, why: str) -> None:
    made = plan(said, CLONE)
    assert made.guest is None
    assert why in made.why_not[0]
    assert "lab probe" in made.why_not[0]
    assert made.missing[0] in ("the distribution and its release", "the release of Debian")


def test_what_a_report_states_is_set_beside_what_leads_to_the_cause_in_one_variant() -> None:
    said = report(system(), holds("user.max_user_namespaces", "5000"))
    made = plan(said, CLONE)
    assert names(made) == ["debian-13/report+userns-clone-off/0.10.8"]
    assert made.variant is not None
    assert made.variant.knobs["sysctl"].words() == f"user.max_user_namespaces=5000, {SWITCH}=0"
    assert made.variant.expect.cause == CLONE
    assert [each.name for each in made.made_variants] == ["report"]


def test_a_stated_setting_that_is_the_cause_itself_needs_no_other_variant() -> None:
    made = plan(report(system(), holds(SWITCH, "0")), CLONE)
    assert names(made) == ["debian-13/report/0.10.8"]
    assert made.variant is not None
    assert made.variant.expect.cause == CLONE


def test_a_variant_made_for_a_report_is_the_same_when_it_is_read_from_its_file(tmp_path: Path) -> None:
    folder = tmp_path / journal.VARIANTS
    folder.mkdir()
    made = plan(
        report(UBUNTU, holds(SWITCH, "1"), tried("setenforce 0", None, helped=False)), POLICY, nearest=True
    )
    for each in made.made_variants:
        (folder / f"{each.name}.toml").write_text(questions.to_toml(each))
    known = KNOWN.with_variants(folder)
    for each in made.variants:
        assert known.variant(each.name).knobs == each.knobs
        assert known.variant(each.name).expect == each.expect


def test_what_contradicts_the_cause_is_not_run_as_that_cause() -> None:
    made = plan(report(system(), holds(SWITCH, "1")), CLONE)
    assert made.cells("lab repro") == []
    assert "what the report states contradicts userns-sysctl" in made.why_not[0]


def test_a_sysctl_that_the_guest_s_kernel_lacks_is_left_out_and_said() -> None:
    made = plan(report(UBUNTU, holds(RESTRICT, "1"), holds(SWITCH, "1")), POLICY, nearest=True)
    assert f"not set: {RESTRICT}=1: the kernel of debian-13 has no such sysctl" in made.steps
    assert f"set: {SWITCH}=1, as line 2 says" in made.steps


@pytest.mark.parametrize("value", ["off", "1; id", "1\n2", "|/bin/sh %p", ""])
def test_a_value_that_is_no_number_is_not_set(value: str) -> None:
    made = plan(report(system(), holds(SWITCH, value)), CLONE)
    assert names(made) == ["debian-13/userns-clone-off/0.10.8"]
    assert any(step.endswith("the lab has no such setting") for step in made.steps)


def test_a_setting_in_a_program_s_message_was_not_tried_by_the_reporter() -> None:
    said = words("Fix: sudo sysctl -w kernel.unprivileged_userns_clone=1", 3, Speaker.BOXLITE)
    named = Setting(said.quote, SWITCH, "1", Mood.TRIED)
    assert plan(report(system(), said, named), CLONE).checks == ()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "kernel.x\nkernel.y", "a", "kernel." + "x" * 200, "kernel.$(id)"]
)
def test_a_name_that_no_sysctl_has_is_not_set(name: str) -> None:
    made = plan(report(system(), holds(name, "1")), CLONE)
    assert names(made) == ["debian-13/userns-clone-off/0.10.8"]
    assert any(step.startswith("not set: ") and "the lab has no such setting" in step for step in made.steps)


def test_what_was_tried_is_a_cell_of_its_own_on_which_no_remedy_is_tried() -> None:
    made = plan(report(system(), tried(SWITCH, "1", helped=True)), CLONE)
    cure, cell = made.cells("lab repro REPORT")[::-1]
    assert (cell.variant.name, cell.trials, cell.again) == ("userns-clone-off", True, "")
    assert (cure.variant.name, cure.trials, cure.again) == ("tried-1", False, "lab repro REPORT")
    assert cure.variant.knobs["sysctl"].words() == f"{SWITCH}=1"
    assert cure.variant.expect.status == "pass"


def test_settings_that_were_all_tried_are_tried_alone_and_together() -> None:
    said = report(UBUNTU, tried(SWITCH, "1", helped=False), tried(RESTRICT, "0", helped=False))
    made = plan(said, POLICY)
    assert [each.said for each in made.checks] == [
        f"{SWITCH}=1",
        f"{RESTRICT}=0",
        f"{SWITCH}=1 and {RESTRICT}=0",
    ]
    assert [each.variant.name for each in made.checks if each.variant] == ["tried-1", "tried-2", "tried-3"]


def test_with_two_causes_what_was_tried_is_tried_on_both() -> None:
    made = plan(report(system(), tried("user.max_user_namespaces", "9", helped=False)), POLICY, CLONE)
    assert names(made)[2:] == ["debian-13/tried-1/0.10.8", "debian-13/tried-2/0.10.8"]
    assert [each.question.cause for each in made.checks] == [POLICY, CLONE]
    assert made.steps[-1] == f"tried: user.max_user_namespaces=9, on {CLONE}: variant tried-2"


def test_what_cannot_be_tried_on_the_nearest_guest_says_why() -> None:
    said = report(
        UBUNTU,
        tried(RESTRICT, "0", helped=False),
        tried(UNLOAD, None, helped=False),
        tried("make it work", None, helped=False),
    )
    made = plan(said, POLICY, nearest=True)
    assert [each.variant for each in made.checks] == [None, None, None]
    switch, profile, other = [each.why_not for each in made.checks]
    assert switch == "the kernel of debian-13 has no such sysctl"
    assert "loads unprivileged_userns itself, to stand for the policy of the host" in profile
    assert other == "the lab has no setting that does this"


def test_two_causes_are_two_cells_and_one_without_a_variant_says_so() -> None:
    made = plan(report(system()), POLICY, CLONE, "bwrap-missing-forever")
    assert names(made) == [
        "debian-13/apparmor-userns-nocaps/0.10.8",
        "debian-13/userns-clone-off/0.10.8",
        "debian-13/stock/0.10.8",
    ]


def test_a_build_older_than_all_is_not_run_and_a_stated_one_is() -> None:
    assert names(plan(report(system(), boxlite("0.10.7")), CLONE)) == ["debian-13/userns-clone-off/0.10.7"]
    old = plan(report(system(), boxlite("0.5.13")), CLONE)
    assert old.build is None
    assert old.why_not == (
        "boxlite 0.5.13 is older than every release on the package index; the oldest is 0.9.0; "
        "--build names another build",
    )
    assert (
        plan(report(system(), boxlite("0.10.9")), CLONE).why_not[0].startswith("boxlite 0.10.9 is no release")
    )
    other = plan(report(system(), boxlite("0.5.13")), CLONE, build="0.10.8")
    assert "build: boxlite 0.10.8, as asked for; the report is about 0.5.13" in other.steps


def test_an_index_that_does_not_answer_is_a_reason_and_no_guess() -> None:
    def nobody() -> list[Version]:
        raise LabError("no network")

    made = plan(report(system(), boxlite("0.10.8")), CLONE, host=Host(is_built, no_image, nobody))
    assert made.why_not == ("which releases of boxlite there are could not be found out: no network",)


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ((boxlite("0.5.13"),), "build: boxlite 0.5.13, as the report says, if the package index has it"),
        ((), "build: the newest release on the package index; the report names no version"),
    ],
)
def test_a_plan_that_asks_nobody_leaves_the_build_open(said: tuple[Boxlite, ...], step: str) -> None:
    made = plan(report(system(), *said), CLONE, host=Host(is_built, no_image, None))
    assert step in made.steps
    assert (made.build, made.why_not) == (None, ())


def test_a_guest_that_nobody_has_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"no guest is called 'ubunto-24\.04'"):
        plan(report(system()), CLONE, guest="ubunto-24.04")


def test_a_variant_that_brings_a_cause_with_some_builds_only_asks_for_it() -> None:
    made = plan(report(system()), "mount-symlink")
    assert made.variant is not None
    assert made.variant.name == "ca-bundle-symlink"
    # What it does is said of the newest build.
    assert made.variant.expect.cause is None


def test_every_cause_that_a_setting_can_bring_about_has_a_variant() -> None:
    # An old bubblewrap is a guest's own, and boxlite's filter no setting of a host.
    without = [name for name in causes.known() if not questions.making(KNOWN, name, None)]
    assert without == ["bwrap-too-old", "shim-seccomp"]
