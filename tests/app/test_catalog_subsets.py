"""Deletion sets: which units a rule, a list or a name chooses, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import catalog
from app.catalog import ByDocuments, BySubset, ByUnits, Containing, Deletion, Matching, SubsetRule
from app.errors import AppError, ConflictError, InvalidTextError, NotFoundError, PatternError
from app.tables import Dataset, SubsetMember
from engine.documents import Documents
from engine.errors import DeletionSetError, EngineError


@pytest.fixture
def names_row(session: Session, names: Documents) -> Dataset:
    return catalog.add_dataset(session, name="names", documents=names)


@pytest.fixture
def people_row(session: Session, people: Documents) -> Dataset:
    return catalog.add_dataset(session, name="people", documents=people)


@pytest.mark.parametrize(
    ("rule", "units", "documents"),
    [
        (ByDocuments([5, 0]), [0, 5], 2),
        (ByUnits(["4", "1"]), [1, 4], 2),
        (Containing("x"), [2, 3, 5], 3),
        (Containing("M"), [3], 1),
        (Matching("^[mM]"), [2, 3], 2),
        (Matching("(?i)MAX|zoe$"), [2, 3, 4], 3),
    ],
)
def test_each_document_is_a_unit_without_subjects(
    session: Session, names_row: Dataset, rule: SubsetRule, units: list[int], documents: int
) -> None:
    chosen = catalog.resolve_units(session, names_row, rule)
    assert (chosen.units, chosen.documents) == (units, documents)


@pytest.mark.parametrize(
    ("rule", "units", "documents"),
    [
        (ByDocuments([5, 1, 0, 2]), [0, 1], 4),
        (ByUnits(["zoë"]), [2], 2),
        (Containing("5"), [0], 3),  # one document of ann's: all of hers go
        (Matching("[13]$"), [1, 2], 3),
    ],
)
def test_a_subject_is_deleted_whole(
    session: Session, people_row: Dataset, rule: SubsetRule, units: list[int], documents: int
) -> None:
    chosen = catalog.resolve_units(session, people_row, rule)
    assert (chosen.units, chosen.documents) == (units, documents)
    subset = catalog.add_subset(session, dataset=people_row, name="some", rule=rule)
    assert (subset.unit_count, subset.document_count) == (len(units), documents)
    assert catalog.resolve_units(session, people_row, BySubset("some")) == chosen
    members = catalog.list_units(session, people_row, subset=subset, limit=9, offset=0)
    assert [unit.number for unit in members.items] == units
    texts = catalog.list_documents(session, people_row, subset=subset, limit=9, offset=0)
    assert texts.total == documents


@pytest.mark.parametrize(
    ("delete", "error", "message"),
    [
        (ByDocuments([6]), DeletionSetError, "no document 6: those of the dataset 'people' are numbered from 0 to 5"),
        (ByDocuments([-1]), DeletionSetError, "no document -1"),
        (ByDocuments([10**400]), DeletionSetError, r"no document 1000\d*\.\.\.\d*0: "),
        (ByDocuments([1, 3, 1]), DeletionSetError, "document 1 is named more than once"),
        (ByDocuments([1, 2]), DeletionSetError, "Document 2 belongs to unit 0, .* add document 0, 5, or name the unit"),
        (ByDocuments([]), DeletionSetError, "is empty"),
        (ByDocuments([5, 4, 3, 2, 1, 0]), DeletionSetError, "is the whole dataset 'people'"),
        (ByUnits([]), DeletionSetError, "is empty"),
        (ByUnits(["ann", "ann"]), DeletionSetError, "unit 'ann' is named more than once"),
        (ByUnits(["ann", "bob", "zoë"]), DeletionSetError, "is the whole dataset"),
        (ByUnits(["Ann"]), NotFoundError, "no unit 'Ann' in the dataset 'people'"),
        (ByUnits(["\0"]), NotFoundError, r"no unit '\\x00'"),
        (ByUnits(["\udcff"]), NotFoundError, r"no unit '\\udcff'"),
        (BySubset("nobody"), NotFoundError, "no subset 'nobody' of the dataset 'people'. Known: some."),
        (Containing("7"), DeletionSetError, "is empty"),
        (Containing("text"), DeletionSetError, "is the whole dataset"),
        (Containing("\0"), InvalidTextError, r"substring holds the unprintable character '\\x00'"),
        (Matching("7"), DeletionSetError, "is empty"),
        (Matching("("), PatternError, r"Not a regular expression: missing \), unterminated subpattern at position 0"),
        (Matching("\n"), InvalidTextError, "regular expression holds the unprintable"),
    ],
)
def test_what_is_no_deletion_set_is_refused(
    session: Session,
    people_row: Dataset,
    delete: Deletion | SubsetRule,
    error: type[AppError | EngineError],
    message: str,
) -> None:
    catalog.add_subset(session, dataset=people_row, name="some", rule=ByUnits(["bob"]))
    with pytest.raises(error, match=message):
        catalog.resolve_units(session, people_row, delete)
    if not isinstance(delete, BySubset):
        with pytest.raises(error, match=message):
            catalog.add_subset(session, dataset=people_row, name="other", rule=delete)
    assert catalog.list_subsets(session, people_row, limit=9, offset=0).total == 1


def test_a_part_of_a_large_unit_is_refused_briefly(session: Session) -> None:
    documents = Documents.from_records([("x", "ann")] * 1_000 + [("x", "bob")])
    dataset = catalog.add_dataset(session, name="large", documents=documents)
    with pytest.raises(DeletionSetError, match=r"add document 1, 2, 3, 4, 5 and 994 more, or name the unit"):
        catalog.resolve_units(session, dataset, ByDocuments([0]))


def test_a_refusal_shows_nobody_a_subject(session: Session, people_row: Dataset) -> None:
    with pytest.raises(DeletionSetError) as refused:
        catalog.resolve_units(session, people_row, ByDocuments([0]))
    assert "ann" not in str(refused.value)


def test_a_subset_is_of_its_dataset(session: Session, names_row: Dataset, people_row: Dataset) -> None:
    catalog.add_subset(session, dataset=names_row, name="some", rule=ByDocuments([0]))
    with pytest.raises(NotFoundError, match=r"no subset 'some' of the dataset 'people'. None exists yet."):
        catalog.get_subset(session, people_row, "some")
    catalog.add_subset(session, dataset=people_row, name="some", rule=ByUnits(["bob"]))
    assert catalog.get_subset(session, people_row, "some").dataset is people_row


def test_a_subset_never_changes(session: Session, names_row: Dataset) -> None:
    catalog.add_subset(session, dataset=names_row, name="has-x", rule=Containing("x"))
    with pytest.raises(ConflictError, match="has a subset 'has-x' already"):
        catalog.add_subset(session, dataset=names_row, name="has-x", rule=Containing("z"))
    subset = catalog.get_subset(session, names_row, "has-x")
    assert (subset.kind, subset.pattern, subset.unit_count) == ("contains", "x", 3)


def test_the_database_refuses_another_datasets_member(
    session: Session, names_row: Dataset, people_row: Dataset
) -> None:
    subset = catalog.add_subset(session, dataset=names_row, name="some", rule=ByDocuments([0]))
    stray = {"subset_id": subset.id, "dataset_id": people_row.id, "unit_number": 1}
    with pytest.raises(IntegrityError), session.begin_nested():
        session.execute(insert(SubsetMember), [stray])


# The fixtures are shared by all examples, which write nothing.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.integers(-2, 8), max_size=8))
def test_documents_choose_exactly_the_units_that_they_fill(
    session: Session, people_row: Dataset, people: Documents, numbers: list[int]
) -> None:
    wanted = set(numbers)
    units = {people.unit_of[number] for number in wanted if 0 <= number < len(people)}
    filled = {number for number, unit in enumerate(people.unit_of) if unit in units}
    if len(numbers) == len(wanted) and wanted == filled and 0 < len(units) < people.unit_count:
        chosen = catalog.resolve_units(session, people_row, ByDocuments(numbers))
        assert (chosen.units, chosen.documents) == (sorted(units), len(numbers))
    else:
        with pytest.raises(DeletionSetError):
            catalog.resolve_units(session, people_row, ByDocuments(numbers))


def test_thousands_of_documents_and_units_can_be_named(session: Session) -> None:
    documents = Documents.from_records((f"text {i}", f"subject {i % 5_000}") for i in range(10_000))
    dataset = catalog.add_dataset(session, name="many", documents=documents)
    most = [i for i in range(10_000) if i % 5_000 != 7]
    chosen = catalog.resolve_units(session, dataset, ByDocuments(most))
    assert (len(chosen.units), chosen.documents) == (4_999, 9_998)
    named = catalog.resolve_units(session, dataset, ByUnits([f"subject {i}" for i in range(4_000)]))
    assert (named.units, named.documents) == (list(range(4_000)), 8_000)


def test_more_units_are_named_than_a_statement_has_parameters(session: Session) -> None:
    documents = Documents.from_records((f"text {i}", None) for i in range(40_000))
    dataset = catalog.add_dataset(session, name="many", documents=documents)
    chosen = catalog.resolve_units(session, dataset, Matching("[^7]$"))
    assert (len(chosen.units), chosen.documents) == (36_000, 36_000)
    names = catalog.names_of_deletion(session, dataset, chosen)
    assert names == [str(i) for i in range(40_000) if i % 10 != 7]


def test_a_text_rule_is_pythons(session: Session, names_row: Dataset, names: Documents) -> None:
    for pattern in ("a", "^.{3}$", r"\bmax\b", "[^aeiou]{2}", "(.).*\\1"):
        chosen = catalog.resolve_units(session, names_row, Matching(pattern))
        assert chosen.units == [i for i, text in enumerate(names.texts) if re.search(pattern, text)]
