"""What is sought in texts: a substring by the database, a regular expression in a process of its own.

Erased documents are never found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


class Texts(NamedTuple):
    """Texts that were read to be searched, in training order.

    Attributes:
        rows: of each document its number, that of its unit, and the text.
    """

    rows: Sequence[tuple[int, int, str]]

    def matching(self, pattern: str) -> list[tuple[int, int]]:
        """Those in which a regular expression of Python's finds a match: the document's number and its unit's.

        It may take seconds, and needs no transaction.

        Raises:
            InvalidTextError: the expression holds an unprintable character.
            PatternError: as `matching`.
        """
        check_printable(pattern, "regular expression")
        found = matching(pattern, [text for _, _, text in self.rows])
        return [(number, unit) for (number, unit, _), matches in zip(self.rows, found, strict=True) if matches]


def texts_of(session: Session, *where: ColumnElement[bool]) -> Texts:
    """The texts of the documents of which all of this holds."""
    query = select(Document.number, Document.unit_number, Document.text).where(*where).order_by(Document.number)
    return Texts([(number, unit, text) for number, unit, text in session.execute(query)])


def of_dataset(dataset: Dataset) -> list[ColumnElement[bool]]:
    """What says of a document that it is one of a dataset's, and wasn't erased when its row was read."""
    here = Document.dataset_id == dataset.id
    return [here, Document.unit_number.not_in(erased_numbers(dataset))] if dataset.erased_units else [here]


def erased_numbers(dataset: Dataset) -> Select[int]:
    """The query for the numbers of the units that were erased."""
    return select(Unit.number).where(Unit.dataset_id == dataset.id, Unit.erased_at.is_not(None))
