"""The answer: its words, its numbers, which are the API's, the truth beside it, and texts of both models."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.explorer.api import asked, expect_values, predicted, units_of, values
from tests.explorer.browser import Held, eventually
from tests.explorer.services import Service

LOSS = {"kind": "loss", "text": "max"}
RETRAINED_MS = 60_000
EXACTLY = "exactly, as the model was retrained without this very set."
SOME = {"matches": "^[jk]"}
COLOUR = "() => getComputedStyle(document.documentElement).getPropertyValue('--estimate')"
IS_DRAWN_IN = """
colour => {
    const canvas = document.querySelector("#answers canvas");
    if (!canvas) return false;
    const {width, height} = canvas;
    const read = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
    const pixels = (...place) => new Uint32Array(read.getImageData(...place).data.buffer);
    read.fillStyle = colour;
    read.fillRect(0, 0, 1, 1);
    const [wanted] = pixels(0, 0, 1, 1);
    read.clearRect(0, 0, 1, 1);
    read.drawImage(canvas, 0, 0);
    return pixels(0, 0, width, height).includes(wanted);
}
"""
QUESTION = "/#/ask?sketch=names&loss=max&matches=%5E%5Bjk%5D"
"""Of a set that the model wasn't retrained without, as those of a letter are."""


def test_the_sentence_tells_baseline_estimate_and_interval_of_the_api(page: Page, service: Service) -> None:
    [prediction] = predicted(service, {"units": units_of(service, SOME)}, LOSS, confidence=0.9)
    page.goto(f"{QUESTION}&confidence=0.9")
    verdict = page.locator("#answers .verdict")
    expect(verdict).to_contain_text("90% interval")
    expect_values(verdict, [prediction["baseline"], prediction["estimate"], *prediction["interval"]])
    assert not prediction["below_resolution"]
    expect(verdict).to_contain_text(" rises from " if prediction["change"] > 0 else " falls from ")


def test_the_curve_the_degrees_and_the_standard_error_are_those_of_the_api(page: Page, service: Service) -> None:
    [prediction] = predicted(service, {"units": units_of(service, SOME)}, LOSS)
    page.goto(QUESTION)
    page.locator("#answers summary").click()
    tables = page.locator("#answers details table")
    expect(tables).to_have_count(2)
    degrees = [n for term in prediction["terms"] for n in (term["value"], term["standard_error"])]
    expect_values(tables.first, degrees)
    expect_values(tables.last, [n for point in prediction["curve"] for n in (point["estimate"], *point["interval"])])
    expect_values(page.locator("#answers details > .hint"), [prediction["standard_error"]])
    expect_values(page.locator("#answers .degrees"), [term["value"] for term in prediction["terms"]])
    expect(page.locator("#answers details > .hint")).to_contain_text(f"{prediction['estimator']}:")
    expect(page.locator("#answers .chart canvas")).to_have_count(1)


def test_every_measurement_has_its_curve_again_and_again(page: Page) -> None:
    page.goto(f"{QUESTION}&loss=zoe&prompt=ma&completion=x")
    for deleted in ("23 units", "24 units", "25 units"):
        expect(page.locator("#count")).to_contain_text(deleted)
        expect(page.locator("#answers .chart canvas")).to_have_count(3)
        page.locator("#found input:not(:checked)").first.click()


def test_the_curve_is_drawn_in_the_colours_of_the_page(page: Page) -> None:
    page.goto(QUESTION)
    light = page.evaluate(COLOUR)
    assert eventually(page, lambda: bool(page.evaluate(IS_DRAWN_IN, light)))
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(COLOUR)
    assert dark != light
    assert eventually(page, lambda: bool(page.evaluate(IS_DRAWN_IN, dark)))
    assert not page.evaluate(IS_DRAWN_IN, light)


def test_a_change_below_resolution_is_said_to_be_unknown(page: Page, service: Service) -> None:
    sets = ([str(unit) for unit in range(first, 160, 5)] for first in range(5))
    for units in sets:
        for text in ("bob", "ann", "lee", "mia", "eve", "joan"):
            [prediction] = predicted(service, {"units": units}, {"kind": "loss", "text": text}, confidence=0.99)
            if prediction["below_resolution"]:
                added = "".join(f"&add={unit}" for unit in units)
                page.goto(f"/#/ask?sketch=names&loss={text}&confidence=0.99{added}")
                expect(page.locator("#answers .verdict")).to_contain_text(
                    f"Whether the loss on {text} changes can’t be told"
                )
                expect(page.locator("#answers .badge")).to_have_text("below resolution")
                told = [prediction["baseline"], prediction["estimate"]]
                expect_values(page.locator("#answers .verdict"), told, among=slice(2))
                return
    pytest.fail("no set of these is below resolution")


def test_a_set_that_was_retrained_is_exact(page: Page, service: Service) -> None:
    [prediction] = predicted(service, {"units": ["3"]}, LOSS)
    assert prediction["estimator"] == "retrained"
    page.goto("/#/ask?sketch=names&loss=max&add=3")
    expect(page.locator("#answers .verdict")).to_contain_text(
        "exactly, as the model was retrained without this very set."
    )
    expect_values(page.locator("#answers .verdict"), [prediction["baseline"], prediction["estimate"]])


def test_completions_and_next_characters_have_the_numbers_of_the_api(page: Page, service: Service) -> None:
    completion, following = predicted(
        service,
        {"subset": "has-z"},
        {"kind": "log_probability", "prompt": "li", "completion": "za"},
        {"kind": "next_token", "prompt": "z"},
    )
    page.goto("/#/ask?sketch=names&prompt=li&completion=za&next=z&subset=has-z")
    cards = page.locator("#answers article")
    expect(cards).to_have_count(2)
    expect(cards.nth(0).locator(".verdict")).to_contain_text("he log-probability of za after li")
    told = [completion["baseline"], completion["estimate"]]
    expect_values(cards.nth(0).locator(".verdict"), told, among=slice(2))
    cards.nth(1).locator("summary").click()
    table = cards.nth(1).locator("details table")
    outcomes = sorted(following["outcomes"], key=lambda one: -max(one["baseline"], one["estimate"]))
    expect_values(table, [n for one in outcomes for n in (one["baseline"], one["estimate"], *one["interval"])])
    assert len(outcomes) == 27
    expect(table.locator("tbody tr")).to_have_count(27)


@pytest.mark.parametrize("estimator", ["axes", "sphere"])
def test_the_estimator_that_was_asked_answers(page: Page, service: Service, estimator: str) -> None:
    [prediction] = predicted(service, {"units": units_of(service, SOME)}, LOSS, estimator=estimator)
    page.goto(f"{QUESTION}&estimator={estimator}")
    verdict = page.locator("#answers .verdict")
    expect(verdict).to_have_count(1)
    expect_values(verdict, [prediction["estimate"]], among=slice(1, 2))
    page.locator("#answers summary").click()
    expect(page.locator("#answers details > .hint")).to_contain_text(f"Estimated by {estimator}:")


def test_verify_puts_the_retrained_value_beside_the_estimate(own_page: Page, own_service: Service) -> None:
    page = own_page
    page.goto("/#/ask?sketch=names&loss=max&next=m&contains=an")
    expect(page.locator("#answers article")).to_have_count(2)
    estimate = values(page.locator("#answers .verdict").first)[1]
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#verify-state")).to_contain_text("Retrained without", timeout=RETRAINED_MS)
    [verification] = asked(own_service, "/verifications")["items"]
    loss, following = verification["measurements"]
    assert loss["estimate"] == estimate
    truth = page.locator("#answers .truth").first
    expect_values(truth, [loss["truth"]], among=slice(1))
    expect_values(truth, [loss["estimate"], pytest.approx(abs(loss["error"]), abs=1e-12)], among=slice(-2, None))
    expect(truth).to_contain_text(" too low by " if loss["error"] > 0 else " too high by ")
    expect(truth).to_contain_text("inside the interval" if loss["inside_interval"] else "outside the interval")
    columns = page.locator("#answers article").nth(1).locator("table").first.locator("tbody tr")
    truth_of_likeliest = columns.first.locator("td").last
    assert eventually(page, lambda: any(shown in following["truth"] for shown in values(truth_of_likeliest)[:1]))
    page.goto("/#/trust?sketch=names&loss=max")
    expect(page.locator("#verified")).to_contain_text("1 estimate that were verified")
    assert eventually(page, lambda: loss["truth"] in values(page.locator("#verified")))


def test_texts_of_both_models_are_those_of_the_api_and_stay_in_the_address(page: Page, service: Service) -> None:
    page.goto("/#/ask?sketch=names&loss=max&contains=an")
    page.get_by_label("Texts", exact=True).fill("6")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Beginning with").fill("a")
    page.get_by_role("button", name="Draw").click()
    units = units_of(service, {"contains": "an"})
    body = {"sketch": "names", "delete": {"units": units}, "count": 6, "seed": 7, "prompt": "a"}
    samples: list[dict[str, Any]] = asked(service, "/samples", body)["samples"]
    rows = page.locator("#samples-texts tbody tr")
    expect(rows).to_have_count(6)
    texts = [text or "∅" for one in samples for text in (one["baseline"], one["counterfactual"])]
    expect(rows.locator("td")).to_have_text(texts)
    expect(page).to_have_url(re.compile("samples=6&seed=7&beginning=a"))
    page.reload()
    expect(rows).to_have_count(6)


def test_a_sketch_of_random_directions_says_why_it_draws_no_texts(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(400)
    page.goto("/#/ask?sketch=subjects&loss=max&subset=has-x&samples=4")
    expect(page.locator("#samples-texts .problem")).to_be_visible()
    expect(page.locator("#answers .verdict")).to_have_count(1)


def test_verification_goes_on_and_stays_in_the_address_and_its_truth_goes_with_it(
    own_page: Page, own_service: Service
) -> None:
    page = own_page
    page.goto("/#/ask?sketch=names&loss=max&contains=an")
    expect(page.locator("#answers article")).to_have_count(1)
    page.get_by_role("button", name="Verify").click()
    expect(page).to_have_url(re.compile("verification="))
    page.locator("#how summary").click()
    page.get_by_label("Interval").select_option("0.8")
    truth = page.locator("#answers .truth")
    expect(truth).to_be_visible(timeout=RETRAINED_MS)
    [verification] = asked(own_service, "/verifications")["items"]
    [loss] = verification["measurements"]
    page.reload()
    expect(truth).to_be_visible()
    expect_values(truth, [loss["truth"]], among=slice(1))
    assert eventually(page, lambda: loss["estimate"] in values(truth))
    expect(page.locator("#answers .verdict")).to_contain_text(
        "exactly, as the model was retrained without this very set."
    )
    address = page.url
    page.evaluate("() => { location.hash = location.hash.replace(/&verification=[^&]*/, '') }")
    expect(truth).to_have_count(0)
    expect(page.locator("#answers .verdict")).to_be_visible()
    page.go_back()
    expect(truth).to_be_visible()
    expect(page).to_have_url(address)
    page.locator("#found input[type=checkbox]").first.click()
    expect(truth).to_have_count(0)
    expect(page).not_to_have_url(re.compile("verification="))


def test_a_verification_that_is_asked_for_is_followed_whatever_else_is_asked_meanwhile(own_page: Page) -> None:
    page = own_page
    page.goto("/#/ask?sketch=names&loss=max&contains=sh")
    held = Held(page, "**/predict", '"verify":true')
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#verify-state")).to_have_text("Asked.")
    page.locator("#how summary").click()
    page.get_by_label("Interval").select_option("0.8")
    expect(page.locator("#answers .verdict")).to_contain_text("80% interval")
    held.let_go()
    expect(page).to_have_url(re.compile("verification="))
    expect(page.locator("#verify-state")).to_contain_text(re.compile("Waiting|Retrain"))


def test_a_verification_that_is_asked_for_is_not_one_of_another_deletion(own_page: Page, own_service: Service) -> None:
    page = own_page
    page.goto("/#/ask?sketch=names&loss=max&contains=ch")
    held = Held(page, "**/predict", '"verify":true')
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#verify-state")).to_have_text("Asked.")
    page.locator("#found input[type=checkbox]").last.click()
    expect(page.locator("#verify-state")).to_be_empty()
    expect(page.locator("#verify-button")).to_have_attribute("aria-disabled", "false")
    held.let_go()
    page.get_by_role("button", name="Verify").click()
    held.let_go()
    expect(page).to_have_url(re.compile("verification="))
    [newest, before] = asked(own_service, "/verifications")["items"]
    expect(page).to_have_url(re.compile(newest["id"]))
    assert newest["deleted"]["units"] == before["deleted"]["units"] + 1


def test_a_verification_comes_to_nothing_where_what_is_deleted_is_being_worked_out(own_page: Page) -> None:
    page = own_page
    page.goto("/#/ask?sketch=names&loss=max&contains=ch")
    verifications, rules = Held(page, "**/predict", '"verify":true'), Held(page, "**/resolve", '"ki"')
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#verify-state")).to_have_text("Asked.")
    page.get_by_label("What to find").fill("ki")
    page.get_by_role("button", name="Delete all that contain it").click()
    verifications.let_go()
    expect(page.locator("#verify-state")).to_be_empty()
    rules.let_go()
    expect(page.locator("#chosen li")).to_have_count(3)
    expect(page).not_to_have_url(re.compile("verification="))


def test_degrees_that_the_estimate_does_not_use_are_not_shown_as_its_contributions(
    page: Page, service: Service
) -> None:
    for rule in "abcdefghijklmnop":
        units = units_of(service, {"contains": rule}, dataset="census-subjects")
        body = {"sketch": "subjects", "delete": {"units": units}, "measurements": [LOSS]}
        [prediction] = asked(service, "/predict", body)["predictions"]
        if 0 < prediction["degree"] < len(prediction["terms"]):
            page.goto(f"/#/ask?sketch=subjects&loss=max&contains={rule}")
            used = [term["value"] for term in prediction["terms"] if term["degree"] <= prediction["degree"]]
            expect(page.locator("#answers .unused")).to_have_count(len(prediction["terms"]) - len(used))
            expect_values(page.locator("#answers .degrees"), used)
            return
    pytest.fail("every set of these uses all degrees")


def test_a_distribution_tells_only_what_can_be_told_and_exactly_what_is_exact(page: Page, service: Service) -> None:
    page.goto("/#/ask?sketch=names&next=m&add=3")
    verdict = page.locator("#answers .verdict")
    expect(verdict).to_contain_text(EXACTLY)
    expect(page.locator("#answers article").first).not_to_contain_text("interval")
    [prediction] = predicted(service, {"units": units_of(service, SOME)}, {"kind": "next_token", "prompt": "j"})
    told = [one for one in prediction["outcomes"] if not one["below_resolution"]]
    page.goto("/#/ask?sketch=names&next=j&matches=%5E%5Bjk%5D")
    if told:
        most = max(told, key=lambda one: abs(one["change"]))
        expect(verdict).to_contain_text(f"({len(told)} of {len(prediction['outcomes'])})")
        expect_values(verdict, [most["baseline"], most["estimate"], *most["interval"]])
    else:
        expect(verdict).to_contain_text("can’t be told")


def test_all_that_was_refused_can_be_asked_again_at_once(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(503)
    problem = {
        "type": "urn:neverseen:problem:busy",
        "title": "Busy",
        "status": 503,
        "detail": "Try again later.",
        "errors": [],
    }
    for path in ("**/predict", "**/attributions"):
        page.route(path, lambda route: route.fulfill(status=503, json=problem), times=1)
    page.goto(QUESTION)
    for place in ("#answer-problem", "#influence-problem"):
        expect(page.locator(place)).to_contain_text("Try again later.")
    page.locator("#answer-problem").get_by_role("button", name="Try again").click()
    expect(page.locator("#answers .verdict")).to_be_visible()
    expect(page.locator("#influences table").first).to_be_visible()


def test_what_is_open_stays_open_when_another_unit_is_deleted(page: Page) -> None:
    page.goto(QUESTION)
    page.locator("#answers summary").click()
    page.locator("#influences input:not(:checked)").first.click()
    expect(page.locator("#count")).to_contain_text("24 units")
    expect(page.locator("#answers details table").first).to_be_visible()
