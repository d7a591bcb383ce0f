"""Successors: a dataset of what remains of another one whose units were erased in part, with all that belongs to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.catalog.datasets import add_dataset, hold_dataset
from app.errors import ConflictError
from app.tables import Dataset, Document, IdentityLink, Report, Subset, SubsetMember, Unit
from engine.documents import Documents

_LONGEST_NAME: Final = 64


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What of a dataset wasn't erased.

    Attributes:
        documents: in their order, units numbered anew.
        numbers: the old number of each unit.
    """

    documents: Documents
    numbers: tuple[int, ...]


def load_remaining(session: Session, dataset: Dataset) -> Remaining:
    """The documents of a dataset that weren't erased.

    Raises:
        ConflictError: none was erased, or all were.
    """
    if not dataset.erased_units:
        raise ConflictError(f"Nothing of the dataset {dataset.name!r} was erased; there is no need for a successor.")
    if dataset.erased_units == dataset.unit_count:
        raise ConflictError(f"All of the dataset {dataset.name!r} was erased; nothing is left to build a successor of.")
    rows = session.execute(
        select(Document.text, Document.unit_number, Unit.name)
        .join(Unit, (Unit.dataset_id == Document.dataset_id) & (Unit.number == Document.unit_number))
        .where(Document.dataset_id == dataset.id, Unit.erased_at.is_(None))
        .order_by(Document.number)
    ).all()
    # Units are numbered by their first document, in both datasets.
    documents = Documents.from_records((text, name if dataset.has_subjects else None) for text, _, name in rows)
    return Remaining(documents=documents, numbers=tuple(dict.fromkeys(unit for _, unit, _ in rows)))


def find_successor(session: Session, dataset: Dataset, fingerprint: str) -> Dataset | None:
    """A dataset that succeeds one, be it over others, of which nothing was erased, and with these documents."""
    waiting = [dataset.id]
    while waiting:
        after = session.scalars(select(Dataset).where(Dataset.successor_of_id.in_(waiting)).order_by(Dataset.id)).all()
        for one in after:
            if one.fingerprint == fingerprint and not one.erased_units:
                return one
        waiting = [one.id for one in after]
    return None


def add_successor(session: Session, dataset_id: int) -> Dataset:
    """Write the successor of a dataset: its remaining documents, subsets, links of identities, and reports.

    One that is there already, with the same documents, is the successor.

    Args:
        session: a writing transaction.
        dataset_id: of the dataset, which is held until the end of the transaction.

    Raises:
        ConflictError: as `load_remaining`.
    """
    dataset = hold_dataset(session, dataset_id)
    remaining = load_remaining(session, dataset)
    present = find_successor(session, dataset, remaining.documents.fingerprint)
    if present is not None:
        return present
    successor = add_dataset(
        session,
        name=_free_name(session, dataset),
        documents=remaining.documents,
        description=dataset.description,
        predecessor=dataset,
        predecessor_numbers=remaining.numbers,
    )
    new = {old: number for number, old in enumerate(remaining.numbers)}
    _copy_subsets(session, dataset, successor, new)
    _copy_links(session, dataset, successor, new)
    record(session, "dataset.succeed", dataset=dataset.name, successor=successor.name)
    return successor


def take_over_reports(session: Session, dataset: Dataset, sketch_id: int) -> int:
    """Let the reports about a sketch be of the dataset, too, that it has now, as they are of one before; how many."""
    taken = set(session.scalars(select(Report.name).where(Report.dataset_id == dataset.id)))
    found = 0
    for report in session.scalars(
        select(Report)
        .where(Report.sketch_id == sketch_id, Report.dataset_id != dataset.id)
        .order_by(Report.created_at.desc(), Report.dataset_id.desc())
    ).all():
        if report.name not in taken:
            taken.add(report.name)
            found += 1
            session.add(
                Report(
                    name=report.name,
                    dataset_id=dataset.id,
                    sketch_id=sketch_id,
                    measurements=report.measurements,
                    own_documents=report.own_documents,
                    confidence=report.confidence,
                    materiality_nats=report.materiality_nats,
                    materiality_probability=report.materiality_probability,
                )
            )
    session.flush()
    return found


def _copy_subsets(session: Session, dataset: Dataset, successor: Dataset, new: dict[int, int]) -> None:
    for subset in session.scalars(select(Subset).where(Subset.dataset_id == dataset.id).order_by(Subset.id)).all():
        copy = Subset(
            dataset_id=successor.id,
            name=subset.name,
            kind=subset.kind,
            pattern=subset.pattern,
            document_count=subset.document_count,
            unit_count=subset.unit_count,
        )
        session.add(copy)
        session.flush()
        members = session.scalars(select(SubsetMember.unit_number).where(SubsetMember.subset_id == subset.id)).all()
        session.execute(
            insert(SubsetMember),
            [{"subset_id": copy.id, "dataset_id": successor.id, "unit_number": new[unit]} for unit in members],
        )


def _copy_links(session: Session, dataset: Dataset, successor: Dataset, new: dict[int, int]) -> None:
    links = session.execute(
        select(IdentityLink.hash, IdentityLink.unit_number).where(IdentityLink.dataset_id == dataset.id)
    ).all()
    if links:
        session.execute(
            insert(IdentityLink),
            [{"dataset_id": successor.id, "hash": linked, "unit_number": new[unit]} for linked, unit in links],
        )


def _free_name(session: Session, dataset: Dataset) -> str:
    """The name with the next number behind it that no dataset has: names-2 after names, names-3 after names-2."""
    found = None if dataset.successor_of_id is None else re.fullmatch(r"(.+)-([1-9]\d{0,5})", dataset.name)
    stem, number = (found[1], int(found[2])) if found else (dataset.name, 1)
    while True:
        number += 1
        ending = f"-{number}"
        free = stem[: _LONGEST_NAME - len(ending)] + ending
        if session.scalar(select(Dataset.id).where(Dataset.name == free)) is None:
            return free
