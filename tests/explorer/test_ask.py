"""Asking by hand: which model, what to measure, what to delete; and the address that holds all of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from app import catalog
from app.db import open_database, transaction
from tests.explorer.api import CURVE, asked, expect_count, expect_values, units_of
from tests.explorer.browser import Held
from tests.explorer.services import NAMES, Service

LOSS = {"kind": "loss", "text": "max"}
_NAME_OF_FOCUS = "() => document.activeElement.labels?.[0]?.firstChild.textContent ?? document.activeElement.innerText"


def test_a_question_is_put_together_by_hand_and_its_address_asks_it_again(page: Page, service: Service) -> None:
    page.goto("/")
    page.get_by_label("Loss of", exact=True).fill("max")
    page.get_by_role("button", name="+ a completion").click()
    page.get_by_label("After", exact=True).fill("qu")
    page.get_by_label("the completion").fill("inn")
    page.get_by_role("button", name="+ next character").click()
    page.get_by_label("Character after").fill("m")
    page.get_by_label("What to find").fill("z")
    page.get_by_role("button", name="Delete all that contain it").click()
    page.get_by_label("Or a stored subset").select_option("has-x")
    page.get_by_label("What to find").fill("")
    page.get_by_role("checkbox", name=f"Delete {NAMES.texts[0]}", exact=True).check()
    units = {*units_of(service, {"contains": "z"}), *units_of(service, {"subset": "has-x"}), "0"}
    expect_count(page, f"{len(units)} units of 160, {len(units)} documents deleted.")
    page.get_by_text("How to estimate").click()
    page.get_by_label("Interval").select_option("0.9")
    cards = page.locator("#answers article")
    expect(cards).to_have_count(3)
    expect(cards.nth(0)).to_contain_text("90% interval")
    sentences = page.locator("#answers .verdict").all_text_contents()
    address = page.url
    for part in (
        "sketch=names",
        "loss=max",
        "prompt=qu&completion=inn",
        "next=m",
        "contains=z",
        "subset=has-x",
        "add=0",
    ):
        assert part in address
    page.goto("about:blank")
    page.goto(address)
    expect(cards).to_have_count(3)
    expect(page.locator("#answers .verdict")).to_have_text(sentences)
    assert page.url == address
    expect_count(page, f"{len(units)} units of 160")


def test_an_older_version_is_asked_by_its_number(page: Page, service: Service) -> None:
    page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    expect(page.locator("#answer-time")).to_contain_text("names version 1")
    page.locator("#version").select_option("1")
    expect(page).to_have_url(re.compile("version=1"))
    expect(page.locator("#answers .verdict")).to_have_count(1)


@pytest.mark.parametrize(
    ("question", "place", "sentence", "status"),
    [
        ("matches=(", "#delete-problem", "Not a regular expression", 400),
        ("contains=qqqq", "#delete-problem", "The deletion set is empty", 400),
        ("add=9999&loss=max", "#answer-problem", "9999", 404),
        ("subset=has-q", "#delete-problem", "There is no subset 'has-q'", 404),
        ("loss=möwe&subset=has-x", "#answer-problem", "The character 'ö' at position 1", 400),
        ("loss=max&subset=has-x&degree=9", "#answer-problem", "degree 9", 400),
    ],
)
def test_what_the_api_refuses_is_said_where_it_belongs(
    page: Page, expected_statuses: set[int], question: str, place: str, sentence: str, status: int
) -> None:
    expected_statuses.add(status)
    page.goto(f"/#/ask?sketch=names&{quote(question, safe='=&')}")
    expect(page.locator(place)).to_contain_text(sentence)


def test_a_sketch_that_there_is_not_is_said(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(404)
    page.goto("/#/ask?sketch=nmaes&loss=max")
    expect(page.locator("#ask-problem")).to_contain_text("There is no sketch 'nmaes'")


NO_SUCH_VERSION = "() => { location.hash = '#/ask?sketch=names&version=7&loss=max&subset=has-x'; }"


def test_no_answer_stays_under_a_question_that_has_none(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page.locator("#influences table").first).to_be_visible()
    page.evaluate(NO_SUCH_VERSION)
    expect(page.locator("#ask-problem")).to_contain_text("has no version 7; there is 1.")
    expect(page.locator("#answers .verdict")).to_have_count(0)
    expect(page.locator("#influences table")).to_have_count(0)


@pytest.mark.parametrize(
    ("operation", "view", "leaves"),
    [
        ("predict", "ask", NO_SUCH_VERSION),
        ("attributions", "ask", NO_SUCH_VERSION),
        ("samples", "ask", NO_SUCH_VERSION),
        ("calibration", "trust", NO_SUCH_VERSION.replace("ask", "trust")),
    ],
)
def test_what_is_asked_is_given_up_with_its_question(page: Page, operation: str, view: str, leaves: str) -> None:
    page.route(f"**/{operation}", lambda route: None)  # never answered
    with page.expect_request(f"**/{operation}"):
        page.goto(f"/#/{view}?sketch=names&loss=max&subset=has-x&samples=3")
    with page.expect_event("requestfailed", lambda request: request.url.endswith(operation)):
        page.evaluate(leaves)


def test_everything_can_be_asked_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/#/ask?sketch=names")
    expect(page.locator("#found tbody tr")).to_have_count(12)

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(_NAME_OF_FOCUS).strip() == name:
                return
        raise AssertionError(f"the keyboard doesn't come to {name!r}")

    address = page.url
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # past the navigation
    expect(page).to_have_url(address)
    tab_to("Loss of")
    page.keyboard.type("max")
    tab_to("What to find")
    page.keyboard.type("x")
    expect(page.get_by_role("button", name="Delete all that contain it")).to_be_visible()
    tab_to("Delete all that contain it")
    page.keyboard.press("Enter")
    expect(page.locator("#answers .verdict")).to_contain_text(re.compile("The loss on max|Whether the loss on max"))


def test_typing_survives_what_happens_beside_it(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=ann&loss=bob&loss=cara&subset=has-x")
    fields = page.locator("#measurements input")
    expect(page.locator("#answers article")).to_have_count(3)
    fields.nth(1).fill("annabel")
    page.get_by_role("button", name="Remove measurement 1").click()  # before the typing is taken
    expect(page.locator("#answers article")).to_have_count(2)
    expect(fields).to_have_count(2)
    for field, text in zip(fields.all(), ("annabel", "cara"), strict=True):
        expect(field).to_have_value(text)
    expect(page).to_have_url(re.compile("loss=annabel&loss=cara"))
    fields.nth(1).fill("zoe")
    page.get_by_role("button", name="Remove measurement 2").click()
    page.wait_for_timeout(300)  # longer than a field waits for more to be typed
    expect(fields).to_have_count(1)
    expect(fields).to_have_value("annabel")
    page.get_by_label("Beginning with").fill("an")
    page.locator("#influences input").first.click()
    expect(page.locator("#count")).to_contain_text("4 units")
    expect(page.get_by_label("Beginning with")).to_have_value("an")


def test_a_measurement_that_is_added_has_the_focus(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=max")
    expect(page.locator("#found tbody tr")).to_have_count(12)
    page.get_by_role("button", name="+ a completion").click()
    expect(page.get_by_label("After", exact=True)).to_be_focused()
    page.get_by_role("button", name="Remove measurement 2").click()
    page.get_by_role("button", name="Remove measurement 1").click()
    expect(page.locator("#measurements li")).to_have_count(0)
    page.get_by_role("button", name="+ next character").click()
    expect(page.get_by_label("Character after")).to_be_focused()


def test_a_link_changes_the_field_that_has_the_focus_too(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    field = page.locator("#measurements input")
    field.focus()
    page.evaluate("() => { location.hash = '#/ask?sketch=names&loss=zoe&subset=has-x'; }")
    expect(page.locator("#answers .verdict")).to_contain_text("he loss on zoe")
    expect(field).to_have_value("zoe")


def test_an_address_that_asks_for_too_much_says_what_was_left_out(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(400)  # of what nothing contains
    asked = []
    page.on("request", lambda one: asked.append(one.url) if "/resolve" in one.url else None)
    page.goto("/#/ask?sketch=names&" + "&".join(f"contains={letter}a" for letter in "abcdefghijklmnopqrstuvwxyz"))
    expect(page.locator("#model-hint")).to_contain_text("6 measurements or rules were left out")
    expect(page.locator("#chosen li")).to_have_count(14)
    assert len(asked) <= 20


@pytest.mark.parametrize("address", ["#/ask?sketch=..&loss=max", "#/trust?sketch=..&loss=max", "#/requests?request=.."])
def test_names_that_lead_elsewhere_are_refused_in_words(page: Page, address: str) -> None:
    page.goto(f"/{address}")
    expect(page.get_by_text("Nothing is named “..”.").first).to_be_visible()


def test_each_version_is_asked_about_the_dataset_that_it_was_built_from(own_page: Page, own_service: Service) -> None:
    page, service = own_page, own_service
    before = units_of(service, {"contains": "z"})
    database = open_database(service.settings)
    with transaction(database) as session:
        dataset = catalog.get_dataset(session, "census-names")
        catalog.forget_units(session, dataset, [0], now=datetime.now(UTC))
    database.dispose()
    command = [sys.executable, "-m", "app", "sketches", "rebuild", "names"]
    environment = {**os.environ, "NEVERSEEN_DATA_DIR": str(service.settings.data_dir)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = units_of(service, {"contains": "z"}, dataset="census-names-2")
    assert [int(unit) - 1 for unit in before] == [int(unit) for unit in after]
    for version, units in ((1, before), (2, after)):
        of = "census-names" if version == 1 else "census-names-2"
        assert asked(service, f"/sketches/names/versions/{version}")["dataset"] == of
        body = {"sketch": "names", "version": version, "delete": {"units": units}, "measurements": [LOSS]}
        [prediction] = asked(service, "/predict", body | {"downweight": CURVE})["predictions"]
        page.goto("about:blank")
        page.goto(f"/#/ask?sketch=names&version={version}&loss=max&contains=z")
        expect(page.locator("#answer-time")).to_contain_text(f"version {version}")
        expect_values(page.locator("#answers .verdict"), pytest.approx([prediction["estimate"]]), among=slice(1, 2))
        expect(page.locator("#model-hint")).to_contain_text(f"{of}: ")
        page.get_by_role("link", name="Trust").click()
        expect(page.locator("#facts")).to_contain_text("160 documents" if version == 1 else "159 documents")
    # What a rule deletes of one dataset says nothing of the other's units, which have the same names.
    unit = next(one for one in before if one not in after)
    page.goto("about:blank")
    page.goto("/#/ask?sketch=names&version=1&contains=z")
    expect_count(page, f"{len(before)} units of 160")
    held = Held(page, "**/census-names-2/resolve")
    page.locator("#version").select_option("2")
    held.wait()
    expect(page.locator("#model-hint")).to_contain_text("census-names-2: ")
    page.locator("#search-by").select_option("contains")
    page.get_by_label("What to find").fill(NAMES.texts[int(unit) + 1])
    box = page.get_by_role("checkbox", name=f"Delete {NAMES.texts[int(unit) + 1]}", exact=True)
    box.click()
    held.let_go()
    expect_count(page, f"{len(after) + 1} units of 159")
    expect(box).to_be_checked()


def test_typing_goes_on_while_the_page_finds_out_what_there_is(page: Page) -> None:
    held = Held(page, re.compile("/sketches[?]|/versions[?]"))
    page.goto("/")
    page.get_by_label("What to find").focus()
    for _ in range(2):  # which sketches there are, and which versions of the first
        held.wait()
        page.keyboard.type("x")
        held.let_go()
    expect(page.locator("#model-hint")).to_contain_text("census-names")
    page.keyboard.type("x")
    expect(page.get_by_label("What to find")).to_have_value("xxx")


@pytest.mark.parametrize("other", ["max", "anna"])
def test_what_is_too_long_is_told_of_its_own_question_alone(page: Page, other: str) -> None:
    page.goto("/#/ask?sketch=names&loss=anna&contains=ch")
    field = page.get_by_label("Loss of", exact=True)
    field.fill("m" * 5_000)
    expect(page.locator("#measurements .problem")).to_contain_text("5,000 characters")
    page.evaluate("other => { location.hash = other }", f"#/ask?sketch=names&loss={other}&contains=ch")
    expect(field).to_have_value(other)
    expect(page.locator("#measurements .problem")).to_be_hidden()
    page.get_by_label("What to find").fill("an")
    expect(page.locator("#found .hint").first).to_contain_text("found")


def test_the_page_goes_back_to_an_address_without_a_question(page: Page) -> None:
    page.route("**/sketches?*", lambda route: None)  # never answered: nothing is written into the address
    page.goto("/")
    page.get_by_role("link", name="Requests", exact=True).click()
    expect(page.locator("#requests-list")).to_be_visible()
    page.go_back()
    expect(page.locator("#view-ask")).to_be_visible()
    expect(page.locator("#view-requests")).to_be_hidden()
