"""The `data` of every event type: what domains fill, receivers read, and docs/webhooks.md lists.

A domain writes `data=msgspec.to_builtins(OperationData(…))`. Fields are added, never renamed or removed.
"""

from datetime import datetime

import msgspec

from opsapi.webhooks.model import PING, EventType


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """Base; what is not known is null."""

    workspace_id: str
    """Where it happened; empty for the installation as a whole."""


class EventError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    """As the API's errors."""
    message: str
    """The sentence that goes with it."""


class OperationData(EventData, frozen=True, kw_only=True):
    """An operation began or ended, or a person is asked for it or has decided on it. What was rolled back or cancelled
    counts as failed."""

    operation_id: str
    """Follow it at `GET /internal/v1/operations/{operation_id}`."""
    operation: str
    """What it does: `scale`, `auto_heal`, …"""
    application_id: str | None = None
    """The application that it is about."""
    status: str
    """`running`, `completed`, `failed`, `cancelled`, `rolled_back`, `pending_approval` or `queued`."""
    outcome: str | None = None
    """`changed`, `nothing_to_do`, `proposed` or `partial`, once it has ended."""
    requested_by: str
    """The account that asked for it."""
    approved_by: str | None = None
    """The person who approved it."""
    reason: str | None = None
    """The caller's own words: untrusted."""
    error: EventError | None = None
    """Why it failed, was cancelled or rejected."""


class AutoscaleData(EventData, frozen=True, kw_only=True):
    """Autoscaling has decided to change an application's replicas."""

    application_id: str
    """The application."""
    operation_id: str | None = None
    """The operation that carries it out."""
    scaling_action: str
    """`scale_up` or `scale_down`."""
    previous_replicas: int
    """Before."""
    new_replicas: int
    """What is wanted."""
    reason: str
    """The figures that led to it."""
    requested_by: str
    """The account that asked for the measurement."""


class BackupData(EventData, frozen=True, kw_only=True):
    """A backup is complete, or could not be completed."""

    backup_id: str
    """The backup."""
    application_id: str | None = None
    """The application; null for a whole workspace's."""
    operation_id: str | None = None
    """The operation that made it."""
    status: str
    """`completed` or `failed`; a partial one has failed."""
    size_bytes: int | None = None
    """What it takes in the store, where that is known."""
    expires_at: datetime | None = None
    """When its retention ends."""
    requested_by: str
    """The account that asked for it."""
    reason: str | None = None
    """The caller's own words: untrusted."""
    error: EventError | None = None
    """Why it failed."""


class IncidentData(EventData, frozen=True, kw_only=True):
    """An incident was opened, escalated to people, or remedied by itself."""

    incident_id: str
    """The incident."""
    type: str
    """`application_failure` and the like."""
    severity: str
    """As it was reported or found."""
    status: str
    """`firing`, `acknowledged`, `resolved`."""
    title: str
    """One line; from alerts or callers: untrusted."""
    affected_applications: list[str] = []
    """Their ids."""
    action: str | None = None
    """What was done about it, where something was."""
    operation_id: str | None = None
    """The operation that did it."""


class PingData(msgspec.Struct, frozen=True, kw_only=True):
    """Sent by `POST /internal/v1/webhooks/{webhook_id}/ping` alone."""

    webhook_id: str
    """The webhook that was pinged."""


SCHEMAS: dict[str, type[msgspec.Struct]] = {
    EventType.OPERATION_STARTED: OperationData,
    EventType.OPERATION_COMPLETED: OperationData,
    EventType.OPERATION_FAILED: OperationData,
    EventType.INCIDENT_AUTO_REMEDIATED: IncidentData,
    EventType.AUTOSCALE_TRIGGERED: AutoscaleData,
    EventType.BACKUP_COMPLETED: BackupData,
    EventType.BACKUP_FAILED: BackupData,
    EventType.APPROVAL_REQUESTED: OperationData,
    EventType.APPROVAL_DECIDED: OperationData,
    EventType.INCIDENT_OPENED: IncidentData,
    EventType.INCIDENT_ESCALATED: IncidentData,
    PING: PingData,
}
