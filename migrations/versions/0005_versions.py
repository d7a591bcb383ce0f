"""The version that was current before, for a rollback; versions whose artifact may be removed.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATE = "ck_sketch_versions_state"
_PREVIOUS = "fk_sketches_previous_version_id_sketch_versions"


def upgrade() -> None:
    with op.batch_alter_table("sketches") as table:
        table.add_column(sa.Column("previous_version_id", sa.Integer(), nullable=True))
        table.create_foreign_key(_PREVIOUS, "sketch_versions", ["previous_version_id"], ["id"])
    with op.batch_alter_table("sketch_versions") as table:
        table.drop_constraint(op.f(_STATE), type_="check")
        table.create_check_constraint(op.f(_STATE), "state IN ('ready', 'retired', 'deleted')")


def downgrade() -> None:
    op.execute("UPDATE sketch_versions SET state = 'retired' WHERE state = 'deleted'")
    with op.batch_alter_table("sketch_versions") as table:
        table.drop_constraint(op.f(_STATE), type_="check")
        table.create_check_constraint(op.f(_STATE), "state IN ('ready', 'retired')")
    with op.batch_alter_table("sketches") as table:
        table.drop_constraint(_PREVIOUS, type_="foreignkey")
        table.drop_column("previous_version_id")
