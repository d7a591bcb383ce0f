"""Who may ask, and the record of what was asked and changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.root import LongInteger, Table, now


class ApiKey(Table):
    """Who may ask what. The key itself isn't here: only what it begins with, and a keyed hash of it."""

    __tablename__ = "api_keys"

    prefix: Mapped[str] = mapped_column(String(8), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    requests_per_minute: Mapped[int | None]
    decimals: Mapped[int | None]  # that answers are rounded to
    measurements: Mapped[list[Any] | None]  # the only ones that may be asked for; None: all
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    @property
    def state(self) -> str:
        """Whether it is valid now."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now() else "valid"


class AuditRecord(Table):
    """One thing that was asked or changed; its hash is of all columns and of the hash before."""

    __tablename__ = "audit_records"

    number: Mapped[int] = mapped_column(LongInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(80))
    request_id: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    details: Mapped[dict[str, Any]]
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class AuditChain(Table):
    """The one row that says how long the chain of records is and how it ends; whoever appends holds it."""

    __tablename__ = "audit_chain"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    length: Mapped[int] = mapped_column(BigInteger)
    head: Mapped[str] = mapped_column(String(64))

    __table_args__ = (CheckConstraint("id = 1", name="one"),)
