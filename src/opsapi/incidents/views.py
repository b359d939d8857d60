"""Incidents as the API shows them and as callers report them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from opsapi.incidents.model import Alert, Entry, Incident, Severity, State
from opsapi.incidents.remediation_model import Strategy
from opsapi.kit.endpoint import Body, Params
from opsapi.operations.desk import PlanHash
from opsapi.operations.view import StepView
from opsapi.playbooks.model import PlannedOperation

Id = Annotated[str, Meta(min_length=1, max_length=253)]
Word = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
Line = Annotated[str, Meta(min_length=1, max_length=300)]
Note = Annotated[str, Meta(min_length=1, max_length=2000)]
Applications = Annotated[list[Id], Meta(max_length=50)]
Symptoms = Annotated[list[Annotated[str, Meta(min_length=1, max_length=100)]], Meta(max_length=50)]


class Action(StrEnum):
    AUTO_REMEDIATE = "auto_remediate"
    ESCALATE = "escalate"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"
    MERGE = "merge"
    NOTE = "note"


class CreateIncidentBody(Body, frozen=True, kw_only=True):
    """`type` is a word like `application_failure`. Reports with the same `key` in one workspace are about the same
    incident. `affected_applications` are ids of applications of the workspace."""

    workspace_id: Id
    type: Word
    severity: Severity
    title: Line
    description: Annotated[str, Meta(max_length=10_000)] | None = None
    affected_applications: Applications = msgspec.field(default_factory=list)
    symptoms: Symptoms = msgspec.field(default_factory=list)
    key: Annotated[str, Meta(min_length=1, max_length=500)] | None = None


class IncidentsParams(Params, frozen=True, kw_only=True):
    """Filters; all that are given must hold. `state` and `severity` may list several, comma-separated."""

    state: list[State] | None = None
    severity: list[Severity] | None = None
    workspace: Annotated[str, Meta(max_length=253)] | None = None
    application: Annotated[str, Meta(max_length=253)] | None = None
    type: Annotated[str, Meta(max_length=100)] | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: str | None = None


class IncidentParams(Params, frozen=True, kw_only=True):
    """`timeline` and `alerts`: how many of the newest entries, and of the worst alerts."""

    incident_id: str
    timeline: Annotated[int, Meta(ge=1, le=500)] = 100
    alerts: Annotated[int, Meta(ge=1, le=500)] = 50


class ManageParams(Params, frozen=True, kw_only=True):
    incident_id: str


class IncidentSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a list. `state`: firing, acknowledged, escalated, resolved or merged."""

    incident_id: str
    workspace_id: str
    type: str
    severity: str
    state: str
    title: str
    affected_applications: list[str]
    alerts_firing: int
    opened_at: datetime
    last_seen_at: datetime
    merged_into: str | None


class IncidentList(msgspec.Struct, frozen=True):
    incidents: list[IncidentSummary]


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`details` hold what others wrote: untrusted."""

    at: datetime
    event: str
    actor: str
    message: str
    details: dict[str, Any]


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """`application_id` is null where the labels lead to no application of the workspace."""

    fingerprint: str
    status: str
    severity: str
    application_id: str | None
    starts_at: datetime
    ends_at: datetime | None
    labels: dict[str, str]
    annotations: dict[str, str]


class LinkedOperation(msgspec.Struct, frozen=True, kw_only=True):
    """As it stands now. `status` is null where the operation is not kept any more."""

    operation_id: str
    operation: str | None
    status: str | None
    outcome: str | None
    requested_by: str | None
    started_at: datetime
    finished_at: datetime | None


class IncidentNote(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    actor: str
    text: str


class IncidentView(msgspec.Struct, frozen=True, kw_only=True):
    """One incident. `notes` are those of the timeline that is shown. `actions`: what may be asked of it now."""

    incident_id: str
    workspace_id: str
    type: str
    severity: str
    state: str
    source: str
    title: str
    description: str
    affected_applications: list[str]
    symptoms: list[str]
    created_by: str
    opened_at: datetime
    firing_since: datetime | None
    last_seen_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    escalated_at: datetime | None
    resolved_at: datetime | None
    resolved_by: str | None
    merged_into: str | None
    alerts_firing: int
    alerts_total: int
    alerts_complete: bool
    actions: list[str]
    timeline: list[TimelineEntry]
    alerts: list[AlertView]
    operations: list[LinkedOperation]
    notes: list[IncidentNote]


class ReportedIncident(IncidentSummary, frozen=True, kw_only=True):
    """`created` is false where the report is part of an incident that was there."""

    created: bool


class IncidentDetails(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the caller sees of it: recorded. `affected_applications` and `symptoms` are what a remedy goes by; absent,
    the incident's own."""

    type: Word | None = None
    severity: Severity | None = None
    affected_applications: Applications | None = None
    symptoms: Symptoms | None = None


class ManageBody(Body, frozen=True, kw_only=True):
    """`action`: auto_remediate, escalate, acknowledge, resolve; merge (with `into`) or note. The rest of the fields but
    `note` concern auto_remediate: `remediation_strategy` is auto (the default), restart, restart_and_scale, scale or
    rollback; `confirmation_required: true` puts it before a person, false lifts nothing; with `plan_hash`, of a dry
    run, exactly that plan is carried out."""

    action: Action
    incident_details: IncidentDetails = IncidentDetails()
    remediation_strategy: Strategy | None = None
    confirmation_required: bool = False
    note: Note | None = None
    into: Id | None = None
    dry_run: bool = False
    plan_hash: PlanHash | None = None


class ManagedIncident(msgspec.Struct, frozen=True, kw_only=True):
    """What an action did. `status` is the incident's state (`acknowledged`, `escalated`, `resolved`, `merged`), or of
    auto_remediate `in_progress`, `pending_approval` or `planned`. `remediation_steps` are followed as the operation."""

    incident_id: str
    action: str
    status: str
    started_at: datetime | None
    remediation_steps: list[StepView] | UnsetType = UNSET
    estimated_completion: datetime | UnsetType | None = UNSET
    operation_id: str | UnsetType = UNSET
    plan: PlannedOperation | UnsetType = UNSET


def summary(incident: Incident) -> IncidentSummary:
    return IncidentSummary(**_row(incident))


def reported(incident: Incident, *, created: bool) -> ReportedIncident:
    return ReportedIncident(**_row(incident), created=created)


def _row(incident: Incident) -> dict[str, Any]:
    return {
        "incident_id": incident.id,
        "workspace_id": incident.workspace_id,
        "type": incident.type,
        "severity": incident.severity.value,
        "state": incident.state.value,
        "title": incident.title,
        "affected_applications": list(incident.affected_applications),
        "alerts_firing": incident.alerts_firing,
        "opened_at": second(incident.opened_at),
        "last_seen_at": second(incident.last_seen_at),
        "merged_into": incident.merged_into,
    }


def entry_view(entry: Entry) -> TimelineEntry:
    return TimelineEntry(
        at=second(entry.at), event=entry.kind.value, actor=entry.actor, message=entry.message, details=entry.details
    )


def alert_view(alert: Alert) -> AlertView:
    return AlertView(
        fingerprint=alert.fingerprint,
        status=alert.status.value,
        severity=alert.severity.value,
        application_id=alert.application_id,
        starts_at=second(alert.starts_at),
        ends_at=None if alert.ends_at is None else second(alert.ends_at),
        labels=alert.labels,
        annotations=alert.annotations,
    )


def second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
