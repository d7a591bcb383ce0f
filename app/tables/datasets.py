"""Datasets, what they consist of, and named parts of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.tables.root import Table, now


class Dataset(Table):
    """Documents in training order, by name. Erased units stay in the counts, for their numbers stay taken."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(String(64))
    vocabulary: Mapped[str] = mapped_column(Text)
    document_count: Mapped[int]
    unit_count: Mapped[int]
    has_subjects: Mapped[bool]
    erased_units: Mapped[int] = mapped_column(default=0)
    successor_of_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"))  # whose erased units it leaves out
    created_at: Mapped[datetime] = mapped_column(default=now)


class Unit(Table):
    """The smallest thing that can be deleted: one document, or all those of one subject."""

    __tablename__ = "units"

    dataset_id: Mapped[int] = mapped_column(ForeignKey(Dataset.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    erased_at: Mapped[datetime | None]  # from then on it has no text and no name of its own
    predecessor_number: Mapped[int | None]  # the same unit's in the dataset that this one is the successor of

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
    created_at: Mapped[datetime] = mapped_column(default=now)

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
