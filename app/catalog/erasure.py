"""Forgetting: texts, names and links of units are taken out of the catalog, and what was kept about them is removed.

The rows of the units and of their documents stay, empty, for their numbers stay taken: a sketch's axes are numbered in
the same way. A unit is forgotten in every dataset that it is in, in those that succeed its dataset and those before it.

Not done here: what a database keeps of rows that are gone, and files (`app.erasure`); the rows of the request itself.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.catalog.pages import batches
from app.tables import (
    ApiKey,
    Dataset,
    Document,
    IdentityLink,
    Report,
    SketchVersion,
    Subset,
    SubsetMember,
    Table,
    Unit,
    Verification,
)

ERASED: Final = "[erased]"
"""In place of a subset's pattern that told an erased text."""

_SHORT: Final = 6
"""Texts of fewer characters occur in others' by chance: only what equals them tells them."""

_UNSEEN: Final = {"synchronize_session": False}
_UNIT: Final = Table.metadata.tables[Unit.__tablename__]


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was forgotten.

    Attributes:
        units: that weren't erased before, over all datasets.
        documents: of these.
        dataset_ids: of the datasets that the units are in.
        verifications: ids of those that were removed.
    """

    units: int
    documents: int
    dataset_ids: tuple[int, ...]
    verifications: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ErasedArtifact:
    """An artifact of a version that was trained on units which have been erased since.

    Attributes:
        location: relative to the artifacts directory.
        units: their numbers.
    """

    location: str
    units: frozenset[int]


def forget_units(session: Session, dataset: Dataset, units: Collection[int], *, now: datetime) -> Forgotten:
    """Erase units of a dataset, and the same units of all datasets that it succeeds, or that succeed it.

    What was erased before stays so, and isn't counted; numbers that there aren't are ignored. The datasets are held
    until the end of the transaction.

    Args:
        session: a writing transaction.
        dataset: that the numbers are of.
        units: numbers of the units.
        now: the moment of the erasure.
    """
    related = _related(session, dataset.id, frozenset(units))
    held: set[int] = set()
    while related.keys() - held:  # a successor that was being written is seen once its predecessor is held
        session.execute(
            select(Dataset.id).where(Dataset.id.in_(related)).order_by(Dataset.id).with_for_update(key_share=True)
        )
        held.update(related)
        related = _related(session, dataset.id, frozenset(units))
    traces = _Traces()
    erased: dict[int, tuple[int, int]] = {}
    for dataset_id, numbers in related.items():
        erased[dataset_id] = _erase(session, dataset_id, numbers, now, traces)
    removed = _remove_verifications(session, related, traces)
    _redact(session, traces)
    names = dict(session.execute(select(Dataset.id, Dataset.name).where(Dataset.id.in_(related))).all())
    for dataset_id, (count, documents) in erased.items():
        if count:
            record(session, "dataset.erase", dataset=names[dataset_id], units=count, documents=documents)
    session.refresh(dataset)
    return Forgotten(
        units=sum(count for count, _ in erased.values()),
        documents=sum(documents for _, documents in erased.values()),
        dataset_ids=tuple(sorted(related)),
        verifications=tuple(removed),
    )


def erased_artifacts(session: Session) -> list[ErasedArtifact]:
    """The artifacts of all versions that were trained on units which have been erased since, deleted ones too."""
    query = (
        select(SketchVersion.location, SketchVersion.dataset_id)
        .join(Dataset, SketchVersion.dataset_id == Dataset.id)
        .where(Dataset.erased_units > 0)
        .order_by(SketchVersion.id)
    )
    found = session.execute(query).all()
    units = {
        dataset: frozenset(
            session.scalars(select(Unit.number).where(Unit.dataset_id == dataset, Unit.erased_at.is_not(None)))
        )
        for dataset in {dataset for _, dataset in found}
    }
    return [ErasedArtifact(location=location, units=units[dataset]) for location, dataset in found]


class _Traces:
    """Texts and names that were erased, and whether something tells one of them."""

    def __init__(self) -> None:
        """None yet."""
        self._whole: set[str] = set()

    def add(self, values: Iterable[str]) -> None:
        """Further ones."""
        self._whole.update(value for value in values if value)

    def told_by(self, value: str) -> bool:
        """Whether a value is one of them, or holds one that isn't short."""
        return value in self._whole or any(len(one) >= _SHORT and one in value for one in self._whole)

    def told_by_pattern(self, pattern: str) -> bool:
        """The same of a rule's substring or regular expression."""
        return self.told_by(pattern) or any(re.escape(one) in pattern for one in self._whole if len(one) >= _SHORT)

    def told_by_measurement(self, measurement: Mapping[str, Any]) -> bool:
        """The same of a measurement as it is stored."""
        parts = [value for value in measurement.values() if isinstance(value, str)]
        whole = f"{measurement.get('prompt') or ''}{measurement.get('completion') or ''}"
        return any(map(self.told_by, [*parts, whole]))


def _related(session: Session, dataset_id: int, units: frozenset[int]) -> dict[int, frozenset[int]]:
    """The numbers of the same units in all datasets before and after one, by the dataset's id."""
    found = {dataset_id: units}
    waiting = [dataset_id]
    while waiting:
        here = waiting.pop()
        before = session.scalar(select(Dataset.successor_of_id).where(Dataset.id == here))
        after = session.scalars(select(Dataset.id).where(Dataset.successor_of_id == here)).all()
        for other in ([] if before is None else [before], after):
            for one in other:
                if one not in found:
                    there = here if one == before else one  # the one of the two whose units know the other's
                    found[one] = _same_units(session, there, found[here], forward=one != before)
                    waiting.append(one)
    return found


def _same_units(session: Session, dataset_id: int, units: frozenset[int], *, forward: bool) -> frozenset[int]:
    """The numbers of units in a successor by those in its predecessor, or the other way round."""
    asked, wanted = (Unit.predecessor_number, Unit.number) if forward else (Unit.number, Unit.predecessor_number)
    found: set[int] = set()
    for batch in batches(sorted(units)):
        query = select(wanted).where(
            Unit.dataset_id == dataset_id, asked.in_(batch), Unit.predecessor_number.is_not(None)
        )
        found.update(number for number in session.scalars(query) if number is not None)
    return frozenset(found)


def _erase(session: Session, dataset_id: int, units: frozenset[int], now: datetime, traces: _Traces) -> tuple[int, int]:
    """Erase units of one dataset; how many weren't before, and how many documents they have."""
    has_subjects = session.scalars(select(Dataset.has_subjects).where(Dataset.id == dataset_id)).one()
    erased = documents = 0
    for batch in batches(sorted(units)):
        of_units = Unit.dataset_id == dataset_id, Unit.number.in_(batch)
        names = dict(session.execute(select(Unit.number, Unit.name).where(*of_units, Unit.erased_at.is_(None))).all())
        session.execute(
            delete(IdentityLink).where(IdentityLink.dataset_id == dataset_id, IdentityLink.unit_number.in_(batch))
        )
        if not names:
            continue
        if has_subjects:
            traces.add(names.values())
        of_documents = Document.dataset_id == dataset_id, Document.unit_number.in_(names)
        texts = session.scalars(select(Document.text).where(*of_documents)).all()
        traces.add(texts)
        session.execute(update(Document).where(*of_documents).values(text=""), execution_options=_UNSEEN)
        session.execute(
            update(_UNIT)
            .where(_UNIT.c.dataset_id == dataset_id, _UNIT.c.number == bindparam("unit"))
            .values(name=bindparam("new_name"), erased_at=now),
            [
                {"unit": number, "new_name": f"erased-{secrets.token_hex(16)}" if has_subjects else name}
                for number, name in names.items()
            ],
        )
        _leave_subsets(session, dataset_id, list(names))
        erased, documents = erased + len(names), documents + len(texts)
    count = select(func.count()).select_from(Unit).where(Unit.dataset_id == dataset_id, Unit.erased_at.is_not(None))
    session.execute(
        update(Dataset).where(Dataset.id == dataset_id).values(erased_units=count.scalar_subquery()),
        execution_options=_UNSEEN,
    )
    return erased, documents


def _leave_subsets(session: Session, dataset_id: int, units: Collection[int]) -> None:
    """Take units out of the subsets of a dataset; those that are empty then go."""
    members = and_(SubsetMember.dataset_id == dataset_id, SubsetMember.unit_number.in_(units))
    touched = session.scalars(select(SubsetMember.subset_id).where(members).distinct()).all()
    session.execute(delete(SubsetMember).where(members), execution_options=_UNSEEN)
    for subset in touched:
        left = select(SubsetMember.unit_number).where(SubsetMember.subset_id == subset)
        count = session.scalar(select(func.count()).select_from(left.subquery())) or 0
        if not count:
            session.execute(delete(Subset).where(Subset.id == subset), execution_options=_UNSEEN)
            continue
        documents = (
            select(func.count())
            .select_from(Document)
            .where(Document.dataset_id == dataset_id, Document.unit_number.in_(left))
        )
        session.execute(
            update(Subset)
            .where(Subset.id == subset)
            .values(unit_count=count, document_count=documents.scalar_subquery()),
            execution_options=_UNSEEN,
        )


def _remove_verifications(session: Session, erased: Mapping[int, frozenset[int]], traces: _Traces) -> list[str]:
    """Remove those about one of the units, and those that measured one of the texts; their ids."""
    query = select(Verification.id, SketchVersion.dataset_id, Verification.units, Verification.predictions).join(
        SketchVersion, Verification.version_id == SketchVersion.id
    )
    found = [
        verification
        for verification, dataset, units, predictions in session.execute(query.execution_options(yield_per=500))
        if not erased.get(dataset, frozenset()).isdisjoint(units)
        or any(traces.told_by_measurement(one.get("measurement", {})) for one in predictions)
    ]
    for batch in batches(found):
        session.execute(delete(Verification).where(Verification.id.in_(batch)), execution_options=_UNSEEN)
    return found


def _redact(session: Session, traces: _Traces) -> None:
    """Take what was erased out of what operators wrote: rules of subsets, and measurements of keys and reports."""
    for subset, pattern in _patterns(session):
        if traces.told_by_pattern(pattern):
            session.execute(update(Subset).where(Subset.id == subset).values(pattern=ERASED), execution_options=_UNSEEN)
    keys = session.scalars(select(ApiKey).where(ApiKey.measurements.is_not(None))).all()
    rows: list[ApiKey | Report] = [*keys, *session.scalars(select(Report)).all()]
    for row in rows:
        kept = [one for one in row.measurements or [] if not traces.told_by_measurement(one)]
        if len(kept) < len(row.measurements or []):
            row.measurements = kept  # none is left of a key's: it may ask for nothing
    session.flush()


def _patterns(session: Session) -> Iterator[tuple[int, str]]:
    rows = session.execute(select(Subset.id, Subset.pattern).where(Subset.pattern.is_not(None))).all()
    return ((subset, pattern) for subset, pattern in rows if pattern is not None)
