"""The API, asked beside the page: what it says is what the page has to show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect

from tests.explorer.browser import eventually
from tests.explorer.services import Service

CURVE = [step / 10 for step in range(11)]
"""The downweights that the page asks for."""


def asked(service: Service, path: str, body: Mapping[str, Any] | None = None, **query: str | int) -> Any:
    """What the API answers, by POST where there is a body."""
    headers = {} if service.every_scope is None else {"Authorization": f"Bearer {service.every_scope}"}
    method = "GET" if body is None else "POST"
    answer = httpx.request(method, service.url + path, json=body, params=query or None, headers=headers, timeout=60)
    assert answer.is_success, answer.text
    return answer.json()


def predicted(service: Service, delete: Mapping[str, Any], *measurements: Mapping[str, Any], **rest: Any) -> Any:
    """The predictions of a question about the sketch `names`, asked as the page does."""
    body = {"sketch": "names", "delete": delete, "measurements": measurements, "downweight": CURVE, **rest}
    return asked(service, "/predict", body)["predictions"]


def units_of(service: Service, rule: Mapping[str, Any], *, dataset: str = "census-names") -> list[str]:
    """The units that a rule deletes."""
    units: list[str] = asked(service, f"/datasets/{dataset}/resolve", rule)["units"]
    return units


def values(place: Locator) -> list[float]:
    """The numbers that a part of the page shows, as exactly as it has them, having compared them with what is read."""
    found = []
    for value, read in place.locator("data").evaluate_all("all => all.map(one => [one.value, one.textContent])"):
        exact = float(value)
        number, percent = re.fullmatch(r"([+−]?[\d,.]+)(%?)", read).groups()  # type: ignore[union-attr]
        decimals = len(number.partition(".")[2])
        shown = float(number.replace("−", "-").replace(",", "")) / (100 if percent else 1)
        tolerance = 0.5000001 * 10.0 ** -(decimals + (2 if percent else 0))
        assert abs(shown - exact) <= max(tolerance, 0.005 * abs(exact)), f"{read!r} isn't {exact!r}"
        found.append(exact)
    return found


def expect_values(place: Locator, expected: object, *, among: slice = slice(None)) -> None:
    """Wait until the numbers that a part of the page shows are these.

    Args:
        place: the part.
        expected: a list, or an approximate one of pytest's.
        among: which of the numbers are compared; all of them, where it isn't said.
    """
    eventually(place.page, lambda: values(place)[among] == expected)
    assert values(place)[among] == expected


def expect_count(page: Page, words: str) -> None:
    """Wait until the page says how many units are deleted."""
    expect(page.locator("#count")).to_contain_text(words)
