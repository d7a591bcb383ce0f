"""The SQL tables of the catalog. What a table may hold is said by its constraints; queries are `catalog`'s part.

    datasets ─┬─ units ─┬─ documents
              │         └─ subset_members ─ subsets ─ datasets
              └─ sketches ── sketch_versions ── verifications    (sketches.current_version_id points back)
    api_keys                        who may ask
    audit_records ─ audit_chain     what was asked and changed; a record is never changed, which triggers see to

A dataset and all that belongs to it never changes once it is there. Documents and units are numbered from 0 within
their dataset.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, in UTC and saying so; SQLite stores it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a moment without a zone, and store the others in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone can't be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC, whatever zone the database answers in."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_LongInteger = BigInteger().with_variant(Integer, "sqlite")
"""A primary key that may outgrow 32 bits; on SQLite, where every integer may, the one that is the row's own number."""


def _now() -> datetime:
    return datetime.now(UTC)


class Table(DeclarativeBase):
    """Root of all tables: one naming of constraints, so that migrations can find them on every database."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's protocol
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON(none_as_null=True),
    }


class Dataset(Table):
    """Documents in training order, by name."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))
    vocabulary: Mapped[str] = mapped_column(Text)
    document_count: Mapped[int]
    unit_count: Mapped[int]
    has_subjects: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=_now)


class Unit(Table):
    """The smallest thing that can be deleted: one document, or all those of one subject."""

    __tablename__ = "units"

    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)

    __table_args__ = (UniqueConstraint("dataset_id", "name"),)


class Document(Table):
    """One text that the model is trained on."""

    __tablename__ = "documents"

    dataset_id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    unit_number: Mapped[int]
    text: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        ForeignKeyConstraint(["dataset_id", "unit_number"], [Unit.dataset_id, Unit.number]),
        Index(None, "dataset_id", "unit_number"),
    )


class Subset(Table):
    """A named deletion set: a set of units, and the rule that chose them."""

    __tablename__ = "subsets"

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id))
    name: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    pattern: Mapped[str | None] = mapped_column(Text)
    document_count: Mapped[int]
    unit_count: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=_now)

    dataset: Mapped[Dataset] = relationship()

    __table_args__ = (
        UniqueConstraint("dataset_id", "name"),
        UniqueConstraint("id", "dataset_id"),  # for the members, which can't then be another dataset's
        CheckConstraint("kind IN ('documents', 'units', 'contains', 'matches')", name="kind"),
        CheckConstraint("(pattern IS NOT NULL) = (kind IN ('contains', 'matches'))", name="pattern"),
    )


class SubsetMember(Table):
    """A unit of a subset."""

    __tablename__ = "subset_members"

    subset_id: Mapped[int] = mapped_column(primary_key=True)
    unit_number: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int]

    __table_args__ = (
        ForeignKeyConstraint(["subset_id", "dataset_id"], [Subset.id, Subset.dataset_id]),
        ForeignKeyConstraint(["dataset_id", "unit_number"], [Unit.dataset_id, Unit.number]),
    )


class Sketch(Table):
    """A name under which versions are served; one of them is current."""

    __tablename__ = "sketches"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id))
    current_version_id: Mapped[int | None] = mapped_column(ForeignKey("sketch_versions.id", use_alter=True))
    previous_version_id: Mapped[int | None] = mapped_column(ForeignKey("sketch_versions.id", use_alter=True))
    created_at: Mapped[datetime] = mapped_column(default=_now)

    dataset: Mapped[Dataset] = relationship()
    current_version: Mapped[SketchVersion | None] = relationship(
        foreign_keys=[current_version_id], viewonly=True, lazy="raise"
    )

    @property
    def current_number(self) -> int | None:
        """The number of the current version, if there is one."""
        return self.current_version.number if self.current_version else None


class SketchVersion(Table):
    """One artifact of a sketch: complete and immutable before this row was written."""

    __tablename__ = "sketch_versions"

    id: Mapped[int] = mapped_column(primary_key=True)
    sketch_id: Mapped[int] = mapped_column(ForeignKey(Sketch.id))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="ready")
    location: Mapped[str] = mapped_column(Text)  # relative to the artifacts directory, with slashes
    checksum: Mapped[str] = mapped_column(Text)
    configuration: Mapped[dict[str, Any]]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=_now)

    sketch: Mapped[Sketch] = relationship(foreign_keys=[sketch_id])

    __table_args__ = (
        UniqueConstraint("sketch_id", "number"),
        UniqueConstraint("sketch_id", "location"),
        CheckConstraint("state IN ('ready', 'retired', 'deleted')", name="state"),
    )

    @property
    def is_current(self) -> bool:
        """Whether questions get this version unless they name another."""
        return self.sketch.current_version_id == self.id

    @property
    def label(self) -> str:
        """How people call it: "names v3"."""
        return f"{self.sketch.name} v{self.number}"


class Verification(Table):
    """An answer to be compared with the model retrained without what was deleted, and what came of it."""

    __tablename__ = "verifications"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # a UUID: it can't be guessed from another
    version_id: Mapped[int] = mapped_column(ForeignKey(SketchVersion.id))
    units: Mapped[list[Any]]  # numbers, ascending
    document_count: Mapped[int]
    predictions: Mapped[list[Any]]  # what was answered, one object a measurement
    confidence: Mapped[float]  # of their intervals
    state: Mapped[str] = mapped_column(String(16), default="pending")
    truths: Mapped[list[Any] | None]  # one value a prediction
    failure: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    started_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]  # renewed by the process that works on it; stale where that one died
    finished_at: Mapped[datetime | None]

    version: Mapped[SketchVersion] = relationship()

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'running', 'finished', 'failed')", name="state"),
        CheckConstraint("(claimed_at IS NOT NULL) = (state = 'running')", name="claimed_at"),
        CheckConstraint("(finished_at IS NOT NULL) = (state IN ('finished', 'failed'))", name="finished_at"),
        CheckConstraint("(truths IS NOT NULL) = (state = 'finished')", name="truths"),
        CheckConstraint("(failure IS NOT NULL) = (state = 'failed')", name="failure"),
        Index(None, "state", "created_at"),
        Index(None, "created_at", "id"),
    )


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
    created_at: Mapped[datetime] = mapped_column(default=_now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    @property
    def state(self) -> str:
        """Whether it is valid now."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= _now() else "valid"


class AuditRecord(Table):
    """One thing that was asked or changed; its hash is of all columns and of the hash before."""

    __tablename__ = "audit_records"

    number: Mapped[int] = mapped_column(_LongInteger, primary_key=True, autoincrement=False)
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
