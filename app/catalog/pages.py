"""What several queries share: pages of a list, batches of parameters, names that exist, rows that must be unique."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import ConflictError

Row = TypeVar("Row")
Item = TypeVar("Item")

_BATCH: Final = 1_000  # parameters of one statement; SQLite takes 32,766, PostgreSQL 65,535
_NAMES_SHOWN: Final = 12


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """A part of a list, and how long the whole list is."""

    items: Sequence[Row]
    total: int
    limit: int
    offset: int


def page(session: Session, query: Select[Row], *, limit: int, offset: int) -> Page[Row]:
    """One page of an ordered query."""
    total = session.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
    items = session.scalars(query.limit(limit).offset(offset)).all()
    return Page(items=items, total=total or 0, limit=limit, offset=offset)


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in parts that fit into one statement."""
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def existing(session: Session, name: InstrumentedAttribute[str], *where: ColumnElement[Any]) -> str:
    """A sentence that says which names there are, for an error about one that there isn't."""
    names = list(session.scalars(select(name).where(*where).order_by(name).limit(_NAMES_SHOWN + 1)))
    if not names:
        return "None exists yet."
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f"Known: {', '.join(names[:_NAMES_SHOWN])}{more}."


@contextmanager
def unique(session: Session, message: str) -> Iterator[None]:
    """Flush at the end of the block, with a conflict where another transaction was faster to take the same name.

    Raises:
        ConflictError: a constraint was violated; the message says which.
    """
    try:
        yield
        session.flush()
    except IntegrityError as error:
        raise ConflictError(message) from error
