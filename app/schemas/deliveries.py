"""Deliveries, as answered: what was told to whom, and how that went; nothing of what was said or of where exactly."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Self
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.catalog import DeliveryState
from app.schemas import Answer, PageAnswer, example_page
from app.tables import Delivery

_DELIVERY: Final[JsonDict] = {
    "id": "msg_8d0c4a1f6b7e4c0f9a3d2e5b1c7f6a90",
    "request_id": "6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11",
    "number": 3,
    "connection": "privacy-desk",
    "kind": "event",
    "host": "privacy.example.org",
    "state": "pending",
    "attempts": 2,
    "last_status": 503,
    "last_error": "It answered 503.",
    "created_at": "2026-01-05T09:50:00Z",
    "next_at": "2026-01-05T09:55:05Z",
    "finished_at": None,
}


class DeliveryAnswer(Answer):
    """A message to a peer."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DELIVERY]})

    id: str = Field(description="The same at every attempt: what Standard Webhooks call webhook-id.")
    request_id: UUID | None = Field(description="The erasure request that it is about.")
    number: int = Field(description="In the order of what is told of the request, from 1.")
    connection: str = Field(description="Whose peer is told.")
    kind: str = Field(description="What it is, of which protocol.")
    host: str = Field(description="Where it goes; the rest of the address may be secret.")
    state: DeliveryState = Field(description="dead: given up, and can be replayed.")
    attempts: int = Field(description="Since it was written, or replayed.")
    last_status: int | None = Field(description="That the peer answered last.")
    last_error: str | None = Field(description="Why the last attempt came to nothing.")
    created_at: datetime
    next_at: datetime | None = Field(description="When it is tried next; null where it isn't.")
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Delivery) -> Self:
        """Of a row."""
        pending = row.state == "pending"
        values = {name: getattr(row, name) for name in cls.model_fields}
        return cls.model_validate({**values, "next_at": row.next_at if pending else None})


class DeliveryPage(PageAnswer[DeliveryAnswer]):
    """Deliveries, the newest first."""

    model_config = example_page(_DELIVERY)
