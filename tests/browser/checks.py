"""Checks of a page that hold for every site, a made one and that of a real run."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import PHONE, Visit, program

# setup.sh puts it beside the libraries of the tests.
VNU = Path(sys.prefix, "node_modules/vnu-jar/build/dist/vnu.jar")
# Any text but none.
SOMETHING = re.compile(r"\S")
# Pages of one kind that are looked at closely.
EACH_KIND = 2

# A page may be wider than its window only where a part of it scrolls by itself.
SIDEWAYS = """() => {
  const page = document.documentElement;
  if (page.scrollWidth <= page.clientWidth) return [];
  const scrolls = (element) => {
    for (let each = element.parentElement; each; each = each.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(each).overflowX)) return true;
    return false;
  };
  return [...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > page.clientWidth + 1 && !scrolls(each))
    .map((each) => `${each.tagName}.${each.getAttribute("class")}: ${each.textContent.slice(0, 60)}`)
    .concat([`${page.scrollWidth} px`]);
}"""
SCROLLING = """() => [...document.querySelectorAll("body *")]
  .filter((each) => ["auto", "scroll"].includes(getComputedStyle(each).overflowX))
  .filter((each) => each.scrollWidth > each.clientWidth && each.checkVisibility())
  .filter((each) => each.tabIndex < 0 && !each.querySelector("a, button, input, select, [tabindex='0']"))
  .map((each) => each.outerHTML.slice(0, 120))"""
# The next frame has been drawn: a change of the medium is in force.
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
DETAILS = """() => [...document.querySelectorAll("details")]
  .filter((each) => [...each.children].some((part) => part.tagName !== "SUMMARY" &&
    !part.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true})))
  .filter((each) => each.checkVisibility())
  .map((each) => each.textContent.trim().slice(0, 80))"""
TABLES = (
    """() => [...document.querySelectorAll("main table")].map((each) => each.innerText.replace(/\\s+/g, " "))"""
)
MOVING = """() => [...document.querySelectorAll("*")]
  .filter((each) => {
    const style = getComputedStyle(each);
    const long = (times) => times.split(",").some((time) => parseFloat(time) > 0.01);
    return (style.animationName !== "none" && long(style.animationDuration)) ||
      (style.transitionProperty !== "none" && long(style.transitionDuration)) ||
      style.scrollBehavior === "smooth";
  })
  .map((each) => each.outerHTML.slice(0, 120))"""


def paths(site: Path) -> list[str]:
    return sorted(str(file.relative_to(site)) for file in site.rglob("*.html"))


def kinds(site: Path) -> list[str]:
    """Some pages of every kind: those at the top of the site, and the largest ones of each folder."""
    by_folder: dict[str, list[str]] = {}
    for path in paths(site):
        by_folder.setdefault(PurePosixPath(path).parts[0] if "/" in path else path, []).append(path)
    chosen: list[str] = []
    for pages in by_folder.values():
        ordered = sorted(pages, key=lambda path: (site / path).stat().st_size)
        chosen += ordered[-EACH_KIND:]
    return chosen


def texts(page: Page, script: str) -> list[str]:
    returned: list[str] = page.evaluate(script)
    return returned


def sideways(page: Page) -> list[str]:
    """What makes the page wider than its window."""
    return texts(page, SIDEWAYS)[-6:]


def scrolling_without_focus(page: Page) -> list[str]:
    """Parts that scroll sideways, and that no key reaches."""
    return texts(page, SCROLLING)


def unreadable_on_paper(page: Page) -> list[str]:
    """Details whose content a printed page lacks, and the navigation, which is no use there."""
    page.emulate_media(media="print")
    page.evaluate(DRAWN)
    wrong = texts(page, DETAILS)
    if page.locator("header nav").first.is_visible():
        wrong.append("the navigation is printed")
    page.emulate_media(media="screen")
    return wrong


def words_of_tables(page: Page) -> list[str]:
    return texts(page, TABLES)


def moving(page: Page) -> list[str]:
    return texts(page, MOVING)


def faults(visit: Callable[..., Visit], paths: Sequence[str]) -> dict[str, list[str]]:
    """What is wrong with each page: axe in light and dark, phones, keys, paper, those who want no motion."""
    wide, phone = visit(), visit(size=PHONE, color_scheme="dark", reduced_motion="reduce")
    wrong = {}
    for path in paths:
        wrong[path] = [*unreadable_on_paper(wide.open(path)), *wide.axe()]
        page = phone.open(path)
        wrong[path] += [*phone.axe(), *sideways(page), *scrolling_without_focus(page), *moving(page)]
    return {path: lines for path, lines in wrong.items() if lines}


def invalid_html(files: Sequence[Path]) -> list[str]:
    """What the Nu Html Checker finds wrong with these files, their CSS included, one line each."""
    if not VNU.is_file():
        pytest.fail(f"there is no {VNU}: ./setup.sh test installs it")
    java = program("a Java runtime", ("java",), "default-jre-headless")
    command: list[str | Path] = [java, "-Xss1m", "-jar", VNU, "--format", "gnu", "--stdout", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not done.stderr, done.stderr
    # The checker takes data for code, and lets no file load what its policy allows by 'self'. Chromium says
    # what a policy refuses, for each page that these tests open.
    policy = "violates Content Security Policy (meta tag)"
    return [line for line in done.stdout.splitlines() if policy not in line]
