"""POST /incidents/{incident_id}: what people and agents do about an incident."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from opsapi.accounts.errors import InsufficientInternalPermissions
from opsapi.applications.errors import ManagedExternally, ProtectedNamespace
from opsapi.incidents.access import require, visible, writable
from opsapi.incidents.errors import IncidentNotFound, not_allowed
from opsapi.incidents.examples import ACKNOWLEDGED, ACKNOWLEDGING, MANAGED, MANAGING
from opsapi.incidents.model import Change, Incident
from opsapi.incidents.ports import IncidentStore
from opsapi.incidents.remediating import Remediating
from opsapi.incidents.remediation_model import RemediationOrder
from opsapi.incidents.settings import IncidentSettings
from opsapi.incidents.transitions import acknowledge, check_seen, escalate, merge, noted, resolve
from opsapi.incidents.views import Action, ManageBody, ManagedIncident, ManageParams, second
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.duration import format_seconds
from opsapi.kit.endpoint import OTHER, Example, Idempotency, Partial, Reply, Scope, endpoint
from opsapi.kit.errors import (
    AmbiguousResource,
    DependencyUnavailable,
    InvalidState,
    PolicyDenied,
    ResourceNotFound,
    ValidationFailed,
)
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.desk import Rehearsal, started
from opsapi.operations.errors import OperationInProgress, StalePlan
from opsapi.operations.model import Operation, State, StepState
from opsapi.operations.proposal import Proposal
from opsapi.operations.view import StepView
from opsapi.playbooks.model import PlannedOperation


class ManageIncidentEndpoints:
    def __init__(
        self, store: IncidentStore, remediating: Remediating, settings: IncidentSettings, clock: Clock
    ) -> None:
        self._store = store
        self._remediating = remediating
        self._settings = settings
        self._clock = clock

    @endpoint(
        "POST",
        "/internal/v1/incidents/{incident_id}",
        permission=Permission.INCIDENT_WRITE,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Manage an incident",
        tag="Incidents",
        answer=ManagedIncident,
        success=(202, 200),
        errors=(
            ValidationFailed,
            InsufficientInternalPermissions,
            PolicyDenied,
            ProtectedNamespace,
            IncidentNotFound,
            ResourceNotFound,
            AmbiguousResource,
            ManagedExternally,
            InvalidState,
            OperationInProgress,
            StalePlan,
            DependencyUnavailable,
        ),
        examples=(
            Example("auto_remediate", response=MANAGED, request=MANAGING, status=202),
            Example("acknowledge", response=ACKNOWLEDGED, request=ACKNOWLEDGING, status=200),
        ),
        dry_run=True,
    )
    async def manage_incident(self, call: Call, params: ManageParams, body: ManageBody) -> Reply[ManagedIncident]:
        """`acknowledge`, `escalate`, `resolve` (not while an alert of it fires), `merge` (into another incident of the
        workspace) and `note` answer 200; `auto_remediate` 202 with the operation that carries it out, inside the same
        guardrails as every change. It needs, in the incident's workspace, the permission of the remedy besides:
        `workspace:admin` for healing, `workspace:write` for scaling. Of two that act at the same time one is answered
        409. With `dry_run: true`, auto_remediate answers 200 with the plan."""
        incident = await writable(self._store, call, params.incident_id)
        call.audit.resource = f"incident/{incident.id}"
        _check(body)
        if body.action is Action.AUTO_REMEDIATE:
            return await self._remediate(call, incident, body)
        if body.action is Action.MERGE:
            return self._acted(await self._merge(call, incident, body), body.action)
        changed = await self._store.change(incident.id, lambda held: self._change(call, held, incident, body), call)
        return self._acted(changed, body.action)

    def _change(self, call: Call, held: Incident, seen: Incident, body: ManageBody) -> Change:
        """Raises InvalidState where somebody was faster."""
        actor, now, note = call.caller.account_id, self._clock.now(), body.note
        if body.action is Action.NOTE:
            return noted(held, actor, now, note or "")
        check_seen(held, seen.revision)
        if body.action is Action.ACKNOWLEDGE:
            return acknowledge(held, actor, now, note)
        if body.action is Action.RESOLVE:
            return resolve(held, actor, now, f"Resolved by {actor}", note)
        channels = self._settings.escalation_channels
        return escalate(held, actor, now, channels=channels, why=f"Escalated by {actor}", note=note)

    async def _merge(self, call: Call, incident: Incident, body: ManageBody) -> Incident:
        target = await visible(self._store, call, body.into or "")
        if target.workspace_id != incident.workspace_id:
            raise IncidentNotFound(target.id)

        def decide(source: Incident, into: Incident) -> Sequence[Change]:
            check_seen(source, incident.revision)
            return merge(source, into, call.caller.account_id, self._clock.now(), body.note)

        return await self._store.merge(incident.id, target.id, decide, call)

    def _acted(self, incident: Incident, action: Action) -> Reply[ManagedIncident]:
        now = self._clock.now()
        answer = ManagedIncident(
            incident_id=incident.id, action=action.value, status=incident.state.value, started_at=second(now)
        )
        return Reply(answer, status=200, observed_at=now)

    async def _remediate(self, call: Call, incident: Incident, body: ManageBody) -> Reply[ManagedIncident]:
        earlier = await self._remediating.earlier(call) if not body.dry_run else None
        if earlier is not None:
            return started(earlier, begun(earlier))
        if not incident.state.open:
            raise not_allowed(incident, f"An incident that is {incident.state.value} cannot be remedied")
        require(call, Permission.WORKSPACE_WRITE, incident.workspace_id)
        call.audit.reason = one_line(body.note)
        proposal = await self._remediating.propose(call, incident, body)
        require(call, proposal.permission, incident.workspace_id)
        if body.dry_run:
            return self._planned(incident, proposal, await self._remediating.rehearse(call, proposal))
        operation = await self._remediating.begin(call, incident, body, proposal)
        return started(operation, begun(operation), warnings=proposal.warnings)

    def _planned(self, incident: Incident, proposal: Proposal, rehearsal: Rehearsal) -> Reply[ManagedIncident]:
        answer = ManagedIncident(
            incident_id=incident.id,
            action=Action.AUTO_REMEDIATE.value,
            status="planned",
            started_at=None,
            remediation_steps=[],
            estimated_completion=None,
            plan=PlannedOperation(
                allowed=rehearsal.allowed,
                refusals=rehearsal.refusals,
                needs_approval=rehearsal.needs_approval,
                steps=rehearsal.steps,
                details=proposal.plan,
                plan_hash=rehearsal.plan_hash,
                plan_expires_at=rehearsal.expires_at,
            ),
        )
        nothing = "nothing was started"
        return Reply(
            answer,
            status=200,
            observed_at=self._clock.now(),
            partial=[Partial("started_at", nothing), Partial("estimated_completion", nothing)],
            untrusted=["/plan/details"],
            warnings=list(proposal.warnings),
        )


def begun(operation: Operation) -> ManagedIncident:
    """From the operation alone, as it was begun."""
    order = msgspec.convert(operation.parameters, RemediationOrder)
    waits = operation.approval is not None
    estimated = operation.estimated_completion
    steps = [
        StepView(
            step=step.name,
            status=StepState.PENDING.value,
            estimated_duration=format_seconds(timedelta(seconds=step.estimated_seconds or 0)),
        )
        for step in operation.steps
    ]
    return ManagedIncident(
        incident_id=order.incident.id,
        action=Action.AUTO_REMEDIATE.value,
        status=State.PENDING_APPROVAL.value if waits else "in_progress",
        started_at=second(operation.created_at),
        remediation_steps=steps,
        estimated_completion=second(estimated) if estimated is not None else None,
        operation_id=operation.id,
    )


def _check(body: ManageBody) -> None:
    """Raises ValidationFailed for fields that do not go with the action."""
    faults = {}
    if (body.into is None) == (body.action is Action.MERGE):
        faults["into"] = "is needed to merge, and goes with nothing else"
    if body.action is Action.NOTE and one_line(body.note) is None:
        faults["note"] = "is needed"
    if body.dry_run and body.action is not Action.AUTO_REMEDIATE:
        faults["dry_run"] = "goes with auto_remediate alone"
    if body.plan_hash is not None and body.action is not Action.AUTO_REMEDIATE:
        faults["plan_hash"] = "goes with auto_remediate alone"
    if faults:
        raise ValidationFailed(faults)
