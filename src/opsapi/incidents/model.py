"""What an incident is, what happened to it, and what a change of it consists of. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from opsapi.webhooks.model import EventType


class State(StrEnum):
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    MERGED = "merged"

    @property
    def open(self) -> bool:
        return self in OPEN


OPEN = frozenset({State.FIRING, State.ACKNOWLEDGED, State.ESCALATED})


class Severity(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


class Source(StrEnum):
    """Who told of it first."""

    API = "api"
    ALERTMANAGER = "alertmanager"
    FAILURE_BLOCK = "failure_block"
    """Operations on one target failed as often in a row as blocks it."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` grows with every transition: who acts states the one that was seen. `fired_at` is since when nobody
    has acknowledged it, `last_seen_at` when it was last reported. `title`, `description`, `symptoms` are texts of
    callers and alerts: untrusted. `alerts_unknown`: more alerts belong to it than were sent or are kept, so nobody
    can say that all are resolved. `entries` counts the timeline."""

    id: str
    workspace_id: str
    type: str
    severity: Severity
    state: State
    revision: int = 1
    source: Source
    title: str
    description: str = ""
    affected_applications: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()
    created_by: str
    opened_at: datetime
    fired_at: datetime
    last_seen_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    escalated_at: datetime | None = None
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    merged_into: str | None = None
    alerts_firing: int = 0
    alerts_total: int = 0
    alerts_unknown: bool = False
    entries: int = 0

    @property
    def rank(self) -> int:
        """The order of lists: what is open before what is not, then by severity."""
        return self.severity.rank + (0 if self.state.open else len(_RANKS))


class AlertStatus(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of an incident as it was last told of. Labels and annotations are untrusted."""

    fingerprint: str
    status: AlertStatus
    severity: Severity
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime | None = None
    application_id: str | None = None

    @property
    def name(self) -> str:
        return self.labels.get("alertname") or "alert"


class EntryKind(StrEnum):
    OPENED = "opened"
    ACKNOWLEDGED = "acknowledged"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    REOPENED = "reopened"
    MERGED = "merged"
    """Into another; it is closed by it."""
    ABSORBED = "absorbed"
    """Another was merged into this one, or would have been opened beside it."""
    ALERTS_FIRING = "alerts_firing"
    ALERTS_RESOLVED = "alerts_resolved"
    SEVERITY_RAISED = "severity_raised"
    REPORTED = "reported"
    """Again, under the same key."""
    NOTE = "note"
    REMEDIATION_STARTED = "remediation_started"
    REMEDIATION_ENDED = "remediation_ended"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the timeline. `actor` is an account or a part of the service; `message` is one line; `details` hold
    the texts of others."""

    kind: EntryKind
    at: datetime
    actor: str
    message: str
    details: dict[str, Any] = {}


class Announced(msgspec.Struct, frozen=True):
    """An event that is written to the outbox with the change; its data are the incident's."""

    type: EventType
    channels: tuple[str, ...] = ()
    action: str | None = None
    operation_id: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one transaction writes about one incident. `before` None opens it. `keys` lead to it from now
    on; `alerts` are put in place of those with the same fingerprint."""

    before: Incident | None
    after: Incident
    entries: tuple[Entry, ...] = ()
    alerts: tuple[Alert, ...] = ()
    keys: tuple[str, ...] = ()
    announced: tuple[Announced, ...] = ()
    takes_over: str | None = None
    """An incident whose keys and alerts become this one's."""
    operation_id: str | None = None
    """An operation that works on it, from now on."""
    settles: str | None = None
    """An operation of it whose end is told of."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What a report meets in its workspace, as it stands in the transaction that answers it. `by_key`: incidents that
    the report's keys lead to, whatever their state. `alike`: open incidents of the same type, the latest first.
    `alerts`: of every incident in both, by fingerprint."""

    by_key: dict[str, Incident] = {}
    alike: tuple[Incident, ...] = ()
    alerts: dict[str, dict[str, Alert]] = {}
