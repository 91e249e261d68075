import shlex
from pathlib import Path

import pytest

from lab import catalog, plan
from lab.builds import Build
from lab.errors import UsageError
from lab.results import Status

KNOWN = catalog.load()
RELEASE = Build("0.10.8", "0.10.8")


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
    assert [str(cell.folder) for cell in choice.cells(RELEASE)] == [
        "cells/debian-13/stock/0.10.8",
        "cells/debian-13/max-userns-zero/0.10.8",
        "cells/debian-12/stock/0.10.8",
        "cells/debian-12/max-userns-zero/0.10.8",
    ]


@pytest.mark.parametrize(
    ("build", "cold", "rootfs", "command"),
    [
        (RELEASE, False, None, "lab matrix -g debian-13 -v stock --build 0.10.8"),
        (RELEASE, True, None, "lab matrix -g debian-13 -v stock --build 0.10.8 --cold"),
        (
            Build("0.10.8@12345678", "0.10.8", Path("/my wheels/b.whl")),
            False,
            Path("/lay out"),
            "lab matrix -g debian-13 -v stock --build '/my wheels/b.whl' --rootfs '/lay out'",
        ),
    ],
)
def test_rerun_is_one_command_line_for_exactly_this_cell(
    build: Build, cold: bool, rootfs: Path | None, command: str
) -> None:
    cell = plan.Cell(KNOWN.guest("debian-13"), KNOWN.variant("stock"), build)
    assert cell.rerun(cold=cold, rootfs=rootfs) == command
    assert shlex.split(command)[:2] == ["lab", "matrix"]


def test_a_result_says_which_cell_it_is_of() -> None:
    variant = KNOWN.variant("max-userns-zero")
    result = plan.Cell(KNOWN.guest("debian-13"), variant, RELEASE).result(Status.ERROR, reason="no disk")
    assert (result.guest, result.variant, result.build) == ("debian-13", "max-userns-zero", "0.10.8")
    assert (result.status, result.reason, result.expected) == (Status.ERROR, "no disk", variant.expect)
