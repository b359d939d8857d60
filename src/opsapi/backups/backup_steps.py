"""Carries one application's backup out: snapshots, manifests with their index, or Velero; then what is there is read
again before it is called a backup."""

import logging
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from opsapi.applications.ports import WorkloadRef, Workloads, WrittenEvent
from opsapi.backups.erasing import Eraser
from opsapi.backups.kinds import WORKLOAD_KINDS
from opsapi.backups.making import BackupMaker
from opsapi.backups.model import (
    Backup,
    BackupOrder,
    Ended,
    Engine,
    Status,
    Target,
    Volume,
    backup_id_of,
)
from opsapi.backups.snapshots import ItemNotes, volume_noted
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Announcement, Operation, Outcome, State, Undo, UndoState
from opsapi.operations.procedures import Procedure, Replanner, StepDone, StepProcedure
from opsapi.operations.work import StepWork
from opsapi.webhooks.model import EventType
from opsapi.workspaces.writing import OutcomeUnknown, TargetGone, WriteConflict, WriteRefused

ACTION = "backup"
TAKE_SNAPSHOTS = "take_snapshots"
WRITE_MANIFESTS = "write_manifests"
CREATE_VELERO = "create_velero_backup"
AWAIT_VELERO = "await_velero_backup"
VERIFY = "verify_backup"
EVENT_REASON = "BackedUpByOpsapi"
T = TypeVar("T")
_log = logging.getLogger(__name__)


def steps_of(engine: Engine, *, volumes: bool) -> tuple[str, ...]:
    if engine is Engine.VELERO:
        return (CREATE_VELERO, AWAIT_VELERO, VERIFY)
    return (TAKE_SNAPSHOTS, WRITE_MANIFESTS, VERIFY) if volumes else (WRITE_MANIFESTS, VERIFY)


class BackupSteps:
    """`procedure()` is what wiring registers with the engine."""

    def __init__(self, maker: BackupMaker, eraser: Eraser, workloads: Workloads) -> None:
        self._maker = maker
        self._eraser = eraser
        self._workloads = workloads

    def procedure(self, replan: Replanner | None = None) -> Procedure:
        """The published estimates are those of a small application."""
        steps = (
            StepProcedure(TAKE_SNAPSHOTS, self.take_snapshots, timedelta(seconds=60), self.undo),
            StepProcedure(WRITE_MANIFESTS, self.write_manifests, timedelta(seconds=10), self.undo),
            StepProcedure(CREATE_VELERO, self.create_velero, timedelta(seconds=5), self.undo_velero),
            StepProcedure(AWAIT_VELERO, self.await_velero, timedelta(seconds=120)),
            StepProcedure(VERIFY, self.verify, timedelta(seconds=5)),
        )
        deadline = timedelta(seconds=self._maker.settings.timeout_seconds)
        return Procedure(ACTION, steps, deadline, replan=replan, announce=announce)

    async def take_snapshots(self, work: StepWork) -> StepDone:
        order, backup = await self._open(work)
        volumes = await self._maker.take_volumes(work, backup, ItemNotes(work))
        captured = sum(volume.captured for volume in volumes)
        lost = [volume.claim for volume in volumes if not volume.captured]
        await self._announce(work, order.target, f"Snapshots of {captured} volumes for backup {backup.id}")
        message = f"{captured} of {len(volumes)} volumes captured"
        return StepDone(message + (f"; not {', '.join(lost[:10])}" if lost else ""), outcome=Outcome.CHANGED)

    async def write_manifests(self, work: StepWork) -> StepDone:
        _, backup = await self._open(work)
        effect = work.step.effect
        if effect is None:
            if work.interrupted is None:
                await work.intend({"location": backup.location})
            else:
                await work.pass_gate()
            written, found = await self._maker.write(work, backup, _volumes(work.operation))
            files = len(written.index.files)
            effect = {"location": backup.location, "checksum": written.checksum, "files": files}
            await work.record(effect, found=found)
        return StepDone(f"{effect['files']} manifests and their index written", outcome=Outcome.CHANGED)

    async def create_velero(self, work: StepWork) -> StepDone:
        order, backup = await self._open(work)
        if work.step.effect is None:
            if work.interrupted is None:
                await work.intend({"backup": backup.location})
            else:
                await work.pass_gate()
            uid, found = await settled(work, self._maker.begin_velero(order, backup))
            await work.record({"backup": backup.location, "uid": uid}, found=found)
            await self._announce(work, order.target, f"Velero backup {backup.location} for {backup.id}")
        return StepDone(f"Velero backup {backup.location} created", outcome=Outcome.CHANGED)

    async def await_velero(self, work: StepWork) -> StepDone:
        _, backup = await self._open(work)
        seen = await self._maker.velero.await_backup(work, backup, _velero_uid(work))
        return StepDone(f"Velero says: {seen.message}")

    async def verify(self, work: StepWork) -> StepDone:
        """Nothing is complete that has not been read again."""
        order, backup = await self._open(work)
        if order.engine is Engine.VELERO:
            ended = await self._maker.conclude_velero(work, order, backup, _velero_uid(work))
        else:
            effect = work.operation.step(WRITE_MANIFESTS).effect or {}
            ended = await self._maker.conclude(work, order, backup, str(effect.get("checksum")))
        partial = ended.status is Status.PARTIALLY_FAILED
        return StepDone(
            describe(ended), result=outcome_of(backup, ended), outcome=Outcome.PARTIAL if partial else Outcome.CHANGED
        )

    async def undo(self, work: StepWork) -> Undo:
        """What the operation made is taken away again: an index first, then files and snapshots that are still ours."""
        backup = await self._maker.records.get(backup_id_of(work.operation.id))
        if backup is None:
            return Undo(state=UndoState.NEEDLESS)
        await work.intend_undo()
        if work.step.name == WRITE_MANIFESTS:
            erased = await self._eraser.erase_manifests(backup)
        else:
            erased = await self._eraser.erase_snapshots(backup)
        await self._eraser.close_as_failed(backup, work.clock.now(), work.operation.error)
        return Undo(state=UndoState.UNDONE if erased else UndoState.NEEDLESS)

    async def undo_velero(self, work: StepWork) -> Undo:  # noqa: ARG002  the engine's signature
        """Velero keeps what failed until its ttl, for its logs."""
        return Undo(state=UndoState.SKIPPED, reason="Velero keeps the backup and its log until its ttl has passed")

    async def _open(self, work: StepWork) -> tuple[BackupOrder, Backup]:
        order = msgspec.convert(work.operation.parameters, BackupOrder)
        backup = await self._maker.open(order, backup_id_of(work.operation.id), work.operation)
        return order, backup

    async def _announce(self, work: StepWork, target: Target, message: str) -> None:
        """The Kubernetes Event: best effort, since the effect itself has happened."""
        kind = WORKLOAD_KINDS[target.kind]
        ref = WorkloadRef(target.workspace_id, kind, target.namespace, target.name, target.uid)
        operation = work.operation
        told = f"{message} by {operation.requested_by} (operation {operation.id})"
        event = WrittenEvent(EVENT_REASON, told[:1000], ACTION)
        try:
            await self._workloads.write_event(ref, event, operation_id=operation.id, at=work.clock.now())
        except (WriteRefused, WriteConflict, TargetGone, DependencyUnavailable) as error:
            _log.warning("no event could be written for operation %s: %s", operation.id, error)


async def settled(work: StepWork, effect: Awaitable[T]) -> T:
    """Takes the intent back where the effect is certain not to have happened; of one whose answer is missing, the next
    try looks for it."""
    try:
        return await effect
    except OutcomeUnknown:
        raise
    except (StepFailed, DependencyUnavailable):
        await work.withdraw()
        raise


def outcome_of(backup: Backup, ended: Ended) -> dict[str, Any]:
    """An operation's result: small, and the record has the rest."""
    return {
        "backup_id": backup.id,
        "application_id": backup.application_id,
        "backup_status": ended.status.value,
        "engine": backup.engine.value,
        "objects": len(ended.objects),
        "size_bytes": ended.size_bytes,
        "volumes_expected": ended.volumes_expected,
        "volumes_captured": ended.volumes_captured,
        "missing": _missing(ended)[:20],
        "left_out": len(ended.left_out),
    }


def describe(ended: Ended) -> str:
    objects = f"{len(ended.objects)} objects"
    volumes = ""
    if ended.volumes_expected is not None:
        volumes = f", {ended.volumes_captured} of {ended.volumes_expected} volumes"
    how = "Complete" if ended.status is Status.COMPLETED else "Only in part"
    return f"{how}: {objects}{volumes}; read again"


def announce(operation: Operation, state: State) -> Sequence[Announcement]:
    """What is complete in part is told as failed: nobody should rely on it unread."""
    order = msgspec.convert(operation.parameters, BackupOrder)
    whole = state is State.COMPLETED and operation.outcome is not Outcome.PARTIAL
    result = operation.result or {}
    fallback = Status.FAILED if state is not State.COMPLETED else Status.PARTIALLY_FAILED
    data = {
        "backup_id": backup_id_of(operation.id),
        "operation_id": operation.id,
        "workspace_id": order.target.workspace_id,
        "application_id": order.target.application_id,
        "status": Status.COMPLETED.value if whole else result.get("backup_status", fallback.value),
        "engine": order.engine.value,
        "objects": result.get("objects"),
        "volumes_expected": result.get("volumes_expected"),
        "volumes_captured": result.get("volumes_captured"),
        "error": None if operation.error is None else operation.error.code,
    }
    kind = EventType.BACKUP_COMPLETED if whole else EventType.BACKUP_FAILED
    return [Announcement(type=kind, data=data, channels=order.channels)]


def _missing(ended: Ended) -> list[str]:
    volumes = [f"volume {one.claim}: {one.reason}" for one in ended.volumes if not one.captured]
    return [*volumes, *(f"{one.kind} {one.name}: {one.reason}" for one in ended.left_out if one.missed)]


def _volumes(operation: Operation) -> list[Volume]:
    """As the step before noted each."""
    step = next((one for one in operation.steps if one.name == TAKE_SNAPSHOTS), None)
    items = {} if step is None else step.items
    return [volume for _, item in sorted(items.items()) if (volume := volume_noted(item)) is not None]


def _velero_uid(work: StepWork) -> str:
    return str((work.operation.step(CREATE_VELERO).effect or {}).get("uid", ""))
