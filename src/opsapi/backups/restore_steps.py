"""Carries a restore out: nothing is touched before the backup has proved whole and the place free, and what was created
is taken away again where it does not come right."""

import logging
from datetime import timedelta

import msgspec

from opsapi.applications.ports import WorkloadRef, Workloads, WrittenEvent
from opsapi.backups.errors import BackupDamaged, ObjectsExist
from opsapi.backups.kinds import WORKLOAD_KINDS, place_in_order, resource_of
from opsapi.backups.model import RESTORED_BY, Backup, Engine
from opsapi.backups.restore_planning import (
    CHECK_TARGET,
    CREATE_OBJECTS,
    VERIFY_BACKUP,
    VERIFY_RESTORED,
    WITH_VELERO,
    RestorePlanner,
)
from opsapi.backups.restoring import (
    ACTION,
    Creation,
    RestoreOrder,
    creations,
    is_inert,
    key_of,
    readiness,
    workload_of,
)
from opsapi.backups.settings import BackupSettings
from opsapi.backups.velero_restoring import VeleroRestoring
from opsapi.kit.errors import DependencyUnavailable, InvalidState
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Item, ItemState, Outcome, Undo, UndoState
from opsapi.operations.procedures import Procedure, StepDone, StepProcedure
from opsapi.operations.work import ItemWork, StepWork
from opsapi.workspaces.writing import (
    JsonObject,
    ObjectKey,
    Objects,
    OutcomeUnknown,
    TargetGone,
    WriteConflict,
    WriteRefused,
)

_EVENT_REASON = "RestoredByOpsapi"
_log = logging.getLogger(__name__)


class RestoreSteps:
    """`procedure()` is what wiring registers with the engine."""

    def __init__(
        self,
        planner: RestorePlanner,
        objects: Objects,
        workloads: Workloads,
        velero: VeleroRestoring,
        settings: BackupSettings,
    ) -> None:
        self._planner = planner
        self._objects = objects
        self._workloads = workloads
        self._velero = velero
        self._settings = settings

    def procedure(self) -> Procedure:
        steps = (
            StepProcedure(VERIFY_BACKUP, self.verify_backup, timedelta(seconds=10)),
            StepProcedure(CHECK_TARGET, self.check_target, timedelta(seconds=5)),
            StepProcedure(CREATE_OBJECTS, self.create_objects, timedelta(seconds=20), self.undo_objects),
            StepProcedure(WITH_VELERO, self._velero.run, timedelta(seconds=120), self._velero.undo),
            StepProcedure(VERIFY_RESTORED, self.verify_restored, timedelta(seconds=30)),
        )
        deadline = timedelta(seconds=self._settings.timeout_seconds)
        return Procedure(ACTION, steps, deadline, replan=self._planner.replan)

    async def verify_backup(self, work: StepWork) -> StepDone:
        order, backup = await self._order(work)
        await self._load(order, backup)
        return StepDone(f"{backup.id} is intact: {len(backup.objects)} objects")

    async def check_target(self, work: StepWork) -> StepDone:
        order, backup = await self._order(work)
        made = creations(backup, await self._load(order, backup), order.options, work.operation.id)
        existing = await self._planner.existing(self._planner.keys(backup, made, order.options))
        if existing:
            raise _exist(order, existing)
        return StepDone(f"Nothing of it is in {order.options.namespace} yet")

    async def create_objects(self, work: StepWork) -> StepDone:
        order, backup = await self._order(work)
        made = creations(backup, await self._load(order, backup), order.options, work.operation.id)
        for creation in made:
            await self._create(work, order, creation)
        await self._announce(work, order, backup)
        result = {
            "backup_id": backup.id,
            "namespace": order.options.namespace,
            "application_id": order.application_id,
            "activated": order.options.activate,
            "objects": [f"{resource.kind}/{body['metadata']['name']}" for resource, body in made],
        }
        return StepDone(f"{len(made)} objects created", result=result, outcome=Outcome.CHANGED)

    async def verify_restored(self, work: StepWork) -> StepDone:
        """Everything that was created is there as ours; the workload is inert, or becomes ready."""
        order, backup = await self._order(work)
        if order.engine is Engine.VELERO:
            await self._velero.verify(work, order, backup)
        else:
            await self._verify_created(work, order)
        resource = workload_of(backup)
        key = ObjectKey(order.options.workspace_id, resource, order.options.namespace, order.name)
        if not order.options.activate:
            if not is_inert(order.kind, await self._held(key)):
                raise StepFailed("NOT_INERT", f"{order.kind} {order.name} arrived with something that runs")
            return StepDone(f"Verified: {order.kind} {order.name} is there, and inert")
        until = work.clock.monotonic() + min(self._settings.ready_seconds, work.remaining - 30)
        while True:
            ready, seen = readiness(order.kind, await self._held(key))
            if ready:
                return StepDone(f"Verified: {seen}")
            if work.clock.monotonic() >= until:
                raise StepFailed("NOT_READY", f"Not ready in time: {seen}")
            await work.sleep(self._settings.poll_seconds)

    async def undo_objects(self, work: StepWork) -> Undo:
        """Deletes what was created, the last first, where it is still what the operation created."""
        order = msgspec.convert(work.operation.parameters, RestoreOrder)
        skipped, undone = [], 0
        for name, held in sorted(work.step.items.items(), key=_latest_first):
            if not held.touched or held.state is ItemState.SKIPPED:
                continue
            item = work.item(name)
            undo = held.undo
            if undo is None or undo.state is UndoState.INTENDED:
                undo = await self._remove(work, item, order, held)
                await item.note_undo(undo)
            undone += undo.state is UndoState.UNDONE
            if undo.state is UndoState.SKIPPED:
                skipped.append(f"{name}: {undo.reason}")
        if skipped:
            return Undo(state=UndoState.SKIPPED, reason="; ".join(skipped)[:500])
        return Undo(state=UndoState.UNDONE if undone else UndoState.NEEDLESS)

    # one object

    async def _create(self, work: StepWork, order: RestoreOrder, creation: Creation) -> None:
        resource, body = creation
        key = key_of(order.options.workspace_id, creation)
        item = work.item(str(key))
        if item.settled:
            return
        if item.interrupted is None:
            await item.intend({"kind": resource.kind, "namespace": key.namespace, "name": key.name})
        else:
            await work.pass_gate()
        try:
            held, found = await self._objects.create(order.options.workspace_id, resource, body), False
        except WriteConflict:
            held, found = await self._mine(work, item, key), True
        except WriteRefused as error:
            await item.withdraw()
            raise StepFailed("WRITE_REFUSED", f"{key} was refused: {error}"[:500], reason=error.reason) from error
        except TargetGone as error:
            await item.withdraw()
            raise StepFailed("TARGET_GONE", f"{key} cannot be created: {error}"[:500]) from error
        except OutcomeUnknown:
            raise
        except DependencyUnavailable:
            await item.withdraw()
            raise
        await item.record({"uid": held["metadata"]["uid"]}, "found" if found else "created", found=found)

    async def _mine(self, work: StepWork, item: ItemWork, key: ObjectKey) -> JsonObject:
        """What bears the name, where an earlier try of this very operation created it. Raises StepFailed else."""
        try:
            held = await self._objects.get(key)
        except TargetGone:
            held = {"metadata": {}}
        if _restored_by(held) == work.operation.id:
            return held
        await item.withdraw()
        raise _exist(msgspec.convert(work.operation.parameters, RestoreOrder), [f"{key.resource.kind}/{key.name}"])

    async def _remove(self, work: StepWork, item: ItemWork, order: RestoreOrder, held: Item) -> Undo:
        intent = held.intent or {}
        resource = resource_of(str(intent.get("kind")))
        if resource is None:
            return Undo(state=UndoState.SKIPPED, reason="its kind is unknown to this release")
        uid = str((held.effect or {}).get("uid", ""))
        workspace_id = order.options.workspace_id
        key = ObjectKey(workspace_id, resource, str(intent.get("namespace", "")), str(intent.get("name")), uid)
        try:
            found = await self._objects.get(key)
        except TargetGone:
            ours = held.undo is not None
            return Undo(state=UndoState.UNDONE if ours else UndoState.NEEDLESS)
        except WriteConflict:
            return Undo(state=UndoState.SKIPPED, reason="another object bears its name by now")
        if _restored_by(found) != work.operation.id:
            return Undo(state=UndoState.NEEDLESS if not uid else UndoState.SKIPPED, reason="it is not ours any more")
        await item.intend_undo()
        try:
            await self._objects.delete(msgspec.structs.replace(key, uid=found["metadata"]["uid"]))
        except (TargetGone, WriteConflict):
            pass
        except WriteRefused as error:
            return Undo(state=UndoState.SKIPPED, reason=str(error)[:300])
        return Undo(state=UndoState.UNDONE)

    # looking

    async def _verify_created(self, work: StepWork, order: RestoreOrder) -> None:
        for name, item in work.operation.step(CREATE_OBJECTS).items.items():
            intent, effect = item.intent or {}, item.effect or {}
            resource = resource_of(str(intent.get("kind")))
            assert resource is not None
            place = str(intent.get("namespace", "")), str(intent.get("name"))
            key = ObjectKey(order.options.workspace_id, resource, *place, str(effect.get("uid", "")))
            try:
                await self._objects.get(key)
            except (TargetGone, WriteConflict) as error:
                raise StepFailed("NOT_AS_WRITTEN", f"{name} was deleted or replaced meanwhile") from error
            except WriteRefused as error:
                raise StepFailed("READ_REFUSED", f"{name} may not be read: {error.reason}") from error

    async def _held(self, key: ObjectKey) -> JsonObject:
        try:
            return await self._objects.get(key)
        except (TargetGone, WriteConflict) as error:
            raise StepFailed("NOT_AS_WRITTEN", f"{key} was deleted or replaced meanwhile") from error
        except WriteRefused as error:
            raise StepFailed("READ_REFUSED", f"{key} may not be read: {error.reason}") from error

    async def _order(self, work: StepWork) -> tuple[RestoreOrder, Backup]:
        order = msgspec.convert(work.operation.parameters, RestoreOrder)
        backup = await self._planner.backup(order.backup_id)
        if not backup.status.restorable or backup.checksum != order.checksum:
            raise StepFailed("INVALID_STATE", f"{backup.id} is not what it was when this was planned")
        return order, backup

    async def _load(self, order: RestoreOrder, backup: Backup) -> list[Creation]:
        try:
            return await self._planner.load(backup, volumes=order.options.include_volumes)
        except (BackupDamaged, InvalidState) as error:
            raise StepFailed(error.code, error.message, **msgspec.to_builtins(error.details)) from error

    async def _announce(self, work: StepWork, order: RestoreOrder, backup: Backup) -> None:
        """The Kubernetes Event on the restored workload: best effort, since the objects are there."""
        resource, operation = workload_of(backup), work.operation
        item = work.item(str(ObjectKey("", resource, order.options.namespace, order.name))).held
        kind = WORKLOAD_KINDS[order.kind]
        uid = str((item.effect or {}).get("uid", ""))
        ref = WorkloadRef(order.options.workspace_id, kind, order.options.namespace, order.name, uid)
        told = f"Restored from {backup.id} by {operation.requested_by} (operation {operation.id})"
        event = WrittenEvent(_EVENT_REASON, told[:1000], ACTION)
        try:
            await self._workloads.write_event(ref, event, operation_id=operation.id, at=work.clock.now())
        except (WriteRefused, WriteConflict, TargetGone, DependencyUnavailable) as error:
            _log.warning("no event could be written for operation %s: %s", operation.id, error)


def _restored_by(held: JsonObject) -> str:
    return str((held["metadata"].get("annotations") or {}).get(RESTORED_BY, ""))


def _latest_first(entry: tuple[str, Item]) -> tuple[int, str]:
    resource = resource_of(str((entry[1].intent or {}).get("kind")))
    return (-place_in_order(resource) if resource is not None else 0, entry[0])


def _exist(order: RestoreOrder, existing: list[str]) -> StepFailed:
    error = ObjectsExist(order.options.namespace, existing)
    return StepFailed(error.code, error.message, **msgspec.to_builtins(error.details))
