from collections.abc import Sequence
from pathlib import Path

import pytest

from lab import catalog, plan
from lab.base.errors import UsageError
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.record import ExperimentPolicy, RunOptions, Status

KNOWN = catalog.load()
RELEASE = Wheel("0.10.8", "0.10.8")
OLDER = Wheel("0.10.7", "0.10.7")


def names(choice: plan.Choice) -> tuple[list[str], list[str]]:
    return [guest.name for guest in choice.guests], [variant.name for variant in choice.variants]


def test_without_a_choice_every_guest_runs_in_every_variant_stock_first() -> None:
    guests, variants = names(plan.choose(KNOWN))
    assert set(guests) == set(KNOWN.guests)
    assert set(variants) == set(KNOWN.variants)
    assert variants[0] == "stock"


def test_a_set_runs_what_it_names_in_its_order() -> None:
    quick = KNOWN.set("quick")
    assert names(plan.choose(KNOWN, set_name="quick")) == (quick.guests, quick.variants)


def test_guests_replace_the_guests_of_a_set_and_keep_its_variants() -> None:
    choice = plan.choose(KNOWN, set_name="quick", guests=["debian-13"])
    assert names(choice) == (["debian-13"], KNOWN.set("quick").variants)


def test_variants_replace_the_variants_of_a_set_and_keep_its_guests() -> None:
    choice = plan.choose(KNOWN, set_name="quick", variants=["max-userns-zero", "stock"])
    assert names(choice) == (KNOWN.set("quick").guests, ["max-userns-zero", "stock"])


def test_what_is_named_twice_runs_once() -> None:
    choice = plan.choose(KNOWN, guests=["debian-13", "debian-12", "debian-13"], variants=["stock", "stock"])
    assert names(choice) == (["debian-13", "debian-12"], ["stock"])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"guests": ["debian-13", "debain-12"]}, "no guest is called 'debain-12'"),
        ({"variants": ["stork"]}, "no variant is called 'stork'"),
        ({"set_name": "quik"}, "no set is called 'quik'"),
        ({"set_name": ""}, "no set is called ''"),
    ],
)
def test_unknown_names_are_wrong_usage(wanted: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        plan.choose(KNOWN, **wanted)  # type: ignore[arg-type]


def test_the_nearest_name_is_in_the_text() -> None:
    with pytest.raises(UsageError, match=r"did you mean .*debian-12"):
        plan.choose(KNOWN, guests=["debain-12"])


def test_cells_are_guest_by_guest_and_have_folders_of_their_own() -> None:
    choice = plan.choose(KNOWN, guests=["debian-13", "debian-12"], variants=["stock", "max-userns-zero"])
    cells = choice.cells([RELEASE, OLDER])
    assert [cell.name for cell in cells] == [
        "debian-13/stock/0.10.8",
        "debian-13/stock/0.10.7",
        "debian-13/max-userns-zero/0.10.8",
        "debian-13/max-userns-zero/0.10.7",
        "debian-12/stock/0.10.8",
        "debian-12/stock/0.10.7",
        "debian-12/max-userns-zero/0.10.8",
        "debian-12/max-userns-zero/0.10.7",
    ]
    assert [str(cell.folder) for cell in cells] == [f"cells/{cell.name}" for cell in cells]


@pytest.mark.parametrize(
    ("build", "options", "command"),
    [
        (
            RELEASE,
            RunOptions(),
            "lab matrix -g debian-13 -v stock --build 0.10.8 --no-remedies --no-experiment",
        ),
        (
            RELEASE,
            RunOptions(remedies=True, experiments=ExperimentPolicy.UNCLEAR),
            "lab matrix -g debian-13 -v stock --build 0.10.8",
        ),
        (
            RELEASE,
            RunOptions(remedies=True, experiments=ExperimentPolicy.ALWAYS),
            "lab matrix -g debian-13 -v stock --build 0.10.8 --experiment",
        ),
        (RELEASE, RunOptions(cold=True), "lab matrix -g debian-13 -v stock --build 0.10.8 --cold"),
        (
            RELEASE,
            RunOptions(cold=True, repeat=100, until_fail=True, shuffle=0),
            "lab matrix -g debian-13 -v stock --build 0.10.8 --cold --repeat 100 --shuffle=0 --until-fail",
        ),
        (
            RELEASE,
            RunOptions(repeat=5, experiments=ExperimentPolicy.UNCLEAR),
            "lab matrix -g debian-13 -v stock --build 0.10.8 --repeat 5 --no-remedies",
        ),
        (
            Wheel("0.10.8@12345678", "0.10.8", Path("/my wheels/b.whl")),
            RunOptions(rootfs="/lay out", experiments=ExperimentPolicy.UNCLEAR),
            "lab matrix -g debian-13 -v stock --build '/my wheels/b.whl' --rootfs '/lay out' --no-remedies",
        ),
    ],
)
def test_rerun_is_one_command_line_for_exactly_this_cell(
    build: Build, options: RunOptions, command: str
) -> None:
    assert plan.Cell(KNOWN.guest("debian-13"), KNOWN.variant("stock"), build).rerun(options) == command


def test_a_result_says_which_cell_it_is_of() -> None:
    variant = KNOWN.variant("max-userns-zero")
    result = plan.Cell(KNOWN.guest("debian-13"), variant, RELEASE).result(Status.ERROR, reason="no disk")
    assert (result.guest, result.variant, result.build) == ("debian-13", "max-userns-zero", "0.10.8")
    assert (result.status, result.reason, result.expected) == (Status.ERROR, "no disk", variant.expect)


def shards(cells: Sequence[plan.Cell], count: int) -> list[list[plan.Cell]]:
    return [plan.Shard(number, count).of(cells) for number in range(1, count + 1)]


# More shards than cells too.
COUNTS = [*range(1, 40), 97, 1000]
WHOLE = plan.choose(KNOWN).cells([RELEASE, OLDER])


@pytest.mark.parametrize("count", COUNTS)
def test_the_shards_one_after_another_are_the_plan(count: int) -> None:
    assert [cell for shard in shards(WHOLE, count) for cell in shard] == WHOLE


@pytest.mark.parametrize("count", COUNTS)
def test_no_shard_takes_longer_than_its_share_by_more_than_one_cell(count: int) -> None:
    times = [sum(cell.typical_seconds() for cell in shard) for shard in shards(WHOLE, count)]
    longest = max(cell.typical_seconds() for cell in WHOLE)
    assert max(times) - sum(times) / count <= longest


def test_no_shard_is_empty_while_there_are_as_many_cells() -> None:
    # Every count for each of so many cells: of the whole catalog that would take minutes.
    cells = WHOLE[:30]
    empty = [
        (count, number)
        for count in range(1, len(cells) + 1)
        for number, shard in enumerate(shards(cells, count), 1)
        if not shard
    ]
    assert empty == []


def test_shards_are_even_by_time_and_not_by_number_of_cells() -> None:
    passing, blocked = KNOWN.variant("stock"), KNOWN.variant("max-userns-zero")
    cells = [
        plan.Cell(KNOWN.guest("debian-13"), variant, Wheel(str(number), str(number)))
        for number, variant in enumerate([passing] * 4 + [blocked] * 9)
    ]
    assert [len(shard) for shard in shards(cells, 2)] == [4, 9]


def test_a_shard_depends_on_the_plan_alone() -> None:
    again = plan.choose(catalog.load()).cells([RELEASE, OLDER])
    assert shards(again, 4) == shards(WHOLE, 4)
    renamed = plan.choose(KNOWN).cells([Wheel("1", "1"), Wheel("2", "2")])
    assert [len(shard) for shard in shards(renamed, 4)] == [len(shard) for shard in shards(WHOLE, 4)]


def test_of_no_cells_every_shard_is_empty() -> None:
    assert shards([], 3) == [[], [], []]


@pytest.mark.parametrize(("text", "number", "count"), [("1/1", 1, 1), ("2/3", 2, 3), ("12/12", 12, 12)])
def test_a_shard_is_read_and_written_alike(text: str, number: int, count: int) -> None:
    shard = plan.Shard.parse(text)
    assert shard == plan.Shard(number, count)
    assert str(shard) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "1",
        "1/",
        "/2",
        "0/3",
        "4/3",
        "-1/3",
        "1/-3",
        "1/0",
        "1.5/3",
        "1/3/5",
        " 1/3",
        "1 / 3",
        "a/b",
        "²/3",
    ],
)
def test_what_is_no_shard_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="of the form I/N") as error:
        plan.Shard.parse(text)
    assert f"--shard {text}: " in str(error.value)


def test_a_shard_of_blocked_cells_is_smaller_where_remedies_are_tried_on_them() -> None:
    cells = plan.choose(KNOWN, guests=["debian-13"], variants=["stock", "max-userns-zero"]).cells([RELEASE] * 4)
    without, tried = (plan.Shard(1, 2).of(cells, RunOptions(remedies=remedies)) for remedies in (False, True))
    assert len(tried) > len(without)
    assert tried + plan.Shard(2, 2).of(cells, RunOptions(remedies=True)) == cells


def test_a_shard_of_passing_cells_is_smaller_where_experiments_are_made_on_all() -> None:
    names = ["max-userns-zero", "stock"]
    cells = plan.choose(KNOWN, guests=["debian-13"], variants=names).cells([RELEASE] * 8)
    always = RunOptions(experiments=ExperimentPolicy.ALWAYS)
    without, made = (plan.Shard(2, 2).of(cells, options) for options in (RunOptions(), always))
    assert len(made) < len(without)
    assert plan.Shard(1, 2).of(cells, always) + made == cells
    unclear = RunOptions(experiments=ExperimentPolicy.UNCLEAR)
    assert plan.Shard(2, 2).of(cells, unclear) == without


def test_without_a_set_the_guests_of_real_users_are_in_the_plan() -> None:
    names = {guest.name for guest in plan.choose(KNOWN).guests}
    assert {"ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04", "fedora-43", "fedora-44"} <= names


@pytest.mark.parametrize(
    ("guest", "variant", "cause", "because"),
    [
        ("debian-13", "stock", None, ""),
        ("debian-13", "apparmor-restrict-off", None, ""),
        ("debian-13", "apparmor-userns-profile-removed", None, ""),
        ("ubuntu-24.04", "stock", "apparmor-userns-nocaps", "Ubuntu restricts user namespaces"),
        ("ubuntu-24.04", "io-uring-disabled", "apparmor-userns-nocaps", "Ubuntu restricts user namespaces"),
        ("ubuntu-24.04", "userns-clone-off", "userns-sysctl", ""),
        ("ubuntu-24.04", "apparmor-restrict-off", None, "the variant lifts apparmor-userns-nocaps"),
        ("ubuntu-24.04", "apparmor-restrict-off+userns-clone-off", "userns-sysctl", "the variant lifts"),
        ("ubuntu-24.04", "apparmor-mount-deny", "apparmor-mount-deny", "the variant lifts"),
        ("ubuntu-24.04", "apparmor-userns-profile-removed", "apparmor-userns-deny", "the variant lifts"),
        ("ubuntu-24.04", "apparmor-userns-profile-missing", "apparmor-userns-deny", ""),
        ("ubuntu-26.04", "stock", None, ""),
    ],
)
def test_a_guest_has_an_expectation_of_its_own_that_a_variant_may_lift(
    guest: str, variant: str, cause: str | None, because: str
) -> None:
    cell = plan.Cell(KNOWN.guest(guest), KNOWN.variant(variant), RELEASE)
    assert (cell.expected.cause, cell.expected.status) == (cause, "xfail" if cause else "pass")
    assert cell.because.startswith(because) and bool(cell.because) is bool(because)
