"""Sketches, their versions, and answers of these that are verified."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.tables.datasets import Dataset
from app.tables.root import Table, now


class Sketch(Table):
    """A name under which versions are served; one of them is current. Its dataset is that of its next version."""

    __tablename__ = "sketches"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id))
    current_version_id: Mapped[int | None] = mapped_column(ForeignKey("sketch_versions.id", use_alter=True))
    previous_version_id: Mapped[int | None] = mapped_column(ForeignKey("sketch_versions.id", use_alter=True))
    created_at: Mapped[datetime] = mapped_column(default=now)

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
    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default="ready")
    location: Mapped[str] = mapped_column(Text)  # relative to the artifacts directory, with slashes
    checksum: Mapped[str] = mapped_column(Text)
    configuration: Mapped[dict[str, Any]]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=now)

    sketch: Mapped[Sketch] = relationship(foreign_keys=[sketch_id])
    dataset: Mapped[Dataset] = relationship()  # that it was built from

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
    def erased_units(self) -> int:
        """How many of the units that it was trained on have been erased since."""
        return self.dataset.erased_units

    @property
    def contains_erased(self) -> bool:
        """Whether it was trained on units that have been erased since."""
        return self.erased_units > 0

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
    created_at: Mapped[datetime] = mapped_column(default=now)
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
