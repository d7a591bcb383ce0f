"""A browser that watches its pages: what a page of ours never does is a fault, and axe-core says what is inaccessible.

The browser is the system's own Chromium, or the one that CHROMIUM names; `make browser` installs it, and axe-core.
Where SLOW_NETWORK names a seed, answers come late and in an order that it draws: a test that passes there waits for
what it reads.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    Response,
    Route,
    ViewportSize,
    WebError,
    WebSocketRoute,
)
from playwright.sync_api import Error as BrowserError

DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 800}

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
_AXE: Final = Path(sys.prefix) / "axe" / "node_modules" / "axe-core" / "axe.min.js"
_HOW: Final = "`make browser` installs it"

_ARGUMENTS: Final = (
    # Ours are the only pages that it shows; its sandbox refuses root, and needs more than containers usually allow.
    "--no-sandbox",
    # Nothing outside this machine is ever asked, whatever a page or the browser itself wants.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

_WAIT_MS: Final = 30_000  # for an element, or a page; a busy machine is slow
_SLOWEST_MS: Final = 2_000  # of answers, where SLOW_NETWORK is set
_SETTLE_SECONDS: Final = 2.0
_REFUSAL_SECONDS: Final = 30.0  # for one that is expected
_REFUSED: Final = 400
_SERIOUS: Final = ("serious", "critical")

_GIVEN_UP: Final = ("net::ERR_ABORTED", "net::ERR_HTTP_RESPONSE_CODE_FAILURE")
"""By the page itself, as where it has a newer question; and a navigation that was refused, whose answer was seen."""

_OF_STATUS: Final = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")

_REPORT_VIOLATIONS: Final = """
addEventListener("securitypolicyviolation", event =>
    reportViolation(`${event.effectiveDirective} forbids ${event.blockedURI || "what is inline"}`))
"""

_NEXT_TURN: Final = "() => new Promise(done => setTimeout(done))"

_SLOW_NETWORK: Final = """
(seed, slowest) => {
    let state = seed;
    const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    const ask = (window.askAtOnce ??= window.fetch); // of a network that is slow already, too
    Object.assign(window, {lost: 0, underWay: 0});
    window.fetch = async (resource, options) => {
        window.underWay += 1;
        try {
            const [wait, lost] = [slowest * random() ** 2, random() < window.lost];
            const answer = await ask(resource, options);
            await answer.clone().arrayBuffer();
            await new Promise((resolve, reject) => {
                setTimeout(resolve, wait);
                options?.signal?.addEventListener("abort", () => reject(options.signal.reason));
            });
            if (lost) throw new TypeError("lost");
            return answer;
        } finally {
            setTimeout(() => (window.underWay -= 1), 50);
        }
    };
}
"""

_RUN_AXE: Final = """
async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.map(one => ({
    id: one.id, impact: one.impact, help: one.help,
    nodes: one.nodes.map(node => ({html: node.html, summary: node.failureSummary})),
}))
"""


# What is there


def find_browser() -> Path | None:
    """The browser's program: the one that CHROMIUM names, or the first that is found; None where there is none."""
    wanted = os.environ.get("CHROMIUM")
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            pytest.fail(f"CHROMIUM names {wanted}, which is no program", pytrace=False)
        return Path(found)
    programs = (shutil.which(name) for name in _PROGRAMS)
    return next((Path(program) for program in programs if program), None)


def find_axe() -> Path | None:
    """The file of axe-core; None where it isn't installed."""
    return _AXE if _AXE.exists() else None


def missing(what: str) -> NoReturn:
    """Skip the test that needs it, or, in continuous integration, fail it: there, nothing may be left out unseen."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{what} is missing, and CI is set: {_HOW}", pytrace=False)
    pytest.skip(f"{what} is missing: {_HOW}")


def launched(playwright: Playwright) -> Browser:
    """The browser, started; without one, the test is skipped."""
    program = find_browser()
    if program is None:
        missing("a browser")
    return playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)


# What is watched


class Watch:
    """Keeps what the pages of a browser's context do that no page of ours does."""

    def __init__(self, context: BrowserContext, origin: str, expected_statuses: Collection[int]) -> None:
        """Watch from now on.

        Args:
            context: without a page yet.
            origin: scheme, host and port that alone may be asked, as a URL.
            expected_statuses: of refusals that are no faults; looked at when they come.
        """
        self.faults: list[str] = []
        self._origin, self._expected = _origin_of(origin), expected_statuses
        self._came: set[int] = set()
        self._unanswered: set[Request] = set()
        context.route_web_socket(lambda url: True, self._see_websocket)
        context.on("request", self._see_request)
        context.on("response", self._see_response)
        context.on("requestfailed", self._see_failure)
        context.on("console", self._see_message)
        context.on("weberror", self._see_error)
        context.expose_binding("reportViolation", self._see_violation)
        context.add_init_script(_REPORT_VIOLATIONS)

    def settle(self, context: BrowserContext) -> None:
        """Wait for what the pages have asked, and for all that they have to say by now."""
        begun = time.monotonic()
        for page in context.pages:
            while self._unanswered and time.monotonic() < begun + _SETTLE_SECONDS:
                page.wait_for_timeout(10)
            while self._missing() and time.monotonic() < begun + _REFUSAL_SECONDS:
                page.wait_for_timeout(10)
            _wait_for_turn(page)
        self.faults += [f"the status {status} was expected, and never came" for status in self._missing()]

    def _missing(self) -> set[int]:
        return set(self._expected) - self._came

    def _see_websocket(self, route: WebSocketRoute) -> None:
        self.faults.append(f"a connection, of which the service has none: {route.url}")

    def _see_violation(self, _: object, what: str) -> None:
        self.faults.append(f"content security policy: {what}")

    def _see_request(self, request: Request) -> None:
        self._unanswered.add(request)
        if urlsplit(request.url).scheme not in ("about", "blob", "data") and _origin_of(request.url) != self._origin:
            self.faults.append(f"a request to elsewhere: {request.url}")

    def _see_response(self, response: Response) -> None:
        self._unanswered.discard(response.request)
        if response.status < _REFUSED:
            return
        if response.status in self._expected:
            self._came.add(response.status)
        else:
            self.faults.append(f"{response.request.method} {response.url} was answered {response.status}")

    def _see_failure(self, request: Request) -> None:
        self._unanswered.discard(request)
        if request.failure not in _GIVEN_UP:
            self.faults.append(f"{request.method} {request.url} failed: {request.failure}")

    def _see_message(self, message: ConsoleMessage) -> None:
        of_status = _OF_STATUS.match(message.text)
        if of_status and int(of_status[1]) in self._expected:
            return
        if message.type in ("assert", "error", "warning"):
            place = message.location
            self.faults.append(f"console.{message.type}: {message.text} ({place['url']}:{place['lineNumber']})")

    def _see_error(self, error: WebError) -> None:
        self.faults.append(f"an exception: {error.error.stack or error.error.message}")


def eventually(page: Page, happens: Callable[[], bool]) -> bool:
    """Whether something happens in time to a page, which goes on meanwhile."""
    end = time.monotonic() + _WAIT_MS / 1000
    while not (happened := happens()) and time.monotonic() < end:
        page.wait_for_timeout(10)
    return happened


class Held:
    """Keeps questions from the service until they are let go, one after the other.

    Args:
        page: whose questions they are.
        path: a pattern for their addresses.
        part: of their bodies.
    """

    def __init__(self, page: Page, path: str | re.Pattern[str], part: str = "") -> None:
        self._page, self._part, self._held = page, part, list[Route]()
        page.route(path, self._see)

    def _see(self, route: Route) -> None:
        if self._part in (route.request.post_data or ""):
            self._held.append(route)
        else:
            route.continue_()

    def wait(self) -> None:
        """Wait until there is one."""
        assert eventually(self._page, lambda: bool(self._held)), "nothing was asked"

    def let_go(self) -> None:
        """Let the first go, once there is one, and wait for its answer."""
        self.wait()
        route = self._held.pop(0)
        with self._page.expect_response(lambda response: response.request == route.request):
            route.continue_()


def _wait_for_turn(page: Page) -> None:
    """Wait until the page has had a turn, from which on what it did before is known.

    A page on its way to another address loses what it was asked, as often as it is asked before it has arrived.
    """
    end = time.monotonic() + _WAIT_MS / 1000
    while True:
        try:
            page.evaluate(_NEXT_TURN)
            return
        except BrowserError:
            if time.monotonic() > end:
                raise
            page.wait_for_timeout(10)


def _mixed(seed: int) -> int:
    """The seed, other in every test."""
    return zlib.crc32(f"{seed} {os.environ.get('PYTEST_CURRENT_TEST')}".encode())


def _origin_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


@contextmanager
def watched_page(
    browser: Browser,
    origin: str,
    *,
    viewport: ViewportSize = DESKTOP,
    expected_statuses: Collection[int] = (),
    **options: Any,
) -> Iterator[Page]:
    """An empty page, in a context of its own; relative addresses are the origin's.

    Args:
        browser: that shows it.
        origin: scheme, host and port, as a URL.
        viewport: its size in pixels.
        expected_statuses: of refusals that have to come, and are no faults; more may be added meanwhile.
        options: more of the context's: "color_scheme", "locale" …

    Raises:
        AssertionError: at the end, where the page, or one that it opened, wrote an error or a warning on the console,
            let an exception go, asked another origin, was refused something, or did what its policy forbids; or where
            an expected status never came.
    """
    context = browser.new_context(
        base_url=origin, viewport=viewport, service_workers="block", timezone_id="UTC", **options
    )
    try:
        context.set_default_timeout(_WAIT_MS)
        watch = Watch(context, origin, expected_statuses)
        if seed := os.environ.get("SLOW_NETWORK"):
            slow_network(context, _mixed(int(seed)), slowest_ms=_SLOWEST_MS)
        yield context.new_page()
        watch.settle(context)
        faults = list(watch.faults)  # closing gives up requests
    finally:
        context.close()
    assert not faults, "the page did what it mustn't:\n  " + "\n  ".join(faults)


def slow_network(of: BrowserContext | Page, seed: int, *, slowest_ms: float) -> None:
    """Let answers come later, each by a time of its own, and so in another order.

    The window's `lost` is the share of them that is lost, at first none, and `underWay` how many are waited for.

    Args:
        of: whose pages, from their next addresses on.
        seed: of the times.
        slowest_ms: that an answer waits at most; half of them wait less than a quarter of it.
    """
    of.add_init_script(f"({_SLOW_NETWORK})({seed}, {slowest_ms})")


# What is checked


def inaccessible(page: Page) -> list[str]:
    """What axe-core finds serious or critical in a page as it is now; without axe-core, the test is skipped.

    It is run by the browser's debugger, which the page's policy doesn't bind.
    """
    axe = find_axe()
    if axe is None:
        missing("axe-core")
    page.evaluate(axe.read_text(encoding="utf-8"))
    return [_told(one) for one in page.evaluate(_RUN_AXE) if one["impact"] in _SERIOUS]


def _told(violation: Mapping[str, Any]) -> str:
    nodes = "".join(
        f"\n  {node['html']}\n    " + node["summary"].replace("\n", "\n    ") for node in violation["nodes"]
    )
    return f"{violation['id']} ({violation['impact']}): {violation['help']}{nodes}"


def keep_screenshot(page: Page, name: str) -> Path | None:
    """Write a picture of the whole page as NAME.png where SCREENSHOTS says; nothing, where it says nothing.

    Git ignores the directory, wherever it is.

    Returns:
        Where the picture is.
    """
    wanted = os.environ.get("SCREENSHOTS")
    if not wanted:
        return None
    directory = Path(wanted).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n")
    path = directory / f"{name}.png"
    page.screenshot(path=path, full_page=True, animations="disabled")
    return path
