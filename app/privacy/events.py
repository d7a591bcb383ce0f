"""Our own events: every change of a request's state, told to webhooks (Standard Webhooks: `type, timestamp, data`).

They are thin: whose request it is and what was measured is asked of this service, with a key. The id that the caller
gave the request isn't in them, for nothing can show that it isn't an identity.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, get_args

from app.privacy.connections import OpenedConnection
from app.privacy.messages import Message
from app.privacy.options import EventType, WebhookOptions
from app.tables import ErasureRequest

EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)


def messages(row: ErasureRequest, connection: OpenedConnection, sealed: dict[str, Any]) -> list[Message]:
    """The event of a request's state, where the webhook wants it.

    Args:
        row: of the request, as it will be committed.
        connection: of the protocol "webhook".
        sealed: what the request's own protocol keeps; nothing here needs it.
    """
    del sealed
    assert isinstance(connection.options, WebhookOptions)
    kind = f"erasure_request.{row.state}"
    if connection.options.events is not None and kind not in connection.options.events:
        return []
    body = {"type": kind, "timestamp": _moment(datetime.now(UTC)), "data": _data(row)}
    return [Message(kind="event", url=connection.options.url, body=json.dumps(body))]


def _data(row: ErasureRequest) -> dict[str, Any]:
    return {
        "id": row.id,
        "source": row.source,
        "protocol": row.protocol,
        "mode": row.mode,
        "state": row.state,
        "outcome": row.outcome,
        "verdict": None if row.evidence is None else json.loads(row.evidence)["verdict"],
        "received_at": _moment(row.received_at),
        "due_at": _moment(row.due_at),
        "finished_at": None if row.finished_at is None else _moment(row.finished_at),
        "evidence_url": None if row.evidence is None else f"/erasure-requests/{row.id}/evidence",
    }


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
