"""What is announced, to whom, and how its delivery went."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

PING = "internal.webhook.ping"
"""The type of what `…/ping` sends; nobody subscribes to it."""


class EventType(StrEnum):
    """Events of the specification, and those that its silence leaves to us."""

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


class DisabledBecause(StrEnum):
    ASKED = "asked"
    """By an account, or at the command line."""
    GONE = "gone"
    """The endpoint answered 410."""
    FAILING = "failing"
    """Every attempt failed for as long as the configuration allows."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that is told of events. Its signing secret is never part of it.

    Empty `event_types` or `workspaces` mean all; with workspaces, events of the installation as a whole are left out.
    `failing_since`: the first failure since the last success. `previous_secret_until`: while a rotated secret still
    signs.
    """

    id: str
    url: str
    description: str
    event_types: list[str]
    workspaces: list[str]
    enabled: bool
    disabled_because: DisabledBecause | None
    disabled_at: datetime | None
    failing_since: datetime | None
    last_success_at: datetime | None
    previous_secret_until: datetime | None
    created_at: datetime
    created_by: str
    updated_at: datetime

    def wants(self, event: Event) -> bool:
        if not self.enabled or (self.event_types and event.type not in self.event_types):
            return False
        return not self.workspaces or event.workspace_id in self.workspaces


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up; it can be redelivered."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try. `status` is null where no answer came; `response` begins what a refusing endpoint answered."""

    number: int
    at: datetime
    duration_ms: float | None
    status: int | None
    error: str | None
    response: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one target: a webhook's id, or a configured channel's name.

    `event_id` is the `webhook-id` of every attempt. `history` holds the newest attempts; a number that is missing in it
    belongs to an attempt whose process died before it could write down the outcome.
    """

    id: str
    event_id: str
    event_type: str
    workspace_id: str
    target: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None
    history: list[Attempt]
