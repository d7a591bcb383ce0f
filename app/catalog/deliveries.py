"""Deliveries: messages to peers, written with the change that they tell. The table is the queue, as for verifications.

    pending → delivered | dead          delivered | dead → pending, when replayed

Whoever sends a delivery *claims* it and renews the claim meanwhile; every change of a claimed row is a
compare-and-swap on the moment of the claim. A process that dies may have sent what it didn't write down: a delivery
arrives at least once, always under the same id.

The first attempts of a request's deliveries to one place are made in the order of what they tell. One that fails
doesn't hold up those behind it any longer. What a disabled connection has waiting is due at once, to be given up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol, cast, get_args
from urllib.parse import urlsplit
from uuid import uuid4

from sqlalchemy import ColumnElement, CursorResult, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.catalog.audit import record
from app.catalog.connections import get_connection
from app.catalog.pages import Page, page
from app.errors import ConflictError, NotFoundError
from app.names import shown
from app.tables import Delivery, PrivacyConnection

DeliveryState = Literal["pending", "delivered", "dead"]
DELIVERY_STATES: Final[tuple[DeliveryState, ...]] = get_args(DeliveryState)

DELIVERY_STALE_AFTER: Final = timedelta(minutes=1)
"""A claim that wasn't renewed for so long is that of a dead process; so is one from as far in the future."""

_LONGEST_HOST: Final = 255


class Sealing(Protocol):
    """What `app.secret` does for what is kept here."""

    def seal(self, content: dict[str, Any]) -> str:
        """Encrypt an object of JSON."""


@dataclass(frozen=True, kw_only=True)
class DeliveryClaim:
    """A row of the queue as it was seen: what a compare-and-swap compares with.

    Attributes:
        id: of the delivery.
        host: that it goes to.
        at: the moment of the claim; None where nobody had claimed it.
    """

    id: str
    host: str
    at: datetime | None


def add_delivery(
    session: Session,
    secret: Sealing,
    *,
    connection: str,
    request_id: str | None,
    kind: str,
    url: str,
    method: str,
    headers: Mapping[str, str],
    body: str,
) -> Delivery:
    """Write a message for the deliverer.

    Args:
        session: the writing transaction of the change that it tells; the request's row is held by it.
        secret: of the installation.
        connection: name of whose peer is told.
        request_id: of ours; None where it is about no request.
        kind: of `app.privacy.messages`.
        url: where to; sealed, with method and headers.
        method: of HTTP.
        headers: that are sent as they are.
        body: without any identity.
    """
    last = None
    if request_id is not None:
        last = session.scalar(select(func.max(Delivery.number)).where(Delivery.request_id == request_id))
    row = Delivery(
        id=f"msg_{uuid4().hex}",
        request_id=request_id,
        number=(last or 0) + 1,
        connection=connection,
        kind=kind,
        host=_host(url),
        sealed=secret.seal({"method": method, "url": url, "headers": dict(headers)}),
        body=body,
    )
    session.add(row)
    session.flush()
    return row


def get_delivery(session: Session, delivery: str) -> Delivery:
    """The delivery of an id.

    Raises:
        NotFoundError: there is none.
    """
    row = session.get(Delivery, delivery)
    if row is None:
        raise NotFoundError(f"There is no delivery {shown(delivery)}; their list has all of them.")
    return row


def list_deliveries(
    session: Session,
    *,
    state: str | None = None,
    connection: str | None = None,
    request: str | None = None,
    limit: int,
    offset: int,
) -> Page[Delivery]:
    """Deliveries, the newest first: all, those in a state, those of a connection, those about a request of ours.

    Raises:
        NotFoundError: there is no such connection.
    """
    query = select(Delivery).order_by(Delivery.created_at.desc(), Delivery.number.desc(), Delivery.id.desc())
    if state is not None:
        query = query.where(Delivery.state == state)
    if connection is not None:
        query = query.where(Delivery.connection == get_connection(session, connection).name)
    if request is not None:
        query = query.where(Delivery.request_id == request)
    return page(session, query, limit=limit, offset=offset)


def count_deliveries(session: Session) -> dict[str, int]:
    """How many deliveries are in each state."""
    counted = session.execute(select(Delivery.state, func.count()).group_by(Delivery.state)).all()
    return dict.fromkeys(DELIVERY_STATES, 0) | dict(counted)


def due_deliveries(
    session: Session, *, now: datetime, limit: int, without_hosts: Collection[str] = ()
) -> list[DeliveryClaim]:
    """Deliveries whose turn it is and that nobody sends, the longest due first.

    Args:
        session: any transaction.
        now: this moment.
        limit: the most to answer.
        without_hosts: what goes there isn't looked for.
    """
    due = _due(session, Delivery.next_at <= now, now=now, limit=limit, without_hosts=without_hosts)
    disabled = session.scalars(select(PrivacyConnection.name).where(PrivacyConnection.disabled_at.is_not(None))).all()
    if disabled and len(due) < limit:
        of_disabled = (Delivery.connection.in_(disabled), Delivery.next_at > now)
        due += _due(session, *of_disabled, now=now, limit=limit - len(due), without_hosts=without_hosts)
    return due


def next_delivery_at(session: Session, *, now: datetime) -> datetime | None:
    """When the first of those is due that aren't due yet; None where there is none."""
    return session.scalar(
        select(func.min(Delivery.next_at)).where(Delivery.state == "pending", Delivery.next_at > now, _unclaimed(now))
    )


def claim_delivery(session: Session, seen: DeliveryClaim, *, now: datetime) -> DeliveryClaim | None:
    """Begin to send a delivery; None where another process was faster."""
    return renew_delivery(session, seen, now=now)


def renew_delivery(session: Session, claim: DeliveryClaim, *, now: datetime) -> DeliveryClaim | None:
    """Say that it is still being sent; None where the claim was taken over."""
    if not _swap(session, claim, claimed_at=now):
        return None
    return DeliveryClaim(id=claim.id, host=claim.host, at=now)


def release_delivery(session: Session, claim: DeliveryClaim) -> bool:
    """Leave it to whoever comes next, as if nothing had been tried. False: the claim was taken over."""
    return _swap(session, claim, claimed_at=None)


def finish_delivery(session: Session, claim: DeliveryClaim, *, status: int, now: datetime) -> bool:
    """Write that it arrived. False: the claim was taken over.

    Args:
        session: a writing transaction.
        claim: on it.
        status: that the peer answered.
        now: this moment.
    """
    return _attempted(
        session, claim, "delivered", status=status, error=None, last_error=None, state="delivered", finished_at=now
    )


def postpone_delivery(
    session: Session, claim: DeliveryClaim, *, status: int | None, error: str, why: str, next_at: datetime
) -> bool:
    """Write why an attempt came to nothing. False: the claim was taken over.

    Args:
        session: a writing transaction.
        claim: on it.
        status: that the peer answered; None where it didn't.
        error: the kind of failure, a word.
        why: a sentence, without anything secret.
        next_at: when to try again.
    """
    return _attempted(session, claim, "failed", status=status, error=error, last_error=why, next_at=next_at)


def bury_delivery(
    session: Session, claim: DeliveryClaim, *, status: int | None, error: str, why: str, now: datetime
) -> bool:
    """Write why it isn't tried any more. False: the claim was taken over.

    Args:
        session: a writing transaction.
        claim: on it.
        status: as in `postpone_delivery`.
        error: the same.
        why: the same.
        now: this moment.
    """
    return _attempted(session, claim, "dead", status=status, error=error, last_error=why, state="dead", finished_at=now)


def replay_delivery(session: Session, delivery: str, *, now: datetime) -> Delivery:
    """Have a delivery sent once more, under the same id.

    Raises:
        NotFoundError: there is none of this id.
        ConflictError: it waits to be sent anyway, or its connection is disabled.
    """
    query = select(Delivery).where(Delivery.id == delivery).with_for_update()
    row = session.scalar(query.execution_options(populate_existing=True)) or get_delivery(session, delivery)
    if row.state == "pending":
        raise ConflictError("The delivery waits to be sent already.")
    if get_connection(session, row.connection).disabled_at is not None:
        raise ConflictError(f"The connection {row.connection!r} is disabled: enable it first.")
    for field, value in _again(now).items():
        setattr(row, field, value)
    session.flush()
    record(session, "delivery.replay", delivery=row.id, connection=row.connection)
    return row


def replay_dead(session: Session, *, connection: str | None = None, now: datetime) -> int:
    """Have all dead deliveries of connections that aren't disabled sent once more; how many they are.

    Args:
        session: a writing transaction.
        connection: only those of this one.
        now: this moment.

    Raises:
        NotFoundError: there is no such connection.
    """
    enabled = select(PrivacyConnection.name).where(PrivacyConnection.disabled_at.is_(None))
    if connection is not None:
        enabled = enabled.where(PrivacyConnection.name == get_connection(session, connection).name)
    replayed = session.execute(
        update(Delivery)
        .where(Delivery.state == "dead", Delivery.connection.in_(enabled))
        .values(**_again(now))
        .execution_options(synchronize_session=False)
    )
    count = cast("CursorResult[Any]", replayed).rowcount
    if count:
        record(session, "delivery.replay_dead", deliveries=count, connection=connection)
    return count


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()[:_LONGEST_HOST]
    except ValueError:  # no address at all, which the attempt will say
        return ""


def _again(now: datetime) -> dict[str, Any]:
    return {
        "state": "pending",
        "attempts": 0,
        "next_at": now,
        "finished_at": None,
        "last_status": None,
        "last_error": None,
    }


def _due(
    session: Session, *which: ColumnElement[bool], now: datetime, limit: int, without_hosts: Collection[str]
) -> list[DeliveryClaim]:
    earlier = aliased(Delivery)
    held_up = (
        select(earlier.id)
        .where(
            earlier.request_id == Delivery.request_id,
            earlier.connection == Delivery.connection,
            earlier.host == Delivery.host,
            earlier.number < Delivery.number,
            earlier.state == "pending",
            or_(earlier.attempts == 0, earlier.claimed_at.is_not(None)),
        )
        .exists()
    )
    query = (
        select(Delivery.id, Delivery.host, Delivery.claimed_at)
        .where(Delivery.state == "pending", _unclaimed(now), *which, ~held_up)
        .order_by(Delivery.next_at, Delivery.created_at, Delivery.number)
        .limit(limit)
    )
    if without_hosts:
        query = query.where(Delivery.host.not_in(list(without_hosts)))
    return [DeliveryClaim(id=row[0], host=row[1], at=row[2]) for row in session.execute(query)]


def _unclaimed(now: datetime) -> ColumnElement[bool]:
    return or_(
        Delivery.claimed_at.is_(None),
        Delivery.claimed_at < now - DELIVERY_STALE_AFTER,
        Delivery.claimed_at > now + DELIVERY_STALE_AFTER,
    )


def _attempted(
    session: Session, claim: DeliveryClaim, result: str, *, status: int | None, error: str | None, **values: Any
) -> bool:
    if not _swap(session, claim, attempts=Delivery.attempts + 1, last_status=status, claimed_at=None, **values):
        return False
    query = select(Delivery).where(Delivery.id == claim.id).execution_options(populate_existing=True)
    row = session.scalars(query).one()
    record(
        session,
        "delivery.attempt",
        delivery=row.id,
        request=row.request_id,
        kind=row.kind,
        connection=row.connection,
        host=row.host,
        attempt=row.attempts,
        result=result,
        status=status,
        error=error,
    )
    return True


def _swap(session: Session, seen: DeliveryClaim, **values: Any) -> bool:
    swapped = session.execute(
        update(Delivery)
        .where(
            Delivery.id == seen.id,
            Delivery.state == "pending",
            Delivery.claimed_at.is_not_distinct_from(seen.at),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", swapped).rowcount == 1
