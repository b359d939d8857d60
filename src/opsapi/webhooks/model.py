"""What is announced: events of the specification, and those that its silence leaves to us."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec


class EventType(StrEnum):
    OPERATION_STARTED = "internal.operation.started"
    OPERATION_COMPLETED = "internal.operation.completed"
    OPERATION_FAILED = "internal.operation.failed"
    INCIDENT_AUTO_REMEDIATED = "internal.incident.auto_remediated"
    AUTOSCALE_TRIGGERED = "internal.autoscale.triggered"
    BACKUP_COMPLETED = "internal.backup.completed"
    BACKUP_FAILED = "internal.backup.failed"
    APPROVAL_REQUESTED = "internal.approval.requested"
    APPROVAL_DECIDED = "internal.approval.decided"
    INCIDENT_OPENED = "internal.incident.opened"
    INCIDENT_ESCALATED = "internal.incident.escalated"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Written in the transaction of the change that it tells of. `workspace_id` "" concerns the installation.

    `data` is the payload's `data`: small, JSON, without secrets; text that workloads or callers wrote is untrusted.
    `channels` names configured channels (`slack:#ops`, `webhook:NAME`) that are told besides the subscribed endpoints.
    """

    id: str
    type: EventType
    workspace_id: str
    occurred_at: datetime
    data: dict[str, Any]
    channels: tuple[str, ...] = ()
