"""cleanup_resources, from a call to a proposal."""

import msgspec

from opsapi.kit.errors import InvalidState, OpsError, StateDetails, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation, workspace_lock
from opsapi.operations.procedures import Procedure
from opsapi.operations.proposal import Proposal
from opsapi.playbooks.cleaning.gathering import Gathering
from opsapi.playbooks.cleaning.model import (
    ACTION,
    DELETE,
    FIND,
    VERIFY,
    Category,
    CleaningSettings,
    CleanOrder,
    CleanParameters,
    Leftover,
    Limits,
)
from opsapi.playbooks.cleaning.ports import Snapshots
from opsapi.playbooks.cleaning.steps import CleaningSteps
from opsapi.playbooks.model import Context, PlaybookParameters
from opsapi.policy.book import PolicyBook
from opsapi.policy.evaluation import judge_range
from opsapi.policy.model import Ask, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters

_MOST_REPORTED = 200
_NAMEABLE = ("ConfigMap", "Secret")


class CleanPlaybook:
    """Implements Playbook."""

    def __init__(
        self,
        clusters: Clusters,
        gathering: Gathering,
        snapshots: Snapshots,
        policy: PolicyBook,
        steps: CleaningSteps,
        settings: CleaningSettings,
    ) -> None:
        self._clusters = clusters
        self._gathering = gathering
        self._snapshots = snapshots
        self._policy = policy
        self._steps = steps
        self._settings = settings

    @property
    def operation(self) -> str:
        return ACTION

    @property
    def parameters_type(self) -> type[PlaybookParameters]:
        return CleanParameters

    def procedure(self) -> Procedure:
        return self._steps.procedure(self.replan)

    async def propose(
        self,
        cluster: Cluster,
        subject: Subject,
        parameters: CleanParameters,
        *,
        context: Context,
        reason: str | None,
        confirm: bool,
    ) -> Proposal:
        limits = self._limits(cluster, subject, parameters)
        return await self._propose(cluster, subject, limits, context=context, reason=reason, confirm=confirm)

    async def replan(self, operation: Operation) -> Proposal:
        order = msgspec.convert(operation.parameters, CleanOrder)
        cluster = self._clusters.find(order.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.workspace_id, cluster.workspace.mode)
        return await self._propose(
            cluster, subject, order.limits, context=order.context, reason=order.reason, confirm=order.confirm
        )

    async def _propose(
        self, cluster: Cluster, subject: Subject, limits: Limits, *, context: Context, reason: str | None, confirm: bool
    ) -> Proposal:
        seen = await self._gathering.look(cluster, self._policy.settings, limits)
        deletable = [one for one in seen.leftovers if one.deletes]
        reported = [one for one in seen.leftovers if not one.deletes]
        _check_named(limits, deletable)
        order = CleanOrder(
            workspace_id=cluster.workspace.id,
            limits=limits,
            items=tuple(deletable[: limits.max_deletions]),
            reported=tuple(reported[:_MOST_REPORTED]),
            reported_total=len(reported),
            left_over=max(0, len(deletable) - limits.max_deletions),
            unobserved=seen.unobserved,
            reason=reason,
            confirm=confirm,
            context=context,
        )
        refusals: tuple[OpsError, ...] = ()
        if order.items and not self._snapshots.ready:
            details = StateDetails(resource_id=order.workspace_id, state="no_encryption_key")
            told = "Without keys.encryption nothing can be kept of what is deleted, so nothing is deleted"
            refusals = (InvalidState(told, details),)
        return _proposal(cluster, subject, order, refusals)

    def _limits(self, cluster: Cluster, subject: Subject, given: CleanParameters) -> Limits:
        """Raises ValidationFailed."""
        policy, settings, wrong = self._policy.settings, self._settings, {}
        if given.target_component is not None:
            wrong["parameters.target_component"] = "a cleanup is of a workspace; namespaces narrows it down"
        for name in ("job_age_seconds", "pod_age_seconds", "unreferenced_age_seconds"):
            asked = getattr(given, name)
            fault = judge_range(name, asked, policy.ranges.cleanup_age_seconds) if asked is not None else None
            if fault is not None:
                wrong[f"parameters.{name}"] = fault
        for namespace in given.namespaces or ():
            if policy.protects(namespace) or not cluster.workspace.in_scope(namespace):
                wrong["parameters.namespaces"] = f"{namespace[:63]} is protected or out of the workspace's scope"
        for place in given.delete:
            kind, _, rest = place.partition("/")
            if kind not in _NAMEABLE or rest.count("/") != 1:
                wrong["parameters.delete"] = f"{place[:100]!r} is not ConfigMap/namespace/name or Secret/namespace/name"
        if wrong:
            raise ValidationFailed(wrong)
        cap = policy.limits_for(subject, ACTION).deletions
        return Limits(
            namespaces=tuple(sorted(set(given.namespaces or ()))),
            job_age_seconds=_or(given.job_age_seconds, settings.job_age_seconds),
            pod_age_seconds=_or(given.pod_age_seconds, settings.pod_age_seconds),
            unreferenced_age_seconds=_or(given.unreferenced_age_seconds, settings.unreferenced_age_seconds),
            revision_history_limit=given.revision_history_limit,
            max_deletions=cap if given.max_deletions is None else min(cap, given.max_deletions),
            delete=tuple(sorted(set(given.delete))),
        )


def _or(given: float | None, default: float) -> float:
    return float(default if given is None else given)


def _check_named(limits: Limits, deletable: list[Leftover]) -> None:
    """What was named must be there and unreferenced: a mistake is told, not passed over."""
    there = {one.place for one in deletable if one.category is Category.UNREFERENCED}
    there |= {one.place for one in deletable if one.category is Category.EXPIRED}
    missing = [place for place in limits.delete if place not in there]
    if missing:
        told = f"{missing[0][:200]} is not there, is referred to, is too young, or is never deleted"
        raise ValidationFailed({"parameters.delete": told})


def _proposal(cluster: Cluster, subject: Subject, order: CleanOrder, refusals: tuple[OpsError, ...]) -> Proposal:
    workspace_id = order.workspace_id
    lock = workspace_lock(workspace_id, "cleanup")
    named = any(one.category is Category.UNREFERENCED for one in order.items)
    warnings = [f"{kind}: {reason}" for kind, reason in sorted(order.unobserved.items())]
    if order.left_over:
        warnings.append(f"{order.left_over} more could be deleted, beyond {order.limits.max_deletions} at once")
    ended = sum(1 for one in order.items if one.kind == "Pod")
    if ended:
        warnings.append(f"{ended} Pods cannot be brought back, since they would run again; their snapshots are kept")
    return Proposal(
        action=ACTION,
        workspace_id=workspace_id,
        application_id=None,
        resource_id=workspace_id,
        resource_uid=None,
        permission=Permission.WORKSPACE_ADMIN,
        parameters=msgspec.to_builtins(order),
        plan={
            "deletes": msgspec.to_builtins(order.items),
            "reports": msgspec.to_builtins(order.reported),
            "reported_total": order.reported_total,
            "left_over": order.left_over,
            "unobserved": order.unobserved,
        },
        intended={
            "limits": order.limits,
            "deletes": sorted((one.place, one.uid, one.category.value) for one in order.items),
        },
        steps=(FIND, DELETE, VERIFY) if order.items else (FIND,),
        locks=frozenset({lock, workspace_lock(workspace_id, "backup")}),
        ask=Ask(
            subject=subject,
            action=ACTION,
            at=cluster.inventory.now(),
            targets=(lock,) if order.items else (),
            counted=bool(order.items),
            deletions=len(order.items),
            wants_approval=bool(order.items) and (order.confirm or named),
        ),
        refusals=refusals,
        warnings=tuple(warnings),
        reason=order.reason,
        nothing_to_do=not order.items,
    )
