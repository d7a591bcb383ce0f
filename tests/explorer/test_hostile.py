"""Hostile texts: shown as text, or refused; none of them runs, hides, or turns what stands around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from app import catalog
from app.building import build_sketch
from app.db import open_database, transaction
from app.settings import Settings
from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.model import ModelConfiguration
from tests.explorer.api import asked
from tests.explorer.browser import eventually, watched_page
from tests.explorer.services import Service, copied_service

MARKUP = "<img src=x onerror=boo()>"
SCRIPT = "<script>boo()</script>"
HEBREW = "שלום<b>עולם"
QUOTES = "\"'`&amp;</td>"
TEXTS = (MARKUP, SCRIPT, HEBREW, QUOTES, "{{7*7}}", "plain")
SUBJECTS = ("<i>ann", "שרה", "\"bob'", "<script>", "${1}", "&lt;")
UNPRINTABLE = "a\u202eb\u200bc\u0007d"
MEGABYTE = "x" * 1_000_000

HOOK = "window.boos = 0; window.boo = () => { window.boos += 1; }"


@pytest.fixture(scope="module")
def hostile_service(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose documents and subjects are hostile."""
    data_dir = tmp_path_factory.mktemp("hostile") / "var"
    with copied_service(built, data_dir) as service:
        settings = Settings(data_dir=data_dir)
        documents = Documents.from_records(zip(TEXTS, SUBJECTS, strict=True))
        database = open_database(settings)
        with transaction(database) as session:
            row = catalog.add_dataset(session, name="hostile", documents=documents, description=MARKUP)
            catalog.add_subset(session, dataset=row, name="markup", rule=catalog.Containing("<"))
        model = ModelConfiguration(vocabulary=documents.vocabulary, context=32)
        configuration = SketchConfiguration(model=model, axes=True, anchors=32, directions=4)
        build_sketch(
            database,
            settings,
            sketch="hostile",
            dataset="hostile",
            configuration=configuration,
            progress=lambda done, total: None,
        )
        database.dispose()
        yield service


@pytest.fixture
def page(browser: Browser, hostile_service: Service, expected_statuses: set[int]) -> Iterator[Page]:
    with watched_page(browser, hostile_service.url, expected_statuses=expected_statuses) as page:
        page.add_init_script(HOOK)
        yield page
        assert page.evaluate("() => window.boos") == 0


def test_documents_and_subjects_are_shown_as_they_are(page: Page, hostile_service: Service) -> None:
    page.goto(f"/#/ask?sketch=hostile&loss={quote(MARKUP)}&subset=markup&samples=5")
    rows = page.locator("#found tbody tr")
    expect(rows).to_have_count(len(TEXTS))
    expect(page.locator("#found td:nth-child(2)")).to_have_text(list(TEXTS))
    expect(page.locator("#found td:nth-child(3)")).to_have_text(list(SUBJECTS))
    expect(page.locator("#answers .verdict")).to_contain_text(f"he loss on {MARKUP}")
    expect(page.locator("#influences table")).to_have_count(2)
    shown = set(page.locator("#influences td:nth-child(2) bdi").all_text_contents())
    assert shown <= {*TEXTS, *SUBJECTS}
    assert shown & {MARKUP, SCRIPT}
    page.locator("#search-by").select_option("subject")
    expect(page.locator("#found td:nth-child(2)")).to_have_text(list(SUBJECTS))
    expect(page.locator("#samples-texts tbody tr")).to_have_count(5)
    page.get_by_role("link", name="Trust").click()
    expect(page.locator("#facts")).to_contain_text(MARKUP)
    assert page.locator("#facts img").count() == 0


def test_texts_that_turn_the_direction_are_held_apart(page: Page) -> None:
    page.goto(f"/#/ask?sketch=hostile&loss={quote(HEBREW)}&subset=markup")
    quoted = page.locator("#answers .verdict bdi").first
    expect(quoted).to_have_text(HEBREW)


def test_what_does_not_print_is_shown_as_its_number_and_refused(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(400)
    page.goto(
        f"/#/ask?sketch=hostile&loss={quote(UNPRINTABLE)}&contains={quote(UNPRINTABLE)}&add={quote(UNPRINTABLE)}&add=x"
    )
    expect(page.locator("#chosen bdi").first).to_have_text("a\\u{202e}b\\u{200b}c\\u{7}d")
    expect(page.locator("#delete-problem .problem")).to_be_visible()


@pytest.mark.parametrize("label", ["Loss of", "What to find", "Or a unit by its name"])
def test_a_megabyte_is_refused_in_words_and_the_page_goes_on(page: Page, label: str) -> None:
    page.goto("/#/ask?sketch=hostile&subset=markup")
    field = page.locator("#ask-form").get_by_label(label, exact=True)
    expect(page.locator("#found tbody tr")).to_have_count(len(TEXTS))
    field.fill(MEGABYTE)
    if label.endswith("name"):
        field.press("Enter")
    expect(page.locator("#ask-form .problem:visible")).to_contain_text("1,000,000 characters")
    page.wait_for_timeout(300)  # longer than a field waits for more to be typed
    assert len(page.url) < 1_000
    field.fill("plain")
    if label.endswith("name"):
        field.fill("${1}")
        field.press("Enter")
    expect(page.locator("#ask-form .problem:visible")).to_have_count(0)


def test_a_megabyte_as_a_prompt_of_texts_is_refused(page: Page, expected_statuses: set[int]) -> None:
    expected_statuses.add(400)
    page.goto("/#/ask?sketch=hostile&subset=markup&loss=plain")
    page.get_by_label("Beginning with").fill("p" * 5_000)
    page.get_by_role("button", name="Draw").click()
    expect(page.locator("#samples-texts .problem")).to_be_visible()


@pytest.mark.parametrize(
    ("address", "statuses"),
    [
        ("#/ask?sketch=<script>boo()</script>", {404}),
        ("#/ask?sketch=../../keys%3f&version=1e99&confidence=NaN&estimator=<b>&degree=-3&samples=1e9&seed=x", {404}),
        ("#/requests?state=<b>&request=../../audit", {404, 422}),
        ("#//evil.example/?sketch=hostile", set()),
        ("#/trust?sketch=%00%ff%zz&calibrated=" + "%F0%9F%98%80" * 50, {422}),
        ("#/ask?sketch=hostile&" + "&add=1" * 20_000, {404}),
    ],
    ids=["script", "path", "requests", "elsewhere", "bytes", "many"],
)
def test_no_address_does_harm(page: Page, expected_statuses: set[int], address: str, statuses: set[int]) -> None:
    expected_statuses |= statuses
    came: set[int] = set()
    page.on("response", lambda response: came.add(response.status))
    page.goto(f"/{address}")
    expect(page.get_by_role("link", name="Neverseen")).to_be_visible()
    assert eventually(page, lambda: statuses <= came)
    page.wait_for_load_state("networkidle")
    assert page.locator("main script, main img").count() == 0


def test_requests_with_hostile_ids_are_shown_as_text(page: Page, hostile_service: Service) -> None:
    body = {"id": MARKUP + HEBREW, "identities": [{"type": "email", "value": "nobody@example.org"}]}
    taken = asked(hostile_service, "/erasure-requests", body)
    page.goto(f"/#/requests?request={taken['id']}")
    expect(page.locator("#request h2").first).to_contain_text(MARKUP)
    expect(page.frame_locator("iframe.sheet").locator("bdi").first).to_contain_text(MARKUP, timeout=30_000)
    expect(page.frame_locator("iframe.sheet").locator("img")).to_have_count(0)
