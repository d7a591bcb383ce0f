"""Erasure requests: identities linked to units, reports, connections, the requests, and what is delivered.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasure_requests",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("caller_id", sa.String(length=200), nullable=False),
        sa.Column("protocol", sa.String(length=16), nullable=False),
        sa.Column("body_digest", sa.String(length=64), nullable=False),
        sa.Column("regulation", sa.String(length=32), nullable=True),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("report", sa.String(length=64), nullable=False),
        sa.Column("verify", sa.Boolean(), nullable=False),
        sa.Column("identities", sa.JSON(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("units", sa.Integer(), nullable=True),
        sa.Column("documents", sa.Integer(), nullable=True),
        sa.Column("verifications", sa.JSON(), nullable=True),
        sa.Column("draft", sa.JSON(), nullable=True),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claim", sa.String(length=36), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state != 'failed' OR failure IS NOT NULL", name=op.f("ck_erasure_requests_failure")),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('completed', 'cancelled', 'failed'))",
            name=op.f("ck_erasure_requests_finished_at"),
        ),
        sa.CheckConstraint("(claim IS NULL) = (claimed_at IS NULL)", name=op.f("ck_erasure_requests_claimed_at")),
        sa.CheckConstraint("claim IS NULL OR state = 'in_progress'", name=op.f("ck_erasure_requests_claim")),
        sa.CheckConstraint("evidence IS NOT NULL OR state != 'completed'", name=op.f("ck_erasure_requests_evidence")),
        sa.CheckConstraint("mode IN ('predict', 'erase')", name=op.f("ck_erasure_requests_mode")),
        sa.CheckConstraint("outcome IN ('answered', 'no_match')", name=op.f("ck_erasure_requests_outcome")),
        sa.CheckConstraint("stage IN ('verifying', 'forgetting')", name=op.f("ck_erasure_requests_known_stage")),
        sa.CheckConstraint("stage IS NULL OR state = 'in_progress'", name=op.f("ck_erasure_requests_stage")),
        sa.CheckConstraint(
            "state IN ('pending', 'in_progress', 'completed', 'cancelled', 'failed')",
            name=op.f("ck_erasure_requests_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_erasure_requests"),
        sa.UniqueConstraint("source", "caller_id", name="uq_erasure_requests_source_caller_id"),
    )
    op.create_index("ix_erasure_requests_received_at_id", "erasure_requests", ["received_at", "id"])
    op.create_index("ix_erasure_requests_state_next_at", "erasure_requests", ["state", "next_at"])

    op.create_table(
        "privacy_connections",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=16), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("credential_hash", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "protocol IN ('fides', 'opendsr', 'webhook', 'transcend', 'ketch')",
            name=op.f("ck_privacy_connections_protocol"),
        ),
        sa.PrimaryKeyConstraint("name", name="pk_privacy_connections"),
        sa.UniqueConstraint("credential_hash", name="uq_privacy_connections_credential_hash"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("connection", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(finished_at IS NULL) = (state = 'pending')", name=op.f("ck_deliveries_finished_at")),
        sa.CheckConstraint("claimed_at IS NULL OR state = 'pending'", name=op.f("ck_deliveries_claimed_at")),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'dead')", name=op.f("ck_deliveries_state")),
        sa.ForeignKeyConstraint(
            ["connection"], ["privacy_connections.name"], name="fk_deliveries_connection_privacy_connections"
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["erasure_requests.id"], name="fk_deliveries_request_id_erasure_requests"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("request_id", "number", name="uq_deliveries_request_id_number"),
    )
    op.create_index("ix_deliveries_state_next_at", "deliveries", ["state", "next_at"])

    op.create_table(
        "identity_links",
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("unit_number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id", "unit_number"],
            ["units.dataset_id", "units.number"],
            name="fk_identity_links_dataset_id_unit_number_units",
        ),
        sa.PrimaryKeyConstraint("dataset_id", "hash", "unit_number", name="pk_identity_links"),
    )
    op.create_index("ix_identity_links_dataset_id_unit_number", "identity_links", ["dataset_id", "unit_number"])
    op.create_index("ix_identity_links_hash", "identity_links", ["hash"])

    if op.get_bind().dialect.name == "postgresql":
        # Its statistics are copies of values, which outlive the rows.
        op.execute("ALTER TABLE identity_links ALTER COLUMN hash SET STATISTICS 0")
    op.create_table(
        "reports",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("sketch_id", sa.Integer(), nullable=False),
        sa.Column("measurements", sa.JSON(), nullable=False),
        sa.Column("own_documents", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("materiality_nats", sa.Double(), nullable=False),
        sa.Column("materiality_probability", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_reports_dataset_id_datasets"),
        sa.ForeignKeyConstraint(["sketch_id"], ["sketches.id"], name="fk_reports_sketch_id_sketches"),
        sa.PrimaryKeyConstraint("name", "dataset_id", name="pk_reports"),
    )


def downgrade() -> None:
    for table in ("reports", "identity_links", "deliveries", "privacy_connections", "erasure_requests"):
        op.drop_table(table)
