"""The page of the whole matrix."""

import re
from pathlib import Path

import pytest

from lab.base.files import slug
from lab.record import CellResult, RepeatResult, Status
from lab.report.site import maintainers
from tests.builders import output
from tests.builders.cells import cell

FAILED = {"status": Status.FAIL, "cause": "userns-sysctl", "reason": "the sysctl is 0"}


def page(base: Path, *cells: CellResult) -> tuple[str, output.Parsed]:
    file = output.site_of(base, *cells) / "matrix.html"
    return file.read_text(), output.Parsed(file)


def squares(parsed: output.Parsed) -> list[dict[str, str | None]]:
    return [square for square in parsed.of("td") if "data-variant" in square]


def test_every_heading_of_the_table_has_a_scope(tmp_path: Path) -> None:
    _, parsed = page(tmp_path, cell(), cell(build="0.10.0"), cell("debian-12", "max-userns-zero"))
    scopes = [heading.get("scope") for heading in parsed.of("th")]
    assert scopes.count("row") == 2 and scopes.count("colgroup") == 2
    # The guests' own heading, two builds of stock, one of the other variant.
    assert scopes.count("col") == 4 and None not in scopes


def test_builds_stand_side_by_side_below_their_variant_the_newest_first(tmp_path: Path) -> None:
    _, parsed = page(tmp_path, cell(build="0.10.0"), cell(build="0.10.8"), cell(build="0.9.7"))
    group = next(heading for heading in parsed.of("th") if heading.get("scope") == "colgroup")
    builds = [heading["data-build"] for heading in parsed.of("th") if heading.get("data-build")]
    assert group["colspan"] == "3" and builds == ["0.10.8", "0.10.0", "0.9.7"]


def test_a_cell_that_is_in_no_plan_is_empty_and_says_so(tmp_path: Path) -> None:
    text, parsed = page(tmp_path, cell(), cell("debian-12", "max-userns-zero"))
    absent = [square for square in squares(parsed) if "data-status" not in square]
    assert len(squares(parsed)) == 4 and len(absent) == 2
    assert all("absent" in str(square["class"]) for square in absent)
    empty = re.findall(r"<td[^>]*absent[^>]*>(.*?)</td>", text)
    assert empty == ['<span class="sr">not in the plan</span>'] * 2


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PASS])
def test_only_a_pass_has_the_mark_of_what_works(tmp_path: Path, status: Status) -> None:
    _, parsed = page(tmp_path, cell(status=status))
    marks = [span["class"] for span in parsed.of("span") if "mark-works" in str(span.get("class"))]
    assert marks == [] and squares(parsed)[0]["data-status"] == status


def test_every_status_has_a_mark_and_a_meaning() -> None:
    assert set(maintainers.MARKS) == set(maintainers.MEANINGS) == set(Status)
    assert [status for status, mark in maintainers.MARKS.items() if mark == "works"] == [Status.PASS]


def test_a_square_names_its_cause_and_its_tries_and_leads_to_its_page(tmp_path: Path) -> None:
    repeats = [RepeatResult(status=Status.PASS), RepeatResult(status=Status.FAIL, failed=["a"])]
    text, parsed = page(
        tmp_path,
        cell(**FAILED, retried=["lost"]),
        cell(variant="flaky-one", status=Status.FLAKY, repeats=repeats),
    )
    assert "userns-sysctl (try 2)" in text and "1/2" in text
    for link in (str(each["href"]) for each in parsed.of("a") if str(each["href"]).startswith("cells/")):
        assert (tmp_path / "site" / link).is_file()


def test_a_guest_leads_to_the_page_of_its_distribution(tmp_path: Path) -> None:
    _, parsed = page(tmp_path, cell(), cell("debian-13-selinux"))
    links = [str(each["href"]) for each in parsed.of("a") if str(each["href"]).startswith("hosts/")]
    assert links == ["hosts/debian-13.html"] * 2


def test_builds_that_differ_are_marked_but_not_because_one_could_not_run(tmp_path: Path) -> None:
    _, parsed = page(
        tmp_path,
        cell(build="0.10.0"),
        cell(build="0.10.8", **FAILED),
        cell("debian-12", build="0.10.0"),
        cell("debian-12", build="0.10.8", status=Status.ERROR),
    )
    differing = [square for square in squares(parsed) if square.get("data-differs")]
    assert [square["data-status"] for square in differing] == ["fail", "pass"]


def test_filters_offer_the_values_that_occur_and_are_hidden_without_a_script(tmp_path: Path) -> None:
    _, parsed = page(tmp_path, cell(), cell("debian-12", **FAILED), cell(build="0.10.0"))
    offered: dict[str, list[str]] = {}
    for box in parsed.of("input"):
        offered.setdefault(str(box["name"]), []).append(str(box["value"]))
    assert offered == {
        "guest": ["debian-12", "debian-13"],
        "build": ["0.10.8", "0.10.0"],
        "status": ["pass", "fail"],
        "cause": ["userns-sysctl", ""],
        "differs": ["yes"],
    }
    assert [form for form in parsed.of("form") if "hidden" in form]
    assert [each for each in parsed.of("p") if each.get("aria-live") == "polite"]


@pytest.mark.parametrize("name", ["A", "Debian", "a b", "a/b", "..", ".", "", "-", "ä", "x" * 300, "\ud800"])
def test_no_other_name_becomes_the_same_part_of_a_path(name: str) -> None:
    made = slug(name)
    assert made and re.fullmatch(r"[a-z0-9._+-]+", made) and not made.startswith(".") and len(made) < 100
    # A name that looks like a made one is another one.
    assert slug(made) != made and slug(made) != slug(name)


def test_the_names_of_variants_and_builds_are_kept_as_they_are() -> None:
    assert [slug(name) for name in ("stock", "a+b", "0.10.8")] == ["stock", "a+b", "0.10.8"]
