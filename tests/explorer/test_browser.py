"""The tests' own tools: a page's faults are noticed, and the services are what they are said to be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from playwright.sync_api import Browser, Page, ViewportSize
from playwright.sync_api import Error as BrowserError

from app.catalog import SCOPES
from app.settings import Settings
from tests.app.conftest import until
from tests.app.servers import Said, saying
from tests.explorer import browser as tools
from tests.explorer.browser import find_axe, find_browser, missing, watched_page
from tests.explorer.conftest import Axe, Screenshot
from tests.explorer.services import SUBJECTS, SUBSETS, Service, address_of, built_catalog, running

ROOT = Path(__file__).parent.parent.parent
PHONE: ViewportSize = {"width": 390, "height": 844}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="

ACCESSIBLE = """
<!doctype html><html lang="en"><title>Site</title><link rel="icon" href="data:,">
<main><h1>A site</h1><p>With words.</p></main>
"""

site = FastAPI(openapi_url=None)


@site.get("/")
async def plain() -> HTMLResponse:
    return HTMLResponse(ACCESSIBLE)


@site.get("/strict")
async def strict() -> HTMLResponse:
    """A page whose policy lets it do nothing, and which has an image without words for those who can't see it."""
    policy = "default-src 'none'; img-src data:; require-trusted-types-for 'script'; trusted-types 'none'"
    image = f'<img src="{PIXEL}">'
    return HTMLResponse(ACCESSIBLE.replace("</p>", f"</p>{image}"), headers={"Content-Security-Policy": policy})


@site.get("/guarded")
async def guarded() -> HTMLResponse:
    """A page whose policy lets it run scripts of its own, and make none of text."""
    return HTMLResponse(
        ACCESSIBLE + '<script src="/tries.js"></script>', headers={"Content-Security-Policy": "script-src 'self'"}
    )


@site.get("/tries.js")
async def tries() -> Response:
    return Response("try { eval('1') } catch { document.title = 'caught' }", media_type="text/javascript")


@site.get("/onward/{steps}")
async def onward(steps: int) -> HTMLResponse:
    """A page that is left at once for the next, until there are no more steps."""
    return HTMLResponse(f"<script>location = '/onward/{steps - 1}'</script>" if steps else ACCESSIBLE)


@site.get("/refused/{status}")
async def refused(status: int) -> Response:
    return Response(status_code=status)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Address of a small site."""
    with running(site, Settings(port=0)) as url:
        yield url


@pytest.fixture
def site_page(browser: Browser, origin: str, expected_statuses: set[int]) -> Iterator[Page]:
    """The site's first page."""
    with watched_page(browser, origin, expected_statuses=expected_statuses) as page:
        page.goto("/")
        yield page


# Faults


def faults(browser: Browser, origin: str, does: str, *, path: str = "/", expected_statuses: Sequence[int] = ()) -> str:
    """What fails the test of a page that does something; nothing, where nothing does."""
    try:
        with watched_page(browser, origin, expected_statuses=expected_statuses) as page:
            page.goto(path)
            page.evaluate(f"() => {does}")
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("console.error('a word', 7)", "console.error: a word 7"),
        ("console.warn('a word')", "console.warning: a word"),
        ("console.assert(false, 'a word')", "console.assert: a word"),
        ("setTimeout(() => { throw new Error('a word') })", "an exception: Error: a word"),
        ("{ Promise.reject(new Error('a word')) }", "an exception: Error: a word"),
        ("fetch('http://example.org/x').catch(() => {})", "a request to elsewhere: http://example.org/x"),
        ("{ new Image().src = 'http://192.0.2.1/x.png' }", "a request to elsewhere: http://192.0.2.1/x.png"),
        ("{ new WebSocket('ws://example.org/') }", "a connection, of which the service has none: ws://example.org/"),
        ("fetch('/refused/404').then(() => {})", "/refused/404 was answered 404"),
        ("{ fetch('/refused/503') }", "/refused/503 was answered 503"),
        ("{ open('/refused/404') }", "/refused/404 was answered 404"),
        ("{ location = '/refused/404' }", "/refused/404 was answered 404"),
    ],
)
def test_a_page_that_does_what_it_mustnt_fails_its_test(browser: Browser, origin: str, does: str, told: str) -> None:
    assert told in faults(browser, origin, does)


def test_another_port_of_this_machine_is_elsewhere(browser: Browser, origin: str) -> None:
    with saying(Said()) as other:
        asked = f"fetch('{other.url}/x', {{mode: 'no-cors'}}).then(() => {{}})"
        assert f"a request to elsewhere: {other.url}/x" in faults(browser, origin, asked)


def test_a_request_that_fails_fails_its_test(browser: Browser) -> None:
    page = Said(body=ACCESSIBLE.encode(), headers={"Content-Type": "text/html"})
    with saying(page, Said(status=None)) as hanging_up:
        told = faults(browser, hanging_up.url, "fetch('/x').catch(() => {})")
    assert f"GET {hanging_up.url}/x failed: net::ERR_EMPTY_RESPONSE" in told


def test_what_a_policy_forbids_fails_the_test_even_where_the_page_hides_it(browser: Browser, origin: str) -> None:
    told = faults(browser, origin, "{ if (document.title !== 'caught') throw new Error() }", path="/guarded")
    assert "content security policy: script-src forbids eval" in told
    assert "an exception" not in told


def test_a_fault_of_a_page_that_is_left_is_kept(browser: Browser, origin: str) -> None:
    assert "a word" in faults(browser, origin, "{ console.error('a word'); location = '/strict' }")


def test_a_page_that_goes_on_and_on_is_waited_for(browser: Browser, origin: str) -> None:
    told = faults(browser, origin, "{ console.error('a word'); location = '/onward/9' }")
    assert "a word" in told
    assert "failed" not in told


@pytest.mark.parametrize(
    "does",
    [
        "console.log('a word')",
        "fetch('/').then(answer => answer.text())",
        "{ const newer = new AbortController(); fetch('/', newer).catch(() => {}); newer.abort() }",
        f"fetch('{PIXEL}').then(() => {{}})",
        "{ open('/') }",
        "{ location = '/strict' }",
    ],
)
def test_a_page_that_does_what_it_may_fails_no_test(site_page: Page, does: str) -> None:
    site_page.evaluate(f"() => {does}")


def test_an_expected_refusal_is_no_fault(site_page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(404)
    assert site_page.evaluate("() => fetch('/refused/404').then(answer => answer.status)") == 404


def test_a_refusal_other_than_the_expected_is_a_fault(browser: Browser, origin: str) -> None:
    both = "Promise.all([fetch('/refused/404'), fetch('/refused/409')]).then(() => {})"
    told = faults(browser, origin, both, expected_statuses=[404])
    assert "was answered 409" in told
    assert "/refused/404" not in told


def test_an_expected_refusal_that_doesnt_come_is_a_fault(
    browser: Browser, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.explorer.browser._REFUSAL_SECONDS", 0.1)
    assert "404 was expected" in faults(browser, origin, "{}", expected_statuses=[404])


def test_a_failure_of_the_test_itself_is_told_rather_than_faults(browser: Browser, origin: str) -> None:
    with pytest.raises(BrowserError, match="of the test"):
        faults(browser, origin, "{ console.error('a word'); throw new Error('of the test') }")


def test_each_page_starts_with_nothing(browser: Browser, origin: str) -> None:
    for _ in range(2):
        with watched_page(browser, origin) as page:
            page.goto("/")
            assert page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
            page.evaluate("() => { localStorage.x = 1; document.cookie = 'x=1' }")


@pytest.mark.parametrize("viewport", [PHONE])
def test_a_test_chooses_the_size_of_its_page(page: Page, viewport: ViewportSize) -> None:
    assert page.evaluate("() => [innerWidth, innerHeight]") == [viewport["width"], viewport["height"]]


# Accessibility and pictures


def test_an_image_without_words_is_inaccessible_whatever_the_policy(site_page: Page, axe: Axe) -> None:
    assert axe(site_page) == []
    site_page.goto("/strict")
    [told] = axe(site_page)
    assert told.startswith("image-alt (critical): ")
    assert PIXEL in told


def test_pale_words_are_inaccessible(site_page: Page, axe: Axe) -> None:
    site_page.evaluate("() => { document.querySelector('p').style.color = '#ccc' }")
    [told] = axe(site_page)
    assert told.startswith("color-contrast (serious): ")


def test_what_is_moderate_is_not_told(site_page: Page, axe: Axe) -> None:
    site_page.evaluate("() => { document.querySelector('h1').outerHTML = '<h4>A site</h4>' }")
    assert axe(site_page) == []
    assert "page-has-heading-one" in site_page.evaluate("async () => (await axe.run()).violations.map(one => one.id)")


def test_axe_is_of_the_pinned_version() -> None:
    axe = find_axe()
    if axe is None:
        missing("axe-core")
    [pin] = re.findall(r"^AXE := axe-core@([\d.]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert json.loads((axe.parent / "package.json").read_text())["version"] == pin


def test_a_picture_is_kept_where_it_is_wanted_and_git_ignores_it(
    site_page: Page, screenshot: Screenshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCREENSHOTS", raising=False)
    assert screenshot(site_page, "site") is None
    monkeypatch.setenv("SCREENSHOTS", str(tmp_path / "a" / "b"))
    path = screenshot(site_page, "site")
    assert path == tmp_path / "a" / "b" / "site.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert (path.parent / ".gitignore").read_text() == "*\n"


# What is missing


@pytest.mark.parametrize("set_to", [None, "", "false"])
def test_what_is_missing_skips_its_tests(monkeypatch: pytest.MonkeyPatch, set_to: str | None) -> None:
    if set_to is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", set_to)
    with pytest.raises(pytest.skip.Exception, match="a browser is missing: `make browser`"):
        missing("a browser")


def test_what_is_missing_in_continuous_integration_fails_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="a browser is missing, and CI is set"):
        missing("a browser")


def test_a_missing_axe_is_missed(site_page: Page, axe: Axe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "_AXE", tmp_path / "axe.min.js")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="axe-core is missing"):
        axe(site_page)


def program(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_browser_is_the_first_that_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() is None
    for name in ("google-chrome", "chromium-browser", "chromium"):
        there = program(tmp_path / name)
        assert find_browser() == there


def test_the_browser_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "chromium")
    monkeypatch.setenv("PATH", str(tmp_path))
    named = program(tmp_path / "elsewhere" / "chrome")
    monkeypatch.setenv("CHROMIUM", str(named))
    assert find_browser() == named
    monkeypatch.setenv("CHROMIUM", str(tmp_path / "nowhere"))
    with pytest.raises(pytest.fail.Exception, match="nowhere, which is no program"):
        find_browser()


def test_continuous_integration_has_a_browser_and_misses_nothing() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines.index("export CI=true") < lines.index("make browser SUDO='sudo -n'") < lines.index("make test")


# Services


def get(service: Service, path: str, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.get(service.url + path, headers=headers, timeout=60)


def post(service: Service, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = httpx.post(service.url + path, json=body, timeout=60)
    assert response.is_success, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ended(service: Service, path: str) -> dict[str, Any]:
    """What has been worked on to its end."""
    answer: dict[str, Any] = {}

    def over() -> bool:
        answer.update(get(service, path).json())
        return answer["state"] in ("completed", "cancelled", "finished", "failed")

    assert until(over, seconds=60), answer
    return answer


def test_the_catalog_holds_what_it_says(service: Service) -> None:
    datasets = {one["name"]: one for one in get(service, "/datasets").json()["items"]}
    assert set(datasets) == set(SUBSETS)
    counts = {name: (one["document_count"], one["unit_count"]) for name, one in datasets.items()}
    assert counts == {"census-names": (160, 160), "census-subjects": (120, SUBJECTS.unit_count)}
    assert SUBJECTS.unit_count < 120
    for name, subsets in SUBSETS.items():
        assert {one["name"] for one in get(service, f"/datasets/{name}/subsets").json()["items"]} == set(subsets)
    assert {one["name"] for one in get(service, "/sketches").json()["items"]} == {"names", "subjects"}


@pytest.mark.parametrize(
    ("sketch", "estimators"), [("names", {"regression", "axes", "hybrid", "interpolation"}), ("subjects", {"sphere"})]
)
def test_each_sketch_answers_in_its_own_way(service: Service, sketch: str, estimators: set[str]) -> None:
    question = {
        "sketch": sketch,
        "delete": {"subset": "has-x"},
        "measurements": [{"kind": "loss", "text": "roxana"}],
        "degree": 3,
    }
    [prediction] = post(service, "/predict", question)["predictions"]
    assert prediction["estimator"] in estimators
    assert prediction["interval"][0] < prediction["estimate"] < prediction["interval"][1]


def test_an_answer_is_verified(service: Service) -> None:
    question = {
        "sketch": "names",
        "delete": {"subset": "has-z"},
        "measurements": [{"kind": "loss", "text": "zoe"}],
        "verify": True,
    }
    link = post(service, "/predict", question)["verification"]
    assert ended(service, f"/verifications/{link['id']}")["state"] == "finished"


def test_a_request_is_completed_with_evidence_and_only_its_own_service_knows(
    own_service: Service, service: Service
) -> None:
    person = SUBJECTS.unit_names[SUBJECTS.unit_of[0]]
    body = {"id": "dsar-1", "identities": [{"type": "email", "value": address_of(person)}], "mode": "erase"}
    taken = post(own_service, "/erasure-requests", body)
    done = ended(own_service, f"/erasure-requests/{taken['id']}")
    assert (done["state"], done["units"]) == ("completed", 1)
    assert get(own_service, done["evidence"]).json()["reports"]
    assert get(service, f"/erasure-requests/{taken['id']}").status_code == 404


def test_keys_have_a_scope_each_and_are_needed(keyed_service: Service) -> None:
    assert set(keyed_service.keys) == set(SCOPES)
    assert get(keyed_service, "/datasets").status_code == 401
    allowed = {scope: get(keyed_service, "/datasets", key).status_code for scope, key in keyed_service.keys.items()}
    assert allowed == {scope: 200 if scope == "catalog:read" else 403 for scope in SCOPES}
    assert keyed_service.every_scope is not None
    for path in ("/datasets", "/erasure-requests", "/keys"):
        assert get(keyed_service, path, keyed_service.every_scope).status_code == 200


def test_the_catalog_is_built_once(built: Path) -> None:
    before = (built / "catalog.sqlite").stat()
    assert built_catalog(built.parent) == built
    after = (built / "catalog.sqlite").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not built.with_suffix(".partial").exists()
