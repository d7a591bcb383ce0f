"""Requests of privacy backends: whose they are, what came of them, and what is to be told to whom.

No identity is stored, only keyed hashes; what a peer must not read, or a reader of the catalog, is sealed
(`app.secret`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.tables.datasets import Dataset, Unit
from app.tables.root import Table, now
from app.tables.sketches import Sketch


class IdentityLink(Table):
    """An identity's keyed hash, and a unit that is of the same person."""

    __tablename__ = "identity_links"

    dataset_id: Mapped[int] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    unit_number: Mapped[int] = mapped_column(primary_key=True)

    __table_args__ = (
        ForeignKeyConstraint(["dataset_id", "unit_number"], [Unit.dataset_id, Unit.number]),
        Index(None, "dataset_id", "unit_number"),
        Index(None, "hash"),
    )


class Report(Table):
    """What is measured of a dataset's sketch for each request; the reports of one name are one, over datasets."""

    __tablename__ = "reports"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id), primary_key=True)
    sketch_id: Mapped[int] = mapped_column(ForeignKey(Sketch.id))
    measurements: Mapped[list[Any]]  # as the engine's Measurement has them, one object each
    own_documents: Mapped[int]  # losses of so many of the person's own documents are measured, too
    confidence: Mapped[float]
    materiality_nats: Mapped[float]  # a change beyond it is material
    materiality_probability: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)

    dataset: Mapped[Dataset] = relationship()
    sketch: Mapped[Sketch] = relationship()


class PrivacyConnection(Table):
    """A peer that sends requests, or is told of them."""

    __tablename__ = "privacy_connections"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(16))
    options: Mapped[dict[str, Any]]  # nothing secret
    sealed: Mapped[str] = mapped_column(Text)  # the secrets, a JSON object
    credential_hash: Mapped[str | None] = mapped_column(String(64), unique=True)  # of what the peer shows
    created_at: Mapped[datetime] = mapped_column(default=now)
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("protocol IN ('fides', 'opendsr', 'webhook', 'transcend', 'ketch')", name="protocol"),
    )


class ErasureRequest(Table):
    """The job: a person's request, from its arrival to its evidence."""

    __tablename__ = "erasure_requests"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # a UUID of ours
    source: Mapped[str] = mapped_column(String(64))  # the connection's name; "api" for the native API
    caller_id: Mapped[str] = mapped_column(String(200))  # theirs, unique within the source
    protocol: Mapped[str] = mapped_column(String(16))
    body_digest: Mapped[str] = mapped_column(String(64))  # keyed
    regulation: Mapped[str | None] = mapped_column(String(32))
    mode: Mapped[str] = mapped_column(String(8))
    report: Mapped[str] = mapped_column(String(64))
    verify: Mapped[bool]
    identities: Mapped[list[Any] | None]  # keyed hashes, a list an identity; gone once it is done
    answer: Mapped[str | None] = mapped_column(Text)  # to the request, as it was accepted
    sealed: Mapped[str | None] = mapped_column(Text)  # what its protocol needs later: callbacks, tokens
    state: Mapped[str] = mapped_column(String(16), default="pending")
    stage: Mapped[str | None] = mapped_column(String(16))  # of the work
    outcome: Mapped[str | None] = mapped_column(String(16))
    units: Mapped[int | None]
    documents: Mapped[int | None]
    verifications: Mapped[list[Any] | None]  # ids of those that are waited for
    draft: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # of the evidence, while it is made
    evidence: Mapped[str | None] = mapped_column(Text)  # the signed bundle, JSON
    failure: Mapped[str | None] = mapped_column(Text)  # why the last attempt came to nothing
    attempts: Mapped[int] = mapped_column(default=0)
    submitted_at: Mapped[datetime | None]
    received_at: Mapped[datetime] = mapped_column(default=now)
    due_at: Mapped[datetime]
    next_at: Mapped[datetime] = mapped_column(default=now)  # not to be worked on before
    claim: Mapped[str | None] = mapped_column(String(36))  # of whoever works on it, another one each time
    claimed_at: Mapped[datetime | None]  # renewed; stale where that process died
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("source", "caller_id"),
        CheckConstraint("state IN ('pending', 'in_progress', 'completed', 'cancelled', 'failed')", name="state"),
        CheckConstraint("stage IS NULL OR state = 'in_progress'", name="stage"),
        CheckConstraint("stage IN ('verifying', 'forgetting')", name="known_stage"),
        CheckConstraint("mode IN ('predict', 'erase')", name="mode"),
        CheckConstraint("outcome IN ('answered', 'no_match')", name="outcome"),
        CheckConstraint("claim IS NULL OR state = 'in_progress'", name="claim"),
        CheckConstraint("(claim IS NULL) = (claimed_at IS NULL)", name="claimed_at"),
        CheckConstraint("state != 'failed' OR failure IS NOT NULL", name="failure"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('completed', 'cancelled', 'failed'))", name="finished_at"
        ),
        CheckConstraint("evidence IS NOT NULL OR state != 'completed'", name="evidence"),
        Index(None, "state", "next_at"),
        Index(None, "received_at", "id"),
    )


class Delivery(Table):
    """A message to a peer: written with the change that it tells, sent until it arrives."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)  # msg_UUID, the same at every attempt
    request_id: Mapped[str | None] = mapped_column(ForeignKey(ErasureRequest.id))  # None: a test of the connection
    number: Mapped[int]  # of the request's, in the order of what they tell
    connection: Mapped[str] = mapped_column(ForeignKey(PrivacyConnection.name))
    kind: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(255))  # of the address, for people
    sealed: Mapped[str] = mapped_column(Text)  # method, address and headers, a JSON object
    body: Mapped[str] = mapped_column(Text)  # holds no identity
    state: Mapped[str] = mapped_column(String(16), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(default=now)
    claimed_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]

    request: Mapped[ErasureRequest | None] = relationship()

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
        CheckConstraint("claimed_at IS NULL OR state = 'pending'", name="claimed_at"),
        CheckConstraint("(finished_at IS NULL) = (state = 'pending')", name="finished_at"),
        Index(None, "state", "next_at"),
        UniqueConstraint("request_id", "number"),
    )
