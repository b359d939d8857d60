"""Procedures' versions, deadlines and estimates; what applications were last seen to be"""

import sqlalchemy as sa
from alembic import op

from opsapi.adapters.sql.types import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("operations", sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column("operations", sa.Column("deadline_at", UtcDateTime()))
    op.add_column("operation_steps", sa.Column("estimated_seconds", sa.Float()))
    op.create_table(
        "application_snapshots",
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("resource_version", sa.String(length=64), nullable=False),
        sa.Column("observed_at", UtcDateTime(), nullable=False),
        sa.Column("fields", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "uid", name=op.f("pk_application_snapshots")),
    )
