"""The cells of a command line: which are chosen, what is expected of them, and how they are split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import catalog, plan
from lab.base.errors import UsageError
from lab.base.files import group_values
from lab.builds import Build
from lab.builds.kinds.wheel import Wheel
from lab.record import ExperimentPolicy, RunOptions, Status

KNOWN = catalog.load_catalog()
RELEASE = Wheel("0.10.8", "0.10.8")
OLDER = Wheel("0.10.7", "0.10.7")
OWN = Wheel("0.10.8@12345678", "0.10.8", Path("/my wheels/b.whl"))
QUICK, UNCLEAR, ALWAYS = KNOWN.set("quick"), ExperimentPolicy.UNCLEAR, ExperimentPolicy.ALWAYS


def names(choice: plan.Choice) -> tuple[list[str], list[str]]:
    return [guest.name for guest in choice.guests], [variant.name for variant in choice.variants]


def test_without_a_choice_every_guest_runs_in_every_variant_stock_first() -> None:
    guests, variants = names(plan.choose_cells(KNOWN))
    assert set(guests) == set(KNOWN.guests)
    # Those of real users are among them.
    assert {"ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04", "fedora-43", "fedora-44"} <= set(guests)
    assert set(variants) == set(KNOWN.variants)
    assert variants[0] == "stock"


@pytest.mark.parametrize(
    ("chosen", "guests", "variants"),
    [
        ({"set_name": "quick"}, QUICK.guests, QUICK.variants),
        ({"set_name": "quick", "guests": ["debian-13"]}, ["debian-13"], QUICK.variants),
        ({"set_name": "quick", "variants": ["podman", "stock"]}, QUICK.guests, ["podman", "stock"]),
        # What is named twice runs once.
        ({"guests": ["debian-13", "debian-12", "debian-13"]}, ["debian-13", "debian-12"], None),
        ({"variants": ["stock", "stock"]}, None, ["stock"]),
    ],
)
def test_a_set_runs_what_it_names_in_its_order_but_for_what_is_named_beside_it(
    chosen: dict[str, Any], guests: list[str] | None, variants: list[str] | None
) -> None:
    choice = names(plan.choose_cells(KNOWN, **chosen))
    assert choice == (choice[0] if guests is None else guests, choice[1] if variants is None else variants)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"guests": ["debian-13", "debain-12"]}, r"no guest is called 'debain-12'\n.*did you mean .*debian-12"),
        ({"variants": ["stork"]}, "no variant is called 'stork'"),
        ({"set_name": "quik"}, "no set is called 'quik'"),
        ({"set_name": ""}, "no set is called ''"),
    ],
)
def test_unknown_names_are_wrong_usage(chosen: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        plan.choose_cells(KNOWN, **chosen)


def test_cells_are_guest_by_guest_and_have_folders_of_their_own() -> None:
    choice = plan.choose_cells(KNOWN, guests=["debian-13", "debian-12"], variants=["stock", "max-userns-zero"])
    cells = choice.cells([RELEASE, OLDER])
    assert [cell.name for cell in cells] == [
        f"{guest}/{variant}/{build}"
        for guest in ("debian-13", "debian-12")
        for variant in ("stock", "max-userns-zero")
        for build in ("0.10.8", "0.10.7")
    ]
    assert [str(cell.folder) for cell in cells] == [f"cells/{cell.name}" for cell in cells]
    result = cells[2].result(Status.ERROR, reason="no disk")
    assert (result.guest, result.variant, result.build) == ("debian-13", "max-userns-zero", "0.10.8")
    expected = KNOWN.variant("max-userns-zero").expect
    assert (result.status, result.reason, result.expected) == (Status.ERROR, "no disk", expected)


@pytest.mark.parametrize(
    ("build", "options", "words"),
    [
        (RELEASE, {}, "--no-remedies --no-experiment"),
        (RELEASE, {"remedies": True, "experiments": UNCLEAR}, ""),
        (RELEASE, {"remedies": True, "experiments": ALWAYS}, "--experiment"),
        (RELEASE, {"cold": True}, "--cold"),
        (
            RELEASE,
            {"cold": True, "repeat": 100, "until_fail": True, "shuffle": 0},
            "--cold --repeat 100 --shuffle=0 --until-fail",
        ),
        (OWN, {"rootfs": "/lay out", "experiments": UNCLEAR}, "--rootfs '/lay out' --no-remedies"),
    ],
)
def test_rerun_is_one_command_line(build: Build, options: dict[str, Any], words: str) -> None:
    rerun = plan.Cell(KNOWN.guest("debian-13"), KNOWN.variant("stock"), build).rerun(RunOptions(**options))
    argument = "'/my wheels/b.whl'" if build is OWN else "0.10.8"
    assert rerun == f"lab matrix -g debian-13 -v stock --build {argument} {words}".rstrip()


@pytest.mark.parametrize(
    ("guest", "variant", "cause", "because"),
    [
        ("debian-13", "stock", None, ""),
        ("debian-13", "apparmor-restrict-off", None, ""),
        ("debian-13", "apparmor-userns-profile-removed", None, ""),
        ("ubuntu-24.04", "stock", "apparmor-userns-nocaps", "Ubuntu restricts user namespaces"),
        ("ubuntu-24.04", "io-uring-disabled", "apparmor-userns-nocaps", "Ubuntu restricts user namespaces"),
        ("ubuntu-24.04", "userns-clone-off", "userns-sysctl", ""),
        # Two causes of its own: what a variant leaves of them.
        ("ubuntu-24.04-arm64", "stock", "apparmor-userns-nocaps", "Ubuntu restricts user namespaces"),
        ("ubuntu-24.04-arm64", "apparmor-restrict-off", "runtime-library", "the variant lifts apparmor-userns"),
        ("debian-13-arm64", "userns-clone-off", "userns-sysctl", ""),
        ("ubuntu-24.04", "apparmor-restrict-off", None, "the variant lifts apparmor-userns-nocaps"),
        ("ubuntu-24.04", "apparmor-restrict-off+userns-clone-off", "userns-sysctl", "the variant lifts"),
        ("ubuntu-24.04", "apparmor-mount-deny", "apparmor-mount-deny", "the variant lifts"),
        ("ubuntu-24.04", "apparmor-userns-profile-removed", "apparmor-userns-deny", "the variant lifts"),
        ("ubuntu-24.04", "apparmor-userns-profile-missing", "apparmor-userns-deny", ""),
        ("ubuntu-26.04", "stock", None, ""),
    ],
)
def test_a_guest_has_its_own_expectation(guest: str, variant: str, cause: str | None, because: str) -> None:
    cell = plan.Cell(KNOWN.guest(guest), KNOWN.variant(variant), RELEASE)
    assert (cell.expected.cause, cell.expected.status) == (cause, "xfail" if cause else "pass")
    assert cell.because.startswith(because) and bool(cell.because) is bool(because)


@pytest.mark.parametrize(
    ("guest", "variant", "cause"),
    [
        # A bug of boxlite's that the suite meets on every host, unless a variant lifts it.
        ("debian-13", "stock", "cgroup-not-joined"),
        ("debian-13", "as-root", None),
        # boxlite meets what blocks the sandbox first.
        ("debian-13", "userns-clone-off", "userns-sysctl"),
        ("ubuntu-24.04", "stock", "apparmor-userns-nocaps"),
        ("ubuntu-24.04", "apparmor-restrict-off", "cgroup-not-joined"),
    ],
)
def test_a_suite_has_its_own_expectation(guest: str, variant: str, cause: str | None) -> None:
    build = RELEASE.with_suite("lifecycle")
    cell = plan.Cell(KNOWN.guest(guest), KNOWN.variant(variant), build)
    assert cell.expected.cause == cause
    if cause == "cgroup-not-joined":
        assert cell.because == build.suite.because
    assert cell.name == f"{guest}/{variant}/lifecycle-0.10.8"
    assert "--build 0.10.8,suite=lifecycle" in cell.rerun(RunOptions())


@pytest.mark.parametrize(
    ("variant", "seconds"), [("stock", 180.0), ("as-root", 180.0), ("userns-clone-off", 80.0)]
)
def test_a_cell_of_a_longer_suite_is_estimated_to_take_longer(variant: str, seconds: float) -> None:
    """A cell in which boxes start takes as long as one that passes, whatever fails at their ends."""
    build = RELEASE.with_suite("lifecycle")
    cell = plan.Cell(KNOWN.guest("debian-13"), KNOWN.variant(variant), build)
    assert cell.typical_seconds() == seconds


WHOLE = plan.choose_cells(KNOWN).cells([RELEASE, OLDER])


def shards(cells: Sequence[plan.Cell], count: int, **options: Any) -> list[list[plan.Cell]]:
    return [plan.Shard(number, count).of(cells, RunOptions(**options)) for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 39, 97, 1000])
def test_the_shards_one_after_another_are_the_plan_and_even_but_for_one_guest_or_one_cell(count: int) -> None:
    parts = shards(WHOLE, count)
    assert [cell for shard in parts for cell in shard] == WHOLE
    times = [sum(cell.typical_seconds() for cell in shard) for shard in parts]
    guests = group_values((cell.guest.name, cell.typical_seconds()) for cell in WHOLE)
    pieces = guests.values() if count <= len(guests) else [[cell.typical_seconds()] for cell in WHOLE]
    assert max(times) - sum(times) / count <= max(map(sum, pieces))


@pytest.mark.parametrize("set_name", KNOWN.sets)
def test_no_guest_is_in_two_shards_and_no_shard_without_one_while_there_are_as_many_guests(
    set_name: str,
) -> None:
    choice = plan.choose_cells(KNOWN, set_name=set_name)
    for count in range(1, len(choice.guests) + 1):
        parts = shards(choice.cells([RELEASE, OLDER]), count)
        booted = [list(dict.fromkeys(cell.guest.name for cell in shard)) for shard in parts]
        assert [name for shard in booted for name in shard] == [guest.name for guest in choice.guests]
        assert all(booted)


def test_no_shard_is_empty_while_there_are_as_many_cells() -> None:
    # Every count for each of so many cells: of the whole catalog that would take minutes.
    cells = WHOLE[:30]
    assert all(all(shards(cells, count)) for count in range(1, len(cells) + 1))
    assert shards([], 3) == [[], [], []]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        # By time, and not by number of cells.
        ({}, [4, 9]),
        ({"experiments": UNCLEAR}, [4, 9]),
        # A shard of cells on which remedies are tried, or experiments made, has fewer.
        ({"remedies": True}, [8, 5]),
        ({"experiments": ALWAYS}, [3, 10]),
    ],
)
def test_shards_take_the_same_time(options: dict[str, Any], sizes: list[int]) -> None:
    variants = [KNOWN.variant("stock")] * 4 + [KNOWN.variant("max-userns-zero")] * 9
    cells = [
        plan.Cell(KNOWN.guest("debian-13"), variant, Wheel(str(number), str(number)))
        for number, variant in enumerate(variants)
    ]
    parts = shards(cells, 2, **options)
    assert [cell for shard in parts for cell in shard] == cells
    assert list(map(len, parts)) == sizes


@pytest.mark.parametrize("text", ["", "1", "/2", "0/3", "4/3", "-1/3", "1/0", "1.5/3", "1/3/5", " 1/3", "²/3"])
def test_a_shard_is_read_and_written_alike_and_what_is_none_is_wrong_usage(text: str) -> None:
    assert plan.Shard.parse("12/13") == plan.Shard(12, 13)
    assert str(plan.Shard(12, 13)) == "12/13"
    with pytest.raises(UsageError, match="of the form I/N") as error:
        plan.Shard.parse(text)
    assert f"--shard {text}: " in str(error.value)
