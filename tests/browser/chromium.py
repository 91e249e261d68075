"""The distribution's own Chromium, driven by Playwright, and what it sees of a site."""

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Ubuntu's Chromium is a snap: it is not installed by apt-get alone, and cannot read files below /tmp.
ON_UBUNTU = ("google-chrome", "google-chrome-stable")
LIMIT = 15_000  # milliseconds that one step in the browser may take
DESKTOP, PHONE = (1280, 900), (320, 640)


def program(name: str, names: tuple[str, ...], package: str) -> str:
    """The path of the first of these programs. Fails the test without one: a missing program proves nothing."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail(f"these tests need {name}: ./setup.sh test installs it (the package {package})")
    return path


def browser_program() -> str:
    """The path of the browser to drive. Skips the test on Ubuntu, whose own browser cannot be used."""
    if platform.freedesktop_os_release().get("ID") != "ubuntu":
        return program("Chromium", NAMES, "chromium")
    if not any(map(shutil.which, ON_UBUNTU)):
        pytest.skip("Ubuntu has Chromium as a snap only, which reads no file below /tmp: install google-chrome")
    return program("Chrome", ON_UBUNTU, "google-chrome-stable")


@contextmanager
def running() -> Iterator[Browser]:
    """Start the browser; it ends with the block."""
    path = browser_program()
    with sync_playwright() as playwright:
        # In a container there is no sandbox, nor room in /dev/shm. These pages are the tests' own.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments, timeout=60_000)
        yield browser
        browser.close()


class Visit:
    """One tab of the browser on a site's folder. Requests for anything outside of it are refused and kept."""

    def __init__(self, browser: Browser, site: Path, options: Mapping[str, Any]) -> None:
        """`options` are those of Playwright's `new_context`, and `size`, in pixels."""
        self.base = site.resolve().as_uri() + "/"
        self.requests: list[str] = []
        self.foreign: list[str] = []
        self.errors: list[str] = []
        more = dict(options)
        width, height = more.pop("size", DESKTOP)
        self.context = browser.new_context(viewport={"width": width, "height": height}, **more)
        self.context.set_default_timeout(LIMIT)
        self.context.on("request", self._saw)
        self.context.on("console", self._said)
        self.context.on("weberror", lambda error: self.errors.append(f"uncaught: {error.error}"))
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("crash", lambda _page: self.errors.append("the page crashed"))

    def close(self) -> None:
        self.context.close()

    def open(self, path: str) -> Page:
        """Open a page of the site; `path` may end in a query and a part."""
        self.page.goto(self.base + path)
        return self.page

    def check(self) -> None:
        """Whatever was done until now: no error, and no request that left the folder."""
        assert self.errors == []
        assert self.foreign == []
        assert self.requests

    def axe(self) -> list[str]:
        """What axe-core finds wrong with the page as it is now, one line for each rule."""
        # The style sheets that it would load again are refused by the page's own policy.
        violations = (
            Axe()
            .run(self.page, options={"resultTypes": ["violations"], "preload": False})
            .response["violations"]
        )
        return [
            f"{rule['id']} ({rule['impact']}): {', '.join(str(node['target']) for node in rule['nodes'][:3])}: "
            f"{rule['nodes'][0]['failureSummary']}"
            for rule in violations
        ]

    def _saw(self, request: Request) -> None:
        self.requests.append(request.url)
        if not self._is_inside(request.url):
            self.foreign.append(request.url)

    def _route(self, route: Route) -> None:
        if self._is_inside(route.request.url):
            route.continue_()
        else:
            route.abort()

    def _is_inside(self, url: str) -> bool:
        return url.startswith(self.base) and ".." not in url.removeprefix(self.base).split("/")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text} ({message.location.get('url')})")
