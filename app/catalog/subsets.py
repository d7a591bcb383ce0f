"""Subsets: deletion sets with a name, chosen once by a rule and stored as units."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.catalog.datasets import hold_dataset, list_erased_units
from app.catalog.deletion import (
    ByDocuments,
    ByUnits,
    Containing,
    Matching,
    ResolvedDeletion,
    SubsetRule,
    get_subset,
    resolve_units,
)
from app.catalog.pages import Page, page, unique
from app.errors import ConflictError
from app.names import check_name
from app.tables import Dataset, Subset, SubsetMember

__all__ = ["add_subset", "check_subset", "get_subset", "list_subsets"]


def add_subset(
    session: Session, *, dataset: Dataset, name: str, rule: SubsetRule, chosen: ResolvedDeletion | None = None
) -> Subset:
    """Write a subset with the units that its rule chooses.

    Args:
        session: a writing transaction.
        dataset: whose subset it is.
        name: of it.
        rule: that chooses.
        chosen: what it chooses, where that is known: a rule may take seconds, in which nobody else could write.

    Raises:
        ConflictError: the dataset has a subset of this name, or some that was chosen is erased by now.
        InvalidTextError: the name can't be stored.
        NotFoundError, DeletionSetError, PatternError: as `resolve_units`.
    """
    check_subset(session, dataset, name)
    kind, pattern = _stored(rule)
    dataset = hold_dataset(session, dataset.id)
    if chosen is not None and not list_erased_units(session, dataset).isdisjoint(chosen.units):
        raise ConflictError("Units that the rule chose were erased in this moment. Try again.")
    chosen = chosen or resolve_units(session, dataset, rule)
    subset = Subset(
        dataset=dataset,
        name=name,
        kind=kind,
        pattern=pattern,
        document_count=chosen.documents,
        unit_count=len(chosen.units),
    )
    with unique(session, _taken(dataset, name)):
        session.add(subset)
    session.execute(
        insert(SubsetMember),
        [{"subset_id": subset.id, "dataset_id": dataset.id, "unit_number": unit} for unit in chosen.units],
    )
    record(session, "subset.create", dataset=dataset.name, subset=name, units=len(chosen.units))
    return subset


def check_subset(session: Session, dataset: Dataset, name: str) -> None:
    """Make sure that a subset of a name can be added.

    Raises:
        ConflictError: the dataset has a subset of this name.
        InvalidTextError: the name can't be stored.
    """
    check_name(name, "subset")
    if session.scalar(select(Subset.id).where(Subset.dataset_id == dataset.id, Subset.name == name)) is not None:
        raise ConflictError(_taken(dataset, name))


def list_subsets(session: Session, dataset: Dataset, *, limit: int, offset: int) -> Page[Subset]:
    """Subsets of a dataset by name."""
    query = select(Subset).where(Subset.dataset_id == dataset.id).order_by(Subset.name)
    return page(session, query, limit=limit, offset=offset)


def _taken(dataset: Dataset, name: str) -> str:
    return f"The dataset {dataset.name!r} has a subset {name!r} already. A subset never changes; choose another name."


def _stored(rule: SubsetRule) -> tuple[str, str | None]:
    match rule:
        case ByDocuments():
            return "documents", None
        case ByUnits():
            return "units", None
        case Containing(substring):
            return "contains", substring
        case Matching(pattern):
            return "matches", pattern
