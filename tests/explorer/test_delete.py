"""What is deleted: looked for and chosen, by rules and one by one, and taken back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.explorer.api import asked, expect_count, units_of
from tests.explorer.browser import Held
from tests.explorer.services import NAMES, Service


@pytest.mark.parametrize(
    ("by", "text", "rule"),
    [
        ("contains", "an", {"contains": "an"}),
        ("matches", "^j.*[ae]$", {"matches": "^j.*[ae]$"}),
    ],
)
def test_search_lists_documents_and_deletes_them_together(
    page: Page, service: Service, by: str, text: str, rule: dict[str, str]
) -> None:
    units = units_of(service, rule)
    page.goto("/#/ask?sketch=names")
    page.locator("#search-by").select_option(by)
    page.get_by_label("What to find").fill(text)
    expect(page.locator("#found [role=status]")).to_have_text(f"{len(units)} documents found.")
    listed = page.locator("#found tbody tr")
    expect(listed.first).to_contain_text(NAMES.texts[int(units[0])])
    page.get_by_role("button", name="Delete all that").click()
    expect_count(page, f"{len(units)} units of 160, {len(units)} documents deleted.")
    expect(page.locator("#found input[type=checkbox]").first).to_be_checked()
    expect(page.locator("#found input[type=checkbox]:not(:checked)")).to_have_count(0)


def test_a_click_takes_a_unit_out_of_a_rule_and_back_in(page: Page, service: Service) -> None:
    units = units_of(service, {"subset": "has-x"})
    page.goto("/#/ask?sketch=names&subset=has-x")
    expect_count(page, f"{len(units)} units")
    page.get_by_label("What to find").fill("x")
    expect(page.locator("#found [role=status]")).to_have_text(f"{len(units)} documents found.")
    box = page.locator("#found input[type=checkbox]").first
    box.uncheck()
    expect_count(page, f"{len(units) - 1} units")
    expect(page).to_have_url(re.compile(f"keep={units[0]}"))
    box.check()
    expect_count(page, f"{len(units)} units")
    expect(page).not_to_have_url(re.compile("keep="))


def test_what_is_deleted_can_be_taken_back_one_by_one_and_all_at_once(page: Page) -> None:
    page.goto("/#/ask?sketch=names&subset=has-x&contains=z&add=0")
    chips = page.locator("#chosen li")
    expect(chips).to_have_count(4)
    page.get_by_role("button", name="Take back: the subset has-x").click()
    expect(chips).to_have_count(3)
    page.get_by_role("button", name="Take all back").click()
    expect(chips).to_have_count(0)
    expect_count(page, "Nothing is deleted yet.")


def test_pages_of_the_list_are_turned(page: Page) -> None:
    page.goto("/#/ask?sketch=names")
    rows = page.locator("#found tbody tr")
    expect(rows.first).to_contain_text(NAMES.texts[0])
    page.locator("#found").get_by_role("button", name="Next").click()
    expect(rows.first).to_contain_text(NAMES.texts[12])
    page.locator("#found").get_by_role("button", name="Before").click()
    expect(rows.first).to_contain_text(NAMES.texts[0])


def test_subjects_are_found_by_their_names_and_all_their_documents_are_counted(page: Page, service: Service) -> None:
    page.goto("/")
    page.locator("#sketch").select_option("subjects")
    page.locator("#search-by").select_option("subject")
    units = asked(service, "/datasets/census-subjects/units", limit=1000)["items"]
    largest = max(units, key=lambda unit: unit["document_count"])
    assert largest["document_count"] > 1
    page.get_by_label("What to find").fill(largest["name"])
    page.get_by_role("checkbox", name=f"Delete {largest['name']}", exact=True).check()
    expect_count(page, f"1 unit of {len(units)}, {largest['document_count']} documents deleted.")
    rule = asked(service, "/datasets/census-subjects/resolve", {"contains": "x"})
    page.locator("#search-by").select_option("contains")
    page.get_by_label("What to find").fill("x")
    page.get_by_role("button", name="Delete all that contain it").click()
    both = {*rule["units"], largest["name"]}
    documents = asked(service, "/datasets/census-subjects/resolve", {"units": sorted(both)})["document_count"]
    expect_count(page, f"{len(both)} units of {len(units)}, {documents} documents deleted.")


def test_a_unit_is_deleted_by_its_name(page: Page) -> None:
    page.goto("/#/ask?sketch=names")
    expect(page.locator("#found tbody tr")).to_have_count(12)
    page.get_by_label("Or a unit by its name").fill("17")
    page.get_by_label("Or a unit by its name").press("Enter")
    expect_count(page, "1 unit of 160, 1 document deleted.")


def test_a_rule_that_cannot_be_followed_is_said_and_nothing_is_asked(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(400)
    page.goto("/#/ask?sketch=names&loss=max&matches=(&add=5")
    expect(page.locator("#delete-problem")).to_contain_text("Nothing is asked until that is taken back.")
    expect(page.locator("#answer-empty")).to_be_visible()
    box = page.get_by_role("checkbox", name=f"Delete {NAMES.texts[5]}", exact=True)
    expect(box).to_be_checked()
    page.get_by_role("button", name="Take back: texts that match (").click()
    expect(page.locator("#answers .verdict")).to_be_visible()


def test_buttons_keep_the_focus_when_the_list_is_turned(page: Page) -> None:
    page.goto("/#/ask?sketch=names")
    following = page.locator("#found").get_by_role("button", name="Next")
    following.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#found tbody tr").first).to_contain_text(NAMES.texts[12])
    expect(following).to_be_focused()


def test_units_that_are_named_tie_the_address_to_the_version(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page).not_to_have_url(re.compile("version="))
    page.locator("#found input[type=checkbox]").first.check()
    expect(page.locator("#count")).to_contain_text("4 units")
    expect(page).to_have_url(re.compile("version=1"))


def test_a_unit_is_kept_while_the_rule_that_deletes_it_is_followed(page: Page, service: Service) -> None:
    units = units_of(service, {"contains": "x"})
    page.goto(f"/#/ask?sketch=names&add={units[0]}")
    expect_count(page, "1 unit of 160")
    page.get_by_label("What to find").fill("x")
    expect(page.locator("#found [role=status]")).to_have_text(f"{len(units)} documents found.")
    held = Held(page, "**/resolve")
    page.get_by_role("button", name="Delete all that contain it").click()
    held.wait()
    page.locator("#found input[type=checkbox]").first.uncheck()
    held.let_go()
    expect_count(page, f"{len(units) - 1} units")
    expect(page.locator("#found input[type=checkbox]").first).not_to_be_checked()
    expect(page).to_have_url(re.compile(f"keep={units[0]}"))


def test_a_unit_is_kept_while_the_rule_that_deletes_it_was_refused(
    page: Page, service: Service, expected_statuses: set[int]
) -> None:
    expected_statuses.add(503)
    units = units_of(service, {"contains": "x"})
    page.route("**/resolve", lambda route: route.fulfill(status=503, body=""), times=1)
    page.goto(f"/#/ask?sketch=names&contains=x&add={units[0]}")
    expect(page.locator("#delete-problem")).to_contain_text("Nothing is asked until that is taken back.")
    box = page.get_by_role("checkbox", name=f"Delete {NAMES.texts[int(units[0])]}", exact=True)
    page.get_by_label("What to find").fill(NAMES.texts[int(units[0])])
    box.uncheck()  # at which it is followed
    expect_count(page, f"{len(units) - 1} units")
    expect(box).not_to_be_checked()


def test_a_rule_is_taken_back_while_another_is_followed(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=max&contains=ch")
    expect(page.locator("#count")).to_contain_text("deleted.")
    page.route("**/resolve", lambda route: None)  # never answered
    page.get_by_label("What to find").fill("ki")
    with page.expect_request("**/resolve"):
        page.get_by_role("button", name="Delete all that contain it").click()
    page.get_by_role("button", name="Take back: texts that contain ch").click()
    expect(page).to_have_url(re.compile("contains=ki"))
    expect(page).not_to_have_url(re.compile("contains=ch"))
