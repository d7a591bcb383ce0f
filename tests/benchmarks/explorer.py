"""How quick the explorer is in a real browser: ``python -m tests.benchmarks.explorer``.

On the demo's catalog: how much a first visit fetches, when something is painted, when the linked answer stands, and how
long after a click on a unit the answer without it does. The way there is a loopback connection. Nothing passes or
fails.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect, sync_playwright
from rich.console import Console

from engine import bench
from engine.bench import Figure
from tests.explorer.browser import launched, watched_page
from tests.explorer.services import Service, built_demo, copied_service

_QUESTION: Final = "/#/ask?sketch=names&loss=max&contains=an"
_BYTES, _PAINT_MS, _FOLLOWS_MS = 300, 1_000, 100

_PAINTED: Final = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
_CLICKED: Final = """
unit => new Promise(done => {
    const place = document.querySelector("#answers");
    const began = performance.now();
    const seen = new MutationObserver(() => {
        if (!place.querySelector(".verdict")) return;
        seen.disconnect();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    });
    seen.observe(place, { childList: true });
    document.querySelector(`#influences input[value="${unit}"]`).click();
})
"""


def measure(browser: Browser, service: Service, rounds: int) -> list[Figure]:
    """The figures, medians of some rounds; each round is a first visit."""
    sizes: dict[str, int] = {}
    painted, answered, followed = [], [], []
    for number in range(rounds + 1):
        with watched_page(browser, service.url) as page:
            if not number:  # which also warms up: the text is measured
                page.on("response", lambda one: sizes.update({one.url: len(one.body())}))
            page.goto(_QUESTION)
            expect(page.locator("#answers .verdict")).to_be_visible()
            now = float(page.evaluate("() => performance.now()"))
            expect(page.locator("#influences input").first).to_be_visible()
            if number:
                answered.append(now)
                painted.append(float(page.evaluate(_PAINTED)))
                followed += _clicks(page)
    own = sum(size for url, size in sizes.items() if url == f"{service.url}/" or "/explorer/" in url)
    return [
        Figure(name="all files of the page", value=own / 1000, unit="kB", target=_BYTES),
        Figure(name="first visit, first paint", value=statistics.median(painted), unit="ms", target=_PAINT_MS),
        Figure(name="first visit, linked answer stands", value=statistics.median(answered), unit="ms"),
        Figure(name="click on a unit, answer stands", value=statistics.median(followed), unit="ms", target=_FOLLOWS_MS),
        Figure(name="click on a unit, slowest", value=max(followed), unit="ms", target=_FOLLOWS_MS),
    ]


def _clicks(page: Page) -> list[float]:
    """How long each click on a unit took until the next frame with the new answer, in milliseconds."""
    units = [box.get_attribute("value") for box in page.locator("#influences input").all()]
    return [float(page.evaluate(_CLICKED, unit)) for unit in units]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How quick the explorer is in a real browser.")
    parser.add_argument("--data-dir", type=Path, help="of a demo that was built already")
    parser.add_argument("--rounds", type=int, default=5, help="first visits")
    parser.add_argument("--output", type=Path, help="file of JSON lines that the figures are appended to")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        demo = given.data_dir or built_demo(Path(place) / "demo")
        with (
            copied_service(demo, Path(place) / "copy") as service,
            sync_playwright() as playwright,
            launched(playwright) as browser,
        ):
            figures, about = measure(browser, service, given.rounds), {**bench.conditions("cpu"), **_about(browser)}
    Console().print(bench.table(figures, about), highlight=False)
    if given.output is not None:
        bench.append(given.output, figures, about)


def _about(browser: Browser) -> dict[str, str]:
    return {"browser": f"Chromium {browser.version}"}


if __name__ == "__main__":
    main()
