"""Velero, asked through its objects."""

from collections.abc import Sequence
from typing import Any

import msgspec

from opsapi.backups import velero
from opsapi.backups.kinds import (
    CONFIG_MAPS,
    VELERO_BACKUPS,
    VELERO_DELETIONS,
    VELERO_LOCATIONS,
    VELERO_POD_VOLUMES,
    VELERO_RESTORES,
)
from opsapi.backups.model import Backup, Status
from opsapi.backups.settings import BackupSettings
from opsapi.backups.velero import Location, Outlook
from opsapi.operations.errors import StepFailed, StepPostponed
from opsapi.operations.work import StepWork
from opsapi.workspaces.writing import (
    JsonObject,
    ObjectKey,
    Objects,
    Resource,
    TargetGone,
    WriteConflict,
    WriteRefused,
)

_STATUS = {
    Outlook.RUNNING: Status.IN_PROGRESS,
    Outlook.COMPLETED: Status.COMPLETED,
    Outlook.PARTIAL: Status.PARTIALLY_FAILED,
    Outlook.FAILED: Status.FAILED,
}


class Seen(msgspec.Struct, frozen=True):
    """What Velero says of a backup. `captured` counts volumes."""

    status: Status
    message: str
    captured: int


class VeleroClient:
    """Raises DependencyUnavailable throughout."""

    def __init__(self, objects: Objects, settings: BackupSettings) -> None:
        self._objects = objects
        self._settings = settings

    async def served(self, workspace_id: str) -> bool:
        return await self._objects.served(workspace_id, VELERO_BACKUPS)

    async def location(self, workspace_id: str) -> Location:
        """Raises WriteRefused where Velero's namespace may not be read."""
        namespace = self._settings.velero_namespace
        listed = await self._objects.list(workspace_id, VELERO_LOCATIONS, namespace)
        return velero.choose_location(listed, self._settings.velero_location)

    async def create_backup(
        self, backup: Backup, selectors: Sequence[JsonObject], ttl_seconds: float
    ) -> tuple[str, bool]:
        """Raises StepFailed where the location cannot take it by now, or the cluster refuses."""
        try:
            location = await self.location(backup.workspace_id)
        except WriteRefused as error:
            raise _refused(error) from error
        if location.problem is not None:
            raise StepFailed("STORAGE_UNAVAILABLE", location.problem)
        body = velero.backup_body(backup, selectors, ttl_seconds, location.name, self._settings)
        return await self.create(backup.workspace_id, VELERO_BACKUPS, body, backup.id)

    async def create(self, workspace_id: str, resource: Resource, body: JsonObject, backup_id: str) -> tuple[str, bool]:
        """(uid, whether it was there already). Raises StepFailed where the name is another's, or it is refused."""
        meta = body["metadata"]
        try:
            made = await self._objects.create(workspace_id, resource, body)
        except WriteConflict:
            held = await self._find(workspace_id, resource, meta["namespace"], meta["name"])
            if held is None:
                raise StepPostponed("CONFLICT", f"{resource} {meta['name']} comes and goes") from None
            if not velero.is_ours(held, backup_id):
                raise StepFailed("NAME_TAKEN", f"{resource} {meta['name']} is somebody else's") from None
            return str(held["metadata"]["uid"]), True
        except (WriteRefused, TargetGone) as error:
            raise _refused(error) from error
        return str(made["metadata"]["uid"]), False

    async def await_backup(self, work: StepWork, backup: Backup, uid: str) -> Seen:
        """Until Velero is done with it. Raises StepFailed where it failed, is gone, or takes too long."""
        key = _key(backup, VELERO_BACKUPS, uid)
        held = await self._until_done(work, key)
        found, message = velero.outlook(held)
        if found is Outlook.FAILED:
            raise StepFailed("VELERO_FAILED", message)
        return Seen(_STATUS[found], message, await self._captured(backup, held))

    async def await_restore(self, work: StepWork, workspace_id: str, namespace: str, name: str, uid: str) -> str:
        """Raises StepFailed unless it is complete, without a warning left out."""
        held = await self._until_done(work, ObjectKey(workspace_id, VELERO_RESTORES, namespace, name, uid))
        found, message = velero.outlook(held)
        if found is not Outlook.COMPLETED:
            raise StepFailed("VELERO_FAILED", f"The restore is {message}")
        warnings = int((held.get("status") or {}).get("warnings") or 0)
        return f"Velero has restored it, with {warnings} warnings" if warnings else "Velero has restored it"

    async def look(self, backup: Backup) -> Seen:
        """What Velero says now; a backup that it does not know has failed."""
        try:
            held = await self._objects.get(_key(backup, VELERO_BACKUPS, backup.velero_uid or ""))
        except (TargetGone, WriteConflict):
            return Seen(Status.FAILED, f"Velero does not know {backup.location} any more", 0)
        except WriteRefused as error:
            raise _refused(error) from error
        found, message = velero.outlook(held)
        return Seen(_STATUS[found], message, await self._captured(backup, held))

    async def delete(self, backup: Backup, operation_id: str) -> bool:
        """Asks Velero to delete the backup, volumes' snapshots and all. False where it does not know it any more."""
        seen = await self._find(backup.workspace_id, VELERO_BACKUPS, *_place(backup))
        if seen is None or (backup.velero_uid and seen["metadata"]["uid"] != backup.velero_uid):
            return False
        if not velero.is_ours(seen, backup.id):
            return False
        body = velero.deletion_body(backup, f"opsapi-{operation_id}", operation_id)
        await self.create(backup.workspace_id, VELERO_DELETIONS, body, backup.id)
        return True

    async def await_deletion(self, work: StepWork, backup: Backup, operation_id: str) -> None:
        """Raises StepFailed where Velero says why it could not, or does not do it in time."""
        namespace, name = _place(backup)
        while True:
            request = await self._find(backup.workspace_id, VELERO_DELETIONS, namespace, f"opsapi-{operation_id}")
            errors = ((request or {}).get("status") or {}).get("errors") or ()
            if errors:
                raise StepFailed("VELERO_FAILED", f"Velero could not delete it: {'; '.join(map(str, errors))}"[:500])
            if await self._find(backup.workspace_id, VELERO_BACKUPS, namespace, name) is None:
                return
            if work.remaining < 2 * self._settings.poll_seconds:
                raise StepFailed("TIMEOUT", "Velero has not deleted it in time")
            await work.sleep(self._settings.poll_seconds)

    async def create_modifier(self, backup: Backup, name: str, operation_id: str) -> tuple[str, bool]:
        body = velero.modifier_body(backup, name, operation_id)
        return await self.create(backup.workspace_id, CONFIG_MAPS, body, backup.id)

    async def remove(self, workspace_id: str, resource: Resource, namespace: str, name: str, backup_id: str) -> bool:
        """Deletes an object of ours; false where it is gone or another's. Raises StepFailed."""
        held = await self._find(workspace_id, resource, namespace, name)
        if held is None or not velero.is_ours(held, backup_id):
            return False
        try:
            await self._objects.delete(ObjectKey(workspace_id, resource, namespace, name, held["metadata"]["uid"]))
        except (TargetGone, WriteConflict):
            return False
        except WriteRefused as error:
            raise _refused(error) from error
        return True

    async def _until_done(self, work: StepWork, key: ObjectKey) -> JsonObject:
        while True:
            try:
                held = await self._objects.get(key)
            except (TargetGone, WriteConflict) as error:
                raise StepFailed("VELERO_FAILED", f"{key.name} was deleted while Velero worked on it") from error
            except WriteRefused as error:
                raise _refused(error) from error
            found, message = velero.outlook(held)
            if found is not Outlook.RUNNING:
                return held
            if work.remaining < 30:
                raise StepFailed("TIMEOUT", f"Velero has not ended in time: it is {message}")
            await work.sleep(self._settings.poll_seconds)

    async def _captured(self, backup: Backup, held: JsonObject) -> int:
        """Pods' volumes that were copied as files are objects of their own."""
        namespace, name = _place(backup)
        listed: list[dict[str, Any]] = []
        try:
            if await self._objects.served(backup.workspace_id, VELERO_POD_VOLUMES):
                selector = f"{velero.BACKUP_NAME}={name}"
                listed = await self._objects.list(backup.workspace_id, VELERO_POD_VOLUMES, namespace, selector=selector)
        except (WriteRefused, TargetGone):
            listed = []
        return velero.captured(held, listed)

    async def _find(self, workspace_id: str, resource: Resource, namespace: str, name: str) -> JsonObject | None:
        try:
            return await self._objects.get(ObjectKey(workspace_id, resource, namespace, name))
        except TargetGone:
            return None
        except WriteRefused as error:
            raise _refused(error) from error


def _place(backup: Backup) -> tuple[str, str]:
    namespace, _, name = backup.location.partition("/")
    return namespace, name


def _key(backup: Backup, resource: Resource, uid: str) -> ObjectKey:
    return ObjectKey(backup.workspace_id, resource, *_place(backup), uid)


def _refused(error: WriteRefused | TargetGone) -> StepFailed:
    return StepFailed("WRITE_REFUSED", f"The cluster refused: {error}"[:500])
