"""What is sought in texts: a substring by the database, a regular expression in a process of its own.

Erased documents are never found.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, func, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.catalog.matching import matching
from app.names import check_printable
from app.tables import Dataset, Document, Unit


def containing(text: InstrumentedAttribute[str], substring: str) -> ColumnElement[bool]:
    """What says of a column that its text contains a substring; case counts, as in Python.

    Raises:
        InvalidTextError: no text that is stored can contain it.
    """
    check_printable(substring, "substring")
    if not substring:
        return true()
    # LIKE ignores case on SQLite and not on PostgreSQL; REPLACE is exact on both.
    return func.replace(text, substring, "") != text


def matching_documents(
    session: Session, dataset: Dataset, pattern: str, *where: ColumnElement[bool]
) -> list[tuple[int, int]]:
    """The documents in which a regular expression of Python's finds a match, in training order.

    Args:
        session: any transaction; it waits while the expression is searched for.
        dataset: whose documents are searched.
        pattern: the expression.
        where: what else is asked of a document.

    Returns:
        Of each, its number and that of its unit.

    Raises:
        InvalidTextError: the expression holds an unprintable character.
        PatternError: as `matching`.
    """
    check_printable(pattern, "regular expression")
    query = select(Document.number, Document.unit_number, Document.text).where(*of_dataset(dataset), *where)
    rows = session.execute(query.order_by(Document.number)).all()
    found = matching(pattern, [text for _, _, text in rows])
    return [(number, unit) for (number, unit, _), matches in zip(rows, found, strict=True) if matches]


def of_dataset(dataset: Dataset) -> list[ColumnElement[bool]]:
    """What says of a document that it is one of a dataset's, and wasn't erased when its row was read."""
    here = Document.dataset_id == dataset.id
    return [here, Document.unit_number.not_in(erased_numbers(dataset))] if dataset.erased_units else [here]


def erased_numbers(dataset: Dataset) -> Select[int]:
    """The query for the numbers of the units that were erased."""
    return select(Unit.number).where(Unit.dataset_id == dataset.id, Unit.erased_at.is_not(None))
