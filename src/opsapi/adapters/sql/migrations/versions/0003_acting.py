"""Approvals, targets, pauses, plans, schedules, and the outbox"""

import sqlalchemy as sa
from alembic import op

from opsapi.adapters.sql.types import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    _operations()
    _guardrails()
    _schedules()
    _outbox()


def _operations() -> None:
    for column in (
        sa.Column("permission", sa.String(length=40)),
        sa.Column("counted", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("idempotency_id", sa.String(length=64)),
        sa.Column("locks", JSON),
        sa.Column("approval", JSON),
        sa.Column("approval_expires_at", UtcDateTime()),
        sa.Column("rollback_requested_at", UtcDateTime()),
        sa.Column("rollback_requested_by", sa.String(length=80)),
    ):
        op.add_column("operations", column)
    op.create_index("ix_operations_finished", "operations", ["finished_at"])
    op.create_index("ix_operations_idempotency", "operations", ["idempotency_id"], unique=True)
    op.add_column("operation_steps", sa.Column("items", JSON))
    op.create_table(
        "operation_targets",
        sa.Column("operation_id", sa.String(length=80), nullable=False),
        sa.Column("target", sa.String(length=253), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operations.id"], name=op.f("fk_operation_targets_operation_id")),
        sa.PrimaryKeyConstraint("operation_id", "target", name=op.f("pk_operation_targets")),
    )
    op.create_index("ix_operation_targets_target", "operation_targets", ["target", "at"])


def _guardrails() -> None:
    op.create_table(
        "policy_scopes",
        sa.Column("scope", sa.String(length=253), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_policy_scopes")),
    )
    op.create_table(
        "pauses",
        sa.Column("scope", sa.String(length=80), nullable=False),
        sa.Column("paused_at", UtcDateTime(), nullable=False),
        sa.Column("paused_by", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_pauses")),
    )
    op.create_table(
        "issued_plans",
        sa.Column("account_id", sa.String(length=80), nullable=False),
        sa.Column("plan_hash", sa.String(length=64), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "plan_hash", name=op.f("pk_issued_plans")),
    )
    op.create_index(op.f("ix_issued_plans_expires_at"), "issued_plans", ["expires_at"])


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("operation", sa.String(length=40), nullable=False),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("cron", sa.String(length=120), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.Column("last_at", UtcDateTime()),
        sa.Column("last_operation_id", sa.String(length=80)),
        sa.Column("last_error", JSON),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_index("ix_schedules_due", "schedules", ["enabled", "next_at"])
    op.create_index(op.f("ix_schedules_workspace_id"), "schedules", ["workspace_id"])


def _outbox() -> None:
    op.create_table(
        "outbox_events",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("type", sa.String(length=253), nullable=False),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("occurred_at", UtcDateTime(), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("channels", JSON, nullable=False),
        sa.Column("dispatched_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_events")),
    )
    waiting = sa.text("dispatched_at IS NULL")
    op.create_index(
        "ix_outbox_events_waiting",
        "outbox_events",
        ["occurred_at", "id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    dispatched = sa.text("dispatched_at IS NOT NULL")
    op.create_index(
        "ix_outbox_events_dispatched",
        "outbox_events",
        ["dispatched_at"],
        sqlite_where=dispatched,
        postgresql_where=dispatched,
    )
