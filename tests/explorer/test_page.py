"""The page itself: small, quick, nothing from elsewhere, nothing inline, and usable by everybody on every screen."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Browser, Page, Response, ViewportSize, expect

from tests.explorer.api import asked
from tests.explorer.browser import watched_page
from tests.explorer.conftest import Axe, Screenshot
from tests.explorer.services import NAMES, Service
from tests.explorer.test_requests import completed

MOST_BYTES = 300_000
QUESTION = "sketch=names&loss=max&prompt=ma&completion=x&next=m&matches=%5E%5Bjk%5D&add=5&samples=5"
VIEWS = {"ask": QUESTION, "trust": QUESTION, "requests": ""}
SHOWN = {"ask": "#influences table", "trust": "#norms table", "requests": "iframe.sheet"}


def opened(page: Page, service: Service, view: str) -> None:
    """A view with something in all its parts."""
    query = VIEWS[view] or f"request={completed(service, NAMES.texts[11])['id']}"
    page.goto(f"/#/{view}?{query}")
    expect(page.locator(SHOWN[view]).first).to_be_visible()
    if view == "ask":
        expect(page.locator("#samples-texts tbody tr")).to_have_count(5)
        expect(page.locator("#answers article")).to_have_count(3)


def test_all_of_it_is_small(page: Page) -> None:
    own: list[Response] = []
    page.on("response", lambda one: own.append(one) if one.url.endswith("/") or "/explorer/" in one.url else None)
    page.goto("/")
    expect(page.locator("#found tbody tr").first).to_be_visible()
    assert len(own) > 10
    assert sum(len(one.body()) for one in own) < MOST_BYTES


def test_its_policy_is_strict_and_nothing_is_inline(service: Service) -> None:
    answer = httpx.get(service.url)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert policy["frame-ancestors"] == "'none'"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=|javascript:|https?://", answer.text)
    script = httpx.get(f"{service.url}/explorer/main.js")
    assert script.headers["content-security-policy"] == answer.headers["content-security-policy"]
    assert httpx.get(script.url, headers={"If-None-Match": script.headers["etag"]}).status_code == 304


def test_files_beside_its_own_are_not_served(service: Service) -> None:
    for path in ("/explorer/../page.py", "/explorer/%2e%2e/page.py", "/explorer/templates/explorer.html", "/explorer/"):
        with httpx.Client(base_url=service.url) as client:
            assert client.get(path).status_code == 404


def test_the_charting_library_comes_with_its_licence(service: Service) -> None:
    assert "MIT" in httpx.get(f"{service.url}/explorer/vendor/uPlot.LICENSE").text
    assert b"uPlot" in httpx.get(f"{service.url}/explorer/vendor/uPlot.iife.min.js").content[:200]


def test_the_page_says_what_it_is_before_anything_was_asked(browser: Browser, service: Service) -> None:
    with watched_page(browser, service.url, java_script_enabled=True) as page:
        page.route("**/sketches*", lambda route: None)  # never answered
        page.goto("/")
        expect(page.get_by_role("heading", name="What would the model do, had it never seen this?")).to_be_visible()
        expect(page.get_by_text("Nothing is deleted yet.")).to_be_visible()
        page.unroute_all(behavior="ignoreErrors")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_serious_keeps_anybody_out(
    browser: Browser, service: Service, axe: Axe, screenshot: Screenshot, view: str, scheme: str
) -> None:
    with watched_page(browser, service.url, viewport={"width": 1440, "height": 1000}, color_scheme=scheme) as page:
        opened(page, service, view)
        for summary in page.locator("summary:visible").all():
            summary.click()
        assert axe(page) == []
        screenshot(page, f"{view}-{scheme}")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "viewport", [{"width": 360, "height": 740}, {"width": 768, "height": 1024}, {"width": 2560, "height": 1440}]
)
def test_every_view_fits_every_screen(
    page: Page, service: Service, axe: Axe, screenshot: Screenshot, viewport: ViewportSize, view: str
) -> None:
    opened(page, service, view)
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= viewport["width"]
    assert axe(page) == []
    screenshot(page, f"{view}-{viewport['width']}")


def test_the_dialog_and_refusals_are_accessible_too(page: Page, axe: Axe, expected_statuses: set[int]) -> None:
    expected_statuses.add(400)
    page.goto("/#/ask?sketch=names&loss=MAX&subset=has-x&matches=(")
    expect(page.locator("#delete-problem .problem")).to_be_visible()
    assert axe(page) == []
    page.get_by_role("button", name="Key").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert axe(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_views_are_changed_and_the_browser_goes_back_with_the_question(page: Page, service: Service) -> None:
    page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    expect(page.locator("#answers .verdict")).to_be_visible()
    page.get_by_role("link", name="Trust").click()
    expect(page).to_have_title("Trust · Neverseen")
    expect(page.get_by_role("link", name="Trust")).to_have_attribute("aria-current", "page")
    expect(page.locator("#sizes tbody tr").first).to_be_visible()
    page.get_by_role("link", name="Requests").click()
    expect(page.locator("#view-requests")).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page).to_have_url(re.compile(re.escape("#/ask?sketch=names&loss=max&subset=has-x") + "$"))


def test_the_page_is_not_in_the_api(service: Service) -> None:
    assert not {"/", "/explorer"} & set(asked(service, "/openapi.json")["paths"])
