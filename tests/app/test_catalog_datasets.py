"""Datasets: what goes in comes out, nothing changes afterwards, and lists are cut into pages."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app import catalog
from app.catalog import ByDocuments, Containing, ListedDocument, Matching, Page
from app.db import Database, transaction
from app.errors import ConflictError, InvalidTextError, NotFoundError, PatternError
from app.tables import Dataset, Subset
from engine.documents import Documents

printable = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
records = st.one_of(
    st.lists(st.tuples(printable, st.none()), min_size=1, max_size=20),
    st.lists(st.tuples(printable, st.sampled_from(["a", "B", "ä", "0"])), min_size=1, max_size=20),
)


def listed(
    session: Session, dataset: Dataset, *, matches: str, subset: Subset | None = None, limit: int = 50, offset: int = 0
) -> Page[ListedDocument]:
    """A page of the documents that an expression matches."""
    found = catalog.searchable_texts(session, dataset, subset=subset).matching(matches)
    numbers = [number for number, _ in found]
    return catalog.list_documents(session, dataset, found=numbers, limit=limit, offset=offset)


# The fixture is shared by all examples: they differ in their datasets' names.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=records)
def test_documents_come_back_as_they_went_in(database: Database, records: list[tuple[str, str | None]]) -> None:
    documents = Documents.from_records(records)
    name = uuid4().hex
    with transaction(database) as session:
        catalog.add_dataset(session, name=name, documents=documents)
    with transaction(database, writes=False) as session:
        row = catalog.get_dataset(session, name)
        loaded = catalog.load_documents(session, row)
    assert loaded == documents
    assert loaded.fingerprint == row.fingerprint
    assert loaded.vocabulary == row.vocabulary
    assert (row.document_count, row.unit_count, row.has_subjects) == (
        len(documents),
        documents.unit_count,
        documents.has_subjects,
    )


def test_a_name_is_taken_once(session: Session, names: Documents, people: Documents) -> None:
    catalog.add_dataset(session, name="names", documents=names)
    with pytest.raises(ConflictError, match="'names' already, with the same documents"):
        catalog.add_dataset(session, name="names", documents=names)
    with pytest.raises(ConflictError, match="'names' already, with other documents"):
        catalog.add_dataset(session, name="names", documents=people)
    assert catalog.load_documents(session, catalog.get_dataset(session, "names")) == names


def test_a_refused_dataset_leaves_nothing_behind(database: Database, names: Documents) -> None:
    with pytest.raises(InvalidTextError, match="description"), transaction(database) as session:
        catalog.add_dataset(session, name="names", documents=names, description="two\nlines")
    with transaction(database, writes=False) as session:
        assert catalog.list_datasets(session, limit=10, offset=0).total == 0


@pytest.mark.parametrize("name", ["", "Names", "-names", ".", "na mes", "na/mes", "names\n", "n" * 65, "nämes", "n\0"])
def test_a_name_needs_no_quoting_anywhere(session: Session, names: Documents, name: str) -> None:
    with pytest.raises(InvalidTextError, match="can't name a dataset"):
        catalog.add_dataset(session, name=name, documents=names)


def test_an_unknown_dataset_is_told_which_there_are(session: Session, names: Documents) -> None:
    with pytest.raises(NotFoundError, match=r"no dataset 'nmaes'. None exists yet."):
        catalog.get_dataset(session, "nmaes")
    for name in ("names", "census"):
        catalog.add_dataset(session, name=name, documents=names)
    with pytest.raises(NotFoundError, match=r"no dataset 'nmaes'. Known: census, names."):
        catalog.get_dataset(session, "nmaes")


def test_an_unknown_name_is_shown_escaped_and_shortened(session: Session) -> None:
    with pytest.raises(NotFoundError) as refused:
        catalog.get_dataset(session, "\ud800" + "x" * 10_000)
    assert len(str(refused.value)) < 200
    str(refused.value).encode()  # a lone surrogate would be refused here


def test_pages_cover_a_list_without_gap_or_overlap(session: Session, names: Documents) -> None:
    dataset = catalog.add_dataset(session, name="names", documents=names)
    pages = [catalog.list_documents(session, dataset, limit=4, offset=offset) for offset in (0, 4, 8)]
    assert [len(page.items) for page in pages] == [4, 2, 0]
    assert all((page.total, page.limit) == (6, 4) for page in pages)
    assert [row.text for page in pages for row in page.items] == list(names.texts)


@pytest.mark.parametrize("needle", ["a", "x", "M", "max", "%", "_", "\\", "'", "no"])
def test_documents_are_filtered_like_python_does(session: Session, needle: str) -> None:
    documents = Documents.from_records((text, None) for text in ("max", "Max", "50%", "a_b", "a\\b", "a'b", "b"))
    dataset = catalog.add_dataset(session, name="odd", documents=documents)
    page = catalog.list_documents(session, dataset, contains=needle, limit=50, offset=0)
    assert [row.text for row in page.items] == [text for text in documents.texts if needle in text]


# The fixture is shared by all examples: they differ in their datasets' names.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=records, data=st.data())
def test_texts_and_names_are_searched_as_python_does(
    session: Session, records: list[tuple[str, str | None]], data: st.DataObject
) -> None:
    documents = Documents.from_records(records)
    dataset = catalog.add_dataset(session, name=uuid4().hex, documents=documents)
    text = data.draw(st.sampled_from([*documents.texts, *documents.unit_names]) | printable)
    start = data.draw(st.integers(0, len(text) - 1))
    needle = text[start : data.draw(st.integers(start + 1, len(text)))]
    has = [i for i, one in enumerate(documents.texts) if needle in one]
    for page in (
        catalog.list_documents(session, dataset, contains=needle, limit=50, offset=0),
        listed(session, dataset, matches=re.escape(needle)),
    ):
        assert [one.number for one in page.items] == has
        assert [one.text for one in page.items] == [documents.texts[i] for i in has]
        assert [one.unit for one in page.items] == [documents.unit_names[documents.unit_of[i]] for i in has]
    named = catalog.list_units(session, dataset, contains=needle, limit=50, offset=0)
    assert [one.name for one in named.items] == [one for one in documents.unit_names if needle in one]
    units = sorted({documents.unit_of[i] for i in has})
    if 0 < len(units) < documents.unit_count:
        for rule in (Containing(needle), Matching(re.escape(needle))):
            assert catalog.resolve_units(session, dataset, rule).units == units
        assert catalog.resolve_found(session, dataset, set(units)).units == units


def test_an_empty_substring_is_in_every_text(session: Session, people: Documents) -> None:
    dataset = catalog.add_dataset(session, name="people", documents=people)
    assert catalog.list_documents(session, dataset, contains="", limit=9, offset=0).total == len(people)
    assert catalog.list_units(session, dataset, contains="", limit=9, offset=0).total == people.unit_count


def test_pages_of_what_matches_cover_it_without_gap_or_overlap(session: Session, people: Documents) -> None:
    dataset = catalog.add_dataset(session, name="people", documents=people)
    subset = catalog.add_subset(session, dataset=dataset, name="some", rule=ByDocuments([0, 1, 2, 5]))
    for chosen, numbers in ((None, [1, 2, 3, 5]), (subset, [1, 2, 5])):
        pages = [
            listed(session, dataset, matches="[1235]$", subset=chosen, limit=2, offset=offset) for offset in (0, 2, 4)
        ]
        assert [one.number for page in pages for one in page.items] == numbers
        assert {(page.total, page.limit) for page in pages} == {(len(numbers), 2)}
        assert [page.offset for page in pages] == [0, 2, 4]
    assert [(one.number, one.unit_number, one.unit, one.text) for one in pages[0].items] == [
        (1, 1, "bob", "text 1"),
        (2, 0, "ann", "text 2"),
    ]


@pytest.mark.parametrize(
    ("matches", "error", "message"),
    [
        ("(", PatternError, r"Not a regular expression: missing \)"),
        ("a" * 201, PatternError, "longer than 200 characters"),
        ("a\n", InvalidTextError, r"regular expression holds the unprintable character '\\n'"),
    ],
)
def test_what_no_text_can_be_searched_for_is_refused(
    session: Session, names: Documents, matches: str, error: type[Exception], message: str
) -> None:
    dataset = catalog.add_dataset(session, name="names", documents=names)
    with pytest.raises(error, match=message):
        listed(session, dataset, matches=matches)


def test_a_substring_that_no_text_can_have_is_refused(session: Session, names: Documents) -> None:
    dataset = catalog.add_dataset(session, name="names", documents=names)
    with pytest.raises(InvalidTextError, match="substring holds the unprintable"):
        catalog.list_documents(session, dataset, contains="\ud800", limit=9, offset=0)


@pytest.mark.parametrize("needle", ["\0", "\n", "\udcff"])
def test_a_name_that_no_unit_can_have_is_refused(session: Session, names: Documents, needle: str) -> None:
    dataset = catalog.add_dataset(session, name="names", documents=names)
    with pytest.raises(InvalidTextError, match="substring holds the unprintable"):
        catalog.list_units(session, dataset, contains=needle, limit=9, offset=0)


def test_units_say_how_many_documents_they_have(session: Session, names: Documents, people: Documents) -> None:
    for name, documents, counts in (("names", names, [1] * 6), ("people", people, [3, 1, 2])):
        dataset = catalog.add_dataset(session, name=name, documents=documents)
        page = catalog.list_units(session, dataset, limit=9, offset=0)
        assert [one.document_count for one in page.items] == counts
    subset = catalog.add_subset(session, dataset=dataset, name="some", rule=ByDocuments([0, 1, 2, 5]))
    found = catalog.list_units(session, dataset, contains="b", subset=subset, limit=9, offset=0)
    assert [(one.name, one.document_count) for one in found.items] == [("bob", 1)]
    assert catalog.list_units(session, dataset, contains="ZO", limit=9, offset=0).total == 0


def test_units_are_subjects_or_documents(session: Session, names: Documents, people: Documents) -> None:
    for name, documents, units in (("names", names, ["0", "1", "2"]), ("people", people, ["ann", "bob", "zoë"])):
        dataset = catalog.add_dataset(session, name=name, documents=documents)
        page = catalog.list_units(session, dataset, limit=3, offset=0)
        assert [(row.number, row.name) for row in page.items] == list(enumerate(units))


def test_many_documents_go_in_and_out_together(session: Session) -> None:
    documents = Documents.from_records((f"document {i}", f"subject {i % 5000}") for i in range(20_000))
    dataset = catalog.add_dataset(session, name="many", documents=documents)
    assert catalog.load_documents(session, dataset) == documents
