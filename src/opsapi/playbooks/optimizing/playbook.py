"""optimize_resources among the workspace's operations: it plans from what was measured, and asks a person."""

from collections.abc import Sequence
from typing import Any

import msgspec

from opsapi.applications.costs import CostSettings
from opsapi.applications.errors import ManagedExternally, ManagerDetails
from opsapi.kit.errors import OpsError, PolicyRule
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation, lock_key, workspace_lock
from opsapi.operations.procedures import Procedure
from opsapi.operations.proposal import Proposal
from opsapi.playbooks.components import Component, components, find_component
from opsapi.playbooks.model import Context
from opsapi.playbooks.optimizing.gathering import Gatherer, Look
from opsapi.playbooks.optimizing.model import (
    ACTION,
    ANALYZE,
    APPLY,
    WORKLOADS,
    AppOrder,
    OptimizeOrder,
    OptimizeParameters,
    OptimizingSettings,
    table,
)
from opsapi.playbooks.optimizing.patches import stands
from opsapi.playbooks.optimizing.steps import OptimizeSteps
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Ask, Disruption, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters

_SHOWN = 20
"""Applications that a plan lists; the others have nothing to say, or save less."""


class OptimizeResources:
    """Implements Playbook."""

    operation = ACTION
    parameters_type = OptimizeParameters

    def __init__(
        self,
        clusters: Clusters,
        gatherer: Gatherer,
        steps: OptimizeSteps,
        policy: PolicyBook,
        costs: CostSettings,
        settings: OptimizingSettings,
    ) -> None:
        self._clusters = clusters
        self._gatherer = gatherer
        self._steps = steps
        self._policy = policy
        self._costs = costs
        self._settings = settings

    async def propose(
        self,
        cluster: Cluster,
        subject: Subject,
        parameters: Any,
        *,
        context: Context,  # noqa: ARG002  the port's name
        reason: str | None,
        confirm: bool,
    ) -> Proposal:
        wanted: str | None = parameters.target_component
        chosen = self._chosen(cluster, wanted)
        looks = await self._gatherer.look_at_all(cluster, self._policy.settings, chosen)
        alone = wanted is not None
        looks = [self._allowed(look, subject, alone=alone) for look in looks]
        looks.sort(key=_urgency)
        orders = [look.order for look in looks if look.order is not None]
        changed, left = orders[: self._settings.most_applications], orders[self._settings.most_applications :]
        order = OptimizeOrder(
            workspace_id=cluster.workspace.id,
            target_component=wanted,
            reason=reason,
            confirm=confirm,
            applications=tuple(changed),
            found=tuple(look.found for look in looks[:_SHOWN]),
            looked_at=len(looks),
            currency=self._costs.currency,
            prices=self._costs.named,
        )
        warnings = [f"{len(left)} more applications could be changed: ask again for those"] if left else []
        refusals = [look.refusal for look in looks if alone and look.refusal is not None]
        recreated = [look.order for look in looks if look.recreates and look.order is not None]
        return _proposal(cluster, subject, order, refusals, recreated, tuple(warnings))

    def _chosen(self, cluster: Cluster, wanted: str | None) -> list[Component]:
        if wanted is not None:
            return [find_component(cluster, self._policy.settings, wanted, WORKLOADS)]
        return components(cluster, self._policy.settings, WORKLOADS)

    def _allowed(self, look: Look, subject: Subject, *, alone: bool) -> Look:
        """Named alone, what stands against it is the answer; among others it is left out, and the table says why."""
        if look.order is None:
            return look
        if look.found.patch is not None:
            rule, account = PolicyRule.MANAGED_EXTERNALLY, subject.account_id
            if not self._policy.settings.waived(rule, account, subject.workspace_id):
                return _left(look, _managed(look))
            found = msgspec.structs.replace(look.found, why_not=look.refusal.message if look.refusal else None)
            look = msgspec.structs.replace(look, found=found)
        if look.refusal is not None:
            return _left(look, look.refusal)
        if look.recreates and not alone:
            told = "its strategy Recreate takes every pod down at once: name it as target_component"
            found = msgspec.structs.replace(look.found, why_not=told)
            return msgspec.structs.replace(look, found=found, order=None)
        return look

    def procedure(self) -> Procedure:
        return self._steps.procedure(self._replan)

    async def _replan(self, operation: Operation) -> Proposal:
        """The same sizes as of now: what is approved are the figures that were shown. An application that changed
        since is left out, so that the hash is another."""
        order = msgspec.convert(operation.parameters, OptimizeOrder)
        cluster = self._clusters.find(order.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.workspace_id, cluster.workspace.mode)
        still = [fresh for one in order.applications if (fresh := await self._still(order.workspace_id, one))]
        order = msgspec.structs.replace(order, applications=tuple(still))
        return _proposal(cluster, subject, order, [], [], ())

    async def _still(self, workspace_id: str, order: AppOrder) -> AppOrder | None:
        held = await self._gatherer.read(order.key(workspace_id))
        if held is None or not stands(held, {one.name: one.before for one in order.containers}):
            return None
        return msgspec.structs.replace(order, generation=held.metadata.generation)


def _urgency(look: Look) -> tuple[bool, bool, float, str]:
    """What is changed comes first; of that, what is killed for its memory, then what saves most."""
    found = look.found
    return look.order is None, not any(row.oom_killed for row in found.containers), -found.savings, found.application


def _left(look: Look, refusal: OpsError) -> Look:
    return msgspec.structs.replace(look, order=None, refusal=refusal)


def _managed(look: Look) -> ManagedExternally:
    manager, _, source = (look.found.why_not or "").partition(" (")
    return ManagedExternally(
        ManagerDetails(
            resource_id=look.found.application_id,
            manager=manager,
            source=source.partition(")")[0] or None,
            patch=look.found.patch,
        )
    )


def _proposal(
    cluster: Cluster,
    subject: Subject,
    order: OptimizeOrder,
    refusals: Sequence[OpsError],
    recreated: Sequence[AppOrder],
    warnings: tuple[str, ...],
) -> Proposal:
    workspace_id, apps = order.workspace_id, order.applications
    named = order.found[0].application_id if order.alone and order.found else None
    locks = {lock_key(workspace_id, named)} if named is not None else {workspace_lock(workspace_id, ACTION)}
    return Proposal(
        action=ACTION,
        workspace_id=workspace_id,
        application_id=named,
        resource_id=named or workspace_id,
        resource_uid=apps[0].uid if named and apps else None,
        permission=Permission.WORKSPACE_ADMIN,
        parameters=msgspec.to_builtins(order),
        plan=msgspec.to_builtins(table(order)),
        intended={
            "target": order.target_component,
            "applications": [
                (one.application_id, one.uid, one.generation, one.containers)
                for one in sorted(apps, key=lambda one: one.place)
            ],
        },
        steps=(ANALYZE, APPLY) if apps else (ANALYZE,),
        locks=frozenset(locks if apps or named is None else ()),
        ask=Ask(
            subject=subject,
            action=ACTION,
            at=cluster.inventory.now(),
            targets=tuple(sorted(lock_key(workspace_id, one.application_id) for one in apps)),
            counted=bool(apps),
            disruptions=tuple(Disruption(one.name, one.replicas, one.replicas) for one in recreated),
            resizes=bool(apps),
            applications=max(1, len(apps)),
            wants_approval=order.confirm,
        ),
        refusals=tuple(refusals),
        warnings=warnings,
        reason=order.reason,
        nothing_to_do=not apps,
    )
