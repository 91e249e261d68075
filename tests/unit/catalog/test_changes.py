"""What can be changed on a cell, and what comes of it."""

from typing import Any

import pytest

from lab import catalog
from lab.catalog import Change, Variant
from lab.catalog.knob import TableKnob
from lab.catalog.knobs import AppArmor, Bubblewrap, Profile, Sysctl
from lab.probes import Facts, ProcessUser
from lab.trials import experiment
from tests.builders.facts import facts

KNOWN = catalog.load_catalog()
CLONE, LIMIT = "kernel.unprivileged_userns_clone", "user.max_user_namespaces"
BOTH = KNOWN.variant("userns-clone-off+max-userns-zero")
SHIPPED = Profile(name="unprivileged_userns", shipped="/etc/apparmor.d/unprivileged_userns")
NOCAPS = KNOWN.variant("apparmor-userns-nocaps").model_copy(
    update={"apparmor": AppArmor(profiles=[SHIPPED], confine_suite_by=SHIPPED.name)}
)


def undone(variant: Variant) -> dict[str, Variant]:
    return {str(change): change.on(variant) for change in experiment.undoing(variant)}


def catalogs(name: str) -> Change:
    return next(change for change in experiment.of_catalog(KNOWN) if change.name == name)


@pytest.mark.parametrize("name", KNOWN.variants)
def test_the_parts_of_every_setting_are_the_whole(name: str) -> None:
    variant = KNOWN.variants[name]
    whole = KNOWN.variant("stock")
    for change in experiment.undoing(variant):
        whole = Change(change.name, change.settings).on(whole)
    for kind, knob in variant.knobs.items():
        made = whole.knobs.get(kind)
        if made is None:
            # It sets nothing: it is only said where the variant makes sense.
            assert knob.settings() == AppArmor().settings()
        else:
            assert (made.settings(), made.under()) == (knob.settings(), knob.under())


class Many(TableKnob):
    a: int
    b: int
    c: int
    d: int
    e: int

    def differences(self, facts: Facts, who: ProcessUser) -> list[str]:
        return []


def test_settings_are_listed_in_the_order_of_their_declaration() -> None:
    # The order of a set of strings differs between processes; five keys are rarely sorted by chance.
    assert Many(e=5, d=4, c=3, b=2, a=1).words() == "a=1, b=2, c=3, d=4, e=5"


def test_each_setting_of_a_variant_is_left_out_alone() -> None:
    assert {name: variant.knobs for name, variant in undone(BOTH).items()} == {
        f"without sysctl {CLONE}=0": {"sysctl": Sysctl({LIMIT: 0})},
        f"without sysctl {LIMIT}=0": {"sysctl": Sysctl({CLONE: 0})},
    }


def test_profiles_and_what_confines_the_suite_are_settings_of_their_own() -> None:
    alone = undone(NOCAPS)
    assert list(alone) == [
        "without apparmor profile unprivileged_userns (enforce)",
        "without apparmor suite confined by unprivileged_userns",
    ]
    [_, loaded] = [variant.knobs["apparmor"] for variant in alone.values()]
    assert loaded.under() == []
    assert [profile["name"] for profile in (loaded.settings() or {})["profiles"]] == ["unprivileged_userns"]
    # One that is there by the setting alone is one with that.
    one = "without apparmor profile lab-without-mount (enforce), suite confined by lab-without-mount"
    assert list(undone(KNOWN.variant("apparmor-mount-deny-quiet"))) == [one]


def test_with_all_of_it_left_out_nothing_is_set() -> None:
    variant = BOTH
    for change in experiment.undoing(BOTH):
        variant = change.on(variant)
    assert variant.knobs == {}
    assert variant.name == BOTH.name
    assert experiment.undoing(KNOWN.variant("stock")) == []
    # What only says where a variant makes sense is no setting.
    assert len(experiment.undoing(KNOWN.variant("apparmor-restrict-on"))) == 1


@pytest.mark.parametrize(
    ("variant", "change", "settings"),
    [
        ("stock", "max-userns-zero", {"sysctl": Sysctl({LIMIT: 0})}),
        ("userns-clone-off", "max-userns-zero", {"sysctl": Sysctl({CLONE: 0, LIMIT: 0})}),
        ("bwrap-setuid", "bwrap-absent", {"bubblewrap": Bubblewrap(state="absent")}),
        (
            "apparmor-restrict-on",
            "apparmor-restrict-off",
            {
                "sysctl": Sysctl({"kernel.apparmor_restrict_unprivileged_userns": 0}),
                "apparmor": AppArmor(without=["bwrap"]),
            },
        ),
    ],
)
def test_a_change_goes_before_the_variant(variant: str, change: str, settings: dict[str, Any]) -> None:
    assert catalogs(change).on(KNOWN.variant(variant)).knobs == settings


def test_of_the_catalog_single_settings_count_and_those_that_should_pass_come_first() -> None:
    names = [change.name for change in experiment.of_catalog(KNOWN)]
    assert {"stock", "issue-468-settings"}.isdisjoint(names)
    broken = [KNOWN.variant(name).expect.cause is not None for name in names]
    assert broken == sorted(broken)
    assert {True, False} == set(broken)
    assert catalogs("apparmor-off").wants_own_machine
    assert not catalogs("userns-clone-off").wants_own_machine


def profiles(loaded: dict[str, str], *files: str) -> Facts:
    return facts(apparmor={"profiles": loaded, "profile_files": [f"/etc/apparmor.d/{name}" for name in files]})


STOCK = KNOWN.variant("stock")


@pytest.mark.parametrize(
    ("here", "there", "names"),
    [
        (facts(), facts(), []),
        (facts(sysctls={CLONE: "0", LIMIT: "7794"}), facts(), [f"with sysctl {CLONE}=1"]),
        # One that only one of the kernels has.
        (facts(sysctls={CLONE: None}), facts(), []),
        (facts(sysctls={"kernel.new": "1"}), facts(sysctls={"kernel.new": None}), []),
        # One that only one of the guests was asked for.
        (facts(), facts(sysctls={"kernel.new": "1"}), []),
        (facts(), facts(bubblewrap=None), ["with bubblewrap state=absent"]),
        (facts(bubblewrap=None), facts(), []),
        (facts(bubblewrap={"mode": "0o4755"}), facts(), []),
        (profiles({}, "a"), facts(apparmor=None), []),
        (facts(apparmor=None), profiles({"a": "enforce"}, "a"), []),
        (
            facts(sysctls={"kernel.list": "1"}),
            facts(sysctls={"kernel.list": "1\t2"}),
            ["with sysctl kernel.list=1 2"],
        ),
        # An empty text cannot be set.
        (facts(sysctls={"kernel.text": "a"}), facts(sysctls={"kernel.text": ""}), []),
        # The same list, printed by two kernels.
        (facts(sysctls={"kernel.list": "1 2"}), facts(sysctls={"kernel.list": "1\t2"}), []),
        (
            profiles(
                {"a": "enforce", "b": "enforce", "c": "complain", "same": "enforce"}, "a", "b", "d", "same"
            ),
            profiles({"a": "complain", "d": "enforce", "same": "enforce"}),
            [
                "with apparmor profile a (complain)",
                "with apparmor profile b unloaded",
                "with apparmor profile d (enforce)",
            ],
        ),
        # A mode that no variant can give a profile.
        (profiles({"a": "enforce"}, "a"), profiles({"a": "kill"}), []),
    ],
)
def test_what_leads_from_one_guest_to_another(here: Facts, there: Facts, names: list[str]) -> None:
    assert [str(change) for change in experiment.leading(STOCK, here, there)] == names


def test_what_the_variant_itself_sets_is_left_out_and_not_overridden() -> None:
    here = facts(sysctls={CLONE: "0", LIMIT: "1"})
    variant = KNOWN.variant("userns-clone-off")
    assert [str(change) for change in experiment.leading(variant, here, facts())] == [
        f"with sysctl {LIMIT}=7794"
    ]
