"""Erasure requests: state, deadlines, and evidence to read, to print and to keep."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Page, expect

from app import catalog
from app.db import open_database, transaction
from tests.app.conftest import until
from tests.explorer.api import asked
from tests.explorer.services import NAMES, Service, address_of

DONE_SECONDS = 60


def submitted(service: Service, name: str, **rest: Any) -> dict[str, Any]:
    """A request to delete somebody, whose id is of this test alone."""
    identity = {"type": "email", "value": address_of(name)}
    body = {"id": f"dsar-{uuid4().hex[:8]}", "identities": [identity], "regulation": "gdpr", **rest}
    taken: dict[str, Any] = asked(service, "/erasure-requests", body)
    return taken


def completed(service: Service, name: str, **rest: Any) -> dict[str, Any]:
    """The same, once it is done."""
    taken = submitted(service, name, **rest)
    address = f"/erasure-requests/{taken['id']}"
    assert until(lambda: asked(service, address)["state"] == "completed", seconds=DONE_SECONDS)
    request: dict[str, Any] = asked(service, address)
    return request


def test_the_list_tells_state_and_deadline(page: Page, service: Service) -> None:
    request = completed(service, NAMES.texts[7])
    due = datetime.fromisoformat(request["due_at"])
    page.goto("/#/requests")
    row = page.locator("#requests-list tbody tr", has_text=request["caller_id"])
    expect(row).to_contain_text("completed")
    expect(row.locator("time")).to_have_attribute("datetime", request["due_at"])
    expect(row).to_contain_text(f"{due:%Y}")


def test_evidence_is_read_printed_and_downloaded_as_it_was_signed(page: Page, service: Service, tmp_path: Path) -> None:
    request = completed(service, NAMES.texts[8])
    page.goto("/#/requests")
    page.get_by_role("button", name=request["caller_id"]).click()
    expect(page).to_have_url(re.compile(f"request={request['id']}"))
    sheet = page.frame_locator("iframe.sheet")
    expect(sheet.locator("h1")).to_have_text("Evidence on a request to delete")
    expect(sheet.locator("body")).to_contain_text(request["caller_id"])
    expect(sheet.locator(".verdict").first).to_have_css("border-left-style", "solid")
    page.evaluate(
        "() => { document.querySelector('iframe.sheet').contentWindow.print = () => { window.printed = true; } }"
    )
    page.get_by_role("button", name="Print").click()
    page.wait_for_function("() => window.printed")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == f"evidence-{request['id']}.json"
    download.value.save_as(tmp_path / "evidence.json")
    signed = httpx.get(service.url + request["evidence"]).content
    assert (tmp_path / "evidence.json").read_bytes() == signed
    assert json.loads(signed)["format"] == "neverseen-evidence"


def test_a_request_that_is_open_is_followed_until_it_is_done(page: Page, service: Service) -> None:
    taken = submitted(service, NAMES.texts[9], verify=True)
    page.goto(f"/#/requests?request={taken['id']}")
    expect(page.locator("#request")).to_contain_text(taken["caller_id"])
    expect(page.locator("iframe.sheet")).to_be_visible(timeout=1000 * DONE_SECONDS)
    expect(page.locator("#requests-list tbody tr", has_text=taken["caller_id"])).to_contain_text("completed")


def test_late_ones_and_states_are_picked_out(own_page: Page, own_service: Service) -> None:
    page, service = own_page, own_service
    done = completed(service, NAMES.texts[1])
    nobody = completed(service, "nobody-at-all")
    past = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    failing = completed(service, NAMES.texts[2], due_at=past)
    database = open_database(service.settings)
    with transaction(database) as session:  # as it would stand if the disk had been full
        row = catalog.get_request_of_id(session, failing["id"])
        row.state, row.failure, row.evidence = "failed", "No space is left.", None
    database.dispose()
    page.goto("/#/requests")
    rows = page.locator("#requests-list tbody tr")
    expect(rows).to_have_count(3)
    page.get_by_label("late only").check()
    page.locator("#requests-form").get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text(failing["caller_id"])
    expect(rows.first).to_contain_text("late")
    expect(rows.first).to_contain_text("3 days ago")
    rows.first.get_by_role("button").click()
    expect(page.locator("#request .problem")).to_contain_text("No space is left.")
    page.goto("/#/requests?state=completed")
    expect(rows).to_have_count(2)
    page.get_by_label("Caller’s id").fill(nobody["caller_id"])
    page.locator("#requests-form").get_by_role("button", name="Show").click()
    expect(rows).to_have_count(1)
    rows.first.get_by_role("button").click()
    expect(page.locator("#request")).to_contain_text("nobody is known by these identities")
    expect(page.locator("#requests-list")).not_to_contain_text(done["caller_id"])


def test_the_next_deadline_comes_first_where_it_is_chosen_and_a_page_of_the_list_has_an_address(
    own_page: Page, own_service: Service
) -> None:
    page, service, now = own_page, own_service, datetime.now(UTC)
    for number in range(25):
        submitted(service, "nobody-at-all", id=f"r-{number:02}", due_at=(now + timedelta(days=50 - number)).isoformat())
    ids = "#requests-list tbody tr td:first-child"
    assert until(lambda: asked(service, "/erasure-requests?state=completed")["total"] == 25, seconds=DONE_SECONDS)
    last = submitted(service, "nobody-at-all", id="later", due_at=(now + timedelta(days=99)).isoformat(), verify=True)
    assert until(
        lambda: asked(service, f"/erasure-requests/{last['id']}")["state"] == "completed", seconds=DONE_SECONDS
    )
    page.goto("/#/requests")
    expect(page.locator(ids).first).to_contain_text("later")
    page.get_by_label("First").select_option("the next deadline")
    page.locator("#requests-form").get_by_role("button", name="Show").click()
    expect(page.locator("#requests-list")).to_contain_text("the next deadline first")
    expect(page.locator(ids).first).to_contain_text("r-24")
    expect(page).to_have_url(re.compile("order=deadline"))
    page.get_by_role("button", name="Later").click()
    expect(page.locator(ids).last).to_contain_text("later")
    expect(page.locator(ids).first).to_contain_text("r-04")
    expect(page).to_have_url(re.compile("from=21"))
    page.reload()
    expect(page.locator(ids).first).to_contain_text("r-04")
    expect(page.get_by_label("First")).to_have_value("deadline")
    page.get_by_role("button", name="Sooner").click()
    expect(page.locator(ids).first).to_contain_text("r-24")
    expect(page).not_to_have_url(re.compile("from="))
    page.goto("/#/requests?order=deadline&from=81")  # written when there were more
    expect(page.locator(ids).first).to_contain_text("r-04")
    expect(page).to_have_url(re.compile("from=21"))
    page.goto("/#/requests?order=size&state=cancelled&from=21")
    expect(page.locator("#requests-list")).to_contain_text("There is no such request.")
    expect(page).not_to_have_url(re.compile("order"))


@pytest.mark.parametrize(
    ("request_id", "status", "words"),
    [("nothing", 422, "UUID"), ("0b8d3c52-6f3e-4c6b-9a55-3d6f1c2f0e11", 404, "There is no erasure request")],
)
def test_a_request_that_there_is_not_is_said(
    page: Page, expected_statuses: set[int], request_id: str, status: int, words: str
) -> None:
    expected_statuses.add(status)
    page.goto(f"/#/requests?request={request_id}")
    expect(page.locator("#request .problem")).to_contain_text(words)


def test_the_list_is_asked_again_when_it_is_come_back_to(own_page: Page, own_service: Service) -> None:
    page = own_page
    page.goto("/#/requests")
    expect(page.locator("#requests-list")).to_contain_text("There is no such request.")
    page.get_by_role("link", name="Trust").click()
    request = completed(own_service, NAMES.texts[3])
    page.get_by_role("link", name="Requests").click()
    expect(page.locator("#requests-list tbody tr")).to_contain_text(request["caller_id"])


def test_no_request_stays_open_at_an_address_that_names_none(page: Page, service: Service) -> None:
    request = completed(service, NAMES.texts[11])
    page.goto("/#/requests")
    expect(page.locator("#request")).to_have_text("Choose a request to see how far it is, and its evidence.")
    page.get_by_role("button", name=request["caller_id"]).click()
    expect(page.locator("#request-title")).to_contain_text(request["caller_id"])
    page.get_by_role("link", name="Ask", exact=True).click()
    page.get_by_role("link", name="Requests", exact=True).click()
    expect(page.locator("#request")).to_have_text("Choose a request to see how far it is, and its evidence.")


def test_a_request_whose_evidence_is_refused_is_shown_all_the_same(
    page: Page, service: Service, expected_statuses: set[int]
) -> None:
    expected_statuses.add(500)
    request = completed(service, NAMES.texts[12])
    page.route("**/evidence.html", lambda route: route.fulfill(status=500, body=""))
    page.goto(f"/#/requests?request={request['id']}")
    expect(page.locator("#request .problem")).to_contain_text("The service answered with status 500")
    expect(page.locator("#request-title")).to_contain_text(request["caller_id"])


def test_a_request_that_is_chosen_has_the_focus(page: Page, service: Service) -> None:
    request = completed(service, NAMES.texts[12])
    page.goto("/#/requests")
    page.get_by_label("Caller’s id").fill("typed")
    page.get_by_role("button", name=request["caller_id"]).click()
    expect(page.locator("#request-title")).to_be_focused()
    expect(page.get_by_label("Caller’s id")).to_have_value("typed")
