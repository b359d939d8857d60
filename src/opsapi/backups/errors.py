"""What backups refuse."""

from collections.abc import Sequence

from opsapi.kit.errors import Details, InvalidState, OpsError, ResourceNotFound, StateDetails
from opsapi.workspaces.writing import Resource


class BackupNotFound(ResourceNotFound):
    def __init__(self, backup_id: str) -> None:
        super().__init__("backup", backup_id)


class DamageDetails(Details, frozen=True, kw_only=True):
    backup_id: str
    damage: list[str]
    alternatives: list[str] | None = None


class BackupDamaged(OpsError):
    code = "BACKUP_DAMAGED"
    status = 409
    summary = "The backup is not what was written; `details.damage` says where. Nothing was restored."
    details_type = DamageDetails

    def __init__(self, backup_id: str, damage: Sequence[str]) -> None:
        super().__init__(
            f"{backup_id} is damaged: {damage[0]}" + (f" and {len(damage) - 1} more" if len(damage) > 1 else ""),
            DamageDetails(backup_id=backup_id, damage=list(damage)[:50], alternatives=["restore another backup of it"]),
        )


class ExistingDetails(Details, frozen=True, kw_only=True):
    namespace: str
    existing: list[str]
    alternatives: list[str] | None = None


class ObjectsExist(OpsError):
    code = "OBJECTS_EXIST"
    status = 409
    summary = "A restore never overwrites: `details.existing` lists what stands in its way."
    details_type = ExistingDetails

    def __init__(self, namespace: str, existing: Sequence[str]) -> None:
        super().__init__(
            f"{len(existing)} objects of the backup exist in {namespace}: {', '.join(existing[:3])}",
            ExistingDetails(
                namespace=namespace,
                existing=list(existing)[:200],
                alternatives=["restore into another namespace with target_namespace", "delete them first"],
            ),
        )


def no_engine(workspace_id: str, why: str) -> InvalidState:
    return InvalidState(
        f"Workspace {workspace_id} cannot be backed up: {why}",
        StateDetails(resource_id=workspace_id, state="no_backup_engine"),
    )


def not_restorable(backup_id: str, state: str) -> InvalidState:
    return InvalidState(
        f"{backup_id} is {state}: only what is complete, or complete in part, can be verified and restored",
        StateDetails(resource_id=backup_id, state=state, allowed_from=["completed", "partially_failed"]),
    )


def volumes_lost(backup_id: str, claims: Sequence[str]) -> InvalidState:
    return InvalidState(
        f"{backup_id} cannot bring back the volumes of {', '.join(claims[:5])}: send include_volumes: false to restore "
        "without volumes",
        StateDetails(resource_id=backup_id, state="volumes_not_restorable"),
    )


def unserved(resource: Resource) -> str:
    return f"the cluster does not serve {resource}"
