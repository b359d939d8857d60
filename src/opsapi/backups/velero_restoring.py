"""The step in which Velero restores: a Restore beside its backup, followed to its end."""

import msgspec

from opsapi.backups import velero
from opsapi.backups.kinds import CONFIG_MAPS, RESTORE_ORDER, VELERO_RESTORES, WORKLOADS
from opsapi.backups.model import Backup, Held
from opsapi.backups.ports import BackupRecords
from opsapi.backups.restoring import RestoreOrder, is_inert
from opsapi.backups.velero_client import VeleroClient
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Outcome, Undo, UndoState
from opsapi.operations.procedures import StepDone
from opsapi.operations.work import StepWork
from opsapi.workspaces.writing import (
    ObjectKey,
    Objects,
    OutcomeUnknown,
    Resource,
    TargetGone,
    WriteConflict,
    WriteRefused,
)

_RUNNING = (Resource("apps", "v1", "replicasets", "ReplicaSet"), Resource("", "v1", "pods", "Pod"))
"""What an activated restore brings besides, and what goes after the workloads that own it."""


def name_of(operation_id: str) -> str:
    return f"opsapi-{operation_id}"


class VeleroRestoring:
    def __init__(self, records: BackupRecords, objects: Objects, client: VeleroClient) -> None:
        self._records = records
        self._objects = objects
        self._client = client

    async def run(self, work: StepWork) -> StepDone:
        order, backup = await self._order(work)
        namespace = backup.location.partition("/")[0]
        name = name_of(work.operation.id)
        if work.step.effect is None:
            if work.interrupted is None:
                await work.intend({"restore": f"{namespace}/{name}"})
            else:
                await work.pass_gate()
            uid, found = await self._create(work, order, backup, name)
            await work.record({"restore": f"{namespace}/{name}", "uid": uid}, found=found)
        uid = str((work.step.effect or {}).get("uid", ""))
        message = await self._client.await_restore(work, backup.workspace_id, namespace, name, uid)
        result = {
            "backup_id": backup.id,
            "namespace": order.options.namespace,
            "application_id": order.application_id,
            "activated": order.options.activate,
            "velero_restore": f"{namespace}/{name}",
        }
        return StepDone(message, result=result, outcome=Outcome.CHANGED)

    async def verify(self, work: StepWork, order: RestoreOrder, backup: Backup) -> None:
        """Raises StepFailed where the workload did not come from this restore, or any workload runs that should not."""
        name = name_of(work.operation.id)
        restored = await self._restored(order, name)
        if Held(order.kind, order.name) not in restored:
            raise StepFailed("NOT_AS_WRITTEN", f"Velero did not restore {order.kind} {order.name}")
        if not order.options.activate:
            running = [
                f"{kind} {one.name}"
                for one, body in restored.items()
                if (kind := one.kind) in WORKLOADS and not is_inert(kind, body)
            ]
            if running:
                raise StepFailed("NOT_INERT", f"{', '.join(running[:5])} arrived with something that runs")
            await self._remove_modifier(backup, name)

    async def undo(self, work: StepWork) -> Undo:
        """Deletes what bears the restore's label, which Velero puts on what it created and on nothing else."""
        order, backup = await self._order(work)
        await work.intend_undo()
        name = name_of(work.operation.id)
        selector = f"{velero.RESTORE_NAME}={name}"
        options = order.options
        undone, refused = 0, []
        await self._remove_modifier(backup, name)
        for resource in (*reversed([one for one in RESTORE_ORDER if one.namespaced]), *_RUNNING):
            try:
                listed = await self._objects.list(options.workspace_id, resource, options.namespace, selector=selector)
                for held in listed:
                    meta = held["metadata"]
                    key = ObjectKey(options.workspace_id, resource, options.namespace, meta["name"], meta["uid"])
                    await self._delete(key)
                    undone += 1
            except TargetGone:
                continue
            except WriteRefused as error:
                refused.append(f"{resource}: {error.reason}")
        if refused:
            return Undo(state=UndoState.SKIPPED, reason=f"not all may be deleted: {'; '.join(refused)}"[:500])
        ours = work.step.undo is not None
        return Undo(state=UndoState.UNDONE if undone or ours else UndoState.NEEDLESS)

    async def _create(self, work: StepWork, order: RestoreOrder, backup: Backup, name: str) -> tuple[str, bool]:
        options = order.options
        operation_id = work.operation.id
        body = velero.restore_body(
            backup,
            name,
            operation_id,
            options.namespace,
            activate=options.activate,
            volumes=options.include_volumes,
            modifier=name,
        )
        try:
            if not options.activate:
                await self._client.create_modifier(backup, name, operation_id)
            return await self._client.create(backup.workspace_id, VELERO_RESTORES, body, backup.id)
        except OutcomeUnknown:
            raise
        except (StepFailed, DependencyUnavailable) as error:
            if isinstance(error, StepFailed):
                await self._remove_modifier(backup, name)
            await work.withdraw()
            raise

    async def _restored(self, order: RestoreOrder, name: str) -> dict[Held, dict[str, object]]:
        selector = f"{velero.RESTORE_NAME}={name}"
        options = order.options
        found: dict[Held, dict[str, object]] = {}
        for resource in WORKLOADS.values():
            try:
                listed = await self._objects.list(options.workspace_id, resource, options.namespace, selector=selector)
            except TargetGone:
                continue
            except WriteRefused as error:
                raise StepFailed("READ_REFUSED", f"{resource} may not be listed: {error.reason}") from error
            found |= {Held(resource.kind, held["metadata"]["name"]): held for held in listed}
        return found

    async def _remove_modifier(self, backup: Backup, name: str) -> None:
        namespace = backup.location.partition("/")[0]
        await self._client.remove(backup.workspace_id, CONFIG_MAPS, namespace, name, backup.id)

    async def _delete(self, key: ObjectKey) -> None:
        try:
            await self._objects.delete(key)
        except (TargetGone, WriteConflict):
            return

    async def _order(self, work: StepWork) -> tuple[RestoreOrder, Backup]:
        order = msgspec.convert(work.operation.parameters, RestoreOrder)
        backup = await self._records.get(order.backup_id)
        if backup is None:
            raise StepFailed("RESOURCE_NOT_FOUND", f"{order.backup_id} is forgotten by now")
        return order, backup
