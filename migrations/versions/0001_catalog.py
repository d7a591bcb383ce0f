"""The catalog: datasets with their documents and units, subsets, sketches and their versions.

Revision: 0001, the first
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("vocabulary", sa.Text(), nullable=False),
        sa.Column("document_count", sa.Integer(), nullable=False),
        sa.Column("unit_count", sa.Integer(), nullable=False),
        sa.Column("has_subjects", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
    )
    op.create_table(
        "units",
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "number", name="pk_units"),
        sa.UniqueConstraint("dataset_id", "name", name="uq_units_dataset_id_name"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_units_dataset_id_datasets"),
    )
    op.create_table(
        "documents",
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("unit_number", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "number", name="pk_documents"),
        sa.ForeignKeyConstraint(
            ["dataset_id", "unit_number"],
            ["units.dataset_id", "units.number"],
            name="fk_documents_dataset_id_unit_number_units",
        ),
    )
    op.create_index("ix_documents_dataset_id_unit_number", "documents", ["dataset_id", "unit_number"])
    op.create_table(
        "subsets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("pattern", sa.Text(), nullable=True),
        sa.Column("document_count", sa.Integer(), nullable=False),
        sa.Column("unit_count", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_subsets"),
        sa.UniqueConstraint("dataset_id", "name", name="uq_subsets_dataset_id_name"),
        sa.UniqueConstraint("id", "dataset_id", name="uq_subsets_id_dataset_id"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_subsets_dataset_id_datasets"),
        sa.CheckConstraint("kind IN ('documents', 'units', 'contains', 'matches')", name=op.f("ck_subsets_kind")),
        sa.CheckConstraint(
            "(pattern IS NOT NULL) = (kind IN ('contains', 'matches'))", name=op.f("ck_subsets_pattern")
        ),
    )
    op.create_table(
        "subset_members",
        sa.Column("subset_id", sa.Integer(), nullable=False),
        sa.Column("unit_number", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subset_id", "unit_number", name="pk_subset_members"),
        sa.ForeignKeyConstraint(
            ["subset_id", "dataset_id"],
            ["subsets.id", "subsets.dataset_id"],
            name="fk_subset_members_subset_id_dataset_id_subsets",
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id", "unit_number"],
            ["units.dataset_id", "units.number"],
            name="fk_subset_members_dataset_id_unit_number_units",
        ),
    )
    op.create_table(
        "sketches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("current_version_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sketches"),
        sa.UniqueConstraint("name", name="uq_sketches_name"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_sketches_dataset_id_datasets"),
    )
    op.create_table(
        "sketch_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sketch_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("configuration", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sketch_versions"),
        sa.UniqueConstraint("sketch_id", "number", name="uq_sketch_versions_sketch_id_number"),
        sa.UniqueConstraint("sketch_id", "location", name="uq_sketch_versions_sketch_id_location"),
        sa.ForeignKeyConstraint(["sketch_id"], ["sketches.id"], name="fk_sketch_versions_sketch_id_sketches"),
        sa.CheckConstraint("state IN ('ready', 'retired')", name=op.f("ck_sketch_versions_state")),
    )
    # A sketch points at its current version, which points at its sketch: one of the two comes last.
    with op.batch_alter_table("sketches") as sketches:
        sketches.create_foreign_key(
            "fk_sketches_current_version_id_sketch_versions", "sketch_versions", ["current_version_id"], ["id"]
        )


def downgrade() -> None:
    with op.batch_alter_table("sketches") as sketches:
        sketches.drop_constraint("fk_sketches_current_version_id_sketch_versions", type_="foreignkey")
    for table in ("sketch_versions", "sketches", "subset_members", "subsets", "documents", "units", "datasets"):
        op.drop_table(table)
