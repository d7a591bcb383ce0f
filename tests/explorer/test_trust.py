"""How far to trust a version: what it is, what it cost, and how right it was wherever the model was retrained."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, Route, expect

from app import catalog
from app.db import open_database, transaction
from tests.explorer.api import asked, expect_values, values
from tests.explorer.browser import eventually
from tests.explorer.services import Service

LOSS = {"kind": "loss", "text": "max"}


def test_calibration_norms_and_sizes_are_those_of_the_api(page: Page, service: Service) -> None:
    answer = asked(service, "/calibration", {"sketch": "names", "measurement": LOSS, "confidence": 0.9})
    anchors, sizes = answer["anchors"], answer["sizes"]
    assert len(anchors) > 50
    page.goto("/#/trust?sketch=names&loss=max&confidence=0.9")
    inside = sum(one["inside_interval"] for one in anchors)
    expect(page.locator("#calibration")).to_contain_text(
        f"of {len(anchors)} sets that the model was retrained without, the 90% interval holds the retrained value"
        f" at {inside} "
    )
    expect(page.locator("#calibration canvas")).to_be_visible()
    page.locator("#calibration summary").click()
    expected = [n for one in anchors for n in (one["truth"], one["estimate"], *one["interval"])]
    expect_values(page.locator("#calibration table"), expected)
    rows = page.locator("#sizes tbody tr")
    expect(rows).to_have_count(len(sizes))
    of_sizes = [n for one in sizes for n in (one["inside"] / one["anchors"], one["median_width"], one["rms_error"])]
    expect_values(page.locator("#sizes"), pytest.approx(of_sizes))
    norms = answer["derivative_norms"]
    assert len(norms) == 3
    expect_values(page.locator("#norms table"), [n for one in norms for n in (one["norm"], one["standard_error"])])
    expect(page.locator("#norms canvas")).to_be_visible()


def test_facts_say_what_a_version_was_trained_on_and_what_it_cost(page: Page, service: Service) -> None:
    built = asked(service, "/sketches/names/versions/1/build")
    row = asked(service, "/sketches/names/versions/1")
    page.goto("/#/trust?sketch=names")
    facts = page.locator("#facts")
    expect(facts).to_contain_text(f"{built['retrained_count']:,} models")
    for words in (
        "names 1, ready, current",
        "none that it was trained on",
        "census-names",
        "160 documents, 160 units",
        row["checksum"],
        built["fingerprint"],
        f"{built['parameter_count']:,} parameters",
        "48 random directions",
        f"on {built['device']}",
        f"torch {built['libraries']['torch']}",
    ):
        expect(facts).to_contain_text(words)


def test_another_measurement_is_typed_and_stays_in_the_address(page: Page, service: Service) -> None:
    page.goto("/#/trust?sketch=names")
    expect(page.locator("#calibration")).to_contain_text("Type a text above")
    page.get_by_label("Calibrated on the loss of").fill("zoe")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#calibration")).to_contain_text("Loss on “zoe”: of ")
    expect(page).to_have_url(re.compile("calibrated=zoe"))
    baseline = asked(service, "/calibration", {"sketch": "names", "measurement": {"kind": "loss", "text": "zoe"}})[
        "baseline"
    ]
    assert eventually(page, lambda: baseline in values(page.locator("#calibration p").first))


def test_who_leaves_and_comes_back_while_it_is_worked_out_finds_it(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/calibration", hold)
    page.goto("/#/trust?sketch=names&loss=zena")
    expect(page.locator("#calibration")).to_contain_text("Comparing with the models that were retrained")
    page.get_by_role("link", name="Requests").click()
    page.get_by_role("link", name="Trust").click()
    expect(page.locator("#facts dl").first).to_be_visible()
    [asked_once] = held
    asked_once.continue_()
    expect(page.locator("#calibration canvas")).to_be_visible()
    assert held == [asked_once]


def test_a_sketch_of_random_directions_has_norms_and_nothing_to_compare_with(page: Page) -> None:
    page.goto("/#/trust?sketch=subjects&loss=max")
    expect(page.locator("#calibration")).to_contain_text("there is nothing to compare with")
    expect(page.locator("#norms tbody tr")).to_have_count(3)


def test_a_text_that_cannot_be_measured_is_said(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(400)
    page.goto("/#/trust?sketch=names&calibrated=MAX")
    expect(page.locator("#calibration .problem")).to_contain_text("The character 'M'")
    expect(page.locator("#facts dl").first).to_be_visible()


def test_a_version_that_was_trained_on_erased_data_says_so_everywhere(own_page: Page, own_service: Service) -> None:
    database = open_database(own_service.settings)
    with transaction(database) as session:
        dataset = catalog.get_dataset(session, "census-names")
        catalog.forget_units(session, dataset, [5, 6], now=datetime.now(UTC))
    database.dispose()
    own_page.goto("/#/ask?sketch=names&loss=max&subset=has-x")
    expect(own_page.locator("#model-hint")).to_contain_text("Trained on 2 units erased since.")
    expect(own_page.locator("#answer-notes")).to_contain_text("trained on units that have been erased since")
    own_page.get_by_role("link", name="Trust").click()
    expect(own_page.locator("#facts")).to_contain_text("trained on 2 units erased since")
