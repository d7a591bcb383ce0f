"""From what somebody wants deleted to the units that are: the checks that make a deletion set one.

A deletion set is a set of units. Documents can be named instead, all those of a unit together; texts choose each unit
with at least one matching document. It is neither empty nor the whole dataset, and holds no unit that was erased.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.catalog.datasets import names_of_units, searchable_texts
from app.catalog.membership import Membership, StoredMembership
from app.catalog.pages import existing
from app.catalog.texts import containing, of_dataset
from app.errors import ConflictError, NotFoundError
from app.names import is_name, shown
from app.tables import Dataset, Document, Subset, SubsetMember
from engine.errors import DeletionSetError


@dataclass(frozen=True)
class ByDocuments:
    """The units of these document numbers."""

    numbers: Sequence[int]


@dataclass(frozen=True)
class ByUnits:
    """The units of these names."""

    names: Sequence[str]


@dataclass(frozen=True)
class BySubset:
    """The units of a named subset."""

    name: str


@dataclass(frozen=True)
class Containing:
    """The units with a document that contains this substring; case counts."""

    substring: str


@dataclass(frozen=True)
class Matching:
    """The units with a document in which this regular expression of Python's finds a match."""

    pattern: str


_ERASED_NOW: Final = "Units that were chosen were erased in this moment. Try again."

Deletion: TypeAlias = ByDocuments | ByUnits | BySubset
SubsetRule: TypeAlias = ByDocuments | ByUnits | Containing | Matching


@dataclass(frozen=True, kw_only=True)
class ResolvedDeletion:
    """The deletion set: its unit numbers, sorted, and the number of its documents."""

    units: list[int]
    documents: int


def resolve_units(session: Session, dataset: Dataset, delete: Deletion | SubsetRule) -> ResolvedDeletion:
    """The units that a deletion takes away. The transaction waits while a regular expression is searched for.

    Raises:
        NotFoundError: an unknown subset or unit, or one that was erased.
        DeletionSetError: documents out of range, erased, repeated, or a part of a unit; nothing or everything deleted.
        InvalidTextError: a substring or expression with an unprintable character.
        PatternError: an unusable regular expression.
    """
    stored = StoredMembership(session, dataset)
    match delete:
        case ByDocuments() | ByUnits():
            return resolve_named(stored, delete)
        case BySubset(name):
            units = _units_of_subset(session, dataset, name)
        case Containing(substring):
            units = _units_containing(session, dataset, substring)
        case Matching(pattern):
            units = sorted({unit for _, unit in searchable_texts(session, dataset).matching(pattern)})
    return _resolved(stored, units)


def resolve_named(membership: Membership, delete: ByDocuments | ByUnits) -> ResolvedDeletion:
    """The units that documents or units take away, which depends on nothing but the dataset.

    Raises:
        NotFoundError, DeletionSetError: as `resolve_units`.
    """
    match delete:
        case ByDocuments(numbers):
            return _resolved(membership, _units_of_documents(membership, numbers))
        case ByUnits(names):
            return _resolved(membership, _units_of_names(membership, names))


def resolve_found(session: Session, dataset: Dataset, units: Collection[int]) -> ResolvedDeletion:
    """The deletion of units that were searched for before.

    Args:
        session: any transaction.
        dataset: whose units they are.
        units: their numbers.

    Raises:
        ConflictError: some were erased meanwhile.
        DeletionSetError: nothing or everything deleted.
    """
    stored = StoredMembership(session, dataset)
    if stored.erased_among(units):
        raise ConflictError(_ERASED_NOW)
    return _resolved(stored, sorted(units))


def names_of_deletion(session: Session, dataset: Dataset, deletion: ResolvedDeletion) -> list[str]:
    """The names of the units of a deletion set, by number.

    Raises:
        ConflictError: some were erased since the set was resolved.
    """
    names = names_of_units(session, dataset, deletion.units)
    if len(names) < len(deletion.units):
        raise ConflictError(_ERASED_NOW)
    return names


def get_subset(session: Session, dataset: Dataset, name: str) -> Subset:
    """The subset of a name.

    Raises:
        NotFoundError: the dataset has none; the message names those that it has.
    """
    query = select(Subset).where(Subset.dataset_id == dataset.id, Subset.name == name)
    subset = session.scalar(query) if is_name(name) else None
    if subset is None:
        known = existing(session, Subset.name, Subset.dataset_id == dataset.id)
        raise NotFoundError(f"There is no subset {shown(name)} of the dataset {dataset.name!r}. {known}")
    return subset


def _resolved(membership: Membership, units: list[int]) -> ResolvedDeletion:
    dataset = membership.dataset
    if not units:
        raise DeletionSetError(f"The deletion set is empty: nothing in the dataset {dataset.name!r} is chosen.")
    if len(units) == dataset.unit_count - dataset.erased_units:
        raise DeletionSetError(
            f"The deletion set is the whole dataset {dataset.name!r}: no training data would be left to predict from."
            " Leave at least one unit."
        )
    documents = sum(membership.document_counts(units).values()) if dataset.has_subjects else len(units)
    return ResolvedDeletion(units=units, documents=documents)


def _units_of_documents(membership: Membership, numbers: Sequence[int]) -> list[int]:
    dataset = membership.dataset
    last = dataset.document_count - 1
    if numbers and not (min(numbers) >= 0 and max(numbers) <= last):
        wrong = next(number for number in numbers if not 0 <= number <= last)
        raise DeletionSetError(
            f"There is no document {shown(wrong)}: those of the dataset {dataset.name!r} are numbered from 0 to {last}."
        )
    _refuse_repetition(numbers, "document")
    # Where there are no subjects, every document is the unit of the same number.
    unit_of = membership.units_of(numbers) if dataset.has_subjects else {number: number for number in numbers}
    erased = membership.erased_among(unit_of.values())
    if erased:
        gone = next(number for number, unit in unit_of.items() if unit in erased)
        raise DeletionSetError(f"Document {gone} of the dataset {dataset.name!r} was erased; leave it out.")
    if not dataset.has_subjects:
        return sorted(numbers)
    named = Counter(unit_of.values())
    units = sorted(named)
    for unit, count in membership.document_counts(units).items():
        if named[unit] < count:
            _refuse_part(membership.documents_of(unit), unit, frozenset(numbers))
    return units


def _refuse_part(whole: Sequence[int], unit: int, named: frozenset[int]) -> None:
    missing = [number for number in whole if number not in named]
    inside = next(number for number in whole if number in named)
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    raise DeletionSetError(
        f"Document {inside} belongs to unit {unit}, which is deleted whole or not at all:"
        f" add document {', '.join(map(str, missing[:5]))}{more}, or name the unit."
    )


def _units_of_names(membership: Membership, names: Sequence[str]) -> list[int]:
    _refuse_repetition(names, "unit")
    # A name that isn't printable is nobody's: it needn't reach the database, which might not even take it.
    found = membership.numbers_of([name for name in names if name.isprintable()])
    unknown = next((name for name in names if name not in found), None)
    if unknown is not None:
        raise NotFoundError(
            f"There is no unit {shown(unknown)} in the dataset {membership.dataset.name!r};"
            " its list of units names all of them."
        )
    erased = membership.erased_among([found[name] for name in names])
    gone = next((name for name in names if found[name] in erased), None)
    if gone is not None:
        raise NotFoundError(
            f"The unit {shown(gone)} of the dataset {membership.dataset.name!r} was erased; leave it out."
        )
    return sorted(found[name] for name in names)


def _units_of_subset(session: Session, dataset: Dataset, name: str) -> list[int]:
    subset = get_subset(session, dataset, name)
    members = select(SubsetMember.unit_number).where(SubsetMember.subset_id == subset.id)
    return list(session.scalars(members.order_by(SubsetMember.unit_number)))


def _units_containing(session: Session, dataset: Dataset, substring: str) -> list[int]:
    query = select(Document.unit_number).where(*of_dataset(dataset), containing(Document.text, substring))
    return list(session.scalars(query.distinct().order_by(Document.unit_number)))


def _refuse_repetition(items: Sequence[object], what: str) -> None:
    if len(set(items)) == len(items):
        return
    repeated = next(item for item, count in Counter(items).items() if count > 1)
    raise DeletionSetError(f"The {what} {shown(repeated)} is named more than once; name it once.")
