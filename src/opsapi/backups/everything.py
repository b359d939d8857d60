"""backup_all: a backup of each application of a workspace, one after another, in one operation."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec

from opsapi.backups.backup_steps import describe, outcome_of
from opsapi.backups.erasing import Eraser
from opsapi.backups.making import BackupMaker
from opsapi.backups.model import Backup, BackupOrder, Ended, Engine, Status, Target, backup_id_among
from opsapi.backups.planning import LOCK, BackupOptions, BackupPlanner
from opsapi.backups.snapshots import GateNotes
from opsapi.kit.errors import ResourceNotFound
from opsapi.kit.permissions import Permission
from opsapi.operations.errors import OperationInProgress, StepFailed
from opsapi.operations.model import (
    Announcement,
    Failure,
    ItemState,
    Operation,
    Outcome,
    State,
    Undo,
    UndoState,
    lock_key,
    workspace_lock,
)
from opsapi.operations.procedures import Procedure, StepDone, StepProcedure
from opsapi.operations.proposal import Proposal
from opsapi.operations.work import ItemWork, StepWork
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Ask, Subject
from opsapi.webhooks.model import EventType
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.objects import APPLICATION_KINDS, CronJob, Workload
from opsapi.workspaces.ports import Cluster, Clusters

ACTION = "backup_all"
BACK_UP = "back_up_applications"
_ROUNDS = 5
_SHOWN = 100


class AllOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the step needs. `targets` are the applications that there were when it was planned."""

    workspace_id: str
    engine: Engine
    ttl_seconds: float
    options: BackupOptions
    targets: tuple[Target, ...]
    component: str | None = None
    namespaces: tuple[str, ...] = ()


class BackupAllPlanner:
    def __init__(self, clusters: Clusters, planner: BackupPlanner, policy: PolicyBook) -> None:
        self._clusters = clusters
        self._planner = planner
        self._policy = policy

    async def propose(
        self,
        cluster: Cluster,
        subject: Subject,
        options: BackupOptions,
        *,
        component: str | None = None,
        namespaces: tuple[str, ...] = (),
        confirm: bool = False,
    ) -> Proposal:
        """All applications outside protected namespaces, or those of `namespaces`, or the one that `component` names by
        id or name. Raises ValidationFailed, ResourceNotFound, InvalidState, DependencyUnavailable."""
        keep = self._planner.check(options, at="parameters.")
        cluster.inventory.require(*APPLICATION_KINDS)
        targets = self._targets(cluster, component, namespaces)
        ground = await self._planner.ground(cluster)
        order = AllOrder(
            workspace_id=cluster.workspace.id,
            engine=ground.engine,
            ttl_seconds=keep,
            options=options,
            targets=targets,
            component=component,
            namespaces=namespaces,
        )
        in_cluster = ground.engine is Engine.VELERO or (options.include_volumes and ground.snapshots)
        return _proposal(cluster, subject, order, ground.warnings, confirm=confirm, counted=in_cluster)

    async def replan(self, operation: Operation) -> Proposal:
        order = msgspec.convert(operation.parameters, AllOrder)
        cluster = self._clusters.find(order.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.workspace_id, cluster.workspace.mode)
        return await self.propose(
            cluster, subject, order.options, component=order.component, namespaces=order.namespaces
        )

    def _targets(self, cluster: Cluster, component: str | None, namespaces: tuple[str, ...]) -> tuple[Target, ...]:
        workspace, protects = cluster.workspace, self._policy.settings.protects
        found = []
        for kind in APPLICATION_KINDS:
            struct = CronJob if kind.kind == "CronJob" else Workload
            for held in cluster.inventory.all(kind, struct):
                meta = held.metadata  # type: ignore[attr-defined]
                if protects(meta.namespace) or not workspace.in_scope(meta.namespace):
                    continue
                if namespaces and meta.namespace not in namespaces:
                    continue
                if meta.deletion_timestamp is not None:
                    continue
                target = Target(
                    workspace_id=workspace.id,
                    application_id=application_id(workspace.id, kind, meta),
                    kind=kind.kind,
                    namespace=meta.namespace,
                    name=meta.name,
                    uid=meta.uid,
                )
                if component in (None, target.application_id, target.name):
                    found.append(target)
        if component is not None and not found:
            raise ResourceNotFound("application", component)
        return tuple(sorted(found, key=lambda one: (one.namespace, one.name, one.kind)))


class BackupAllSteps:
    """`procedure()` is what wiring registers with the engine. One application's failure is no other's: the others go
    on, and the whole counts as partial. Nothing is undone: what was saved stays saved."""

    def __init__(self, maker: BackupMaker, eraser: Eraser, planner: BackupAllPlanner) -> None:
        self._maker = maker
        self._eraser = eraser
        self._planner = planner

    def procedure(self) -> Procedure:
        step = StepProcedure(BACK_UP, self.back_up, timedelta(minutes=5), self.undo)
        deadline = timedelta(seconds=self._maker.settings.all_timeout_seconds)
        return Procedure(ACTION, (step,), deadline, replan=self._planner.replan, announce=announce)

    async def back_up(self, work: StepWork) -> StepDone:
        order = msgspec.convert(work.operation.parameters, AllOrder)
        waiting = [target for target in order.targets if not work.item(target.place).settled]
        for turn in range(_ROUNDS):
            waiting = [target for target in waiting if not await self._try(work, order, target)]
            if not waiting:
                break
            if turn + 1 < _ROUNDS:
                await work.sleep(15 * self._maker.settings.poll_seconds)
        for target in waiting:
            message = "Another operation worked on it all the time"
            await work.item(target.place).fail(Failure(code="OPERATION_IN_PROGRESS", message=message))
        return _told(work, order)

    async def undo(self, work: StepWork) -> Undo:  # noqa: ARG002  the engine's signature
        return Undo(state=UndoState.SKIPPED, reason="the backups that were made are kept")

    async def _try(self, work: StepWork, order: AllOrder, target: Target) -> bool:
        """False where somebody else works on it now."""
        lock = lock_key(order.workspace_id, target.application_id)
        try:
            await work.lock(lock)
        except OperationInProgress:
            return False
        try:
            await self._one(work, order, target)
        finally:
            await work.unlock(lock)
        return True

    async def _one(self, work: StepWork, order: AllOrder, target: Target) -> None:
        item = work.item(target.place)
        backup_id = backup_id_among(work.operation.id, target)
        if item.interrupted is None:
            await item.intend({"backup_id": backup_id})
        else:
            await work.pass_gate()
        single = _order_of(order, target)
        backup = await self._maker.open(single, backup_id, work.operation)
        try:
            if order.engine is Engine.VELERO:
                ended = await self._with_velero(work, single, backup)
            else:
                ended = await self._with_manifests(work, single, backup)
        except StepFailed as error:
            await self._give_up(work, item, backup, error)
            return
        effect = outcome_of(backup, ended)
        if ended.status is Status.COMPLETED:
            await item.record(effect, describe(ended))
        else:
            failure = Failure(code="PARTIALLY_FAILED", message=describe(ended), details=effect)
            await item.fail(failure)

    async def _with_manifests(self, work: StepWork, order: BackupOrder, backup: Backup) -> Ended:
        volumes = await self._maker.take_volumes(work, backup, GateNotes(work)) if order.include_volumes else []
        await work.pass_gate()
        written, _ = await self._maker.write(work, backup, volumes)
        return await self._maker.conclude(work, order, backup, written.checksum)

    async def _with_velero(self, work: StepWork, order: BackupOrder, backup: Backup) -> Ended:
        uid, _ = await self._maker.begin_velero(order, backup)
        await self._maker.velero.await_backup(work, backup, uid)
        return await self._maker.conclude_velero(work, order, backup, uid)

    async def _give_up(self, work: StepWork, item: ItemWork, backup: Backup, error: StepFailed) -> None:
        """What it had begun to write is no backup; what is left of it, retention takes away."""
        failure = Failure(code=error.code, message=error.message, details={"backup_id": backup.id})
        await self._eraser.close_as_failed(backup, work.clock.now(), failure)
        await item.fail(failure)


def _order_of(order: AllOrder, target: Target) -> BackupOrder:
    options = order.options
    return BackupOrder(
        target=target,
        engine=order.engine,
        backup_type=options.backup_type,
        retention_policy=options.retention_policy,
        ttl_seconds=order.ttl_seconds,
        include_volumes=options.include_volumes,
        reason=options.reason,
    )


def _told(work: StepWork, order: AllOrder) -> StepDone:
    """The counts, and each application's end, the failed ones first."""
    shown: list[dict[str, Any]] = []
    counts = {status.value: 0 for status in (Status.COMPLETED, Status.PARTIALLY_FAILED, Status.FAILED)}
    for target in order.targets:
        held = work.item(target.place).held
        if held.state is ItemState.DONE:
            status = Status.COMPLETED
        elif held.error is not None and held.error.code == "PARTIALLY_FAILED":
            status = Status.PARTIALLY_FAILED
        else:
            status = Status.FAILED
        counts[status.value] += 1
        backup_id = (held.intent or {}).get("backup_id")
        shown.append(
            {"application_id": target.application_id, "application": target.place, "backup_id": backup_id,
             "status": status.value, "message": held.message}
        )  # fmt: skip
    shown.sort(key=lambda one: (one["status"] == Status.COMPLETED.value, one["application"]))
    result = {"applications": len(order.targets), "backups": counts, "items": shown[:_SHOWN]}
    result["truncated"] = len(shown) > _SHOWN
    if not order.targets:
        return StepDone("There is no application to back up", result=result, outcome=Outcome.NOTHING_TO_DO)
    whole = counts[Status.COMPLETED.value] == len(order.targets)
    message = f"{counts[Status.COMPLETED.value]} of {len(order.targets)} applications backed up"
    if not any(counts[status.value] for status in (Status.COMPLETED, Status.PARTIALLY_FAILED)):
        raise StepFailed("ALL_FAILED", message, **result)
    return StepDone(message, result=result, outcome=Outcome.CHANGED if whole else Outcome.PARTIAL)


def announce(operation: Operation, state: State) -> Sequence[Announcement]:
    """One event for the whole: each application's end stands in the operation."""
    order = msgspec.convert(operation.parameters, AllOrder)
    whole = state is State.COMPLETED and operation.outcome is not Outcome.PARTIAL
    result = operation.result or {}
    partial = Status.PARTIALLY_FAILED if state is State.COMPLETED else Status.FAILED
    data = {
        "backup_id": None,
        "operation_id": operation.id,
        "workspace_id": order.workspace_id,
        "application_id": None,
        "status": Status.COMPLETED.value if whole else partial.value,
        "engine": order.engine.value,
        "applications": len(order.targets),
        "backups": result.get("backups"),
        "error": None if operation.error is None else operation.error.code,
    }
    kind = EventType.BACKUP_COMPLETED if whole else EventType.BACKUP_FAILED
    return [Announcement(type=kind, data=data, channels=order.options.channels)]


def _proposal(
    cluster: Cluster, subject: Subject, order: AllOrder, warnings: tuple[str, ...], *, confirm: bool, counted: bool
) -> Proposal:
    options = order.options
    shown = {
        "engine": order.engine.value,
        "include_volumes": options.include_volumes,
        "retention_policy": options.retention_policy,
        "applications": len(order.targets),
        "objects": [{"kind": one.kind, "namespace": one.namespace, "name": one.name} for one in order.targets[:_SHOWN]],
        "truncated": len(order.targets) > _SHOWN,
    }
    return Proposal(
        action=ACTION,
        workspace_id=order.workspace_id,
        application_id=None,
        resource_id=order.workspace_id,
        resource_uid=None,
        permission=Permission.WORKSPACE_ADMIN,
        parameters=msgspec.to_builtins(order),
        plan=shown,
        intended=shown | {"targets": [(one.place, one.uid) for one in order.targets]},
        steps=(BACK_UP,),
        locks=frozenset({workspace_lock(order.workspace_id, LOCK)}),
        ask=Ask(
            subject=subject,
            action=ACTION,
            at=cluster.inventory.now(),
            targets=(workspace_lock(order.workspace_id, ACTION),),
            counted=counted,
            wants_approval=confirm,
        ),
        warnings=warnings,
        reason=options.reason,
        nothing_to_do=not order.targets,
    )
