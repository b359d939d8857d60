"""Verifying and deleting a backup, as operations."""

from datetime import timedelta

import msgspec

from opsapi.backups.checking import Checker
from opsapi.backups.erasing import Eraser
from opsapi.backups.errors import BackupNotFound, not_restorable
from opsapi.backups.model import Backup, Engine, Status
from opsapi.backups.planning import LOCK
from opsapi.backups.ports import BackupRecords
from opsapi.backups.settings import BackupSettings
from opsapi.backups.velero_client import VeleroClient
from opsapi.kit.errors import InvalidState, StateDetails
from opsapi.kit.permissions import Permission
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Operation, Outcome, lock_key, workspace_lock
from opsapi.operations.procedures import Procedure, StepDone, StepProcedure
from opsapi.operations.proposal import Proposal
from opsapi.operations.work import StepWork
from opsapi.policy.model import Ask, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import WriteRefused

VERIFY = "verify_backup"
DELETE = "delete_backup"
READ_AGAIN = "read_again"
ERASE = "erase"
_SHOWN = 50


class BackupRef(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of both."""

    backup_id: str
    reason: str | None = None


class Upkeep:
    """`verification()` and `deletion()` are what wiring registers with the engine."""

    def __init__(
        self,
        clusters: Clusters,
        records: BackupRecords,
        checker: Checker,
        eraser: Eraser,
        velero: VeleroClient,
        settings: BackupSettings,
    ) -> None:
        self._clusters = clusters
        self._records = records
        self._checker = checker
        self._eraser = eraser
        self._velero = velero
        self._settings = settings

    def verification(self) -> Procedure:
        steps = (StepProcedure(READ_AGAIN, self.read_again, timedelta(seconds=10)),)
        return Procedure(VERIFY, steps, timedelta(seconds=self._settings.timeout_seconds), replan=self.replan)

    def deletion(self) -> Procedure:
        steps = (StepProcedure(ERASE, self.erase, timedelta(seconds=15)),)
        return Procedure(DELETE, steps, timedelta(seconds=self._settings.timeout_seconds), replan=self.replan)

    # planning

    def propose_verification(self, cluster: Cluster, backup: Backup, subject: Subject, reason: str | None) -> Proposal:
        if not backup.status.restorable:
            raise not_restorable(backup.id, backup.status.value)
        ask = Ask(subject=subject, action=VERIFY, at=cluster.inventory.now(), counted=False)
        locks = frozenset({lock_key(backup.workspace_id, backup.id)})
        return _proposal(backup, VERIFY, (READ_AGAIN,), Permission.APPLICATION_WRITE, ask, locks, reason)

    def propose_deletion(self, cluster: Cluster, backup: Backup, subject: Subject, reason: str | None) -> Proposal:
        if backup.status is Status.IN_PROGRESS:
            raise InvalidState(
                f"{backup.id} is being made; cancel its operation {backup.operation_id} instead",
                StateDetails(resource_id=backup.id, state=backup.status.value),
            )
        if backup.status is Status.DELETED:
            raise BackupNotFound(backup.id)
        in_cluster = backup.engine is Engine.VELERO or any(one.snapshot is not None for one in backup.volumes)
        target = lock_key(backup.workspace_id, backup.id)
        ask = Ask(
            subject=subject,
            action=DELETE,
            at=cluster.inventory.now(),
            targets=(target,),
            counted=in_cluster,
            deletions=1,
        )
        locks = frozenset({target, workspace_lock(backup.workspace_id, LOCK)})
        return _proposal(backup, DELETE, (ERASE,), Permission.WORKSPACE_ADMIN, ask, locks, reason)

    async def replan(self, operation: Operation) -> Proposal:
        reference = msgspec.convert(operation.parameters, BackupRef)
        backup = await self._held(reference.backup_id)
        cluster = self._clusters.find(backup.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(backup.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, backup.workspace_id, cluster.workspace.mode)
        propose = self.propose_verification if operation.action == VERIFY else self.propose_deletion
        return propose(cluster, backup, subject, reference.reason)

    # steps

    async def read_again(self, work: StepWork) -> StepDone:
        """Raises StepFailed where it is damaged, so that nobody overlooks it."""
        backup = await self._held(msgspec.convert(work.operation.parameters, BackupRef).backup_id)
        damage = await self._checker.damage(backup)
        await self._records.note_verification(backup.id, work.clock.now(), damage)
        if damage:
            more = f" and {len(damage) - 1} more" if len(damage) > 1 else ""
            raise StepFailed("BACKUP_DAMAGED", f"{damage[0]}{more}", backup_id=backup.id, damage=damage[:_SHOWN])
        result = {
            "backup_id": backup.id,
            "intact": True,
            "objects": len(backup.objects),
            "size_bytes": backup.size_bytes,
            "volumes_captured": backup.volumes_captured,
        }
        message = f"Intact: {len(backup.objects)} objects, {backup.volumes_captured or 0} volumes"
        return StepDone(message, result=result, outcome=Outcome.NOTHING_TO_DO)

    async def erase(self, work: StepWork) -> StepDone:
        backup = await self._held(msgspec.convert(work.operation.parameters, BackupRef).backup_id)
        if work.step.effect is None:
            again = work.interrupted is not None
            if again:
                await work.pass_gate()
            else:
                await work.intend({"backup": backup.location})
            try:
                erased = await self._erase(work, backup)
            except WriteRefused as error:
                raise StepFailed("WRITE_REFUSED", f"The cluster refused: {error}"[:500]) from error
            await work.record({"backup": backup.location}, found=again and not erased)
        await self._records.note_erased(backup.id, work.clock.now())
        return StepDone(f"{backup.id} is deleted", result={"backup_id": backup.id}, outcome=Outcome.CHANGED)

    async def _erase(self, work: StepWork, backup: Backup) -> bool:
        """Whether there was anything left of it. Raises WriteRefused."""
        if backup.engine is Engine.VELERO:
            asked = await self._velero.delete(backup, work.operation.id)
            if asked:
                await self._velero.await_deletion(work, backup, work.operation.id)
            return asked
        manifests = await self._eraser.erase_manifests(backup)
        await work.pass_gate()
        return await self._eraser.erase_snapshots(backup) or manifests

    async def _held(self, backup_id: str) -> Backup:
        backup = await self._records.get(backup_id)
        if backup is None:
            raise BackupNotFound(backup_id)
        return backup


def _proposal(
    backup: Backup,
    action: str,
    steps: tuple[str, ...],
    permission: Permission,
    ask: Ask,
    locks: frozenset[str],
    reason: str | None,
) -> Proposal:
    shown = {
        "backup_id": backup.id,
        "application_id": backup.application_id,
        "engine": backup.engine.value,
        "location": backup.location,
        "status": backup.status.value,
        "objects": len(backup.objects),
        "snapshots": [one.snapshot.name for one in backup.volumes if one.snapshot is not None],
    }
    return Proposal(
        action=action,
        workspace_id=backup.workspace_id,
        application_id=backup.application_id,
        resource_id=backup.id,
        resource_uid=None,
        permission=permission,
        parameters=msgspec.to_builtins(BackupRef(backup_id=backup.id, reason=reason)),
        plan=shown,
        intended=shown | {"checksum": backup.checksum},
        steps=steps,
        locks=locks,
        ask=ask,
        reason=reason,
    )
