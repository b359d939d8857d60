"""From a wish to restore to a proposal: is the backup whole, is the place free, what would arrive."""

from dataclasses import dataclass
from typing import Any

import msgspec

from opsapi.applications.errors import ManagedExternally, ManagerDetails, ProtectedNamespace
from opsapi.applications.ownership import manager_of
from opsapi.backups.archive import Unreadable
from opsapi.backups.checking import Checker
from opsapi.backups.errors import BackupDamaged, BackupNotFound, ObjectsExist, not_restorable, volumes_lost
from opsapi.backups.kinds import CLAIMS, NAMESPACES, SECRETS, resource_of
from opsapi.backups.model import Backup, Engine
from opsapi.backups.planning import LOCK
from opsapi.backups.ports import BackupRecords
from opsapi.backups.restoring import (
    ACTION,
    Creation,
    RestoreOptions,
    RestoreOrder,
    application_of,
    creations,
    key_of,
    unrestorable_volumes,
)
from opsapi.kit.errors import (
    DependencyUnavailable,
    InvalidState,
    OpsError,
    PolicyDenied,
    PolicyDetails,
    PolicyRule,
    ResourceNotFound,
    StateDetails,
)
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Operation, lock_key, workspace_lock
from opsapi.operations.proposal import Proposal
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Ask, Subject
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.objects import WorkloadMeta
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import ObjectKey, Objects, TargetGone, WriteConflict, WriteRefused

VERIFY_BACKUP = "verify_backup"
CHECK_TARGET = "check_target"
CREATE_OBJECTS = "create_objects"
WITH_VELERO = "restore_with_velero"
VERIFY_RESTORED = "verify_restored"
REHEARSED = "op-dry-run"
_INERT_KINDS = ("Ingress", "HorizontalPodAutoscaler")


@dataclass(frozen=True, slots=True)
class PlannedRestore:
    """`objects` are what would be created, as they would be; empty for Velero, which creates them itself."""

    order: RestoreOrder
    objects: list[Creation]
    proposal: Proposal


class RestorePlanner:
    def __init__(
        self, clusters: Clusters, objects: Objects, records: BackupRecords, checker: Checker, policy: PolicyBook
    ) -> None:
        self._clusters = clusters
        self._objects = objects
        self._records = records
        self._checker = checker
        self._policy = policy

    async def plan(
        self, cluster: Cluster, backup: Backup, subject: Subject, options: RestoreOptions, *, confirm: bool = False
    ) -> PlannedRestore:
        """Raises InvalidState, BackupDamaged, ProtectedNamespace, ResourceNotFound, PolicyDenied and
        DependencyUnavailable; what stands in the way in the namespace is among the proposal's refusals."""
        if not backup.status.restorable:
            raise not_restorable(backup.id, backup.status.value)
        await self._check_place(cluster, options)
        held = await self.load(backup, volumes=options.include_volumes)
        made = creations(backup, held, options, REHEARSED)
        order = RestoreOrder(
            backup_id=backup.id,
            source_workspace=backup.workspace_id,
            engine=backup.engine,
            checksum=backup.checksum,
            options=options,
            application_id=application_of(backup, options),
            kind=backup.kind,
            name=backup.name,
        )
        refusals = await self._refusals(backup, held, made, subject, options)
        proposal = _proposal(cluster, backup, subject, order, made, tuple(refusals), confirm)
        return PlannedRestore(order, made, proposal)

    async def replan(self, operation: Operation) -> Proposal:
        order = msgspec.convert(operation.parameters, RestoreOrder)
        cluster = self._clusters.find(order.options.workspace_id)
        if cluster is None:
            raise WorkspaceNotFound(order.options.workspace_id)
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, order.options.workspace_id, cluster.workspace.mode)
        return (await self.plan(cluster, await self.backup(order.backup_id), subject, order.options)).proposal

    async def backup(self, backup_id: str) -> Backup:
        found = await self._records.get(backup_id)
        if found is None:
            raise BackupNotFound(backup_id)
        return found

    async def load(self, backup: Backup, *, volumes: bool) -> list[Creation]:
        """What it holds, proved; nothing of Velero's. Raises BackupDamaged, DependencyUnavailable."""
        damage = await self._checker.damage(backup, volumes=volumes)
        if damage:
            raise BackupDamaged(backup.id, damage)
        if backup.engine is Engine.VELERO or self._checker.archive is None:
            return []
        checked = await self._checker.manifests(backup)
        if checked.damage:
            raise BackupDamaged(backup.id, checked.damage)
        try:
            return self._checker.archive.objects(backup, checked)
        except Unreadable as error:
            raise BackupDamaged(backup.id, [str(error)]) from None

    async def existing(self, keys: list[ObjectKey]) -> list[str]:
        """Those that are there, as `kind/name`. Raises DependencyUnavailable."""
        found = []
        for key in keys:
            try:
                await self._objects.get(key)
            except TargetGone:
                continue
            except WriteConflict:
                pass
            except WriteRefused as error:
                reason = f"{key.resource} may not be read: {error.reason}"
                raise DependencyUnavailable("kubernetes_api", reason, workspace_id=key.workspace_id) from error
            found.append(f"{key.resource.kind}/{key.name}")
        return found

    async def _check_place(self, cluster: Cluster, options: RestoreOptions) -> None:
        settings = self._policy.settings
        if settings.protects(options.namespace):
            raise ProtectedNamespace(options.namespace)
        if not cluster.workspace.in_scope(options.namespace):
            raise ResourceNotFound("namespace", options.namespace)
        try:
            held = await self._objects.get(ObjectKey(options.workspace_id, NAMESPACES, "", options.namespace))
        except TargetGone:
            raise ResourceNotFound("namespace", options.namespace) from None
        except WriteRefused as error:
            reason = f"the namespace may not be read: {error.reason}"
            raise DependencyUnavailable("kubernetes_api", reason, workspace_id=options.workspace_id) from error
        label = settings.protected_label
        if (held["metadata"].get("labels") or {}).get(label) == "true":
            details = PolicyDetails(rule=PolicyRule.PROTECTED_LABEL, alternatives=["restore into another namespace"])
            raise PolicyDenied(f"The label {label} protects namespace {options.namespace} from changes", details)

    async def _refusals(
        self, backup: Backup, held: list[Creation], made: list[Creation], subject: Subject, options: RestoreOptions
    ) -> list[OpsError]:
        found: list[OpsError] = []
        if backup.engine is Engine.VELERO and options.workspace_id != backup.workspace_id:
            details = StateDetails(resource_id=backup.id, state="other_workspace")
            found.append(InvalidState("What Velero holds is restored in its own workspace", details))
        lost = unrestorable_volumes(backup, options)
        if lost:
            found.append(volumes_lost(backup.id, lost))
        existing = await self.existing(self.keys(backup, made, options))
        if existing:
            found.append(ObjectsExist(options.namespace, existing))
        managed = self._managed(backup, held, subject, options)
        return [*found, managed] if managed is not None else found

    @staticmethod
    def keys(backup: Backup, made: list[Creation], options: RestoreOptions) -> list[ObjectKey]:
        """Everything that must not be there yet."""
        if backup.engine is not Engine.VELERO:
            return [key_of(options.workspace_id, one) for one in made]
        return [
            ObjectKey(options.workspace_id, resource, options.namespace, one.name)
            for one in velero_objects(backup, options)
            if (resource := resource_of(one.kind)) is not None
        ]

    def _managed(
        self, backup: Backup, held: list[Creation], subject: Subject, options: RestoreOptions
    ) -> ManagedExternally | None:
        """In its own namespace its source would change it back, or bring it back by itself."""
        if options.namespace != backup.namespace or options.workspace_id != backup.workspace_id:
            return None
        if self._policy.settings.waived(PolicyRule.MANAGED_EXTERNALLY, subject.account_id, subject.workspace_id):
            return None
        for resource, body in held:
            if resource.kind == backup.kind and body["metadata"]["name"] == backup.name:
                manager = manager_of(msgspec.convert(body["metadata"], WorkloadMeta))
                if manager is not None:
                    details = ManagerDetails(resource_id=backup.application_id, manager=manager[0], source=manager[1])
                    return ManagedExternally(details)
        return None


def velero_objects(backup: Backup, options: RestoreOptions) -> list[Any]:
    """What Velero would bring back, of what the backup is known to hold."""
    return [
        one
        for one in backup.objects
        if (options.activate or one.kind not in _INERT_KINDS) and (options.include_volumes or one.kind != CLAIMS.kind)
    ]


def steps_of(engine: Engine) -> tuple[str, ...]:
    doing = WITH_VELERO if engine is Engine.VELERO else CREATE_OBJECTS
    return (VERIFY_BACKUP, CHECK_TARGET, doing, VERIFY_RESTORED)


def _outline(backup: Backup, order: RestoreOrder, made: list[Creation]) -> dict[str, Any]:
    options = order.options
    if backup.engine is Engine.VELERO:
        objects = [{"kind": one.kind, "name": one.name} for one in velero_objects(backup, options)]
    else:
        objects = [{"kind": resource.kind, "name": body["metadata"]["name"]} for resource, body in made]
    return {
        "backup_id": backup.id,
        "engine": backup.engine.value,
        "workspace_id": options.workspace_id,
        "namespace": options.namespace,
        "activate": options.activate,
        "include_volumes": options.include_volumes,
        "objects": [one | {"namespace": options.namespace} for one in objects],
    }


def _warnings(backup: Backup, order: RestoreOrder) -> tuple[str, ...]:
    found = []
    if not order.options.activate:
        found.append(
            "It arrives inert: nothing of it runs until somebody scales or resumes it; activate: true asks else"
        )
    secrets = sorted(one.name for one in backup.left_out if one.kind == SECRETS.kind)
    if secrets:
        found.append(f"The backup does not hold the Secrets {', '.join(secrets[:10])}: they have to be there")
    if backup.objects and not order.options.include_volumes and any(one.kind == CLAIMS.kind for one in backup.objects):
        found.append("Volumes are left alone: its claims have to be there")
    return tuple(found)


def _proposal(
    cluster: Cluster,
    backup: Backup,
    subject: Subject,
    order: RestoreOrder,
    made: list[Creation],
    refusals: tuple[OpsError, ...],
    confirm: bool,
) -> Proposal:
    options = order.options
    target = lock_key(options.workspace_id, order.application_id)
    plan = _outline(backup, order, made)
    return Proposal(
        action=ACTION,
        workspace_id=options.workspace_id,
        application_id=order.application_id,
        resource_id=order.application_id,
        resource_uid=None,
        permission=Permission.WORKSPACE_ADMIN,
        parameters=msgspec.to_builtins(order),
        plan=plan,
        intended=plan | {"checksum": backup.checksum, "velero_uid": backup.velero_uid},
        steps=steps_of(backup.engine),
        locks=frozenset(
            {
                target,
                workspace_lock(options.workspace_id, LOCK),
                workspace_lock(backup.workspace_id, LOCK),
                lock_key(backup.workspace_id, backup.id),
            }
        ),
        ask=Ask(
            subject=subject,
            action=ACTION,
            at=cluster.inventory.now(),
            targets=(target,),
            restores=True,
            wants_approval=confirm,
        ),
        refusals=refusals,
        warnings=_warnings(backup, order),
        reason=options.reason,
    )
