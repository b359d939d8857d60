"""Reporting and reading incidents."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from opsapi.incidents.access import require, visible
from opsapi.incidents.errors import IncidentNotFound
from opsapi.incidents.examples import CREATED, CREATING, INCIDENT
from opsapi.incidents.model import Incident, Source, State
from opsapi.incidents.opening import Report, caller_key
from opsapi.incidents.ports import IncidentFilter, IncidentStore, Linked
from opsapi.incidents.reporting import Reporter
from opsapi.incidents.transitions import TO_ACKNOWLEDGE, TO_ESCALATE
from opsapi.incidents.views import (
    Action,
    CreateIncidentBody,
    IncidentList,
    IncidentNote,
    IncidentParams,
    IncidentsParams,
    IncidentView,
    LinkedOperation,
    ReportedIncident,
    alert_view,
    entry_view,
    reported,
    second,
    summary,
)
from opsapi.kit.caller import Call
from opsapi.kit.cursor import decode_cursor, encode_cursor
from opsapi.kit.endpoint import OTHER, Example, Idempotency, NoBody, NoParams, Partial, Reply, Scope, endpoint
from opsapi.kit.errors import DependencyUnavailable, ResourceNotFound, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.ports import Ledger
from opsapi.playbooks.components import find_component
from opsapi.policy.book import PolicyBook
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters

_TAG = "Incidents"
_INCIDENTS = "/internal/v1/incidents"


class Position(msgspec.Struct, frozen=True):
    rank: int
    opened_at: Annotated[datetime, Meta(tz=True)]
    id: str


class IncidentEndpoints:
    def __init__(
        self, store: IncidentStore, reporter: Reporter, clusters: Clusters, ledger: Ledger, policy: PolicyBook
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._clusters = clusters
        self._ledger = ledger
        self._policy = policy

    @endpoint(
        "POST",
        _INCIDENTS,
        permission=Permission.INCIDENT_WRITE,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Report an incident",
        tag=_TAG,
        answer=ReportedIncident,
        success=(201, 200),
        errors=(ValidationFailed, ResourceNotFound, DependencyUnavailable),
        examples=(Example("created", response=CREATED, request=CREATING, status=201),),
    )
    async def create_incident(self, call: Call, _params: NoParams, body: CreateIncidentBody) -> Reply[ReportedIncident]:
        """Opens an incident: 201. Where its `key` leads to an open one, or one of the same type about the same
        application was heard of lately, the report becomes part of that: 200, `created` false. `incident:write` is
        needed in the workspace."""
        require(call, Permission.INCIDENT_WRITE, body.workspace_id)
        call.audit.workspace_id = body.workspace_id
        cluster = self._clusters.find(body.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(body.workspace_id)
        applications, warnings = self._applications(cluster, body.affected_applications)
        report = Report(
            workspace_id=body.workspace_id,
            type=body.type,
            severity=body.severity,
            source=Source.API,
            title=_line(body.title, "title"),
            description=body.description or "",
            affected_applications=applications,
            symptoms=tuple(filter(None, map(one_line, body.symptoms))),
            key=caller_key(body.key) if body.key is not None else None,
        )
        done = await self._reporter.report(report, call)
        assert done is not None
        return Reply(
            reported(done.incident, created=done.created),
            status=201 if done.created else 200,
            untrusted=["/title"],
            warnings=warnings,
        )

    def _applications(self, cluster: Cluster, wanted: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
        """By id or name, in the workspace alone. While it cannot be read they are taken as they stand: an incident is
        best told of when nothing else works."""
        found, faults = [], {}
        for index, one in enumerate(wanted):
            try:
                found.append(find_component(cluster, self._policy.settings, one).id)
            except DependencyUnavailable as error:
                unchecked = f"affected_applications were taken as they stand: {error.message}"
                return tuple(filter(None, map(one_line, wanted))), [unchecked]
            except ResourceNotFound:
                faults[f"affected_applications[{index}]"] = "is no application of this workspace"
        if faults:
            raise ValidationFailed(faults)
        return tuple(dict.fromkeys(found)), []

    @endpoint(
        "GET",
        _INCIDENTS,
        permission=Permission.INCIDENT_READ,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="List incidents",
        tag=_TAG,
        answer=IncidentList,
        errors=(ValidationFailed, DependencyUnavailable),
        fields=True,
    )
    async def list_incidents(self, call: Call, params: IncidentsParams, _body: NoBody) -> Reply[IncidentList]:
        """What is open first, then the worst, then the newest; of the workspaces in which the account may read
        incidents."""
        asked = (params.workspace, params.application, params.type, sorted(params.state or ()))
        purpose = f"incidents {asked} {sorted(params.severity or ())}"
        before = None
        if params.cursor is not None:
            position = decode_cursor(purpose, params.cursor, Position)
            before = (position.rank, position.opened_at, position.id)
        workspaces = call.caller.grants.workspaces(Permission.INCIDENT_READ)
        if params.workspace is not None:
            shown = workspaces is None or params.workspace in workspaces
            workspaces = frozenset({params.workspace}) if shown else frozenset()
        wanted = IncidentFilter(
            workspaces=workspaces,
            states=frozenset(params.state or ()) or None,
            severities=frozenset(params.severity or ()) or None,
            application_id=params.application,
            type=params.type,
            before=before,
            limit=params.limit + 1,
        )
        found = await self._store.find(wanted)
        page, more = found[: params.limit], len(found) > params.limit
        last = Position(page[-1].rank, page[-1].opened_at, page[-1].id) if more else None
        return Reply(
            IncidentList([summary(incident) for incident in page]),
            truncated=more,
            untrusted=[f"/incidents/{index}/title" for index in range(len(page))],
            next_cursor=encode_cursor(purpose, last) if last is not None else None,
        )

    @endpoint(
        "GET",
        _INCIDENTS + "/{incident_id}",
        permission=Permission.INCIDENT_READ,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="Get an incident",
        tag=_TAG,
        answer=IncidentView,
        errors=(ValidationFailed, IncidentNotFound, DependencyUnavailable),
        examples=(Example("acknowledged", response=INCIDENT),),
        fields=True,
    )
    async def get_incident(self, call: Call, params: IncidentParams, _body: NoBody) -> Reply[IncidentView]:
        """With its timeline (the newest entries), its alerts (firing ones and the worst first), the operations that
        worked on it and the notes in that timeline."""
        incident = await visible(self._store, call, params.incident_id)
        entries = [entry_view(one) for one in await self._store.timeline(incident.id, params.timeline)]
        alerts = [alert_view(one) for one in await self._store.alerts(incident.id, params.alerts)]
        links = await self._store.operations(incident.id)
        operations = [await self._operation(link) for link in links]
        notes = [
            IncidentNote(at=entry.at, actor=entry.actor, text=str(entry.details["note"]))
            for entry in entries
            if "note" in entry.details
        ]
        held = msgspec.structs.asdict(incident)
        view = IncidentView(
            **{name: held[name] for name in IncidentView.__struct_fields__ if name in held and name not in _MADE},
            incident_id=incident.id,
            severity=incident.severity.value,
            state=incident.state.value,
            source=incident.source.value,
            affected_applications=list(incident.affected_applications),
            symptoms=list(incident.symptoms),
            firing_since=second(incident.fired_at) if incident.state.open else None,
            alerts_complete=not incident.alerts_unknown,
            actions=actions_of(incident),
            timeline=entries,
            alerts=alerts,
            operations=operations,
            notes=notes,
            **{name: _to_the_second(held[name]) for name in _MOMENTS},
        )
        return Reply(
            view,
            partial=_partial(view),
            truncated=len(entries) < incident.entries or len(alerts) < incident.alerts_total,
            untrusted=_untrusted(view),
        )

    async def _operation(self, link: Linked) -> LinkedOperation:
        operation = await self._ledger.get(link.operation_id)
        if operation is None:
            return LinkedOperation(
                operation_id=link.operation_id,
                operation=None,
                status=None,
                outcome=None,
                requested_by=None,
                started_at=second(link.linked_at),
                finished_at=None,
            )
        return LinkedOperation(
            operation_id=operation.id,
            operation=operation.action,
            status=operation.state.value,
            outcome=operation.outcome.value if operation.outcome is not None else None,
            requested_by=operation.requested_by,
            started_at=second(operation.created_at),
            finished_at=_to_the_second(operation.finished_at),
        )


_MOMENTS = ("opened_at", "last_seen_at", "acknowledged_at", "escalated_at", "resolved_at")
_MADE = frozenset(
    {*_MOMENTS, "incident_id", "severity", "state", "source", "affected_applications", "symptoms", "alerts"}
)


def actions_of(incident: Incident) -> list[str]:
    """What may be asked of it now."""
    if not incident.state.open:
        return [Action.NOTE.value]
    allowed = [Action.AUTO_REMEDIATE, Action.MERGE, Action.NOTE]
    if incident.state in TO_ESCALATE:
        allowed.append(Action.ESCALATE)
    if incident.state in TO_ACKNOWLEDGE:
        allowed.append(Action.ACKNOWLEDGE)
    if not incident.alerts_firing:
        allowed.append(Action.RESOLVE)
    return sorted(action.value for action in allowed)


def _partial(view: IncidentView) -> list[Partial]:
    found = []
    if view.state in (State.RESOLVED, State.MERGED):
        found.append(Partial("firing_since", f"the incident is {view.state}"))
    if any(operation.status is None for operation in view.operations):
        found.append(Partial("operations[].status", "the operation is so old that it is not kept any more"))
    if any(alert.application_id is None for alert in view.alerts):
        found.append(Partial("alerts[].application_id", "the labels lead to no application of the workspace"))
    return found


def _untrusted(view: IncidentView) -> list[str]:
    """Pointers to text of callers and alerts."""
    found = ["/title", "/description", "/symptoms", "/notes"]
    found += [f"/timeline/{index}/details" for index, entry in enumerate(view.timeline) if entry.details]
    for index in range(len(view.alerts)):
        found += [f"/alerts/{index}/labels", f"/alerts/{index}/annotations"]
    return found


def _line(text: str, field: str) -> str:
    shown = one_line(text)
    if shown is None:
        raise ValidationFailed({field: "must hold printable characters"})
    return shown


def _to_the_second(moment: Any) -> Any:
    return None if moment is None else second(moment)
