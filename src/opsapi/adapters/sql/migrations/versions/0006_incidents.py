"""Incidents"""

import sqlalchemy as sa
from alembic import op

from opsapi.adapters.sql.types import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    _incidents()
    _ways_to_them()
    _what_belongs_to_them()


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("type", sa.String(length=253), nullable=False),
        sa.Column("severity", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("affected_applications", JSON, nullable=False),
        sa.Column("symptoms", JSON, nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("fired_at", UtcDateTime(), nullable=False),
        sa.Column("last_seen_at", UtcDateTime(), nullable=False),
        sa.Column("acknowledged_at", UtcDateTime()),
        sa.Column("acknowledged_by", sa.String(length=80)),
        sa.Column("escalated_at", UtcDateTime()),
        sa.Column("resolved_at", UtcDateTime()),
        sa.Column("resolved_by", sa.String(length=80)),
        sa.Column("merged_into", sa.String(length=80)),
        sa.Column("alerts_firing", sa.Integer(), nullable=False),
        sa.Column("alerts_total", sa.Integer(), nullable=False),
        sa.Column("alerts_unknown", sa.Boolean(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('firing', 'acknowledged', 'escalated', 'resolved', 'merged')", name=op.f("ck_incidents_state")
        ),
        sa.CheckConstraint("severity IN ('critical', 'high', 'medium', 'low')", name=op.f("ck_incidents_severity")),
        sa.CheckConstraint("(state = 'resolved') = (resolved_at IS NOT NULL)", name=op.f("ck_incidents_resolved")),
        sa.CheckConstraint("(state = 'merged') = (merged_into IS NOT NULL)", name=op.f("ck_incidents_merged")),
        sa.CheckConstraint(
            "state <> 'acknowledged' OR acknowledged_at IS NOT NULL", name=op.f("ck_incidents_acknowledged")
        ),
        sa.CheckConstraint("state <> 'escalated' OR escalated_at IS NOT NULL", name=op.f("ck_incidents_escalated")),
        sa.CheckConstraint("state NOT IN ('resolved', 'merged') OR alerts_firing = 0", name=op.f("ck_incidents_quiet")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
    )
    op.create_index("ix_incidents_worst", "incidents", ["rank", "opened_at", "id"])
    op.create_index("ix_incidents_workspace", "incidents", ["workspace_id", "rank", "opened_at"])
    op.create_index("ix_incidents_firing", "incidents", ["state", "fired_at"])


def _ways_to_them() -> None:
    op.create_table(
        "incident_applications",
        sa.Column("incident_id", sa.String(length=80), nullable=False),
        sa.Column("application_id", sa.String(length=253), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_incident_applications_incident_id")),
        sa.PrimaryKeyConstraint("incident_id", "application_id", name=op.f("pk_incident_applications")),
    )
    op.create_index("ix_incident_applications_application", "incident_applications", ["application_id"])
    op.create_table(
        "incident_keys",
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=120), nullable=False),
        sa.Column("incident_id", sa.String(length=80), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_incident_keys_incident_id")),
        sa.PrimaryKeyConstraint("workspace_id", "key", name=op.f("pk_incident_keys")),
    )
    op.create_index("ix_incident_keys_incident_id", "incident_keys", ["incident_id"])


def _what_belongs_to_them() -> None:
    op.create_table(
        "incident_alerts",
        sa.Column("incident_id", sa.String(length=80), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("severity", sa.String(length=40), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("annotations", JSON, nullable=False),
        sa.Column("starts_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime()),
        sa.Column("application_id", sa.String(length=253)),
        sa.CheckConstraint("status IN ('firing', 'resolved')", name=op.f("ck_incident_alerts_status")),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_incident_alerts_incident_id")),
        sa.PrimaryKeyConstraint("incident_id", "fingerprint", name=op.f("pk_incident_alerts")),
    )
    op.create_table(
        "incident_entries",
        sa.Column("incident_id", sa.String(length=80), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_incident_entries_incident_id")),
        sa.PrimaryKeyConstraint("incident_id", "position", name=op.f("pk_incident_entries")),
    )
    op.create_table(
        "incident_operations",
        sa.Column("operation_id", sa.String(length=80), nullable=False),
        sa.Column("incident_id", sa.String(length=80), nullable=False),
        sa.Column("linked_at", UtcDateTime(), nullable=False),
        sa.Column("settled_at", UtcDateTime()),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_incident_operations_incident_id")),
        sa.PrimaryKeyConstraint("operation_id", name=op.f("pk_incident_operations")),
    )
    op.create_index("ix_incident_operations_incident_id", "incident_operations", ["incident_id"])
    op.create_index("ix_incident_operations_unsettled", "incident_operations", ["settled_at", "linked_at"])
