"""Keys: asked for where one is needed, kept in the tab alone, and what they don't allow said where it belongs."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from app import catalog
from app.access import new_key
from app.db import open_database, transaction
from app.secret import load_secret
from tests.explorer.services import Service

QUESTION = "/#/ask?sketch=names&loss=max&add=3&add=9"


def give(page: Page, key: str | None) -> None:
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("API key").fill(key or "")
    page.get_by_role("button", name="Use it").click()


def change_key(page: Page, service: Service) -> None:
    """Ask with a key of every scope, and open the dialog for another one."""
    page.goto(QUESTION)
    give(page, service.every_scope)
    expect(page.locator("#answers .verdict")).to_be_visible()
    page.get_by_role("button", name="Key", exact=True).click()


def test_a_key_is_asked_for_and_used_and_stays_in_the_tab_alone(
    keyed_page: Page, keyed_service: Service, expected_statuses: set[int]
) -> None:
    page = keyed_page
    expected_statuses.add(401)
    page.goto(QUESTION)
    give(page, keyed_service.every_scope)
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page.locator("#found tbody tr").first).to_be_visible()
    page.reload()
    expect(page.locator("#answers .verdict")).to_be_visible()
    assert str(keyed_service.every_scope) not in page.url
    assert page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
    other = page.context.new_page()
    other.goto(QUESTION)
    expect(other.get_by_role("dialog")).to_be_visible()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (f"nvs_wrongwro_{'x' * 43}", "This key isn't known here."),
        ("<script>boo()</script>", "This isn't a key: keys begin with nvs_"),
    ],
)
def test_a_key_that_is_none_is_refused_in_words(
    keyed_page: Page, expected_statuses: set[int], key: str, why: str
) -> None:
    expected_statuses.add(401)
    keyed_page.goto(QUESTION)
    give(keyed_page, key)
    expect(keyed_page.get_by_role("dialog")).to_contain_text(why)


def test_a_key_that_cannot_be_sent_is_said(keyed_page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(401)
    keyed_page.goto(QUESTION)
    give(keyed_page, "ключ")
    expect(keyed_page.locator("#ask-problem")).to_contain_text("The key holds characters that no key has.")


def test_a_key_for_predictions_alone_asks_about_what_it_can_name(
    keyed_page: Page, keyed_service: Service, expected_statuses: set[int]
) -> None:
    page = keyed_page
    expected_statuses.update({401, 403})
    page.goto("/#/ask?loss=max")
    give(page, keyed_service.keys["predict"])
    expect(page.locator("#ask-problem")).to_contain_text("catalog:read")
    page.get_by_label("Sketch").first.fill("names")
    page.get_by_label("Sketch").first.press("Tab")
    page.get_by_label("A unit by its name").fill("3")
    page.get_by_label("A unit by its name").press("Enter")
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page.locator("#count")).to_have_text("1 unit deleted.")
    expect(page.locator("#influences table").first).to_be_visible()
    expect(page.locator("#found")).to_be_hidden()


def test_requests_need_their_own_scope(keyed_page: Page, keyed_service: Service, expected_statuses: set[int]) -> None:
    expected_statuses.update({401, 403})
    keyed_page.goto("/#/requests")
    give(keyed_page, keyed_service.keys["predict"])
    expect(keyed_page.locator("#requests-problem")).to_contain_text("The key doesn't have the scope privacy")
    keyed_page.get_by_role("button", name="Key", exact=True).click()
    give(keyed_page, keyed_service.keys["privacy"])
    expect(keyed_page.locator("#requests-list")).to_contain_text("There is no such request.")


def test_a_key_is_forgotten_when_it_is_asked_for(
    keyed_page: Page, keyed_service: Service, expected_statuses: set[int]
) -> None:
    page = keyed_page
    expected_statuses.add(401)
    change_key(page, keyed_service)
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_role("dialog")).to_contain_text("The service asks for a key.")
    assert page.evaluate("() => sessionStorage.length") == 0
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)  # in which it might be asked for again
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_key_that_is_not_typed_to_its_end_is_not_used(
    keyed_page: Page, keyed_service: Service, expected_statuses: set[int]
) -> None:
    page = keyed_page
    expected_statuses.add(401)
    change_key(page, keyed_service)
    page.get_by_label("API key").fill("nvs_half")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_label("Or a unit by its name").fill("12")
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator("#count")).to_contain_text("3 units")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_what_one_key_looked_for_is_not_shown_to_the_next(
    keyed_page: Page, keyed_service: Service, expected_statuses: set[int]
) -> None:
    page = keyed_page
    expected_statuses.update({401, 403})
    page.goto(QUESTION)
    give(page, keyed_service.every_scope)
    expect(page.locator("#found tbody tr").first).to_be_visible()
    page.route("**/documents?*", lambda route: None)  # never answered
    with page.expect_request("**/documents?*"):
        page.get_by_label("What to find").fill("an")
    page.get_by_role("button", name="Key", exact=True).click()
    with page.expect_event("requestfailed", lambda request: "/documents?" in request.url):
        give(page, keyed_service.keys["predict"])
    expect(page.locator("#ask-problem")).to_be_empty()
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page.locator("#found")).to_be_empty()


def test_a_key_for_predictions_alone_follows_a_link_to_a_subset_and_says_what_it_cannot(
    keyed_page: Page, keyed_service: Service, expected_statuses: set[int]
) -> None:
    page = keyed_page
    expected_statuses.update({401, 403})
    page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    give(page, keyed_service.keys["predict"])
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page.locator("#count")).to_have_text("The subset has-x is deleted.")
    page.goto("/#/ask?sketch=names&loss=max&contains=x")
    expect(page.locator("#delete-problem")).to_contain_text("This key may not read the catalog (catalog:read)")
    expect(page.locator("#answer-empty")).to_be_visible()


def test_rounded_numbers_are_shown_with_no_more_digits_than_are_known(
    keyed_page: Page, keyed_service: Service, expected_statuses: set[int]
) -> None:
    page, settings = keyed_page, keyed_service.settings
    prefix, key = new_key()
    database = open_database(settings)
    with transaction(database) as session:
        hashed = load_secret(settings).key_hash(key)
        catalog.add_key(
            session, prefix=prefix, name="rounded", hash=hashed, scopes=["predict", "catalog:read"], decimals=1
        )
    database.dispose()
    expected_statuses.add(401)
    page.goto("/#/ask?sketch=names&loss=max&add=3")
    give(page, key)
    expect(page.locator("#answer-notes")).to_contain_text("rounded to 1 decimal")
    expect(page.locator("#influences table").first).to_be_visible()
    shown = page.locator("#answers .verdict data, #influences data")
    expect(shown.first).to_be_visible()
    expect(shown.filter(has_text=re.compile(r"[.]\d\d"))).to_have_count(0)
