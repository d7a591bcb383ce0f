"""Who did it: the units that matter most, and the answer that follows a click on them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.explorer.api import asked, expect_values, predicted
from tests.explorer.services import Service

LOSS = {"kind": "loss", "text": "max"}


@pytest.mark.parametrize("sketch", ["names", "subjects"])
def test_units_stand_in_both_directions_with_the_numbers_of_the_api(page: Page, service: Service, sketch: str) -> None:
    answer = asked(service, "/attributions", {"sketch": sketch, "measurement": LOSS, "top": 10, "confidence": 0.95})
    page.goto(f"/#/ask?sketch={sketch}&loss=max")
    tables = page.locator("#influences table")
    expect(tables).to_have_count(2)
    for table, direction in zip(tables.all(), ("raising", "lowering"), strict=True):
        units = answer[direction]
        boxes = table.locator("input")
        expect(boxes).to_have_count(len(units))
        for box, one in zip(boxes.all(), units, strict=True):
            expect(box).to_have_attribute("value", one["unit"])
        exact = answer["estimator"] == "retrained"
        expected = [
            number
            for one in units
            for number in (one["change"], *(() if exact else (end - answer["baseline"] for end in one["interval"])))
        ]
        expect_values(table, pytest.approx(expected, abs=1e-12))
        expect(table.locator("svg.bar .interval")).to_have_count(len(units))


def test_a_click_adds_a_unit_to_what_is_deleted_and_the_answer_follows(page: Page, service: Service) -> None:
    page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    boxes = page.locator("#influences input")
    expect(boxes).to_have_count(20)
    first = page.locator("#influences input:not(:checked)").first
    unit = first.get_attribute("value")
    assert unit is not None
    page.locator(f"#influences input[value='{unit}']").check()
    units = [*asked(service, "/datasets/census-names/resolve", {"subset": "has-x"})["units"], unit]
    [prediction] = predicted(service, {"units": units}, LOSS)
    expect(page.locator("#answers .verdict data").nth(1)).to_have_attribute("value", str(prediction["estimate"]))
    expect(page.locator("#count")).to_contain_text(f"{len(units)} units")
    expect(page).to_have_url(re.compile(f"add={unit}"))
    page.locator(f"#influences input[value='{unit}']").uncheck()
    [before] = predicted(service, {"subset": "has-x"}, LOSS)
    expect(page.locator("#answers .verdict data").nth(1)).to_have_attribute("value", str(before["estimate"]))


def test_what_is_deleted_is_checked_wherever_it_stands(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=max")
    unit = page.locator("#influences input").first.get_attribute("value")
    page.locator("#influences input").first.check()
    page.get_by_role("button", name="Take back: unit").click()
    expect(page.locator(f"#influences input[value='{unit}']")).not_to_be_checked()


def test_of_several_measurements_one_is_chosen_and_a_distribution_is_none(page: Page, service: Service) -> None:
    page.goto("/#/ask?sketch=names&next=m&subset=has-x")
    expect(page.locator("#influence-hint")).to_contain_text("A distribution isn’t one number")
    page.goto("/#/ask?sketch=names&loss=max&prompt=ma&completion=x&subset=has-x")
    body = {"sketch": "names", "measurement": {"kind": "log_probability", "prompt": "ma", "completion": "x"}, "top": 10}
    answer = asked(service, "/attributions", body)
    page.locator("#influence-measurement").select_option("1")
    expect(page.locator("#influences input").first).to_have_attribute("value", answer["raising"][0]["unit"])
    expect_values(page.locator("#influences table").first, [answer["raising"][0]["change"]], among=slice(1))


def test_intervals_that_hold_zero_are_drawn_across_it(page: Page, service: Service) -> None:
    answer = asked(service, "/attributions", {"sketch": "subjects", "measurement": LOSS, "top": 10, "confidence": 0.95})
    assert any(one["below_resolution"] for one in answer["raising"])
    page.goto("/#/ask?sketch=subjects&loss=max")
    expect(page.locator("#influences table")).to_have_count(2)
    bars = page.locator("#influences table").first.locator("svg.bar").all()
    for bar, unit in zip(bars, answer["raising"], strict=True):
        zero, low, high = (
            float(bar.locator(place).get_attribute(name) or "nan")
            for place, name in ((".zero", "x1"), (".interval", "x1"), (".interval", "x2"))
        )
        assert (low < zero < high) == unit["below_resolution"]


def test_which_measurement_units_are_compared_by_is_in_the_address(page: Page) -> None:
    page.goto("/#/ask?sketch=names&loss=max&loss=zoe")
    page.locator("#influence-measurement").select_option("1")
    expect(page.locator("#influences input").first).to_be_visible()
    expect(page).to_have_url(re.compile("of=1"))
    page.reload()
    expect(page.locator("#influence-measurement")).to_have_value("1")
