"""Erasure requests: the job's rows. The table is the queue, as that of verifications is.

    pending → in_progress → completed | failed          pending → cancelled          failed → pending, when told

Whoever works on a request claims it under a name of its own, and renews the claim; every change of a claimed row is a
compare-and-swap on that name. A request is known by its source and the id that its caller gave it, which it has once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast, get_args
from uuid import uuid4

from sqlalchemy import ColumnElement, CursorResult, Select, and_, func, not_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.catalog.pages import Page, page
from app.errors import ConflictError, NotFoundError
from app.names import shown
from app.tables import ErasureRequest

RequestState = Literal["pending", "in_progress", "completed", "cancelled", "failed"]
REQUEST_STATES: Final[tuple[RequestState, ...]] = get_args(RequestState)
RequestOrder = Literal["newest", "deadline"]
FINAL_STATES: Final = ("completed", "cancelled", "failed")

REQUEST_STALE_AFTER: Final = timedelta(seconds=30)
"""A claim that wasn't renewed for so long is that of a dead process; so is one from as far in the future."""

STUCK_AFTER: Final = timedelta(minutes=15)
"""What nobody has worked on for so long, though it is its turn, is stuck."""


@dataclass(frozen=True, kw_only=True)
class RequestClaim:
    """A row of the queue as it was seen: what a compare-and-swap compares with.

    Attributes:
        id: of the request.
        state: in which it was.
        name: of the claim; None where nobody had claimed it.
    """

    id: str
    state: str
    name: str | None


@dataclass(frozen=True, kw_only=True)
class RequestCounts:
    """How the queue does.

    Attributes:
        by_state: requests, by state.
        late: those that aren't done and whose deadline is over.
        stuck: those that nobody works on, though it has been their turn for a while.
        oldest_seconds: since the oldest that isn't done arrived; 0 where there is none.
    """

    by_state: Mapping[str, int]
    late: int
    stuck: int
    oldest_seconds: float


def insert_request(session: Session, **values: Any) -> tuple[ErasureRequest, bool]:
    """Write a request, unless there is one of the same source and caller's id.

    Args:
        session: a writing transaction.
        values: of `ErasureRequest`'s columns.

    Returns:
        The row that there is now, locked until the transaction ends, and whether it is new.
    """
    insert = (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert
    once = insert(ErasureRequest).values(id=str(uuid4()), **values).on_conflict_do_nothing()
    is_new = session.scalar(once.returning(ErasureRequest.id)) is not None
    return lock_request(session, values["source"], values["caller_id"]), is_new


def lock_request(session: Session, source: str, caller_id: str) -> ErasureRequest:
    """The request that a caller knows by an id, as it stays until the end of the transaction.

    Raises:
        NotFoundError: there is none.
    """
    query = _of_caller(source, caller_id).with_for_update().execution_options(populate_existing=True)
    return _found(session.scalar(query), caller_id)


def get_request(session: Session, source: str, caller_id: str) -> ErasureRequest:
    """The request that a caller knows by an id.

    Raises:
        NotFoundError: there is none.
    """
    return _found(session.scalar(_of_caller(source, caller_id)), caller_id)


def get_request_of_id(session: Session, request: str) -> ErasureRequest:
    """The request with an id of ours.

    Raises:
        NotFoundError: there is none.
    """
    return _found(session.get(ErasureRequest, request), request)


def list_requests(
    session: Session,
    *,
    now: datetime,
    state: str | None = None,
    late: bool = False,
    caller_id: str | None = None,
    order: RequestOrder = "newest",
    limit: int,
    offset: int,
) -> Page[ErasureRequest]:
    """Requests: all, or those in a state, late ones, those that their callers know by an id.

    The newest come first; or else the next deadline does, and those that have none any more, since they are done or
    cancelled, come last.
    """
    query = select(ErasureRequest)
    if order == "deadline":
        query = query.order_by(not_(_undone()), ErasureRequest.due_at, ErasureRequest.id)
    else:
        query = query.order_by(ErasureRequest.received_at.desc(), ErasureRequest.id.desc())
    if state is not None:
        query = query.where(ErasureRequest.state == state)
    if late:
        query = query.where(_late(now))
    if caller_id is not None:
        query = query.where(ErasureRequest.caller_id == caller_id)
    return page(session, query, limit=limit, offset=offset)


def count_requests(session: Session, *, now: datetime) -> RequestCounts:
    """How the queue does."""
    by_state = dict(session.execute(select(ErasureRequest.state, func.count()).group_by(ErasureRequest.state)).all())
    late = session.scalar(select(func.count()).select_from(ErasureRequest).where(_late(now)))
    stuck = session.scalar(select(func.count()).select_from(ErasureRequest).where(is_stuck(now)))
    oldest = session.scalar(select(func.min(ErasureRequest.received_at)).where(_open()))
    return RequestCounts(
        by_state={state: by_state.get(state, 0) for state in REQUEST_STATES},
        late=late or 0,
        stuck=stuck or 0,
        oldest_seconds=0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()),
    )


def next_request(session: Session, *, now: datetime) -> RequestClaim | None:
    """The one that is first due, and that nobody works on; None where there is none."""
    due = (
        select(ErasureRequest.id, ErasureRequest.state, ErasureRequest.claim)
        .where(_open(), _unclaimed(now), ErasureRequest.next_at <= now)
        .order_by(ErasureRequest.next_at, ErasureRequest.received_at, ErasureRequest.id)
        .limit(1)
    )
    row = session.execute(due).first()
    return None if row is None else RequestClaim(id=row[0], state=row[1], name=row[2])


def claim_request(session: Session, seen: RequestClaim, *, now: datetime) -> tuple[ErasureRequest, RequestClaim] | None:
    """Begin to work on a request: the row, and the claim; None where another process was faster, or it is cancelled."""
    claim = RequestClaim(id=seen.id, state="in_progress", name=str(uuid4()))
    values: dict[str, Any] = {"state": claim.state, "claim": claim.name, "claimed_at": now}
    if seen.state == "pending":
        values["started_at"] = now
    if not _swap(session, seen, **values):
        return None
    query = select(ErasureRequest).where(ErasureRequest.id == seen.id).execution_options(populate_existing=True)
    return session.scalars(query).one(), claim


def renew_request(session: Session, claim: RequestClaim, *, now: datetime) -> bool:
    """Say that the work goes on. False: the claim was taken over."""
    return _swap(session, claim, claimed_at=now)


def change_request(session: Session, claim: RequestClaim, /, **values: Any) -> ErasureRequest | None:
    """Write what came of a step, and the row as it is then. None: the claim was taken over, and nothing is changed."""
    if not _swap(session, claim, **values):
        return None
    query = select(ErasureRequest).where(ErasureRequest.id == claim.id).execution_options(populate_existing=True)
    return session.scalars(query).one()


def cancel_request(session: Session, row: ErasureRequest, *, now: datetime) -> None:
    """Cancel a request that nobody has begun with; again changes nothing.

    Args:
        session: the transaction in which the row was locked.
        row: of the request.
        now: this moment.

    Raises:
        ConflictError: it is past that.
    """
    if row.state == "cancelled":
        return
    if row.state != "pending":
        raise ConflictError(f"The request is {row.state.replace('_', ' ')}: only a pending one can be cancelled.")
    row.state, row.finished_at, row.identities = "cancelled", now, None
    session.flush()
    record(session, "request.cancel", request=row.id, source=row.source)


def retry_request(session: Session, request: str, *, now: datetime) -> ErasureRequest:
    """Have a failed request worked on again.

    Raises:
        NotFoundError: there is none of this id.
        ConflictError: it hasn't failed.
    """
    query = select(ErasureRequest).where(ErasureRequest.id == request).with_for_update()
    row = _found(session.scalar(query.execution_options(populate_existing=True)), request)
    if row.state != "failed":
        raise ConflictError(f"The request is {row.state.replace('_', ' ')}, and only a failed one is tried again.")
    row.state, row.failure, row.finished_at, row.attempts, row.next_at = "pending", None, None, 0, now
    session.flush()
    record(session, "request.retry", request=row.id)
    return row


def is_stuck(now: datetime) -> ColumnElement[bool]:
    """What nobody works on, though it has been its turn for a while."""
    return and_(_open(), _unclaimed(now), ErasureRequest.next_at < now - STUCK_AFTER)


def _late(now: datetime) -> ColumnElement[bool]:
    return and_(_undone(), ErasureRequest.due_at < now)


def _undone() -> ColumnElement[bool]:
    return ErasureRequest.state.in_(("pending", "in_progress", "failed"))


def _open() -> ColumnElement[bool]:
    return ErasureRequest.state.in_(("pending", "in_progress"))


def _unclaimed(now: datetime) -> ColumnElement[bool]:
    return or_(
        ErasureRequest.claimed_at.is_(None),
        ErasureRequest.claimed_at < now - REQUEST_STALE_AFTER,
        ErasureRequest.claimed_at > now + REQUEST_STALE_AFTER,
    )


def _of_caller(source: str, caller_id: str) -> Select[ErasureRequest]:
    return select(ErasureRequest).where(ErasureRequest.source == source, ErasureRequest.caller_id == caller_id)


def _found(row: ErasureRequest | None, name: str) -> ErasureRequest:
    if row is None:
        raise NotFoundError(f"There is no erasure request {shown(name)}.")
    return row


def _swap(session: Session, seen: RequestClaim, /, **values: Any) -> bool:
    swapped = session.execute(
        update(ErasureRequest)
        .where(
            ErasureRequest.id == seen.id,
            ErasureRequest.state == seen.state,
            ErasureRequest.claim.is_not_distinct_from(seen.name),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", swapped).rowcount == 1
