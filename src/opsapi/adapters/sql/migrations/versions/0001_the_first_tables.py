"""The first tables"""

import sqlalchemy as sa
from alembic import op

from opsapi.adapters.sql.types import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _accounts()
    _application_changes()
    _audit_chain()
    _audit_checkpoints()
    _audit_entries()
    _idempotency_keys()
    _leases()
    _operations()
    _workspaces()
    _account_tokens()
    _operation_locks()
    _operation_steps()


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("grants", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("allowed_addresses", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("may_act_for", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("disabled_at", UtcDateTime()),
        sa.Column("disabled_by", sa.String(length=80)),
        sa.CheckConstraint("kind IN ('agent', 'service', 'person')", name=op.f("ck_accounts_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )


def _application_changes() -> None:
    op.create_table(
        "application_changes",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("observed_at", UtcDateTime(), nullable=False),
        sa.Column("changed_at", UtcDateTime()),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("application_id", sa.String(length=253), nullable=False),
        sa.Column("namespace", sa.String(length=253), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("resource_version", sa.String(length=64), nullable=False),
        sa.Column("field", sa.String(length=253), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True)),
        sa.Column("after", sa.JSON(none_as_null=True)),
        sa.Column("manager", sa.String(length=253)),
        sa.Column("actor", sa.String(length=253)),
        sa.Column("actor_kind", sa.String(length=40)),
        sa.Column("operation_id", sa.String(length=80)),
        sa.Column("approved_by", sa.String(length=80)),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_application_changes")),
        sa.UniqueConstraint("workspace_id", "uid", "field", "resource_version", name="uq_application_changes_once"),
    )
    op.create_index(
        "ix_application_changes_application",
        "application_changes",
        ["workspace_id", "application_id", "observed_at", "id"],
    )
    op.create_index(
        "ix_application_changes_object", "application_changes", ["workspace_id", "uid", "field", "observed_at"]
    )


def _audit_chain() -> None:
    op.create_table(
        "audit_chain",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_chain_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_chain")),
    )


def _audit_checkpoints() -> None:
    op.create_table(
        "audit_checkpoints",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mac", sa.LargeBinary(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("signature", sa.LargeBinary(length=32), nullable=False),
        sa.Column("exported_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_checkpoints")),
    )


def _audit_entries() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("account_id", sa.String(length=80)),
        sa.Column("account_kind", sa.String(length=40)),
        sa.Column("claimed_account_id", sa.String(length=253)),
        sa.Column("token_id", sa.String(length=80)),
        sa.Column("on_behalf_of", sa.String(length=253)),
        sa.Column("agent_run", sa.String(length=253)),
        sa.Column("address", sa.String(length=64)),
        sa.Column("endpoint", sa.String(length=253)),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.String(length=253)),
        sa.Column("resource", sa.Text()),
        sa.Column("operation_id", sa.String(length=253)),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(length=80)),
        sa.Column("outcome", sa.String(length=40), nullable=False),
        sa.Column("duration_ms", sa.Float()),
        sa.Column("request_id", sa.String(length=253), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("mac", sa.LargeBinary(length=32)),
        sa.Column("key_id", sa.String(length=16)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
        sa.UniqueConstraint("seq", name=op.f("uq_audit_entries_seq")),
    )
    op.create_index("ix_audit_entries_account", "audit_entries", ["account_id", "at"])
    op.create_index("ix_audit_entries_newest", "audit_entries", ["at", "id"])
    op.create_index("ix_audit_entries_operation", "audit_entries", ["operation_id"])
    op.create_index(
        "ix_audit_entries_unchained",
        "audit_entries",
        ["at", "id"],
        sqlite_where=sa.text("seq IS NULL"),
        postgresql_where=sa.text("seq IS NULL"),
    )
    op.create_index("ix_audit_entries_workspace", "audit_entries", ["workspace_id", "at"])


def _idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=80), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=64), nullable=False),
        sa.Column("claim_id", sa.String(length=80), nullable=False),
        sa.Column("claimed_until", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", sa.JSON(none_as_null=True)),
        sa.Column("body", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint("claim_id", name=op.f("uq_idempotency_keys_claim_id")),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("holder", sa.String(length=253), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("outcome", sa.String(length=40)),
        sa.Column("workspace_id", sa.String(length=80), nullable=False),
        sa.Column("application_id", sa.String(length=253)),
        sa.Column("resource_id", sa.String(length=253), nullable=False),
        sa.Column("resource_uid", sa.String(length=253)),
        sa.Column("parameters", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("plan", sa.JSON(none_as_null=True)),
        sa.Column("plan_hash", sa.String(length=64)),
        sa.Column("result", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.Column("requested_by", sa.String(length=80), nullable=False),
        sa.Column("requested_by_kind", sa.String(length=40), nullable=False),
        sa.Column("on_behalf_of", sa.String(length=253)),
        sa.Column("agent_run", sa.String(length=253)),
        sa.Column("request_id", sa.String(length=253), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("approved_by", sa.String(length=80)),
        sa.Column("approved_at", UtcDateTime()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("estimated_completion", UtcDateTime()),
        sa.Column("cancel_requested_at", UtcDateTime()),
        sa.Column("cancel_requested_by", sa.String(length=80)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", UtcDateTime()),
        sa.Column("lease_holder", sa.String(length=253)),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", UtcDateTime()),
        sa.CheckConstraint(
            "state IN ('pending_approval', 'queued', 'running', 'completed', 'failed', 'cancelled', 'rolled_back')",
            name=op.f("ck_operations_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index("ix_operations_account", "operations", ["requested_by", "created_at"])
    op.create_index("ix_operations_claimable", "operations", ["state", "created_at"])
    op.create_index("ix_operations_newest", "operations", ["created_at", "id"])
    op.create_index("ix_operations_resource", "operations", ["resource_id", "created_at"])
    op.create_index("ix_operations_workspace", "operations", ["workspace_id", "created_at", "id"])


def _workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("organization", sa.String(length=253), nullable=False),
        sa.Column("plan", sa.String(length=40), nullable=False),
        sa.Column("mode", sa.String(length=40), nullable=False),
        sa.Column("namespaces", sa.JSON(none_as_null=True)),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("context", sa.String(length=253)),
        sa.Column("api_server", sa.Text()),
        sa.Column("kubeconfig", sa.LargeBinary()),
        sa.Column("kubeconfig_key_id", sa.String(length=16)),
        sa.Column("acting_kubeconfig", sa.LargeBinary()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("removed_at", UtcDateTime()),
        sa.CheckConstraint("mode IN ('observe', 'propose', 'act')", name=op.f("ck_workspaces_mode")),
        sa.CheckConstraint("plan IN ('shared', 'dedicated')", name=op.f("ck_workspaces_plan")),
        sa.CheckConstraint("source IN ('config', 'api')", name=op.f("ck_workspaces_source")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
    )


def _account_tokens() -> None:
    op.create_table(
        "account_tokens",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("account_id", sa.String(length=80), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=80), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("revoked_at", UtcDateTime()),
        sa.Column("revoked_by", sa.String(length=80)),
        sa.Column("replaces", sa.String(length=80)),
        sa.Column("last_used_at", UtcDateTime()),
        sa.Column("last_used_address", sa.String(length=64)),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_account_tokens_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_tokens")),
        sa.UniqueConstraint("sha256", name=op.f("uq_account_tokens_sha256")),
    )
    op.create_index("ix_account_tokens_account_id", "account_tokens", ["account_id"])


def _operation_locks() -> None:
    op.create_table(
        "operation_locks",
        sa.Column("resource_id", sa.String(length=253), nullable=False),
        sa.Column("operation_id", sa.String(length=80), nullable=False),
        sa.Column("taken_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operations.id"], name=op.f("fk_operation_locks_operation_id")),
        sa.PrimaryKeyConstraint("resource_id", name=op.f("pk_operation_locks")),
    )
    op.create_index("ix_operation_locks_operation_id", "operation_locks", ["operation_id"])


def _operation_steps() -> None:
    op.create_table(
        "operation_steps",
        sa.Column("operation_id", sa.String(length=80), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("resource_id", sa.String(length=253)),
        sa.Column("started_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("intent", sa.JSON(none_as_null=True)),
        sa.Column("intent_at", UtcDateTime()),
        sa.Column("effect", sa.JSON(none_as_null=True)),
        sa.Column("effect_at", UtcDateTime()),
        sa.Column("undo", sa.JSON(none_as_null=True)),
        sa.Column("message", sa.Text()),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.ForeignKeyConstraint(["operation_id"], ["operations.id"], name=op.f("fk_operation_steps_operation_id")),
        sa.PrimaryKeyConstraint("operation_id", "position", name=op.f("pk_operation_steps")),
    )
