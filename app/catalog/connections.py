"""Connections to privacy backends, as rows; what is in them is `app.privacy.connections`' part."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.catalog.audit import record
from app.catalog.pages import Page, existing, page, unique
from app.errors import ConflictError, NotFoundError
from app.names import check_name, is_name, shown
from app.tables import PrivacyConnection


def add_connection(
    session: Session, *, name: str, protocol: str, options: dict[str, Any], sealed: str, credential_hash: str | None
) -> PrivacyConnection:
    """Write a connection.

    Args:
        session: a writing transaction.
        name: of it.
        protocol: that it speaks.
        options: of it, JSON without secrets.
        sealed: its secrets.
        credential_hash: of what the peer shows; None where it shows nothing.

    Raises:
        ConflictError: the name, or the credential, is another connection's.
        InvalidTextError: the name can't be stored.
    """
    check_name(name, "connection")
    if name == NATIVE or session.get(PrivacyConnection, name) is not None:
        raise ConflictError(f"There is a connection {name!r} already; choose another name, or change that one.")
    row = PrivacyConnection(
        name=name, protocol=protocol, options=options, sealed=sealed, credential_hash=credential_hash
    )
    with unique(session, "Another connection has this name or this credential."):
        session.add(row)
    record(session, "connection.create", connection=name, protocol=protocol)
    return row


NATIVE = "api"
"""The source of requests of the native API, which is no connection."""


def change_connection(
    session: Session,
    name: str,
    *,
    options: dict[str, Any] | None = None,
    sealed: str | None = None,
    credential_hash: str | None = None,
) -> PrivacyConnection:
    """Change what isn't None.

    Raises:
        NotFoundError: there is no such connection.
        ConflictError: the credential is another connection's.
    """
    row = get_connection(session, name)
    changed = {"options": options, "sealed": sealed, "credential_hash": credential_hash}
    with unique(session, "Another connection has this credential."):
        for field, value in changed.items():
            if value is not None:
                setattr(row, field, value)
    what = " ".join(field for field, value in changed.items() if value is not None)
    record(session, "connection.change", connection=name, changed=what)
    return row


def disable_connection(session: Session, name: str, reason: str) -> PrivacyConnection:
    """Let a connection be called, and call, no more; again changes nothing.

    Raises:
        NotFoundError: there is no such connection.
    """
    row = get_connection(session, name)
    if row.disabled_at is None:
        row.disabled_at, row.disabled_reason = datetime.now(UTC), reason
        session.flush()
        record(session, "connection.disable", connection=name, reason=reason)
    return row


def enable_connection(session: Session, name: str) -> PrivacyConnection:
    """Take that back.

    Raises:
        NotFoundError: there is no such connection.
    """
    row = get_connection(session, name)
    if row.disabled_at is not None:
        row.disabled_at = row.disabled_reason = None
        session.flush()
        record(session, "connection.enable", connection=name)
    return row


def get_connection(session: Session, name: str) -> PrivacyConnection:
    """The connection of a name.

    Raises:
        NotFoundError: there is none; the message names those that there are.
    """
    row = session.get(PrivacyConnection, name) if is_name(name) else None
    if row is None:
        raise NotFoundError(f"There is no connection {shown(name)}. {existing(session, PrivacyConnection.name)}")
    return row


def find_by_credential(session: Session, credential_hash: str) -> PrivacyConnection | None:
    """The connection whose peer shows what has this hash."""
    return session.scalar(select(PrivacyConnection).where(PrivacyConnection.credential_hash == credential_hash))


def list_connections(session: Session, *, limit: int, offset: int) -> Page[PrivacyConnection]:
    """Connections by name."""
    return page(session, select(PrivacyConnection).order_by(PrivacyConnection.name), limit=limit, offset=offset)


def connections_of(session: Session, protocol: str) -> list[PrivacyConnection]:
    """The connections of a protocol that aren't disabled, by name."""
    query = (
        select(PrivacyConnection)
        .where(PrivacyConnection.protocol == protocol, PrivacyConnection.disabled_at.is_(None))
        .order_by(PrivacyConnection.name)
    )
    return list(session.scalars(query))
