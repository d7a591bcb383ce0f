"""Verifications: answers that are compared with the model retrained without what was deleted.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "verifications",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("units", sa.JSON(), nullable=False),
        sa.Column("document_count", sa.Integer(), nullable=False),
        sa.Column("predictions", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("truths", sa.JSON(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_verifications"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["sketch_versions.id"], name="fk_verifications_version_id_sketch_versions"
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'finished', 'failed')", name=op.f("ck_verifications_state")
        ),
        sa.CheckConstraint("(claimed_at IS NOT NULL) = (state = 'running')", name=op.f("ck_verifications_claimed_at")),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('finished', 'failed'))", name=op.f("ck_verifications_finished_at")
        ),
        sa.CheckConstraint("(truths IS NOT NULL) = (state = 'finished')", name=op.f("ck_verifications_truths")),
        sa.CheckConstraint("(failure IS NOT NULL) = (state = 'failed')", name=op.f("ck_verifications_failure")),
    )
    op.create_index("ix_verifications_state_created_at", "verifications", ["state", "created_at"])
    op.create_index("ix_verifications_created_at_id", "verifications", ["created_at", "id"])


def downgrade() -> None:
    op.drop_table("verifications")
