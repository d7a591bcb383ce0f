"""Searches by regular expression: they wait in a queue of their own, and no transaction is open meanwhile."""

from __future__ import annotations

from fastapi import Request

from app import catalog
from app.db import Database, transaction
from app.errors import BusyError
from app.parts import parts_of

TOO_MANY = BusyError("10 questions are before this one: try again later.")
"""An example of what is answered where the queue is full."""


async def searched(request: Request, dataset: str, pattern: str, *, subset: str | None = None) -> list[tuple[int, int]]:
    """The documents of a dataset in which a regular expression of Python's finds a match, in training order.

    To be awaited before a request's own session is opened.

    Args:
        request: that asks.
        dataset: name of the dataset.
        pattern: the expression.
        subset: name of a subset, to search only what it deletes.

    Returns:
        Of each document its number, and that of its unit.

    Raises:
        NotFoundError: an unknown dataset or subset.
        InvalidTextError: the expression holds an unprintable character.
        PatternError: the expression is unusable.
        BusyError: too many searches wait already.
    """
    return await parts_of(request).queues.search(_search, request.app.state.database, dataset, pattern, subset)


def _search(database: Database, dataset: str, pattern: str, subset: str | None) -> list[tuple[int, int]]:
    with transaction(database, writes=False) as session:
        row = catalog.get_dataset(session, dataset)
        chosen = None if subset is None else catalog.get_subset(session, row, subset)
        texts = catalog.searchable_texts(session, row, subset=chosen)
    return texts.matching(pattern)
