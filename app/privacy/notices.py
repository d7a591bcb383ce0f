"""Every change of a request as messages to those whom it concerns: its own connection, and all webhooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from sqlalchemy.orm import Session

from app import catalog
from app.privacy import events, fides, ketch, opendsr, transcend
from app.privacy.connections import OpenedConnection, open_connection
from app.privacy.messages import Message
from app.secret import Secret
from app.tables import ErasureRequest, PrivacyConnection

Messages: TypeAlias = Callable[[ErasureRequest, OpenedConnection, dict[str, Any]], list[Message]]

_PROTOCOLS: Final[dict[str, Messages]] = {
    "fides": fides.messages,
    "opendsr": opendsr.messages,
    "transcend": transcend.messages,
    "ketch": ketch.messages,
}


def announce(session: Session, secret: Secret, row: ErasureRequest) -> None:
    """Write what a request's change has to be told to whom, in the transaction that makes the change.

    Args:
        session: a writing transaction, in which the row is as it will be committed.
        secret: of the installation.
        row: of the request.

    Raises:
        SealError: the secrets of a connection can't be read.
    """
    sealed = {} if row.sealed is None else secret.unseal(row.sealed)
    concerned: list[tuple[PrivacyConnection, Messages]] = [
        (webhook, events.messages) for webhook in catalog.connections_of(session, "webhook")
    ]
    if row.source != catalog.NATIVE:
        own = catalog.get_connection(session, row.source)
        if own.disabled_at is None:
            concerned.append((own, _PROTOCOLS[own.protocol]))
    for connection, messages in concerned:
        for message in messages(row, open_connection(connection, secret), sealed):
            catalog.add_delivery(
                session,
                secret,
                connection=connection.name,
                request_id=row.id,
                kind=message.kind,
                url=message.url,
                method=message.method,
                headers=dict(message.headers),
                body=message.body,
            )
