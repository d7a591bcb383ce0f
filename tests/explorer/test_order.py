"""Whoever goes on before the answers are there, and in whatever order they come: the page is that of its address.

What a page shows after a hurried hand, over a slow network that loses requests, is compared with what a new page
shows at the address that it arrived at.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Page

from tests.app.conftest import until
from tests.explorer.browser import slow_network
from tests.explorer.services import Service

_SLOWEST_MS: Final = 400
_LOST: Final = 0.15
_ACTS: Final = 30
_MOST_TRIES: Final = 4  # of all that was refused: what is asked then may have been in the way of more
_RETRAIN_SECONDS: Final = 180.0

_ACT: Final = """
({go, back, type, click, which}) => {
    if (go) location.hash = go;
    else if (back) {
        if (!navigation.canGoBack) return;
        return new Promise(done => {
            addEventListener("popstate", () => done(), {once: true});
            setTimeout(done, 5000);
            history.back();
        });
    }
    else {
        const found = [...document.querySelectorAll(type ?? click)]
            .filter(one => one.checkVisibility() && !one.closest("[inert]"));
        const one = found[Math.floor(which * found.length)];
        if (!one) return;
        if (!type) return one.click();
        one.value = one.type === "number" ? "5" : ["max", "qu", "anna", "", "zoe"][Math.floor(which * 997) % 5];
        one.dispatchEvent(new InputEvent("input", {bubbles: true}));
    }
}
"""

_FORGET_THE_SEARCH: Final = """
() => {
    const [by, field] = ["search-by", "search"].map(id => document.getElementById(id));
    [by.value, field.value] = ["contains", ""];
    field.dispatchEvent(new InputEvent("input", {bubbles: true}));
}
"""  # what is looked for isn't in the address, and its field keeps it

_TRY_AGAIN: Final = """
() => {
    const all = [...document.querySelectorAll(".problem button")].filter(one => one.checkVisibility());
    for (const one of all) one.click();
    return all.length;
}
"""

_SETTLED: Final = """
async () => {
    const told = id => document.getElementById(id).textContent;
    const isWatched = () => // it looks again and again, and between that nothing is under way
        /^#.ask.*verification=/.test(location.hash) && /^($|Asked|Waiting|Retraining)/.test(told("verify-state")) ||
        /^#.requests.*request=/.test(location.hash) && !told("request");
    const end = performance.now() + 60_000;
    for (let quiet = 0; quiet < 2; quiet = underWay || isWatched() ? 0 : quiet + 1) {
        await new Promise(done => setTimeout(done, 250)); // longer than a field waits for more to be typed
        if (performance.now() > end) throw new Error("it doesn't come to an end");
    }
}
"""

_SHOWN: Final = """
() => {
    document.getElementById("answer-time").textContent = ""; // which is another one every time
    document.getElementById("how").open = false;
    const fields = [...document.querySelectorAll("main input, main select")]
        .filter(one => one.checkVisibility() && !one.closest("#samples-form")) // in which may be what isn't drawn
        .map(one => String(one.type === "checkbox" ? one.checked : one.value));
    document.getElementById("measurements").style.display = "none"; // there may be more rows, in which nothing is typed
    return [
        location.hash,
        ...fields.filter(value => value !== ""),
        ...document.querySelector("main").innerText.split("\\n").map(line => line.trim()).filter(Boolean),
    ];
}
"""

_CLICKED: Final = (
    "#found input[type=checkbox]",
    "#found button",
    "#chosen button",
    "#influences input",
    "#measurements button",
    "#add-loss, #add-next",
    "#requests-list button",
    ".problem button",
    "nav a",
)
_TYPED: Final = ("#measurements input", "#search", "#samples-seed")


@pytest.fixture(scope="module")
def verified(service: Service) -> str:
    """Id of a verification that is finished: of the subset has-x of names, version 1."""
    body = {
        "sketch": "names",
        "version": 1,
        "delete": {"subset": "has-x"},
        "measurements": [{"kind": "loss", "text": "max"}],
        "verify": True,
    }
    asked = httpx.post(f"{service.url}/predict", json=body, timeout=60).raise_for_status().json()
    of = f"{service.url}/verifications/{asked['verification']['id']}"
    assert until(lambda: httpx.get(of).json()["state"] == "finished", seconds=_RETRAIN_SECONDS)
    return str(asked["verification"]["id"])


def _addresses(verified: str) -> list[str]:
    measured = ("loss=max", "loss=anna&next=q", "prompt=qu&completion=inn&loss=max&of=1", "next=", "")
    deleted = ("subset=has-x", "contains=z&subset=has-x&keep=3", "contains=an&add=3", "add=5", "matches=^j", "")
    models = ("sketch=names", "sketch=names&version=1", "sketch=names&version=7", "sketch=subjects", "")
    asked = [
        f"#/ask?{model}&{what}&{gone}"
        for model in models
        for what in measured
        for gone in deleted
        if not ("subjects" in model and "add" in gone)  # whose units have other names
    ]
    return [
        *asked,
        *(f"{address}&samples=3" for address in asked[:20]),
        *(f"#/ask?sketch=names&version=1&loss=max&subset=has-x&verification={verified}" for _ in range(10)),
        *(f"#/trust?{model}&calibrated={text}" for model in models for text in ("max", "anna", "") for _ in range(2)),
        *("#/requests", "#/requests?state=completed", "#/requests?order=deadline&late=true") * 5,
    ]


def _acts(seed: int, addresses: list[str]) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    for _ in range(_ACTS):
        kind = draw.choices(("go", "back", "type", "click"), weights=(5, 1, 2, 4))[0]
        which = draw.random()
        if kind == "go":
            yield {"go": draw.choice(addresses)}
        elif kind == "back":
            yield {"back": True}
        else:
            yield {kind: draw.choice(_TYPED if kind == "type" else _CLICKED), "which": which}


def _settle(page: Page) -> None:
    """Wait until nothing is under way, nor about to be."""
    page.evaluate(_SETTLED)


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.drill) for seed in range(2, 24))])
def test_a_page_shows_what_a_new_one_shows_at_its_address(page: Page, verified: str, seed: int) -> None:
    slow_network(page, seed, slowest_ms=_SLOWEST_MS)
    page.goto("/#/ask?sketch=names")
    draw = random.Random(seed)
    done = []
    page.evaluate("lost => (window.lost = lost)", _LOST if seed % 2 else 0)
    for act in _acts(seed, _addresses(verified)):
        page.evaluate(_ACT, act)
        done.append((act, page.url))
        page.wait_for_timeout(draw.choice((0, 20, 100, 300)))
    page.evaluate("() => (window.lost = 0)")
    page.evaluate(_FORGET_THE_SEARCH)
    _settle(page)
    for _ in range(_MOST_TRIES):
        if page.evaluate(_TRY_AGAIN):
            _settle(page)
    shown = page.evaluate(_SHOWN)
    page.reload()
    _settle(page)
    again = page.evaluate(_SHOWN)
    assert shown == again, "\n".join(
        [*(json.dumps(one) for one in done), *difflib.unified_diff(again, shown, "a new page", "the page")]
    )
