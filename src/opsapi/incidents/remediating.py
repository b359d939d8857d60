"""Begins remediations, and sees to it that each one's incident knows of it and of how it ended."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from opsapi.incidents.errors import IncidentNotFound
from opsapi.incidents.model import Change, Entry, EntryKind, Incident, State
from opsapi.incidents.ports import IncidentStore
from opsapi.incidents.remediation_model import ACTION, IncidentFacts, RemediationOrder, Strategy
from opsapi.incidents.remediation_planning import RemediationPlanner, Wanted
from opsapi.incidents.settings import IncidentSettings
from opsapi.incidents.transitions import TO_ESCALATE, escalate
from opsapi.incidents.views import ManageBody
from opsapi.kit.caller import Call, System
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable, ResourceNotFound, ValidationFailed
from opsapi.kit.text import one_line
from opsapi.operations.desk import Desk, Rehearsal
from opsapi.operations.model import Operation, Outcome
from opsapi.operations.model import State as OperationState
from opsapi.operations.ports import Ledger, OperationFilter
from opsapi.operations.proposal import Proposal
from opsapi.policy.model import Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Clusters

_BY = System("incidents", "auto_remediate")
_LATEST = 100
_OWN_TELLING = timedelta(seconds=30)
"""For so long whoever began it is waited for, who alone knows what the caller said."""
_UNDECIDED = "APPROVAL_EXPIRED"
_log = logging.getLogger(__name__)


class Remediating:
    def __init__(
        self,
        store: IncidentStore,
        clusters: Clusters,
        planner: RemediationPlanner,
        desk: Desk,
        ledger: Ledger,
        settings: IncidentSettings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._clusters = clusters
        self._planner = planner
        self._desk = desk
        self._ledger = ledger
        self._settings = settings
        self._clock = clock

    async def earlier(self, call: Call) -> Operation | None:
        return await self._desk.earlier(call)

    async def propose(self, call: Call, incident: Incident, body: ManageBody) -> Proposal:
        """Raises ValidationFailed where no application is named, and as the planner does."""
        cluster = self._clusters.find(incident.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(incident.workspace_id)
        caller, details = call.caller, body.incident_details
        named = details.affected_applications
        applications = incident.affected_applications if named is None else tuple(named)
        if not applications:
            told = "names no application, nor does the incident: what is to be remedied?"
            raise ValidationFailed({"incident_details.affected_applications": told})
        symptoms = incident.symptoms if details.symptoms is None else tuple(details.symptoms)
        wanted = Wanted(
            incident=IncidentFacts(
                id=incident.id,
                type=incident.type,
                severity=incident.severity.value,
                state=incident.state.value,
                title=incident.title,
            ),
            strategy=body.remediation_strategy or Strategy.AUTO,
            applications=applications,
            symptoms=tuple(filter(None, map(one_line, symptoms))),
            reason=one_line(body.note) or f"Incident {incident.id}",
            confirm=body.confirmation_required,
        )
        subject = Subject(caller.account_id, caller.kind, incident.workspace_id, cluster.workspace.mode)
        return await self._planner.propose(cluster, subject, wanted)

    async def rehearse(self, call: Call, proposal: Proposal) -> Rehearsal:
        return await self._desk.rehearse(call, proposal)

    async def begin(self, call: Call, incident: Incident, body: ManageBody, proposal: Proposal) -> Operation:
        """The operation first, then the incident's timeline: `settle` makes up for whoever dies in between."""
        operation = await self._desk.begin(call, proposal, given_hash=body.plan_hash)
        details = msgspec.to_builtins(body.incident_details)
        claimed = {name: value for name, value in details.items() if value is not None}
        try:
            await self._link(operation, claimed | ({"note": body.note} if body.note is not None else {}))
        except (DependencyUnavailable, IncidentNotFound) as error:
            _log.warning("incident %s is told of %s later: %s", incident.id, operation.id, error.message)
        return operation

    async def _link(self, operation: Operation, claimed: dict[str, object]) -> None:
        order = msgspec.convert(operation.parameters, RemediationOrder)
        entry = Entry(
            kind=EntryKind.REMEDIATION_STARTED,
            at=operation.created_at,
            actor=operation.requested_by,
            message=f"Remediation {operation.id} ({order.strategy.value}) was asked for by {operation.requested_by}",
            details={
                "operation_id": operation.id,
                "strategy": order.strategy.value,
                "applications": list(order.applications),
                "symptoms": list(order.symptoms),
                **({"reported": claimed} if claimed else {}),
            },
        )

        def linked(held: Incident) -> Change:
            return Change(before=held, after=held, entries=(entry,), operation_id=operation.id)

        await self._store.change(order.incident.id, linked, _BY)

    async def settle(self) -> int:
        """Links what was begun and never linked, and tells of what has ended; how many ends."""
        await self._adopt()
        ended = 0
        for link in await self._store.unsettled(200):
            operation = await self._ledger.get(link.operation_id)
            if operation is None:
                await self._tell(link.incident_id, link.operation_id, None)
            elif operation.state.final:
                await self._tell(link.incident_id, link.operation_id, operation)
                ended += 1
        return ended

    async def _adopt(self) -> None:
        wanted = OperationFilter(workspaces=None, action=ACTION, limit=_LATEST)
        before = self._clock.now() - _OWN_TELLING
        for operation in await self._ledger.find(wanted):
            if operation.created_at <= before and await self._store.linked(operation.id) is None:
                try:
                    await self._link(operation, {})
                except ResourceNotFound:
                    _log.info("the incident of %s is not kept any more", operation.id)

    async def _tell(self, incident_id: str, operation_id: str, operation: Operation | None) -> None:
        now, channels = self._clock.now(), self._settings.escalation_channels
        failed = operation is not None and _wants_people(operation)

        def settled(held: Incident) -> Change:
            entry = _ending(operation_id, operation, now)
            change = Change(before=held, after=held, entries=(entry,), settles=operation_id)
            if not failed or held.state not in TO_ESCALATE:
                return change
            why = f"Remediation {operation_id} did not help: people are needed"
            further = escalate(held, _BY.account_id, now, channels=channels, why=why, operation_id=operation_id)
            return msgspec.structs.replace(further, entries=(entry, *further.entries), settles=operation_id)

        try:
            told = await self._store.change(incident_id, settled, _BY)
        except IncidentNotFound:
            return
        if failed and told.state is State.MERGED and told.merged_into is not None:
            await self._escalate_survivor(told.merged_into, operation_id, now)

    async def _escalate_survivor(self, incident_id: str, operation_id: str, now: datetime) -> None:
        """What was merged meanwhile has its people where it was merged into."""
        held = await self._store.get(incident_id)
        if held is None or held.state not in TO_ESCALATE:
            return
        why = f"Remediation {operation_id} of what was merged into this did not help"
        channels: Sequence[str] = self._settings.escalation_channels

        def further(one: Incident) -> Change:
            if one.state not in TO_ESCALATE:
                return Change(before=one, after=one)
            return escalate(one, _BY.account_id, now, channels=tuple(channels), why=why, operation_id=operation_id)

        await self._store.change(incident_id, further, _BY)


def _wants_people(operation: Operation) -> bool:
    """It failed, or found what it may not do by itself, or nobody decided on it in time; not where somebody stopped it
    or said no."""
    if operation.state is OperationState.CANCELLED:
        return operation.error is not None and operation.error.code == _UNDECIDED
    if operation.state in (OperationState.FAILED, OperationState.ROLLED_BACK):
        return True
    return operation.outcome in (Outcome.PARTIAL, Outcome.PROPOSED)


def _ending(operation_id: str, operation: Operation | None, now: datetime) -> Entry:
    if operation is None:
        message = f"Remediation {operation_id} is not kept any more"
        return Entry(kind=EntryKind.REMEDIATION_ENDED, at=now, actor=_BY.account_id, message=message)
    outcome = operation.outcome.value if operation.outcome is not None else None
    error = None if operation.error is None else {"code": operation.error.code, "message": operation.error.message}
    said = f", {outcome}" if outcome is not None else ""
    return Entry(
        kind=EntryKind.REMEDIATION_ENDED,
        at=operation.finished_at or now,
        actor=_BY.account_id,
        message=f"Remediation {operation_id} ended: {operation.state.value}{said}",
        details={
            "operation_id": operation_id,
            "status": operation.state.value,
            "outcome": outcome,
            "error": error,
            "steps": [{"step": step.name, "result": step.message} for step in operation.steps],
        },
    )
