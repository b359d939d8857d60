"""What a cleanup deleted, sealed, to be brought back from"""

import sqlalchemy as sa
from alembic import op

from opsapi.adapters.sql.types import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cleanup_snapshots",
        sa.Column("operation_id", sa.String(length=80), nullable=False),
        sa.Column("object_key", sa.String(length=600), nullable=False),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("taken_at", UtcDateTime(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("operation_id", "object_key", name=op.f("pk_cleanup_snapshots")),
    )
    op.create_index("ix_cleanup_snapshots_taken_at", "cleanup_snapshots", ["taken_at"], unique=False)
