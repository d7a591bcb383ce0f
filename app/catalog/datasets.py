"""Datasets with their documents and units. A dataset is written once and never changes, but that units are erased."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, func, insert, select
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.catalog.membership import StoredMembership
from app.catalog.pages import Page, batches, existing, page, unique
from app.catalog.texts import Texts, containing, erased_numbers, of_dataset, texts_of
from app.errors import ConflictError, NotFoundError
from app.names import check_name, check_printable, is_name, shown
from app.tables import Dataset, Document, Subset, SubsetMember, Unit
from engine.documents import Documents


def add_dataset(
    session: Session,
    *,
    name: str,
    documents: Documents,
    description: str = "",
    predecessor: Dataset | None = None,
    predecessor_numbers: Sequence[int] = (),
) -> Dataset:
    """Write a dataset with its documents and units.

    Args:
        session: a writing transaction.
        name: of the dataset.
        documents: of it.
        description: for people.
        predecessor: the dataset that it is the successor of; None for one of its own.
        predecessor_numbers: the number there of each unit.

    Raises:
        ConflictError: the name is taken, be it by the same documents.
        InvalidTextError: the name or the description can't be stored.
    """
    check_name(name, "dataset")
    check_printable(description, "description")
    taken = session.scalar(select(Dataset.fingerprint).where(Dataset.name == name))
    if taken is not None:
        same = "with the same documents: use it" if taken == documents.fingerprint else "with other documents"
        raise ConflictError(
            f"There is a dataset {name!r} already, {same}. A dataset never changes; choose another name."
        )
    dataset = Dataset(
        name=name,
        description=description,
        fingerprint=documents.fingerprint,
        vocabulary=documents.vocabulary,
        document_count=len(documents),
        unit_count=documents.unit_count,
        has_subjects=documents.has_subjects,
        successor_of_id=None if predecessor is None else predecessor.id,
    )
    with unique(session, f"There is a dataset {name!r} already: it was added a moment ago. Choose another name."):
        session.add(dataset)
    before: Sequence[int | None] = predecessor_numbers if predecessor is not None else [None] * documents.unit_count
    session.execute(
        insert(Unit),
        [
            {"dataset_id": dataset.id, "number": u, "name": unit, "predecessor_number": number}
            for u, (unit, number) in enumerate(zip(documents.unit_names, before, strict=True))
        ],
    )
    session.execute(
        insert(Document),
        [
            {"dataset_id": dataset.id, "number": i, "unit_number": unit, "text": text}
            for i, (text, unit) in enumerate(zip(documents.texts, documents.unit_of, strict=True))
        ],
    )
    record(session, "dataset.create", dataset=name, fingerprint=documents.fingerprint)
    return dataset


def get_dataset(session: Session, name: str) -> Dataset:
    """The dataset of a name.

    Raises:
        NotFoundError: there is none; the message names those that there are.
    """
    dataset = session.scalar(select(Dataset).where(Dataset.name == name)) if is_name(name) else None
    if dataset is None:
        raise NotFoundError(f"There is no dataset {shown(name)}. {existing(session, Dataset.name)}")
    return dataset


def get_dataset_of_id(session: Session, dataset_id: int) -> Dataset:
    """The dataset with an id that there is."""
    return session.get_one(Dataset, dataset_id)


def texts_of_units(session: Session, dataset: Dataset, numbers: Collection[int]) -> list[str]:
    """The texts of the documents of some units, in training order; of erased ones none."""
    query = (
        select(Document.text)
        .join(Unit, and_(Unit.dataset_id == Document.dataset_id, Unit.number == Document.unit_number))
        .where(Document.dataset_id == dataset.id, Document.unit_number.in_(numbers), Unit.erased_at.is_(None))
        .order_by(Document.number)
    )
    return list(session.scalars(query))


def names_of_units(session: Session, dataset: Dataset, numbers: Collection[int]) -> list[str]:
    """The names of some units, by number; of erased ones none."""
    names: list[str] = []
    for batch in batches(sorted(numbers)):
        query = (
            select(Unit.name)
            .where(Unit.dataset_id == dataset.id, Unit.number.in_(batch), Unit.erased_at.is_(None))
            .order_by(Unit.number)
        )
        names.extend(session.scalars(query))
    return names


def list_datasets(session: Session, *, limit: int, offset: int) -> Page[Dataset]:
    """Datasets by name."""
    return page(session, select(Dataset).order_by(Dataset.name), limit=limit, offset=offset)


def load_documents(session: Session, dataset: Dataset) -> Documents:
    """All documents of a dataset, as the engine takes them.

    Raises:
        ConflictError: some were erased.
    """
    if dataset.erased_units:
        raise ConflictError(erased_refusal(dataset))
    rows = session.execute(
        select(Document.text, Document.unit_number).where(Document.dataset_id == dataset.id).order_by(Document.number)
    ).all()
    unit_names = session.scalars(select(Unit.name).where(Unit.dataset_id == dataset.id).order_by(Unit.number)).all()
    return Documents(
        texts=tuple(text for text, _ in rows),
        unit_of=tuple(unit for _, unit in rows),
        unit_names=tuple(unit_names),
        has_subjects=dataset.has_subjects,
    )


def erased_refusal(dataset: Dataset) -> str:
    """Why nothing can be trained on a dataset with erased units, and what to do, in a sentence or two."""
    count = dataset.erased_units
    return (
        f"{count:,} {'unit' if count == 1 else 'units'} of the dataset {dataset.name!r} were erased, so that no model"
        " can be trained on it again: build a successor with neverseen sketches rebuild."
    )


@dataclass(frozen=True, kw_only=True)
class ListedDocument:
    """A document, as a list has it.

    Attributes:
        number: its place in training order, from 0.
        unit_number: that of the unit that it belongs to.
        unit: the unit's name.
        text: of it.
    """

    number: int
    unit_number: int
    unit: str
    text: str


def list_documents(
    session: Session,
    dataset: Dataset,
    *,
    contains: str | None = None,
    found: Sequence[int] | None = None,
    subset: Subset | None = None,
    limit: int,
    offset: int,
) -> Page[ListedDocument]:
    """Documents in training order: all, those that a text is found in, those that a subset deletes.

    Erased ones are left out.

    Args:
        session: any transaction.
        dataset: whose documents they are.
        contains: a substring of their texts; case counts.
        found: instead of all that, the numbers of documents that were searched for, in order.
        subset: that deletes them.
        limit: the most documents of the page.
        offset: how many come before it.

    Raises:
        InvalidTextError: the substring holds an unprintable character.
    """
    if found is not None:
        numbers = Page(items=found[offset : offset + limit], total=len(found), limit=limit, offset=offset)
    else:
        where = _where(dataset, subset)
        if contains is not None:
            where.append(containing(Document.text, contains))
        query = select(Document.number).where(*where).order_by(Document.number)
        numbers = page(session, query, limit=limit, offset=offset)
    items = [one for batch in batches(numbers.items) for one in _documents(session, dataset, batch)]
    return Page(items=items, total=numbers.total, limit=limit, offset=offset)


def searchable_texts(session: Session, dataset: Dataset, *, subset: Subset | None = None) -> Texts:
    """The texts of all documents, or of those that a subset deletes, to be searched after the transaction."""
    return texts_of(session, *_where(dataset, subset))


def _where(dataset: Dataset, subset: Subset | None) -> list[ColumnElement[bool]]:
    where = of_dataset(dataset)
    return where if subset is None else [*where, Document.unit_number.in_(_members(subset))]


def _documents(session: Session, dataset: Dataset, numbers: Collection[int]) -> Iterator[ListedDocument]:
    """The documents of some numbers with the names of their units, in training order; of erased ones none."""
    query = (
        select(Document.number, Document.unit_number, Unit.name, Document.text)
        .join(Unit, and_(Unit.dataset_id == Document.dataset_id, Unit.number == Document.unit_number))
        .where(Document.dataset_id == dataset.id, Document.number.in_(numbers), Unit.erased_at.is_(None))
        .order_by(Document.number)
    )
    for number, unit_number, unit, text in session.execute(query):
        yield ListedDocument(number=number, unit_number=unit_number, unit=unit, text=text)


@dataclass(frozen=True, kw_only=True)
class ListedUnit:
    """A unit, as a list has it.

    Attributes:
        number: of it, from 0.
        name: of it.
        document_count: how many documents it has.
    """

    number: int
    name: str
    document_count: int


def list_units(
    session: Session,
    dataset: Dataset,
    *,
    contains: str | None = None,
    subset: Subset | None = None,
    limit: int,
    offset: int,
) -> Page[ListedUnit]:
    """Units by number: all, those with a substring in their name (case counts), those that a subset deletes.

    Erased ones are left out.

    Raises:
        InvalidTextError: the substring holds an unprintable character.
    """
    query = select(Unit).where(Unit.dataset_id == dataset.id, Unit.erased_at.is_(None)).order_by(Unit.number)
    if contains is not None:
        query = query.where(containing(Unit.name, contains))
    if subset is not None:
        query = query.where(Unit.number.in_(_members(subset)))
    found = page(session, query, limit=limit, offset=offset)
    counts = StoredMembership(session, dataset).document_counts([unit.number for unit in found.items])
    items = [ListedUnit(number=unit.number, name=unit.name, document_count=counts[unit.number]) for unit in found.items]
    return Page(items=items, total=found.total, limit=limit, offset=offset)


@dataclass(frozen=True, kw_only=True)
class UnitDescription:
    """A unit, for people.

    Attributes:
        unit: its name.
        documents: how many it has.
        text: the first of them.
    """

    unit: str
    documents: int
    text: str


def describe_units(session: Session, dataset: Dataset, numbers: Collection[int]) -> dict[int, UnitDescription]:
    """What the units of some numbers are, by number; erased ones are left out."""
    of_unit = (
        select(Document.unit_number, func.count().label("documents"), func.min(Document.number).label("first"))
        .where(Document.dataset_id == dataset.id, Document.unit_number.in_(numbers))
        .group_by(Document.unit_number)
        .subquery()
    )
    rows = session.execute(
        select(Unit.number, Unit.name, of_unit.c.documents, Document.text)
        .join(of_unit, of_unit.c.unit_number == Unit.number)
        .join(Document, Document.number == of_unit.c.first)
        .where(Unit.dataset_id == dataset.id, Document.dataset_id == dataset.id, Unit.erased_at.is_(None))
    )
    return {
        number: UnitDescription(unit=name, documents=documents, text=text) for number, name, documents, text in rows
    }


def list_erased_units(session: Session, dataset: Dataset) -> frozenset[int]:
    """The numbers of the units that were erased."""
    return frozenset(session.scalars(erased_numbers(dataset))) if dataset.erased_units else frozenset()


def hold_dataset(session: Session, dataset_id: int) -> Dataset:
    """A dataset's row, read again, of which no unit is erased until the end of the transaction."""
    query = select(Dataset).where(Dataset.id == dataset_id).with_for_update(read=True)
    return session.scalars(query.execution_options(populate_existing=True)).one()


def _members(subset: Subset) -> Select[int]:
    return select(SubsetMember.unit_number).where(SubsetMember.subset_id == subset.id)
