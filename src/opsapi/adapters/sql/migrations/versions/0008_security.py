"""Security scans and their findings"""

import sqlalchemy as sa
from alembic import op

from opsapi.adapters.sql.types import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.create_table(
        "security_scans",
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("scan_id", sa.String(length=80), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("namespaces", JSON, nullable=False),
        sa.Column("report", JSON, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_security_scans")),
    )
    op.create_table(
        "security_findings",
        sa.Column("scan_id", sa.String(length=80), nullable=False),
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("severity", sa.String(length=40), nullable=False),
        sa.Column("category", sa.String(length=40), nullable=False),
        sa.Column("namespace", sa.String(length=253), nullable=False),
        sa.Column("finding", JSON, nullable=False),
        sa.Column("staged_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("scan_id", "id", name=op.f("pk_security_findings")),
    )
    op.create_index("ix_security_findings_worst", "security_findings", ["scan_id", "weight", "id"])
    op.create_index("ix_security_findings_workspace", "security_findings", ["workspace_id", "staged_at"])
