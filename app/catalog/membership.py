"""Which documents belong to which units of a dataset: asked of the database, or held in memory.

A dataset never changes, but that units are erased: what is held stays true until then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.catalog.pages import batches
from app.tables import Dataset, Document, Unit

_BYTES_OF_DOCUMENT: Final = 16
_BYTES_OF_UNIT: Final = 200
"""A name of some letters with its place in a dictionary, a number and a count, roughly; more is more than enough."""


class Membership(Protocol):
    """What resolving a deletion asks of a dataset."""

    @property
    def dataset(self) -> Dataset:
        """Whose it is."""

    def numbers_of(self, names: Sequence[str]) -> Mapping[str, int]:
        """The unit numbers of at least those of the names that there are, all printable."""

    def units_of(self, documents: Sequence[int]) -> Mapping[int, int]:
        """The unit number of each of these documents, all of which there are."""

    def document_counts(self, units: Sequence[int]) -> Mapping[int, int]:
        """How many documents each of these units has, in their order."""

    def documents_of(self, unit: int) -> Sequence[int]:
        """The numbers of a unit's documents, ascending."""

    def erased_among(self, units: Collection[int]) -> Collection[int]:
        """Those of these units that were erased."""


@dataclass(frozen=True)
class StoredMembership:
    """As the database says: nothing is loaded but what is asked."""

    session: Session
    dataset: Dataset

    def numbers_of(self, names: Sequence[str]) -> Mapping[str, int]:
        """The unit numbers of those of the names that there are."""
        found: dict[str, int] = {}
        for batch in batches(names):
            rows = self.session.execute(
                select(Unit.name, Unit.number).where(Unit.dataset_id == self.dataset.id, Unit.name.in_(batch))
            )
            found.update((name, number) for name, number in rows)
        return found

    def units_of(self, documents: Sequence[int]) -> Mapping[int, int]:
        """The unit number of each of these documents."""
        found: dict[int, int] = {}
        for batch in batches(documents):
            rows = self.session.execute(
                select(Document.number, Document.unit_number).where(
                    Document.dataset_id == self.dataset.id, Document.number.in_(batch)
                )
            )
            found.update((number, unit) for number, unit in rows)
        return found

    def document_counts(self, units: Sequence[int]) -> Mapping[int, int]:
        """How many documents each of these units has, in their order."""
        counts = dict.fromkeys(units, 0)
        for batch in batches(units):
            rows = self.session.execute(
                select(Document.unit_number, func.count())
                .where(Document.dataset_id == self.dataset.id, Document.unit_number.in_(batch))
                .group_by(Document.unit_number)
            )
            counts.update((unit, count) for unit, count in rows)
        return counts

    def documents_of(self, unit: int) -> Sequence[int]:
        """The numbers of a unit's documents, ascending."""
        query = select(Document.number).where(Document.dataset_id == self.dataset.id, Document.unit_number == unit)
        return self.session.scalars(query.order_by(Document.number)).all()

    def erased_among(self, units: Collection[int]) -> Collection[int]:
        """Those of these units that were erased."""
        if not self.dataset.erased_units:
            return ()
        found: set[int] = set()
        for batch in batches(list(units)):
            found.update(
                self.session.scalars(
                    select(Unit.number).where(
                        Unit.dataset_id == self.dataset.id, Unit.number.in_(batch), Unit.erased_at.is_not(None)
                    )
                )
            )
        return found


@dataclass(frozen=True, kw_only=True)
class HeldMembership:
    """All of it in memory.

    Attributes:
        dataset: whose it is; its row, no longer of any session.
        numbers: of the units, by name.
        unit_of: the unit number of each document.
        counts: how many documents each unit has.
        erased: the units that were erased.
    """

    dataset: Dataset
    numbers: Mapping[str, int]
    unit_of: Sequence[int]
    counts: Sequence[int]
    erased: frozenset[int]

    def numbers_of(self, names: Sequence[str]) -> Mapping[str, int]:
        """The unit numbers of all names."""
        return self.numbers

    def units_of(self, documents: Sequence[int]) -> Mapping[int, int]:
        """The unit number of each of these documents."""
        return {number: self.unit_of[number] for number in documents}

    def document_counts(self, units: Sequence[int]) -> Mapping[int, int]:
        """How many documents each of these units has, in their order."""
        return {unit: self.counts[unit] for unit in units}

    def documents_of(self, unit: int) -> Sequence[int]:
        """The numbers of a unit's documents, ascending."""
        return [number for number, owner in enumerate(self.unit_of) if owner == unit]

    def erased_among(self, units: Collection[int]) -> Collection[int]:
        """Those of these units that were erased."""
        return self.erased.intersection(units)


def held_bytes(dataset: Dataset) -> int:
    """About what a dataset's membership takes in memory."""
    return _BYTES_OF_DOCUMENT * dataset.document_count + _BYTES_OF_UNIT * dataset.unit_count


def hold_membership(session: Session, dataset: Dataset) -> HeldMembership:
    """Load a dataset's membership whole."""
    names = session.execute(select(Unit.name, Unit.number).where(Unit.dataset_id == dataset.id)).all()
    query = select(Document.unit_number).where(Document.dataset_id == dataset.id).order_by(Document.number)
    unit_of = session.scalars(query).all()
    counts = [0] * dataset.unit_count
    for unit in unit_of:
        counts[unit] += 1
    numbers = {name: number for name, number in names if name.isprintable()}  # as those that are asked of the database
    erased = session.scalars(select(Unit.number).where(Unit.dataset_id == dataset.id, Unit.erased_at.is_not(None)))
    return HeldMembership(
        dataset=dataset,
        numbers=numbers,
        unit_of=tuple(unit_of),
        counts=tuple(counts),
        erased=frozenset(erased),
    )
