"""security_scan among the workspace's operations. It changes nothing: no locks, no budget, no act mode."""

from typing import Any

import msgspec

from opsapi.kit.errors import ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation
from opsapi.operations.procedures import Procedure
from opsapi.operations.proposal import Proposal
from opsapi.playbooks.model import Context, PlaybookParameters
from opsapi.playbooks.scanning.gathering import NETWORK_POLICIES, PODS, SERVICE_ACCOUNTS, SERVICES, TEMPLATES
from opsapi.playbooks.scanning.reports import REPORT_KINDS
from opsapi.playbooks.scanning.steps import ACTION, STEPS, ScanOrder, ScanSteps
from opsapi.policy.model import Ask, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters


class ScanParameters(PlaybookParameters, frozen=True, kw_only=True):
    """A scan looks at the whole workspace, so it has no parameters of its own."""


class SecurityScan:
    """Implements Playbook."""

    operation = ACTION
    parameters_type = ScanParameters

    def __init__(self, clusters: Clusters, steps: ScanSteps) -> None:
        self._clusters = clusters
        self._steps = steps

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
        if parameters.target_component is not None:
            raise ValidationFailed({"parameters.target_component": "security_scan looks at the whole workspace"})
        return _proposal(cluster, subject, reason, confirm)

    def procedure(self) -> Procedure:
        return self._steps.procedure(self._replan)

    async def _replan(self, operation: Operation) -> Proposal:
        cluster = self._clusters.find(operation.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(operation.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, operation.workspace_id, cluster.workspace.mode)
        order = msgspec.convert(operation.parameters, ScanOrder)
        return _proposal(cluster, subject, order.reason, confirm=False)


def _proposal(cluster: Cluster, subject: Subject, reason: str | None, confirm: bool) -> Proposal:
    workspace = cluster.workspace
    order = ScanOrder(namespaces=workspace.namespaces, reason=reason)
    ours = (*TEMPLATES, PODS, SERVICES, SERVICE_ACCOUNTS, NETWORK_POLICIES)
    reads = [str(resource) for resource in (*(kind.resource for kind in REPORT_KINDS), *ours)]
    return Proposal(
        action=ACTION,
        workspace_id=workspace.id,
        application_id=None,
        resource_id=workspace.id,
        resource_uid=None,
        permission=Permission.WORKSPACE_ADMIN,
        parameters=msgspec.to_builtins(order),
        plan={"objects": [], "reads": reads, "namespaces": list(workspace.namespaces)},
        intended={"reads": reads, "namespaces": list(workspace.namespaces)},
        steps=STEPS,
        locks=frozenset(),
        ask=Ask(
            subject=subject,
            action=ACTION,
            at=cluster.inventory.now(),
            counted=False,
            wants_approval=confirm,
        ),
        reason=reason,
    )
