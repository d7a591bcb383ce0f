"""API keys: made, found by their prefix, revoked. A key itself is never stored, only a keyed hash of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import exists, or_, select, update
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.catalog.pages import Page, page, unique
from app.errors import InvalidTextError, NotFoundError
from app.names import check_name, shown
from app.tables import ApiKey

Scope = Literal["predict", "catalog:read", "catalog:write", "privacy", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


def add_key(
    session: Session,
    *,
    prefix: str,
    name: str,
    hash: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None = None,
    requests_per_minute: int | None = None,
    decimals: int | None = None,
    measurements: Sequence[dict[str, Any]] | None = None,
) -> ApiKey:
    """Write a key.

    Args:
        session: a writing transaction.
        prefix: what the key begins with.
        name: for people; several keys may have the same one, as while one replaces the other.
        hash: of the whole key.
        scopes: what it may be used for; at least one.
        expires_at: when it ends; None is never.
        requests_per_minute: None is what the settings say.
        decimals: that numbers in answers are rounded to; None is not at all.
        measurements: the only ones that may be asked for; None is all.

    Raises:
        InvalidTextError: the name isn't one, or there is no scope.
    """
    check_name(name, "key")
    if not scopes:
        raise InvalidTextError("A key needs at least one scope.")
    row = ApiKey(
        prefix=prefix,
        name=name,
        hash=hash,
        scopes=sorted(set(scopes), key=SCOPES.index),
        expires_at=expires_at,
        requests_per_minute=requests_per_minute,
        decimals=decimals,
        measurements=None if measurements is None else list(measurements),
    )
    with unique(session, "Another key begins in the same way. Try again."):
        session.add(row)
    record(session, "key.create", key=prefix, name=name, scopes=" ".join(row.scopes))
    return row


def find_key(session: Session, prefix: str) -> ApiKey | None:
    """The key that begins so, be it valid or not; None where there is none."""
    return session.get(ApiKey, prefix)


def get_key(session: Session, prefix: str) -> ApiKey:
    """The key that begins so.

    Raises:
        NotFoundError: there is none.
    """
    row = find_key(session, prefix)
    if row is None:
        raise NotFoundError(f"There is no key that begins with {shown(prefix)}; their list has all of them.")
    return row


def list_keys(session: Session, *, limit: int, offset: int) -> Page[ApiKey]:
    """Keys, the newest first."""
    query = select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.prefix)
    return page(session, query, limit=limit, offset=offset)


def revoke_key(session: Session, prefix: str) -> ApiKey:
    """End a key; again changes nothing.

    Raises:
        NotFoundError: there is none that begins so.
    """
    row = get_key(session, prefix)
    if row.revoked_at is None:
        row.revoked_at = datetime.now(UTC)
        session.flush()
        record(session, "key.revoke", key=prefix, name=row.name)
    return row


def mark_used(session: Session, prefix: str, at: datetime) -> None:
    """Remember when a key was used last."""
    session.execute(
        update(ApiKey)
        .where(ApiKey.prefix == prefix, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at))
        .values(last_used_at=at)
        .execution_options(synchronize_session=False)
    )


def any_key(session: Session) -> bool:
    """Whether a key was ever made: from then on all who ask need one, revoked as they may be."""
    return bool(session.scalar(select(exists().where(ApiKey.prefix.is_not(None)))))
