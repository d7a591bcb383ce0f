"""The API's reference in a browser: it works without a network, under a policy, and what is tried out is asked."""

from __future__ import annotations

from playwright.sync_api import Page, expect


def test_operations_are_shown_and_tried_out_without_any_other_host(page: Page) -> None:
    page.goto("/docs")
    expect(
        page.get_by_text("How would a model behave had some documents not been in its training data?")
    ).to_be_visible()
    operation = page.locator("#operations-predict-predict")
    operation.locator("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
