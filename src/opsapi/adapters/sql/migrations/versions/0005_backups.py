"""Backups"""

import sqlalchemy as sa
from alembic import op

from opsapi.adapters.sql.types import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.create_table(
        "backups",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("application_id", sa.String(length=253), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("namespace", sa.String(length=253), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("engine", sa.String(length=40), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("backup_type", sa.String(length=40), nullable=False),
        sa.Column("retention_policy", sa.String(length=40), nullable=False),
        sa.Column("include_volumes", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("requested_by", sa.String(length=80), nullable=False),
        sa.Column("operation_id", sa.String(length=80), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("velero_uid", sa.String(length=64)),
        sa.Column("checksum", sa.String(length=64)),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("volumes_expected", sa.Integer()),
        sa.Column("volumes_captured", sa.Integer()),
        sa.Column("volumes", JSON, nullable=False),
        sa.Column("objects", JSON, nullable=False),
        sa.Column("left_out", JSON, nullable=False),
        sa.Column("error", JSON),
        sa.Column("verified_at", UtcDateTime()),
        sa.Column("damage", JSON, nullable=False),
        sa.Column("deleted_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_index("ix_backups_workspace", "backups", ["workspace_id", "created_at", "id"])
    op.create_index("ix_backups_application", "backups", ["application_id", "created_at", "id"])
    op.create_index("ix_backups_created", "backups", ["created_at", "id"])
    op.create_index("ix_backups_status", "backups", ["status", "expires_at"])
    op.create_index("ix_backups_operation", "backups", ["operation_id"])
