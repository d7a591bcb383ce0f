"""The audit: a record of everything that was asked and changed, chained by hashes.

    hash_n = SHA-256(number, at, actor, request id, action, details, hash_{n-1})

What was recorded can't be changed, taken out or put in without breaking the chain from there on; that the end wasn't
cut off, and the chain not made anew, is shown by a head that was kept elsewhere. Records hold no text and no identity,
only names of the catalog, numbers and digests.

Whoever appends holds the chain's one row until the transaction ends, so that several processes write one chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from app.actors import Actor
from app.catalog.pages import Page, page
from app.tables import AuditChain, AuditRecord, Table

NO_HASH: Final = "0" * 64
"""What comes before the first record."""

CHAIN_FOR_UPDATE: Final = select(AuditChain.length, AuditChain.head).with_for_update()
"""The chain's row, held from then on."""

INSERT_RECORD: Final = insert(Table.metadata.tables[AuditRecord.__tablename__])
UPDATE_CHAIN: Final = update(Table.metadata.tables[AuditChain.__tablename__]).values(
    length=bindparam("length"), head=bindparam("head")
)

_BATCH: Final = 1_000

Details = dict[str, str | int | None]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is to be recorded.

    Attributes:
        at: when it happened.
        actor: who did it.
        action: what was done, "predict" or "sketch.promote".
        details: of it; strings and whole numbers, which every database gives back as they were.
    """

    at: datetime
    actor: Actor
    action: str
    details: Details


@dataclass(frozen=True, kw_only=True)
class ChainState:
    """What a walk along the chain found.

    Attributes:
        length: records that are in order, from the first.
        head: hash of the last of these.
        broken: the number of the first record that isn't in order, or is missing; None where all are.
        reason: what is wrong with it.
    """

    length: int
    head: str
    broken: int | None = None
    reason: str = ""


def record(session: Session, action: str, **details: str | int | None) -> None:
    """Record a change in the transaction that makes it, by the actor of the transaction.

    Args:
        session: a writing transaction.
        action: what was done.
        details: of it.
    """
    append_records(session, [Entry(at=datetime.now(UTC), actor=session.info["actor"], action=action, details=details)])


def append_records(session: Session, entries: Sequence[Entry]) -> None:
    """Append records in order.

    Args:
        session: a writing transaction; the chain is held until it ends.
        entries: at least one.
    """
    length, head = session.execute(CHAIN_FOR_UPDATE).one()
    rows, chain = chained(entries, length, head)
    session.execute(INSERT_RECORD, rows)
    session.execute(UPDATE_CHAIN, chain)


def chained(entries: Sequence[Entry], length: int, head: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of records, and the chain as it is with them.

    Args:
        entries: at least one.
        length: of the chain before them.
        head: of the chain before them.

    Returns:
        What `INSERT_RECORD` and `UPDATE_CHAIN` take.
    """
    rows = []
    for number, entry in enumerate(entries, start=length + 1):
        row: dict[str, Any] = {
            "number": number,
            "at": entry.at,
            "actor": entry.actor.name,
            "request_id": entry.actor.request_id,
            "action": entry.action,
            "details": entry.details,
            "previous_hash": head,
        }
        head = row["hash"] = _hash(row)
        rows.append(row)
    return rows, {"length": length + len(rows), "head": head}


def verify_chain(session: Session, *, head: str | None = None) -> ChainState:
    """Walk along the whole chain.

    Args:
        session: any transaction.
        head: of the chain at an earlier time, kept elsewhere; it must be the hash of one of the records.
    """
    # Read before the walk: what others append meanwhile comes behind it.
    chain = session.execute(select(AuditChain.length, AuditChain.head)).one_or_none()
    length, last, met = 0, NO_HASH, head in (None, NO_HASH)
    ended = chain is not None and (chain.length, chain.head) == (length, last)
    for row in walk_records(session):
        wrong = _fault(row, length + 1, last)
        if wrong:
            return ChainState(length=length, head=last, broken=length + 1, reason=wrong)
        length, last = row.number, row.hash
        met = met or last == head
        ended = ended or (chain is not None and (chain.length, chain.head) == (length, last))
    if chain is None or chain.length > length:
        return ChainState(length=length, head=last, broken=length + 1, reason="it was cut off: there were more records")
    if not ended:
        return ChainState(length=length, head=last, broken=chain.length, reason="the chain ends with another hash")
    if not met:
        return ChainState(length=length, head=last, broken=1, reason="no record has the hash that was kept elsewhere")
    return ChainState(length=length, head=last)


def walk_records(session: Session, *, after: int = 0) -> Iterator[AuditRecord]:
    """All records behind a number, in order, some at a time in memory."""
    while True:
        query = select(AuditRecord).where(AuditRecord.number > after).order_by(AuditRecord.number).limit(_BATCH)
        rows = session.scalars(query).all()
        yield from rows
        if len(rows) < _BATCH:
            return
        after = rows[-1].number
        session.expunge_all()


def list_records(session: Session, *, limit: int, offset: int) -> Page[AuditRecord]:
    """Records, the first one first."""
    return page(session, select(AuditRecord).order_by(AuditRecord.number), limit=limit, offset=offset)


def as_line(row: AuditRecord) -> dict[str, Any]:
    """A record as it is exported; its hash can be made again from the rest, see `hashed_text`."""
    return {**_content(row), "hash": row.hash}


def hashed_text(content: dict[str, Any]) -> str:
    """What a record's hash is the SHA-256 of: its other fields as JSON, keys sorted, without spaces, in ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _fault(row: AuditRecord, number: int, last: str) -> str:
    if row.number != number:
        return "it is missing"
    if row.previous_hash != last:
        return "it doesn't name the hash of the record before it"
    if hashlib.sha256(hashed_text(_content(row)).encode()).hexdigest() != row.hash:
        return "its content doesn't have its hash"
    return ""


def _content(row: AuditRecord) -> dict[str, Any]:
    fields = ("number", "at", "actor", "request_id", "action", "details", "previous_hash")
    return _told({name: getattr(row, name) for name in fields})


def _hash(row: dict[str, Any]) -> str:
    return hashlib.sha256(hashed_text(_told(row)).encode()).hexdigest()


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "at": row["at"].astimezone(UTC).isoformat(timespec="microseconds")}
