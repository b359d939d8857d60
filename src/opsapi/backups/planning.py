"""From a wish to a proposal: which engine, what the application has, what can be taken of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from opsapi.applications.errors import ApplicationNotFound, ProtectedNamespace
from opsapi.backups.backup_steps import ACTION, steps_of
from opsapi.backups.collecting import Collected
from opsapi.backups.errors import no_engine, unserved
from opsapi.backups.kinds import SNAPSHOTS
from opsapi.backups.making import BackupMaker
from opsapi.backups.model import BackupOrder, BackupType, Engine, Target
from opsapi.backups.settings import EngineChoice
from opsapi.backups.snapshots import size_of
from opsapi.backups.velero import selectors_of, selects
from opsapi.kit.errors import DependencyUnavailable, OpsError, ValidationFailed
from opsapi.kit.permissions import Permission
from opsapi.kit.quantity import whole
from opsapi.operations.model import Operation, lock_key, workspace_lock
from opsapi.operations.proposal import Proposal
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Ask, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import TargetGone, WriteConflict, WriteRefused

LOCK = "backup"
"""The kind of workspace lock that backups, restores and cleanup exclude each other by."""
UnknownChannels = Callable[[Sequence[str]], list[str]]
"""Those of the names that are no configured channels."""
PVC_REQUESTS = "pvc_requests"
"""Basis of an estimate: the sum of what the claims request; volumes may hold less, and a backup no more."""
LAST_BACKUP = "last_backup"
"""Basis of an estimate: the bytes of the application's last complete backup."""


class BackupOptions(msgspec.Struct, frozen=True, kw_only=True):
    backup_type: BackupType = BackupType.AUTOMATED
    retention_policy: str = "standard"
    include_volumes: bool = True
    channels: tuple[str, ...] = ()
    reason: str | None = None


class Ground(msgspec.Struct, frozen=True):
    """What a workspace can be backed up with. `warnings` say what speaks against what would have been chosen first."""

    engine: Engine
    snapshots: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedBackup:
    order: BackupOrder
    collected: Collected
    proposal: Proposal


class BackupPlanner:
    def __init__(
        self, clusters: Clusters, maker: BackupMaker, policy: PolicyBook, unknown_channels: UnknownChannels
    ) -> None:
        self._clusters = clusters
        self.maker = maker
        self._policy = policy
        self._unknown_channels = unknown_channels

    def check(self, options: BackupOptions, at: str = "") -> float:
        """How long it will be kept. Raises ValidationFailed; `at` is the prefix of the fields' paths."""
        keep = self.maker.settings.keep_seconds(options.retention_policy)
        wrong = {}
        if keep is None:
            known = ", ".join(one.name for one in self.maker.settings.retention)
            wrong[f"{at}retention_policy"] = f"is not configured; known: {known}"
        unknown = self._unknown_channels(options.channels)
        if unknown:
            wrong[f"{at}notification_channels"] = f"not configured: {', '.join(unknown[:5])}"
        if keep is None or wrong:
            raise ValidationFailed(wrong)
        return keep

    def check_namespace(self, cluster: Cluster, namespace: str) -> None:
        """Raises ProtectedNamespace, ApplicationNotFound where it is out of the workspace's scope."""
        if self._policy.settings.protects(namespace):
            raise ProtectedNamespace(namespace)
        if not cluster.workspace.in_scope(namespace):
            raise ApplicationNotFound(namespace)

    async def ground(self, cluster: Cluster) -> Ground:
        """Raises InvalidState where there is no engine, DependencyUnavailable where Velero's storage is away."""
        settings, workspace_id = self.maker.settings, cluster.workspace.id
        warnings: tuple[str, ...] = ()
        if settings.engine is not EngineChoice.MANIFESTS:
            why = await self._why_not_velero(workspace_id)
            if why is None:
                return Ground(Engine.VELERO, False)
            if settings.engine is EngineChoice.VELERO:
                raise no_engine(workspace_id, why)
            warnings = (f"Velero is passed over: {why}",) if "does not serve" not in why else ()
        if self.maker.archive is None:
            raise no_engine(workspace_id, "it has no Velero that could be used, and backups.store.url is not set")
        return Ground(Engine.MANIFESTS, await self.maker.snapshots.served(workspace_id), warnings)

    async def _why_not_velero(self, workspace_id: str) -> str | None:
        """Raises DependencyUnavailable where it is there and its storage is not: another engine would hide that."""
        try:
            if not await self.maker.velero.served(workspace_id):
                return "the cluster does not serve velero.io/v1"
            location = await self.maker.velero.location(workspace_id)
        except WriteRefused as error:
            return f"its objects may not be read: {error.reason}"
        if location.problem is not None:
            raise DependencyUnavailable("velero", location.problem, workspace_id=workspace_id)
        return None

    async def plan(
        self, cluster: Cluster, target: Target, subject: Subject, options: BackupOptions, *, confirm: bool = False
    ) -> PlannedBackup:
        """Raises ValidationFailed, ProtectedNamespace, ApplicationNotFound, InvalidState, DependencyUnavailable."""
        keep = self.check(options)
        self.check_namespace(cluster, target.namespace)
        ground = await self.ground(cluster)
        collected = await self._collect(target, ground.engine)
        order = await self._order(target, options, ground, collected, keep)
        return PlannedBackup(order, collected, self._proposal(cluster, subject, order, ground, collected, confirm))

    async def replan(self, operation: Operation) -> Proposal:
        order = msgspec.convert(operation.parameters, BackupOrder)
        cluster = self._clusters.find(order.target.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.target.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.target.workspace_id, cluster.workspace.mode)
        return (await self.plan(cluster, order.target, subject, options_of(order))).proposal

    async def _collect(self, target: Target, engine: Engine) -> Collected:
        try:
            return await self.maker.collect(target, engine)
        except (TargetGone, WriteConflict):
            raise ApplicationNotFound(target.application_id) from None
        except WriteRefused as error:
            reason = f"the credentials may not read the application: {error.reason}"
            raise DependencyUnavailable("kubernetes_api", reason, workspace_id=target.workspace_id) from error

    async def _order(
        self, target: Target, options: BackupOptions, ground: Ground, collected: Collected, keep: float
    ) -> BackupOrder:
        claims = collected.claims if options.include_volumes else []
        sizes = [size for claim in claims if (size := size_of(claim)) is not None]
        estimate, basis = (sum(map(whole, sizes)), PVC_REQUESTS) if sizes else (None, None)
        if estimate is None:
            estimate = await self.maker.records.last_size(target.workspace_id, target.application_id)
            basis = LAST_BACKUP if estimate is not None else None
        return BackupOrder(
            target=target,
            engine=ground.engine,
            backup_type=options.backup_type,
            retention_policy=options.retention_policy,
            ttl_seconds=keep,
            include_volumes=options.include_volumes,
            reason=options.reason,
            channels=options.channels,
            size_estimate=estimate,
            size_basis=basis,
        )

    def _proposal(
        self,
        cluster: Cluster,
        subject: Subject,
        order: BackupOrder,
        ground: Ground,
        collected: Collected,
        confirm: bool,
    ) -> Proposal:
        target = order.target
        volumes = order.include_volumes and bool(collected.claims)
        lock = lock_key(target.workspace_id, target.application_id)
        plan = outline(order, collected)
        return Proposal(
            action=ACTION,
            workspace_id=target.workspace_id,
            application_id=target.application_id,
            resource_id=target.application_id,
            resource_uid=target.uid,
            permission=Permission.APPLICATION_WRITE,
            parameters=msgspec.to_builtins(order),
            plan=plan,
            intended={
                "generation": collected.workload["metadata"].get("generation"),
                "engine": order.engine,
                "backup_type": order.backup_type,
                "retention_policy": order.retention_policy,
                "include_volumes": order.include_volumes,
                "objects": plan["objects"],
                "volumes": plan["volumes"],
            },
            steps=steps_of(order.engine, volumes=volumes),
            locks=frozenset({lock, workspace_lock(target.workspace_id, LOCK)}),
            ask=Ask(
                subject=subject,
                action=ACTION,
                at=cluster.inventory.now(),
                # A key of its own: a backup before a change must not put the change itself into its cooldown.
                targets=(lock_key(target.workspace_id, f"backups of {target.application_id}"),),
                counted=order.engine is Engine.VELERO or (volumes and ground.snapshots),
                wants_approval=confirm,
            ),
            refusals=tuple(_refusals(order, collected)),
            warnings=(*ground.warnings, *_warnings(order, ground, collected)),
            reason=order.reason,
        )


def options_of(order: BackupOrder) -> BackupOptions:
    return BackupOptions(
        backup_type=order.backup_type,
        retention_policy=order.retention_policy,
        include_volumes=order.include_volumes,
        channels=order.channels,
        reason=order.reason,
    )


def outline(order: BackupOrder, collected: Collected) -> dict[str, Any]:
    """What callers are shown of a plan."""
    claims = collected.claims if order.include_volumes else []
    shown: dict[str, Any] = {
        "engine": order.engine.value,
        "namespace": order.target.namespace,
        "objects": [msgspec.to_builtins(one) for one in collected.held],
        "volumes": [{"claim": one["metadata"]["name"], "size": size_of(one)} for one in claims],
        "left_out": [msgspec.to_builtins(one) for one in collected.left_out],
    }
    if order.engine is Engine.VELERO:
        shown["selectors"] = selectors_of(collected.workload)
    return shown


def _refusals(order: BackupOrder, collected: Collected) -> list[OpsError]:
    if order.engine is not Engine.VELERO:
        return []
    workload = collected.workload
    if selects(selectors_of(workload), workload["metadata"].get("labels")):
        return []
    why = f"Velero selects by labels, and {order.target.place} bears none; give it its pods' labels"
    return [no_engine(order.target.workspace_id, why)]


def _warnings(order: BackupOrder, ground: Ground, collected: Collected) -> list[str]:
    found = []
    if order.include_volumes and collected.claims and order.engine is Engine.MANIFESTS and not ground.snapshots:
        names = ", ".join(claim["metadata"]["name"] for claim in collected.claims[:5])
        found.append(f"The volumes of {names} cannot be captured: {unserved(SNAPSHOTS)}")
    if collected.left_out:
        found.append(f"{len(collected.left_out)} objects that belong to it are left out; the plan names each")
    return found
