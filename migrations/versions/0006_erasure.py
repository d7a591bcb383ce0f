"""Erased units, datasets that succeed others without them, and the dataset of each version.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SUCCESSOR = "fk_datasets_successor_of_id_datasets"
_DATASET = "fk_sketch_versions_dataset_id_datasets"
_SKETCHES = sa.table("sketches", sa.column("id"), sa.column("dataset_id"))
_VERSIONS = sa.table("sketch_versions", sa.column("sketch_id"), sa.column("dataset_id"))

_OF_PEOPLE = (("documents", "text"), ("units", "name"), ("subsets", "pattern"))


def upgrade() -> None:
    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("erased_units", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("successor_of_id", sa.Integer(), nullable=True))
        table.create_foreign_key(_SUCCESSOR, "datasets", ["successor_of_id"], ["id"])
    with op.batch_alter_table("datasets") as table:
        table.alter_column("erased_units", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
    op.add_column("units", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("units", sa.Column("predecessor_number", sa.Integer(), nullable=True))
    op.add_column("sketch_versions", sa.Column("dataset_id", sa.Integer(), nullable=True))
    of_sketch = sa.select(_SKETCHES.c.dataset_id).where(_SKETCHES.c.id == _VERSIONS.c.sketch_id)
    op.execute(sa.update(_VERSIONS).values(dataset_id=of_sketch.scalar_subquery()))
    with op.batch_alter_table("sketch_versions") as table:
        table.alter_column("dataset_id", existing_type=sa.Integer(), nullable=False)
        table.create_foreign_key(_DATASET, "datasets", ["dataset_id"], ["id"])
    if op.get_bind().dialect.name == "postgresql":
        # Its statistics are copies of frequent values, which outlive the rows: none of these columns, and none is left.
        for table_name, column in _OF_PEOPLE:
            op.execute(f"ALTER TABLE {table_name} ALTER COLUMN {column} SET STATISTICS 0")
            op.execute(f"ALTER TABLE {table_name} ALTER COLUMN {column} TYPE text")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table_name, column in _OF_PEOPLE:
            op.execute(f"ALTER TABLE {table_name} ALTER COLUMN {column} SET STATISTICS -1")
    with op.batch_alter_table("sketch_versions") as table:
        table.drop_constraint(_DATASET, type_="foreignkey")
        table.drop_column("dataset_id")
    with op.batch_alter_table("units") as table:
        table.drop_column("predecessor_number")
        table.drop_column("erased_at")
    with op.batch_alter_table("datasets") as table:
        table.drop_constraint(_SUCCESSOR, type_="foreignkey")
        table.drop_column("successor_of_id")
        table.drop_column("erased_units")
