"""auto_remediate, from an incident to a proposal: what healing would do to each application, and what scaling would."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from opsapi.applications.ports import WorkloadRef
from opsapi.applications.scale_planning import PlannedScale, ScalePlanner
from opsapi.applications.scaling_model import SCALABLE
from opsapi.incidents.remediation_model import (
    ACTION,
    OF_LOAD,
    RESTART_FAILED,
    SCALE_HEALTHY,
    IncidentFacts,
    RemediationOrder,
    ScaleTarget,
    Strategy,
)
from opsapi.kit.errors import OpsError
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation
from opsapi.operations.proposal import Proposal
from opsapi.playbooks.components import Component, find_component
from opsapi.playbooks.healing.model import (
    IDENTIFY,
    RAISE,
    ROLL_BACK,
    VERIFY,
    WORKLOADS,
    Found,
    HealAction,
    HealOrder,
    HealParameters,
    Remedy,
    TargetOrder,
)
from opsapi.playbooks.model import Context
from opsapi.playbooks.ports import Playbook
from opsapi.policy.book import PolicyBook
from opsapi.policy.evaluation import largest_step_up
from opsapi.policy.model import Ask, ReplicaChange, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters

_STEPS = ((Remedy.RESTART, RESTART_FAILED), (Remedy.ROLL_BACK, ROLL_BACK), (Remedy.RAISE, RAISE))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: for which incident, how, and for which of its workspace's applications."""

    incident: IncidentFacts
    strategy: Strategy
    applications: tuple[str, ...]
    symptoms: tuple[str, ...] = ()
    reason: str | None = None
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What would be done to one application. `refusals` stand only where nothing at all would be."""

    component: Component
    found: Found
    heal: Proposal | None = None
    order: HealOrder | None = None
    scale: PlannedScale | None = None
    not_scaled: str = ""
    refusals: tuple[OpsError, ...] = ()

    @property
    def targets(self) -> tuple[TargetOrder, ...]:
        return self.order.targets if self.heal is not None and self.order is not None else ()

    @property
    def acts(self) -> bool:
        return bool(self.targets) or self.scale is not None


class RemediationPlanner:
    def __init__(self, clusters: Clusters, healing: Playbook, scaling: ScalePlanner, policy: PolicyBook) -> None:
        self._clusters = clusters
        self._healing = healing
        self._scaling = scaling
        self._policy = policy

    async def propose(self, cluster: Cluster, subject: Subject, wanted: Wanted) -> Proposal:
        """Raises ResourceNotFound, AmbiguousResource, ProtectedNamespace and DependencyUnavailable: what stands in
        another workspace is not found."""
        settings = self._policy.settings
        components = [find_component(cluster, settings, one) for one in wanted.applications]
        distinct = list({one.id: one for one in components}.values())
        parts = [await self._part(cluster, subject, one, wanted) for one in distinct]
        return _proposal(cluster, subject, wanted, parts)

    async def replan(self, operation: Operation) -> Proposal:
        order = msgspec.convert(operation.parameters, RemediationOrder)
        cluster = self._clusters.find(order.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.workspace_id, cluster.workspace.mode)
        wanted = Wanted(
            incident=order.incident,
            strategy=order.strategy,
            applications=order.applications,
            symptoms=order.symptoms,
            reason=order.reason,
            confirm=order.confirm,
        )
        return await self.propose(cluster, subject, wanted)

    async def _part(self, cluster: Cluster, subject: Subject, component: Component, wanted: Wanted) -> Part:
        if component.kind not in WORKLOADS:
            return Part(component, _nothing(component, f"a {component.kind.kind} is neither restarted nor scaled"))
        context = Context(triggered_by="incident", incident_id=wanted.incident.id, severity=wanted.incident.severity)
        action = wanted.strategy.heals or HealAction.RESTART
        proposal = await self._healing.propose(
            cluster,
            subject,
            HealParameters(target_component=component.id, action=action),
            context=context,
            reason=wanted.reason,
            confirm=False,
        )
        order = msgspec.convert(proposal.parameters, HealOrder)
        found = order.found[0] if order.found else _nothing(component, "it is not there any more")
        heal = proposal if wanted.strategy.heals is not None else None
        part = Part(component, found, heal, order)
        not_scaled = _why_not_scaled(part, wanted)
        if not_scaled:
            return Part(component, found, heal, order, None, not_scaled, heal.refusals if heal is not None else ())
        return await self._scaled(cluster, subject, part, wanted)

    async def _scaled(self, cluster: Cluster, subject: Subject, part: Part, wanted: Wanted) -> Part:
        """As many more as are not ready, one at least, and no more than policy lets an account add by itself."""
        settings, found = self._policy.settings, part.found
        more = max(1, found.desired - found.ready)
        replicas = min(found.desired + more, largest_step_up(settings, found.desired))
        refusals = part.heal.refusals if part.heal is not None else ()
        if replicas <= found.desired:
            why = f"policy allows no more than {found.desired} replicas"
            return Part(part.component, found, part.heal, part.order, None, why, refusals)
        meta = part.component.meta
        ref = WorkloadRef(cluster.workspace.id, part.component.kind, meta.namespace, meta.name, meta.uid)
        planned = await self._scaling.plan(cluster, ref, subject, replicas=replicas, bounds=None, reason=wanted.reason)
        decision = planned.decision
        if decision.refusals:
            why = decision.refusals[0].message
            return Part(part.component, found, part.heal, part.order, None, why, (*refusals, *decision.refusals))
        if decision.nothing_to_do:
            return Part(part.component, found, part.heal, part.order, None, "it has as many replicas", refusals)
        return Part(part.component, found, part.heal, part.order, planned, "", refusals)


def _why_not_scaled(part: Part, wanted: Wanted) -> str:
    """More pods of what is ill are more ill pods."""
    found, strategy = part.found, wanted.strategy
    if part.component.kind not in SCALABLE:
        return f"a {part.component.kind.kind} cannot be scaled"
    loaded = strategy is Strategy.AUTO and not found.findings and bool(OF_LOAD & set(wanted.symptoms))
    if not strategy.scales and not loaded:
        return "the strategy adds no replicas"
    if found.ready < 1:
        return "no replica is healthy"
    incurable = next((one for one in found.findings if not one.restart_cures), None)
    if incurable is not None:
        return f"more replicas do not cure it: {incurable.cause.value}: {incurable.why}"
    return ""


def _nothing(component: Component, why: str) -> Found:
    return Found(
        application_id=component.id,
        application=component.place,
        desired=0,
        ready=0,
        unhealthy=0,
        remedy=None,
        why=why,
        findings=(),
    )


def _proposal(cluster: Cluster, subject: Subject, wanted: Wanted, parts: list[Part]) -> Proposal:
    order = _order(cluster, wanted, parts)
    acting = [part for part in parts if part.acts]
    heals = [part.heal for part in parts if part.heal is not None and part.targets]
    single = parts[0].component if len(parts) == 1 else None
    remedies = [step for remedy, step in _STEPS if any(one.remedy is remedy for part in parts for one in part.targets)]
    scaling = [SCALE_HEALTHY] if order.scales else []
    return Proposal(
        action=ACTION,
        workspace_id=order.workspace_id,
        application_id=single.id if single is not None else None,
        resource_id=single.id if single is not None else order.workspace_id,
        resource_uid=single.meta.uid if single is not None else None,
        permission=Permission.WORKSPACE_ADMIN if heals else Permission.WORKSPACE_WRITE,
        parameters=msgspec.to_builtins(order),
        plan={
            "incident_id": wanted.incident.id,
            "strategy": wanted.strategy.value,
            "applications": [_told(part) for part in parts],
        },
        intended=_intended(wanted, parts),
        steps=(*remedies, *scaling, VERIFY) if acting else (IDENTIFY,),
        locks=frozenset(part.component.lock for part in parts),
        ask=Ask(
            subject=subject,
            action=ACTION,
            at=cluster.inventory.now(),
            targets=tuple(sorted(part.component.lock for part in acting)),
            counted=bool(acting),
            replicas=_largest([part.scale.decision.change for part in acting if part.scale is not None]),
            disruptions=tuple(one for heal in heals for one in heal.ask.disruptions),
            resizes=any(heal.ask.resizes for heal in heals),
            applications=max(1, len(acting)),
            wants_approval=bool(acting) and (wanted.confirm or any(heal.ask.wants_approval for heal in heals)),
        ),
        refusals=() if acting else tuple(one for part in parts for one in part.refusals),
        warnings=_warnings(parts, heals),
        reason=wanted.reason,
        nothing_to_do=not acting,
    )


def _order(cluster: Cluster, wanted: Wanted, parts: list[Part]) -> RemediationOrder:
    """`application_id` is set, since every application's lock is held from the begin."""
    scales = tuple(
        ScaleTarget(application_id=part.component.id, order=part.scale.decision.order)
        for part in parts
        if part.scale is not None
    )
    healed = tuple(target for part in parts for target in part.targets)
    watched = tuple(
        _watched(part.component.id, part.scale) for part in parts if part.scale is not None and not part.targets
    )
    orders = [part.order for part in parts if part.order is not None]
    planned_at: datetime = cluster.inventory.now()
    return RemediationOrder(
        workspace_id=cluster.workspace.id,
        action=wanted.strategy.heals or HealAction.RESTART,
        held_seconds=max((one.held_seconds for one in orders), default=0.0),
        application_id=parts[0].component.id,
        reason=wanted.reason,
        confirm=wanted.confirm,
        context=Context(triggered_by="incident", incident_id=wanted.incident.id, severity=wanted.incident.severity),
        targets=(*healed, *watched),
        found=tuple(part.found for part in parts),
        unhealthy=sum(part.found.unhealthy for part in parts),
        planned_at=planned_at,
        incident=wanted.incident,
        strategy=wanted.strategy,
        applications=tuple(part.component.id for part in parts),
        symptoms=wanted.symptoms,
        scales=scales,
    )


def _watched(application_id: str, scale: PlannedScale) -> TargetOrder:
    """What is only scaled: no pod of it is sent away, but it is verified as what was restarted is."""
    order, workload = scale.decision.order, scale.facts.workload
    selector = workload.spec.selector
    return TargetOrder(
        application_id=application_id,
        kind=order.kind,
        namespace=order.namespace,
        name=order.name,
        uid=order.uid,
        generation=workload.metadata.generation,
        desired=order.previous,
        ready=order.ready_before,
        pods_before=workload.status.replicas,
        at_once=1,
        remedy=Remedy.RESTART,
        selector=dict(selector.match_labels) if selector is not None else {},
    )


def _told(part: Part) -> dict[str, Any]:
    """`remedy` null where nothing is healed, and `why`; `scale` likewise with `not_scaled`."""
    scale = part.scale
    return {
        "application_id": part.component.id,
        "application": part.component.place,
        "desired": part.found.desired,
        "ready": part.found.ready,
        "remedy": part.targets[0].remedy.value if part.targets else None,
        "why": part.found.why,
        "pods": [pod.name for target in part.targets for pod in target.pods],
        "findings": msgspec.to_builtins(part.found.findings),
        "scale": None
        if scale is None
        else {"previous_replicas": scale.decision.order.previous, "new_replicas": scale.decision.order.replicas},
        "not_scaled": part.not_scaled or None,
    }


def _intended(wanted: Wanted, parts: list[Part]) -> dict[str, Any]:
    return {
        "incident": wanted.incident.id,
        "strategy": wanted.strategy,
        "applications": [part.component.id for part in parts],
        "heals": [part.heal.intended for part in parts if part.heal is not None and part.targets],
        "scales": [part.scale.proposal.intended for part in parts if part.scale is not None],
    }


def _largest(changes: list[ReplicaChange | None]) -> ReplicaChange | None:
    """The one that multiplies most; more than one application needs a person's approval anyway."""
    known = [one for one in changes if one is not None]
    return max(known, key=lambda one: one.desired / max(1, one.current), default=None)


def _warnings(parts: list[Part], heals: list[Proposal]) -> tuple[str, ...]:
    found = [warning for heal in heals for warning in heal.warnings]
    found += [warning for part in parts if part.scale is not None for warning in part.scale.decision.warnings]
    found += [
        f"{part.component.place} is not scaled: {part.not_scaled}" for part in parts if part.targets and part.refusals
    ]
    return tuple(dict.fromkeys(found))
