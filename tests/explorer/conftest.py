"""Services and pages for the tests of the explorer.

A test asks for `page`, or, where a key is needed, `keyed_page`; what a page did that it mustn't fails its test in the
end (`browser.watched_page`). Browser and services are started when they are first needed, and run until the tests of
this directory are over; not longer, since while Playwright runs, the thread of the tests is in an event loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.explorer.browser import DESKTOP, inaccessible, keep_screenshot, launched, watched_page
from tests.explorer.services import Service, built_catalog, copied_service

_EXPECT_MS = 30_000  # of a busy machine

Axe = Callable[[Page], list[str]]
Screenshot = Callable[[Page, str], Path | None]


@pytest.fixture(scope="package", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("NEVERSEEN_"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directory of the catalog that services are copies of; all processes of pytest-xdist share it."""
    place = tmp_path_factory.getbasetemp()
    return built_catalog(place.parent if "PYTEST_XDIST_WORKER" in os.environ else place)


@pytest.fixture(scope="package")
def service(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that needs no key. Tests share it: what they add has names of their own, and nothing is erased."""
    with copied_service(built, tmp_path_factory.mktemp("service") / "var") as service:
        yield service


@pytest.fixture(scope="package")
def keyed_service(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that needs a key, and keys of it. Tests share it."""
    with copied_service(built, tmp_path_factory.mktemp("keyed") / "var", keyed=True) as service:
        yield service


@pytest.fixture
def own_service(built: Path, tmp_path: Path) -> Iterator[Service]:
    """A service that needs no key, and that nobody else sees; for what others would stumble over, such as erasing."""
    with copied_service(built, tmp_path / "var") as service:
        yield service


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The browser; where there is none, tests are skipped, and fail in continuous integration."""
    expect.set_options(timeout=_EXPECT_MS)
    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture
def viewport() -> ViewportSize:
    """Size of pages in pixels; `@pytest.mark.parametrize("viewport", …)` says another."""
    return DESKTOP


@pytest.fixture
def expected_statuses() -> set[int]:
    """Statuses of refusals that a test expects, to which it adds: those have to come, and others mustn't."""
    return set()


@pytest.fixture
def page(browser: Browser, service: Service, viewport: ViewportSize, expected_statuses: set[int]) -> Iterator[Page]:
    """An empty page for the service that needs no key: `page.goto("/")`."""
    with watched_page(browser, service.url, viewport=viewport, expected_statuses=expected_statuses) as page:
        yield page


@pytest.fixture
def keyed_page(
    browser: Browser, keyed_service: Service, viewport: ViewportSize, expected_statuses: set[int]
) -> Iterator[Page]:
    """An empty page for the service that needs a key."""
    with watched_page(browser, keyed_service.url, viewport=viewport, expected_statuses=expected_statuses) as page:
        yield page


@pytest.fixture
def own_page(
    browser: Browser, own_service: Service, viewport: ViewportSize, expected_statuses: set[int]
) -> Iterator[Page]:
    """An empty page for the test's own service."""
    with watched_page(browser, own_service.url, viewport=viewport, expected_statuses=expected_statuses) as page:
        yield page


@pytest.fixture
def axe() -> Axe:
    """Finds what is inaccessible in a page: an empty list, where nothing is."""
    return inaccessible


@pytest.fixture
def screenshot() -> Screenshot:
    """Keeps a picture of a page where SCREENSHOTS names a directory: `screenshot(page, "name")`."""
    return keep_screenshot
