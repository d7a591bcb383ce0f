"""Datasets: what goes in comes out, nothing changes afterwards, and lists are cut into pages."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app import catalog
from app.db import Database, transaction
from app.errors import ConflictError, InvalidTextError, NotFoundError
from engine.documents import Documents

printable = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
records = st.one_of(
    st.lists(st.tuples(printable, st.none()), min_size=1, max_size=20),
    st.lists(st.tuples(printable, st.sampled_from(["a", "B", "ä", "0"])), min_size=1, max_size=20),
)


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


def test_units_are_subjects_or_documents(session: Session, names: Documents, people: Documents) -> None:
    for name, documents, units in (("names", names, ["0", "1", "2"]), ("people", people, ["ann", "bob", "zoë"])):
        dataset = catalog.add_dataset(session, name=name, documents=documents)
        page = catalog.list_units(session, dataset, limit=3, offset=0)
        assert [(row.number, row.name) for row in page.items] == list(enumerate(units))


def test_many_documents_go_in_and_out_together(session: Session) -> None:
    documents = Documents.from_records((f"document {i}", f"subject {i % 5000}") for i in range(20_000))
    dataset = catalog.add_dataset(session, name="many", documents=documents)
    assert catalog.load_documents(session, dataset) == documents
