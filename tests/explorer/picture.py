"""Draws the README's picture of the explorer: `python -m tests.explorer.picture docs/figures/explorer.png`.

It asks the demo's first question, verifies the answer, and keeps what a browser shows. The demo is built for it, or
copied from the data directory that `--data-dir` names, in which nothing changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from playwright.sync_api import ViewportSize, expect, sync_playwright

from tests.explorer.browser import launched, watched_page
from tests.explorer.services import built_demo, copied_service

_QUESTION: Final = "/#/ask?sketch=names&loss=max&prompt=ma&completion=x&subset=has-x"
_SIZE: Final[ViewportSize] = {"width": 1440, "height": 980}
_RETRAINED_MS: Final = 120_000


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="of the PNG")
    parser.add_argument("--data-dir", type=Path, help="of a demo that was built already")
    given = parser.parse_args()
    with TemporaryDirectory() as place:
        draw(given.data_dir or built_demo(Path(place) / "demo"), Path(place) / "copy", given.path)


def draw(demo: Path, copy: Path, path: Path) -> None:
    """Serve a copy of the demo, and keep the picture."""
    with (
        copied_service(demo, copy) as service,
        sync_playwright() as playwright,
        launched(playwright) as browser,
        watched_page(browser, service.url, viewport=_SIZE, color_scheme="light") as page,
    ):
        page.goto(_QUESTION)
        expect(page.locator("#influences table").first).to_be_visible(timeout=_RETRAINED_MS)
        page.get_by_role("button", name="Verify").click()
        expect(page.locator("#answers .truth")).to_have_count(2, timeout=_RETRAINED_MS)
        page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        page.screenshot(path=path, animations="disabled")


if __name__ == "__main__":
    main()
