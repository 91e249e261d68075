"""The maintainers' matrix: filters, deep links, and the way through it by keyboard."""

from urllib.parse import parse_qs

from playwright.sync_api import Page, expect

from tests.browser import checks
from tests.browser.chromium import PHONE
from tests.browser.records import BLOCKED, CAUSE, NEW, OLD
from tests.conftest import Visiting

MATRIX = "matrix.html"
SHOWN = "#matrix td[data-status]:visible:not([data-filtered])"


def visible(page: Page) -> set[tuple[str, str, str]]:
    """The cells that can be seen: guest, variant and build of each."""
    squares: list[list[str]] = page.locator(SHOWN).evaluate_all(
        "all => all.map((each) => [each.closest('tr').dataset.guest, each.dataset.variant, each.dataset.build])"
    )
    return {(guest, variant, build) for guest, variant, build in squares}


def statuses(page: Page) -> set[str]:
    return set(page.locator(SHOWN).evaluate_all("all => all.map((each) => each.dataset.status)"))


def in_address(page: Page) -> dict[str, list[str]]:
    part: str = page.evaluate("location.hash.slice(1)")
    return parse_qs(part)


def choose(page: Page, name: str, value: str) -> None:
    """Choose a value of a filter as a user does: open its list, tick the box."""
    choice = page.locator(f"#matrix-filters details[data-filter={name}]")
    choice.locator("summary").click()
    choice.locator(f"input[value='{value}']").check()
    choice.locator("summary").click()


def test_filters_change_what_is_shown_and_the_address(visit: Visiting) -> None:
    page = visit().open(MATRIX)
    everything = visible(page)
    choose(page, "guest", "debian-13")
    assert in_address(page) == {"guest": ["debian-13"]}
    assert visible(page) == {cell for cell in everything if cell[0] == "debian-13"}
    choose(page, "build", NEW)
    choose(page, "variant", BLOCKED)
    assert visible(page) == {("debian-13", BLOCKED, NEW)}
    assert in_address(page) == {"guest": ["debian-13"], "build": [NEW], "variant": [BLOCKED]}
    expect(page.locator("#matrix-count")).to_contain_text(f"1 of {len(everything)} cells")
    assert page.locator("#matrix tbody tr:visible").count() == 1
    page.locator("#matrix-reset").click()
    expect(page.locator(SHOWN)).to_have_count(len(everything))
    assert in_address(page) == {}


def test_a_link_restores_the_filters(visit: Visiting) -> None:
    tab = visit()
    page = tab.open(MATRIX)
    choose(page, "status", "fail")
    choose(page, "status", "flaky")
    choose(page, "cause", CAUSE)
    address, cells = page.url, visible(page)
    assert cells == {("debian-13", BLOCKED, NEW)}
    tab.open("index.html")
    page.goto(address)
    assert visible(page) == cells
    assert page.locator("input[name=status][value=fail]").is_checked()
    assert page.locator("input[name=status][value=flaky]").is_checked()
    assert not page.locator("input[name=status][value=pass]").is_checked()
    assert page.locator("[data-filter=cause] .chosen").inner_text() == CAUSE
    page.reload()
    assert visible(page) == cells


def test_an_address_that_is_changed_by_hand_or_by_a_link_on_the_page_is_followed(visit: Visiting) -> None:
    page = visit().open(f"{MATRIX}#build={OLD}")
    assert {build for *_, build in visible(page)} == {OLD}
    page.locator("#matrix-attention").click()
    expect(page.locator("[data-filter=build] .chosen")).to_have_text("all")
    assert statuses(page).isdisjoint({"pass", "xfail", "n/a"})
    assert {"fail", "xpass", "flaky", "error"} <= statuses(page)
    page.go_back()
    expect(page.locator("[data-filter=build] .chosen")).to_have_text(OLD)
    assert {build for *_, build in visible(page)} == {OLD}


def test_no_address_breaks_the_page(visit: Visiting) -> None:
    tab = visit()
    for part in ("guest=nobody", "status=%3Cscript%3E", "%", "what=ever", "=&&=", "content"):
        page = tab.open(f"{MATRIX}#{part}")
        page.reload()
        expect(page.locator("#matrix-filters")).to_be_visible()
        expect(page.locator("#matrix-count")).to_contain_text("cells")


def test_only_where_builds_differ(visit: Visiting) -> None:
    page = visit().open(MATRIX)
    page.locator("#matrix-differs").check()
    assert {cell for cell in visible(page) if cell[1] == "stock"} == set()
    assert {(guest, variant) for guest, variant, _ in visible(page)} == {
        ("debian-13", BLOCKED),
        ("debian-13", "podman"),
    }
    assert in_address(page) == {"differs": ["yes"]}


def test_a_cell_leads_to_its_page_and_back(visit: Visiting) -> None:
    page = visit().open(f"{MATRIX}#guest=debian-13&variant={BLOCKED}&build={NEW}")
    page.locator(SHOWN).locator("a").click()
    expect(page.locator("h1")).to_have_text(f"debian-13, {BLOCKED}, boxlite {NEW}")
    expect(page.locator("#causes + ol")).to_contain_text(CAUSE)
    page.go_back()
    assert visible(page) == {("debian-13", BLOCKED, NEW)}


# -- by keyboard


def focused(page: Page) -> str:
    """What has the focus, in a few words."""
    words: str = page.evaluate(
        """() => {
          const each = document.activeElement;
          const place = each.id || each.closest("[data-filter]")?.dataset.filter || each.closest("table")?.id;
          return [each.tagName.toLowerCase(), place, each.name].filter(Boolean).join(" ");
        }"""
    )
    return words


def has_visible_focus(page: Page) -> bool:
    is_visible: bool = page.evaluate(
        """() => {
          const style = getComputedStyle(document.activeElement);
          return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        }"""
    )
    return is_visible


def tabbed(page: Page, most: int = 40) -> list[str]:
    """What gets the focus by Tab, in order, from where it is now; each of it is seen to have it."""
    order: list[str] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        order.append(focused(page))
        if order[-1] == "body":
            break
        assert has_visible_focus(page), order[-1]
    return order


def test_tab_reaches_the_filters_and_then_the_cells(visit: Visiting) -> None:
    order = tabbed(visit().open(MATRIX))
    filters = [f"summary {name}" for name in ("guest", "variant", "build", "status", "cause")]
    places = [order.index(name) for name in [*filters, "button matrix-reset", "a matrix"]]
    assert places == sorted(places)


def test_a_filter_is_set_and_left_by_keyboard_alone(visit: Visiting) -> None:
    page = visit().open(MATRIX)
    while focused(page) != "summary status":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page).endswith("status")
    value = page.evaluate("document.activeElement.value")
    page.keyboard.press("Space")
    assert in_address(page) == {"status": [value]}
    assert statuses(page) == {value}
    page.keyboard.press("Escape")
    assert focused(page) == "summary status"
    expect(page.locator("[data-filter=status] fieldset")).to_be_hidden()


def test_the_first_tab_skips_to_the_content(visit: Visiting) -> None:
    page = visit().open(MATRIX)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page).startswith("summary")


def test_on_a_phone_the_filters_work_too(visit: Visiting) -> None:
    page = visit(size=PHONE).open(MATRIX)
    for choice in page.locator("#matrix-filters details").all():
        choice.locator("summary").click()
        assert checks.sideways(page) == []
        choice.locator("summary").click()
    choose(page, "variant", "stock")
    assert {variant for _, variant, _ in visible(page)} == {"stock"}


def test_the_head_and_the_guests_stay_in_sight_while_the_table_scrolls(visit: Visiting) -> None:
    page = visit(size=PHONE).open(MATRIX)
    frame = page.locator(".matrix-frame")
    frame.evaluate("(each) => each.scrollTo(200, 60)")
    corner, guest = (page.locator(f"#matrix {part}").first.bounding_box() for part in ("thead th", "tbody th"))
    box = frame.bounding_box()
    assert box and corner and guest
    assert abs(corner["x"] - box["x"]) < 4
    assert abs(guest["x"] - box["x"]) < 4
