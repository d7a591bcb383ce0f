"""Links between identities, which the catalog knows as keyed hashes only, and the units that are of the same person."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.errors import NotFoundError
from app.tables import Dataset, IdentityLink, Unit

_BATCH: Final = 500  # parameters of one statement are limited


@dataclass(frozen=True, kw_only=True)
class Linked:
    """What a file of links came to.

    Attributes:
        units: that have links now because of it.
        hashes: links that are new.
        present: links that were there already.
    """

    units: int
    hashes: int
    present: int


def add_links(session: Session, dataset: Dataset, links: Iterable[tuple[str, Sequence[str]]]) -> Linked:
    """Link identities to units; what is linked already stays so.

    Args:
        session: a writing transaction.
        dataset: whose units they are.
        links: names of units, and the hashes of an identity of each.

    Raises:
        NotFoundError: an unknown unit; the message names its place in the list, not the unit.
    """
    numbers: dict[str, int] = dict(
        session.execute(select(Unit.name, Unit.number).where(Unit.dataset_id == dataset.id)).all()
    )
    rows: list[dict[str, Any]] = []
    for place, (name, hashes) in enumerate(links, start=1):
        if name not in numbers:
            raise NotFoundError(
                f"Link {place:,} names a subject that the dataset {dataset.name!r} doesn't have; nothing was linked."
            )
        rows += [{"dataset_id": dataset.id, "hash": one, "unit_number": numbers[name]} for one in hashes]
    unique = {(row["hash"], row["unit_number"]): row for row in rows}
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    added = 0
    for batch in _batches(list(unique.values())):
        linked = insert(IdentityLink).values(batch).on_conflict_do_nothing().returning(IdentityLink.hash)
        added += len(session.scalars(linked).all())
    units = len({row["unit_number"] for row in rows})
    record(session, "dataset.link", dataset=dataset.name, units=units, links=added)
    return Linked(units=units, hashes=added, present=len(unique) - added)


def find_linked(session: Session, hashes: Iterable[str]) -> dict[int, list[int]]:
    """Units that any of some hashes is linked to, by the id of their dataset, ascending."""
    found: dict[int, set[int]] = {}
    for batch in _batches(sorted(set(hashes))):
        query = select(IdentityLink.dataset_id, IdentityLink.unit_number).where(IdentityLink.hash.in_(batch))
        for dataset, unit in session.execute(query):
            found.setdefault(dataset, set()).add(unit)
    return {dataset: sorted(units) for dataset, units in sorted(found.items())}


def count_links(session: Session, dataset: Dataset, units: Collection[int] | None = None) -> int:
    """How many links a dataset has, or some of its units."""
    query = select(func.count()).select_from(IdentityLink).where(IdentityLink.dataset_id == dataset.id)
    if units is not None:
        query = query.where(IdentityLink.unit_number.in_(units))
    return session.scalar(query) or 0


def remove_links(session: Session, dataset: Dataset) -> int:
    """Remove all links of a dataset, as before a corrected file is linked; how many there were."""
    removed = session.execute(delete(IdentityLink).where(IdentityLink.dataset_id == dataset.id))
    count: int = cast("CursorResult[Any]", removed).rowcount
    record(session, "dataset.unlink", dataset=dataset.name, links=count)
    return count


def _batches(items: Sequence[Any]) -> Iterable[list[Any]]:
    for start in range(0, len(items), _BATCH):
        yield list(items[start : start + _BATCH])
