"""Every table. Columns are portable; the migrations make exactly this, which a test compares on both engines.

Times are `UtcDateTime`, enumerations are their wire words, lists and objects are JSON. A table belongs to the store
named like it; nobody else writes it, except that any store may add an audit entry or an outbox event in its own
transaction. It is longer than other files because it is one catalogue, held against the migrations as a whole.
"""

import sqlalchemy as sa

from opsapi.adapters.sql.types import UtcDateTime

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = sa.String(80)
NAME = sa.String(253)
WORD = sa.String(40)
JSON = sa.JSON(none_as_null=True)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NAME, nullable=False),
    sa.Column("kind", WORD, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("grants", JSON, nullable=False),
    sa.Column("allowed_addresses", JSON, nullable=False),
    sa.Column("may_act_for", JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", ID, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column("disabled_by", ID),
    sa.CheckConstraint("kind IN ('agent', 'service', 'person')", name="kind"),
)

account_tokens = sa.Table(
    "account_tokens",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("account_id", ID, sa.ForeignKey("accounts.id"), nullable=False, index=True),
    sa.Column("sha256", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", ID, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("revoked_by", ID),
    sa.Column("replaces", ID),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("last_used_address", sa.String(64)),
)

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("account_id", ID),
    sa.Column("account_kind", WORD),
    sa.Column("claimed_account_id", NAME),
    sa.Column("token_id", ID),
    sa.Column("on_behalf_of", NAME),
    sa.Column("agent_run", NAME),
    sa.Column("address", sa.String(64)),
    sa.Column("endpoint", NAME),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("workspace_id", NAME),
    sa.Column("resource", sa.Text),
    sa.Column("operation_id", NAME),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("error_code", sa.String(80)),
    sa.Column("outcome", WORD, nullable=False),
    sa.Column("duration_ms", sa.Float),
    sa.Column("request_id", NAME, nullable=False),
    sa.Column("reason", sa.Text),
    # The chain: null until the chainer has linked the row.
    sa.Column("seq", sa.BigInteger, unique=True),
    sa.Column("mac", sa.LargeBinary(32)),
    sa.Column("key_id", sa.String(16)),
    sa.Index("ix_audit_entries_newest", "at", "id"),
    sa.Index("ix_audit_entries_account", "account_id", "at"),
    sa.Index("ix_audit_entries_workspace", "workspace_id", "at"),
    sa.Index("ix_audit_entries_operation", "operation_id"),
    sa.Index(
        "ix_audit_entries_unchained",
        "at",
        "id",
        sqlite_where=sa.text("seq IS NULL"),
        postgresql_where=sa.text("seq IS NULL"),
    ),
)

audit_chain = sa.Table(
    "audit_chain",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
    sa.CheckConstraint("id = 1", name="single_row"),
)
"""The chain's head, one row: locked by who appends."""

audit_checkpoints = sa.Table(
    "audit_checkpoints",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("mac", sa.LargeBinary(32), nullable=False),
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("signature", sa.LargeBinary(32), nullable=False),
    sa.Column("exported_at", UtcDateTime),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("account_id", ID, nullable=False),
    sa.Column("fingerprint", sa.LargeBinary(64), nullable=False),
    sa.Column("claim_id", ID, nullable=False, unique=True),
    sa.Column("claimed_until", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
    sa.Column("status", sa.Integer),
    sa.Column("headers", JSON),
    sa.Column("body", sa.LargeBinary),
)
"""`id` is the SHA-256 of account, method, path and key; `status` is null while the claim runs."""

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", NAME, primary_key=True),
    sa.Column("holder", NAME, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
)
"""`token` fences: it grows with every change of holder, and a writer states the one that it holds."""

workspaces = sa.Table(
    "workspaces",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NAME, nullable=False),
    sa.Column("organization", NAME, nullable=False),
    sa.Column("plan", WORD, nullable=False),
    sa.Column("mode", WORD, nullable=False),
    sa.Column("namespaces", JSON),
    sa.Column("source", WORD, nullable=False),
    sa.Column("context", NAME),
    sa.Column("api_server", sa.Text),
    sa.Column("kubeconfig", sa.LargeBinary),
    sa.Column("kubeconfig_key_id", sa.String(16)),
    sa.Column("acting_kubeconfig", sa.LargeBinary),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", ID, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("removed_at", UtcDateTime),
    sa.CheckConstraint("mode IN ('observe', 'propose', 'act')", name="mode"),
    sa.CheckConstraint("plan IN ('shared', 'dedicated')", name="plan"),
    sa.CheckConstraint("source IN ('config', 'api')", name="source"),
)
"""`namespaces` null: all of the cluster's. Kubeconfigs are ciphertext, and null for what the config file registers."""

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("action", WORD, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("1")),
    sa.Column("state", WORD, nullable=False),
    sa.Column("outcome", WORD),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("application_id", NAME),
    sa.Column("resource_id", NAME, nullable=False),
    sa.Column("resource_uid", NAME),
    sa.Column("parameters", JSON, nullable=False),
    sa.Column("plan", JSON),
    sa.Column("plan_hash", sa.String(64)),
    sa.Column("result", JSON),
    sa.Column("error", JSON),
    sa.Column("requested_by", ID, nullable=False),
    sa.Column("requested_by_kind", WORD, nullable=False),
    sa.Column("on_behalf_of", NAME),
    sa.Column("agent_run", NAME),
    sa.Column("request_id", NAME, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("approved_by", ID),
    sa.Column("approved_at", UtcDateTime),
    # What may be done on it, and how it counts.
    sa.Column("permission", WORD),
    sa.Column("counted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("idempotency_id", sa.String(64)),
    sa.Column("locks", JSON),
    sa.Column("approval", JSON),
    sa.Column("approval_expires_at", UtcDateTime),
    sa.Column("rollback_requested_at", UtcDateTime),
    sa.Column("rollback_requested_by", ID),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("estimated_completion", UtcDateTime),
    sa.Column("deadline_at", UtcDateTime),
    sa.Column("cancel_requested_at", UtcDateTime),
    sa.Column("cancel_requested_by", ID),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("not_before", UtcDateTime),
    # Who runs it: `lease_token` grows with every claim, and each write of a worker states the one that it holds.
    sa.Column("lease_holder", NAME),
    sa.Column("lease_token", sa.BigInteger, nullable=False),
    sa.Column("lease_expires_at", UtcDateTime),
    sa.CheckConstraint(
        "state IN ('pending_approval', 'queued', 'running', 'completed', 'failed', 'cancelled', 'rolled_back')",
        name="state",
    ),
    sa.Index("ix_operations_workspace", "workspace_id", "created_at", "id"),
    sa.Index("ix_operations_newest", "created_at", "id"),
    sa.Index("ix_operations_account", "requested_by", "created_at"),
    sa.Index("ix_operations_resource", "resource_id", "created_at"),
    sa.Index("ix_operations_claimable", "state", "created_at"),
    sa.Index("ix_operations_finished", "finished_at"),
    sa.Index("ix_operations_idempotency", "idempotency_id", unique=True),
)
"""`locks` are what the operation takes when it is begun or approved; `approval` is what a person has to decide."""

operation_steps = sa.Table(
    "operation_steps",
    metadata,
    sa.Column("operation_id", ID, sa.ForeignKey("operations.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("state", WORD, nullable=False),
    sa.Column("resource_id", NAME),
    sa.Column("estimated_seconds", sa.Float),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("intent", JSON),
    sa.Column("intent_at", UtcDateTime),
    sa.Column("effect", JSON),
    sa.Column("effect_at", UtcDateTime),
    sa.Column("undo", JSON),
    sa.Column("items", JSON),
    sa.Column("message", sa.Text),
    sa.Column("error", JSON),
)
"""`intent` is written before the effect is tried, `effect` after it was seen: between the two, recovery looks.
`items` holds the same for each object of a step that acts on many."""

operation_locks = sa.Table(
    "operation_locks",
    metadata,
    sa.Column("resource_id", NAME, primary_key=True),
    sa.Column("operation_id", ID, sa.ForeignKey("operations.id"), nullable=False, index=True),
    sa.Column("taken_at", UtcDateTime, nullable=False),
)

operation_targets = sa.Table(
    "operation_targets",
    metadata,
    sa.Column("operation_id", ID, sa.ForeignKey("operations.id"), primary_key=True),
    sa.Column("target", NAME, primary_key=True),
    sa.Column("action", WORD, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Index("ix_operation_targets_target", "target", "at"),
)
"""What each operation changes, by lock key: cooldowns and failure blocks count by it."""

policy_scopes = sa.Table(
    "policy_scopes",
    metadata,
    sa.Column("scope", NAME, primary_key=True),
)
"""One row an account and a workspace, locked while their budgets are counted."""

pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("scope", ID, primary_key=True),
    sa.Column("paused_at", UtcDateTime, nullable=False),
    sa.Column("paused_by", ID, nullable=False),
    sa.Column("reason", sa.Text),
)
"""`scope` is a workspace's id, or `*` for everything."""

issued_plans = sa.Table(
    "issued_plans",
    metadata,
    sa.Column("account_id", ID, primary_key=True),
    sa.Column("plan_hash", sa.String(64), primary_key=True),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("workspace_id", ID, nullable=False, index=True),
    sa.Column("operation", WORD, nullable=False),
    sa.Column("parameters", JSON, nullable=False),
    sa.Column("cron", sa.String(120), nullable=False),
    sa.Column("timezone", sa.String(64), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", ID, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("next_at", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime),
    sa.Column("last_operation_id", ID),
    sa.Column("last_error", JSON),
    sa.Index("ix_schedules_due", "enabled", "next_at"),
)

outbox_events = sa.Table(
    "outbox_events",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("type", NAME, nullable=False),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("occurred_at", UtcDateTime, nullable=False),
    sa.Column("data", JSON, nullable=False),
    sa.Column("channels", JSON, nullable=False),
    sa.Column("dispatched_at", UtcDateTime),
    sa.Index(
        "ix_outbox_events_waiting",
        "occurred_at",
        "id",
        sqlite_where=sa.text("dispatched_at IS NULL"),
        postgresql_where=sa.text("dispatched_at IS NULL"),
    ),
    sa.Index(
        "ix_outbox_events_dispatched",
        "dispatched_at",
        sqlite_where=sa.text("dispatched_at IS NOT NULL"),
        postgresql_where=sa.text("dispatched_at IS NOT NULL"),
    ),
)
"""Written with the change that an event tells of; whoever dispatches it makes its deliveries in one transaction."""

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("event_types", JSON, nullable=False),
    sa.Column("workspaces", JSON, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("disabled_because", WORD),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column("failing_since", UtcDateTime),
    sa.Column("last_success_at", UtcDateTime),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("secret_key_id", sa.String(16), nullable=False),
    sa.Column("previous_secret", sa.LargeBinary),
    sa.Column("previous_secret_key_id", sa.String(16)),
    sa.Column("previous_secret_until", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", ID, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)
"""Secrets are ciphertext; the previous one signs too until its time is over."""

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("event_id", ID, nullable=False),
    sa.Column("event_type", NAME, nullable=False),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("target", NAME, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("state", WORD, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("next_attempt_at", UtcDateTime),
    sa.Column("give_up_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("lease_token", sa.BigInteger, nullable=False),
    sa.Column("history", JSON, nullable=False),
    sa.CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    sa.Index(
        "ix_webhook_deliveries_due",
        "next_attempt_at",
        "id",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    ),
    sa.Index("ix_webhook_deliveries_target", "target", "created_at", "id"),
    sa.Index("ix_webhook_deliveries_finished", "finished_at"),
)
"""`target` is a webhook's id or a channel's name. A claim moves `next_attempt_at` to the end of its lease, so that what
a dead process had claimed falls due again by itself; `lease_token` fences off the late."""

backups = sa.Table(
    "backups",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("application_id", NAME, nullable=False),
    sa.Column("kind", WORD, nullable=False),
    sa.Column("namespace", NAME, nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("engine", WORD, nullable=False),
    sa.Column("status", WORD, nullable=False),
    sa.Column("backup_type", WORD, nullable=False),
    sa.Column("retention_policy", WORD, nullable=False),
    sa.Column("include_volumes", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("requested_by", ID, nullable=False),
    sa.Column("operation_id", ID, nullable=False),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("velero_uid", sa.String(64)),
    sa.Column("checksum", sa.String(64)),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("volumes_expected", sa.Integer),
    sa.Column("volumes_captured", sa.Integer),
    sa.Column("volumes", JSON, nullable=False),
    sa.Column("objects", JSON, nullable=False),
    sa.Column("left_out", JSON, nullable=False),
    sa.Column("error", JSON),
    sa.Column("verified_at", UtcDateTime),
    sa.Column("damage", JSON, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
    sa.Index("ix_backups_workspace", "workspace_id", "created_at", "id"),
    sa.Index("ix_backups_application", "application_id", "created_at", "id"),
    sa.Index("ix_backups_created", "created_at", "id"),
    sa.Index("ix_backups_status", "status", "expires_at"),
    sa.Index("ix_backups_operation", "operation_id"),
)
"""`status` is what the making wrote last: one in progress whose operation has ended is failed. `checksum` is of the
index in the store, so that the store alone cannot pass off other contents."""

application_changes = sa.Table(
    "application_changes",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("observed_at", UtcDateTime, nullable=False),
    sa.Column("changed_at", UtcDateTime),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("application_id", NAME, nullable=False),
    sa.Column("namespace", NAME, nullable=False),
    sa.Column("kind", WORD, nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("resource_version", sa.String(64), nullable=False),
    sa.Column("field", NAME, nullable=False),
    sa.Column("before", JSON),
    sa.Column("after", JSON),
    sa.Column("manager", NAME),
    sa.Column("actor", NAME),
    sa.Column("actor_kind", WORD),
    sa.Column("operation_id", ID),
    sa.Column("approved_by", ID),
    sa.Column("reason", sa.Text),
    # Every replica sees the same change; the first to write it wins.
    sa.UniqueConstraint("workspace_id", "uid", "field", "resource_version", name="uq_application_changes_once"),
    sa.Index("ix_application_changes_application", "workspace_id", "application_id", "observed_at", "id"),
    sa.Index("ix_application_changes_object", "workspace_id", "uid", "field", "observed_at"),
)
"""`manager` is the field manager that Kubernetes names; `actor` is null where nobody could be found."""

application_snapshots = sa.Table(
    "application_snapshots",
    metadata,
    sa.Column("workspace_id", ID, primary_key=True),
    sa.Column("uid", sa.String(64), primary_key=True),
    sa.Column("resource_version", sa.String(64), nullable=False),
    sa.Column("observed_at", UtcDateTime, nullable=False),
    sa.Column("fields", JSON, nullable=False),
)
"""What each application (or its autoscaler) was last seen to be, so that what changed while nobody watched is found."""

security_scans = sa.Table(
    "security_scans",
    metadata,
    sa.Column("workspace_id", ID, primary_key=True),
    sa.Column("scan_id", ID, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("namespaces", JSON, nullable=False),
    sa.Column("report", JSON, nullable=False),
)
"""The last scan of each workspace; `scan_id` is its operation's."""

security_findings = sa.Table(
    "security_findings",
    metadata,
    sa.Column("scan_id", ID, primary_key=True),
    sa.Column("id", ID, primary_key=True),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("source", WORD, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("severity", WORD, nullable=False),
    sa.Column("category", WORD, nullable=False),
    sa.Column("namespace", NAME, nullable=False),
    sa.Column("finding", JSON, nullable=False),
    sa.Column("staged_at", UtcDateTime, nullable=False),
    sa.Index("ix_security_findings_worst", "scan_id", "weight", "id"),
    sa.Index("ix_security_findings_workspace", "workspace_id", "staged_at"),
)
"""Of each workspace's last scan, and of scans that run."""

cleanup_snapshots = sa.Table(
    "cleanup_snapshots",
    metadata,
    sa.Column("operation_id", ID, primary_key=True),
    sa.Column("object_key", sa.String(600), primary_key=True),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("taken_at", UtcDateTime, nullable=False, index=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("key_id", sa.String(16), nullable=False),
)
"""Each object as it was before a cleanup deleted it; Secrets are among them, so all of it is ciphertext."""

incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("workspace_id", ID, nullable=False),
    sa.Column("type", NAME, nullable=False),
    sa.Column("severity", WORD, nullable=False),
    sa.Column("state", WORD, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("source", WORD, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("affected_applications", JSON, nullable=False),
    sa.Column("symptoms", JSON, nullable=False),
    sa.Column("created_by", ID, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("fired_at", UtcDateTime, nullable=False),
    sa.Column("last_seen_at", UtcDateTime, nullable=False),
    sa.Column("acknowledged_at", UtcDateTime),
    sa.Column("acknowledged_by", ID),
    sa.Column("escalated_at", UtcDateTime),
    sa.Column("resolved_at", UtcDateTime),
    sa.Column("resolved_by", ID),
    sa.Column("merged_into", ID),
    sa.Column("alerts_firing", sa.Integer, nullable=False),
    sa.Column("alerts_total", sa.Integer, nullable=False),
    sa.Column("alerts_unknown", sa.Boolean, nullable=False),
    sa.Column("entries", sa.Integer, nullable=False),
    sa.CheckConstraint("state IN ('firing', 'acknowledged', 'escalated', 'resolved', 'merged')", name="state"),
    sa.CheckConstraint("severity IN ('critical', 'high', 'medium', 'low')", name="severity"),
    sa.CheckConstraint("(state = 'resolved') = (resolved_at IS NOT NULL)", name="resolved"),
    sa.CheckConstraint("(state = 'merged') = (merged_into IS NOT NULL)", name="merged"),
    sa.CheckConstraint("state <> 'acknowledged' OR acknowledged_at IS NOT NULL", name="acknowledged"),
    sa.CheckConstraint("state <> 'escalated' OR escalated_at IS NOT NULL", name="escalated"),
    sa.CheckConstraint("state NOT IN ('resolved', 'merged') OR alerts_firing = 0", name="quiet"),
    sa.Index("ix_incidents_worst", "rank", "opened_at", "id"),
    sa.Index("ix_incidents_workspace", "workspace_id", "rank", "opened_at"),
    sa.Index("ix_incidents_firing", "state", "fired_at"),
)
"""`revision` grows with every transition, and a transition states the one that it saw. `rank` orders lists: open before
closed, then by severity."""

incident_applications = sa.Table(
    "incident_applications",
    metadata,
    sa.Column("incident_id", ID, sa.ForeignKey("incidents.id"), primary_key=True),
    sa.Column("application_id", NAME, primary_key=True),
    sa.Index("ix_incident_applications_application", "application_id"),
)
"""The incident's list once more, to find by."""

incident_keys = sa.Table(
    "incident_keys",
    metadata,
    sa.Column("workspace_id", ID, primary_key=True),
    sa.Column("key", sa.String(120), primary_key=True),
    sa.Column("incident_id", ID, sa.ForeignKey("incidents.id"), nullable=False, index=True),
)
"""A fingerprint, a group or a caller's key leads to one incident of its workspace, the latest: nothing opens twice."""

incident_alerts = sa.Table(
    "incident_alerts",
    metadata,
    sa.Column("incident_id", ID, sa.ForeignKey("incidents.id"), primary_key=True),
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("status", WORD, nullable=False),
    sa.Column("severity", WORD, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("labels", JSON, nullable=False),
    sa.Column("annotations", JSON, nullable=False),
    sa.Column("starts_at", UtcDateTime, nullable=False),
    sa.Column("ends_at", UtcDateTime),
    sa.Column("application_id", NAME),
    sa.CheckConstraint("status IN ('firing', 'resolved')", name="status"),
)
"""`rank` orders lists: firing before resolved, then by severity."""

incident_entries = sa.Table(
    "incident_entries",
    metadata,
    sa.Column("incident_id", ID, sa.ForeignKey("incidents.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", WORD, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", ID, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("details", JSON, nullable=False),
)
"""The timeline; it is only ever added to."""

incident_operations = sa.Table(
    "incident_operations",
    metadata,
    sa.Column("operation_id", ID, primary_key=True),
    sa.Column("incident_id", ID, sa.ForeignKey("incidents.id"), nullable=False, index=True),
    sa.Column("linked_at", UtcDateTime, nullable=False),
    sa.Column("settled_at", UtcDateTime),
    sa.Index("ix_incident_operations_unsettled", "settled_at", "linked_at"),
)
"""`settled_at`: when the timeline was told how it ended."""
