"""What a restore of manifests would create, from what a backup holds. Pure."""

from collections.abc import Sequence

import msgspec

from opsapi.backups import manifests
from opsapi.backups.kinds import CLAIMS, SNAPSHOT_CONTENTS, SNAPSHOTS, WORKLOAD_KINDS, WORKLOADS, place_in_order
from opsapi.backups.model import INERT_NODE, Backup, Engine, Volume
from opsapi.kit.ids import stable_id
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.objects import ObjectMeta
from opsapi.workspaces.writing import JsonObject, ObjectKey, Resource

ACTION = "restore"
Creation = tuple[Resource, JsonObject]


class RestoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`workspace_id` and `namespace` are where to. Unless `activate`, what arrives does nothing."""

    workspace_id: str
    namespace: str
    activate: bool = False
    include_volumes: bool = True
    reason: str | None = None


class RestoreOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the steps need: the backup as it was when it was planned on (`checksum`), and where to."""

    backup_id: str
    source_workspace: str
    engine: Engine
    checksum: str | None
    options: RestoreOptions
    application_id: str
    kind: str
    name: str


def creations(backup: Backup, held: Sequence[Creation], options: RestoreOptions, operation_id: str) -> list[Creation]:
    """The objects in the order in which they are created. Claims are filled from their snapshots, or left alone."""
    found: list[Creation] = []
    volumes = {volume.claim: volume for volume in backup.volumes}
    elsewhere = options.namespace != backup.namespace
    for resource, body in held:
        arrived = body if options.activate else manifests.inert(body)
        if arrived is None:
            continue
        if resource == CLAIMS:
            if not options.include_volumes:
                continue
            made, arrived = _claim(backup, arrived, volumes.get(body["metadata"]["name"]), options, elsewhere)
            found += made
        found.append((resource, arrived))
    moved = options.workspace_id != backup.workspace_id
    placed = [(resource, _placed(resource, body, options.namespace, operation_id, moved)) for resource, body in found]
    return sorted(placed, key=lambda one: (place_in_order(one[0]), one[1]["metadata"]["name"]))


def _claim(
    backup: Backup, claim: JsonObject, volume: Volume | None, options: RestoreOptions, elsewhere: bool
) -> tuple[list[Creation], JsonObject]:
    """The snapshot's copy, where one is needed, and the claim that it fills."""
    if volume is None or volume.snapshot is None or not volume.captured:
        return [], claim
    snapshot = volume.snapshot
    if not elsewhere:
        return [], manifests.from_snapshot(claim, snapshot.name, snapshot.restore_size)
    if snapshot.handle is None or snapshot.driver is None:
        return [], claim  # which `unrestorable_volumes` refuses
    name = f"opsapi-{stable_id(backup.id, options.namespace, volume.claim)}"
    content, copied = manifests.copied_snapshot(snapshot, options.namespace, name)
    made = [(SNAPSHOT_CONTENTS, content), (SNAPSHOTS, copied)]
    return made, manifests.from_snapshot(claim, name, snapshot.restore_size)


def _placed(resource: Resource, body: JsonObject, namespace: str, operation_id: str, moved: bool) -> JsonObject:
    placed = manifests.placed(body, namespace, operation_id, moved=moved)
    if not resource.namespaced:
        placed["metadata"].pop("namespace", None)
    return placed


def unrestorable_volumes(backup: Backup, options: RestoreOptions) -> list[str]:
    """Claims whose contents cannot be brought there: never captured, or whose snapshot cannot be used there."""
    if not options.include_volumes or backup.engine is Engine.VELERO:
        return []
    other_cluster = options.workspace_id != backup.workspace_id
    elsewhere = options.namespace != backup.namespace
    return [
        volume.claim
        for volume in backup.volumes
        if not volume.captured
        or volume.snapshot is None
        or other_cluster
        or (elsewhere and (volume.snapshot.handle is None or volume.snapshot.driver is None))
    ] + (_never_asked(backup) if not backup.include_volumes else [])


def _never_asked(backup: Backup) -> list[str]:
    """A backup without volumes may still hold claims."""
    return [one.name for one in backup.objects if one.kind == CLAIMS.kind]


def key_of(workspace_id: str, creation: Creation, uid: str = "") -> ObjectKey:
    resource, body = creation
    meta = body["metadata"]
    return ObjectKey(workspace_id, resource, meta.get("namespace", ""), meta["name"], uid)


def application_of(backup: Backup, options: RestoreOptions) -> str:
    """The id that the application will have where it arrives: its own in its own namespace, else that of its place,
    since it does not keep the label elsewhere."""
    if (options.workspace_id, options.namespace) == (backup.workspace_id, backup.namespace):
        return backup.application_id
    meta = ObjectMeta(name=backup.name, namespace=options.namespace)
    return application_id(options.workspace_id, WORKLOAD_KINDS[backup.kind], meta)


def is_inert(kind: str, held: JsonObject) -> bool:
    """Whether nothing of a workload would run."""
    spec = held.get("spec") or {}
    if kind in ("Deployment", "StatefulSet"):
        return spec.get("replicas") == 0
    if kind == "CronJob":
        return spec.get("suspend") is True
    selector = (((spec.get("template") or {}).get("spec")) or {}).get("nodeSelector") or {}
    return INERT_NODE in selector


def readiness(kind: str, held: JsonObject) -> tuple[bool, str]:
    """Whether an activated workload runs as it should, and in words what was seen."""
    spec, status = held.get("spec") or {}, held.get("status") or {}
    if kind == "CronJob":
        return True, "the CronJob is scheduled"
    if kind == "DaemonSet":
        wanted, ready = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)
    else:
        wanted, ready = int(spec.get("replicas", 1)), int(status.get("readyReplicas") or 0)
    observed = int(status.get("observedGeneration") or 0) >= int(held["metadata"].get("generation") or 0)
    return observed and ready >= wanted, f"{ready} of {wanted} replicas are ready"


def workload_of(backup: Backup) -> Resource:
    return WORKLOADS[backup.kind]
