"""The page of the whole matrix."""

import re
from pathlib import Path

import pytest

from lab.base.files import slug
from lab.record import CellResult, RepeatResult, Status
from lab.report import table
from tests.builders import output
from tests.builders.cells import cell

FAILED = {"status": Status.FAIL, "cause": "userns-sysctl", "reason": "the sysctl is 0"}


def page(base: Path, *cells: CellResult) -> tuple[str, output.Parsed]:
    file = output.site_of(base, *cells) / "matrix.html"
    return file.read_text(), output.Parsed(file)


def squares(parsed: output.Parsed) -> list[dict[str, str | None]]:
    return [square for square in parsed.of("td") if "data-variant" in square]


def test_builds_stand_side_by_side_below_their_variant_and_absent_cells_say_so(tmp_path: Path) -> None:
    builds = [cell(build=build) for build in ("0.10.0", "0.10.8", "0.9.7")]
    text, parsed = page(tmp_path, *builds, cell("debian-12", "max-userns-zero"), cell("debian-13-selinux"))
    group = next(heading for heading in parsed.of("th") if heading.get("scope") == "colgroup")
    names = [heading["data-build"] for heading in parsed.of("th") if heading.get("data-build")]
    assert group["colspan"] == "3" and names == ["0.10.8", "0.10.0", "0.9.7", "0.10.8"]
    assert len(squares(parsed)) == 12
    empty = re.findall(r"<td[^>]*absent[^>]*>(.*?)</td>", text)
    assert empty == ['<span class="sr">not in the plan</span>'] * 7
    links = [address for address in parsed.attributes("href") if address.startswith("hosts/")]
    assert links == ["hosts/debian-12.html", "hosts/debian-13.html", "hosts/debian-13.html"]


def test_a_square_says_its_status_its_cause_and_its_tries_and_leads_to_its_page(tmp_path: Path) -> None:
    repeats = [RepeatResult(status=Status.PASS), RepeatResult(status=Status.FAIL, failed=["a"])]
    text, parsed = page(
        tmp_path,
        *(cell(variant=f"v{number}", status=status) for number, status in enumerate(Status)),
        cell(**FAILED, retried=["lost"]),
        cell(variant="flaky-one", status=Status.FLAKY, repeats=repeats),
    )
    assert "userns-sysctl (try 2)" in text and "1/2" in text
    for link in (address for address in parsed.attributes("href") if address.startswith("cells/")):
        assert (tmp_path / "site" / link).is_file()
    # Only a pass has the mark of what works.
    marked = re.findall(r'<td[^>]* data-status="([^"]*)"[^>]*><a[^>]*><span class="mark mark-works"', text)
    assert marked == ["pass"]
    assert {square["data-status"] for square in squares(parsed)} == set(Status)
    assert [status for status, look in table.LOOKS.items() if look.mark == "works"] == [Status.PASS]


def test_filters_offer_the_values_that_occur_and_builds_that_differ(tmp_path: Path) -> None:
    _, parsed = page(
        tmp_path,
        cell(build="0.10.0"),
        cell(build="0.10.8", **FAILED),
        cell("debian-12", build="0.10.0"),
        # What could not be run is no difference.
        cell("debian-12", build="0.10.8", status=Status.ERROR),
    )
    differing = [square for square in squares(parsed) if square.get("data-differs")]
    assert [square["data-status"] for square in differing] == ["fail", "pass"]
    offered = ", ".join(f"{box['name']}={box['value']}" for box in parsed.of("input"))
    assert offered == (
        "guest=debian-12, guest=debian-13, build=0.10.8, build=0.10.0, "
        "status=pass, status=fail, status=error, cause=userns-sysctl, cause=, differs=yes"
    )
    assert [note for note in parsed.of("p") if note.get("aria-live") == "polite"]


@pytest.mark.parametrize("name", ["A", "Debian", "a b", "a/b", "..", ".", "", "-", "ä", "x" * 300, "\ud800"])
def test_no_other_name_becomes_the_same_part_of_a_path(name: str) -> None:
    made = slug(name)
    assert made and re.fullmatch(r"[a-z0-9._+-]+", made) and not made.startswith(".") and len(made) < 100
    # A name that looks like a made one is another one.
    assert slug(made) != made and slug(made) != slug(name)
    assert [slug(kept) for kept in ("stock", "a+b", "0.10.8")] == ["stock", "a+b", "0.10.8"]
