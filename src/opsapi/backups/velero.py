"""Velero's objects: what is asked of it, and what its answers mean. Pure, over JSON.

Velero selects by namespace, kind and labels. One application's backup takes, in its namespace, every object that
bears all labels of the workload's pod selector, or all labels of the workload itself; Velero adds the claims of the
pods among them, and the volumes of those claims. What the workload refers to and bears neither set of labels is not in
it: it is named in `left_out`.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec

from opsapi.backups.kinds import VELERO_BACKUPS, VELERO_DELETIONS, VELERO_RESTORES
from opsapi.backups.model import ANNOTATION, INERT_NODE, Backup, Target
from opsapi.backups.settings import BackupSettings
from opsapi.kit.text import one_line
from opsapi.workspaces.objects import LabelSelector
from opsapi.workspaces.writing import JsonObject

BACKUP_NAME = "velero.io/backup-name"
RESTORE_NAME = "velero.io/restore-name"
_NEVER = ["events", "events.events.k8s.io", "endpoints", "endpointslices.discovery.k8s.io"]
_NEVER_INERT = ["pods", "replicasets.apps", "jobs.batch", "ingresses.networking.k8s.io",
                "horizontalpodautoscalers.autoscaling"]  # fmt: skip
"""What an inert restore leaves out: what runs or would make something run, is scaled, or lets traffic in."""


class Outlook(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partially_failed"
    FAILED = "failed"


class Location(msgspec.Struct, frozen=True):
    """A BackupStorageLocation; `problem` says why nothing can be written there."""

    name: str
    problem: str | None


def choose_location(listed: Sequence[JsonObject], wanted: str) -> Location:
    """The configured location, else the default one."""
    named = [
        one
        for one in listed
        if (one["metadata"]["name"] == wanted if wanted else (one.get("spec") or {}).get("default") is True)
    ]
    if not named and not wanted and len(listed) == 1:
        named = list(listed)
    if not named:
        return Location(wanted, f"Velero has no BackupStorageLocation {wanted or 'that is the default'}")
    held = named[0]
    name = str(held["metadata"]["name"])
    phase = (held.get("status") or {}).get("phase")
    if (held.get("spec") or {}).get("accessMode") == "ReadOnly":
        return Location(name, f"BackupStorageLocation {name} is read-only")
    if phase != "Available":
        return Location(name, f"BackupStorageLocation {name} is {phase or 'not validated yet'}")
    return Location(name, None)


def selectors_of(workload: JsonObject) -> list[JsonObject]:
    """The pod selector, and the workload's own labels where the selector does not match them."""
    found: list[JsonObject] = []
    selector = (workload.get("spec") or {}).get("selector")
    if workload.get("kind") != "CronJob" and selector:
        found.append(selector)
    labels = workload["metadata"].get("labels") or {}
    if labels and not any(selects([one], labels) for one in found):
        found.append({"matchLabels": labels})
    return found


def selects(selectors: Sequence[JsonObject], labels: dict[str, str] | None) -> bool:
    return any(msgspec.convert(one, LabelSelector).matches(labels or {}) for one in selectors)


def backup_body(
    backup: Backup, selectors: Sequence[JsonObject], ttl_seconds: float, location: str, settings: BackupSettings
) -> JsonObject:
    namespace, _, name = backup.location.partition("/")
    return {
        "apiVersion": VELERO_BACKUPS.api_version,
        "kind": VELERO_BACKUPS.kind,
        "metadata": _meta(namespace, name, backup.id, backup.operation_id, backup.target),
        "spec": {
            "includedNamespaces": [backup.namespace],
            "excludedResources": [*_NEVER, *([] if settings.secrets else ["secrets"])],
            "orLabelSelectors": list(selectors),
            "snapshotVolumes": backup.include_volumes,
            "storageLocation": location,
            "ttl": go_duration(ttl_seconds),
        },
    }


def restore_body(
    backup: Backup, name: str, operation_id: str, namespace: str, *, activate: bool, volumes: bool, modifier: str
) -> JsonObject:
    """`modifier`: the ConfigMap beside it by which workloads arrive inert."""
    velero, _, backup_name = backup.location.partition("/")
    excluded = [*_NEVER, *([] if activate else _NEVER_INERT)]
    if not volumes:
        excluded += ["persistentvolumeclaims", "persistentvolumes"]
    spec: dict[str, Any] = {
        "backupName": backup_name,
        "includedNamespaces": [backup.namespace],
        "excludedResources": excluded,
        "restorePVs": volumes,
    }
    if namespace != backup.namespace:
        spec["namespaceMapping"] = {backup.namespace: namespace}
    if not activate:
        spec["resourceModifier"] = {"kind": "ConfigMap", "name": modifier}
    return {
        "apiVersion": VELERO_RESTORES.api_version,
        "kind": VELERO_RESTORES.kind,
        "metadata": _meta(velero, name, backup.id, operation_id, backup.target),
        "spec": spec,
    }


def modifier_body(backup: Backup, name: str, operation_id: str) -> JsonObject:
    """The ConfigMap with Velero's resource modifiers (Velero 1.12 and later) that make what arrives inert: merge
    patches, as `manifests.inert` does by itself."""
    rules = [
        _rule("deployments.apps", {"spec": {"replicas": 0}}),
        _rule("statefulsets.apps", {"spec": {"replicas": 0}}),
        _rule("daemonsets.apps", {"spec": {"template": {"spec": {"nodeSelector": {INERT_NODE: "true"}}}}}),
        _rule("cronjobs.batch", {"spec": {"suspend": True}}),
        _rule("services", {"spec": {"type": "ClusterIP", "externalIPs": None, "loadBalancerIP": None,
                                    "loadBalancerSourceRanges": None, "externalTrafficPolicy": None,
                                    "loadBalancerClass": None, "allocateLoadBalancerNodePorts": None}}),
    ]  # fmt: skip
    velero = backup.location.partition("/")[0]
    document = {"version": "v1", "resourceModifierRules": rules}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(velero, name, backup.id, operation_id, backup.target),
        "data": {"modifiers.yaml": msgspec.json.encode(document).decode()},
    }


def _rule(resource: str, patch: JsonObject) -> JsonObject:
    return {
        "conditions": {"groupResource": resource},
        "mergePatches": [{"patchData": msgspec.json.encode(patch).decode()}],
    }


def deletion_body(backup: Backup, name: str, operation_id: str) -> JsonObject:
    velero, _, backup_name = backup.location.partition("/")
    meta = _meta(velero, name, backup.id, operation_id, backup.target)
    meta["labels"] |= {BACKUP_NAME: backup_name, "velero.io/backup-uid": backup.velero_uid or ""}
    return {
        "apiVersion": VELERO_DELETIONS.api_version,
        "kind": VELERO_DELETIONS.kind,
        "metadata": meta,
        "spec": {"backupName": backup_name},
    }


def outlook(held: JsonObject) -> tuple[Outlook, str]:
    """Of a Backup or Restore, with what Velero says. A phase that is not known counts as running: what is not seen to
    be complete never is."""
    status = held.get("status") or {}
    phase = str(status.get("phase") or "New")
    if phase == "Completed":
        return Outlook.COMPLETED, phase
    if phase == "PartiallyFailed":
        return Outlook.PARTIAL, f"PartiallyFailed: {int(status.get('errors') or 0)} errors, see Velero's own log"
    if phase in ("Failed", "FailedValidation", "Deleting"):
        said = status.get("failureReason") or "; ".join(status.get("validationErrors") or ()) or "see Velero's own log"
        return Outlook.FAILED, (one_line(f"{phase}: {said}") or phase)[:500]
    return Outlook.RUNNING, phase


def captured(held: JsonObject, pod_volumes: Sequence[JsonObject]) -> int:
    """Volumes that Velero says it has: CSI snapshots, native snapshots, and pods' volumes copied as files."""
    status = held.get("status") or {}
    snapshots = int(status.get("csiVolumeSnapshotsCompleted") or 0) + int(status.get("volumeSnapshotsCompleted") or 0)
    copied = {
        (one.get("spec") or {}).get("tags", {}).get("pvc-uid") or one["metadata"]["name"]
        for one in pod_volumes
        if (one.get("status") or {}).get("phase") == "Completed"
    }
    return snapshots + len(copied)


def is_ours(held: JsonObject, backup_id: str) -> bool:
    return bool((held["metadata"].get("annotations") or {}).get(ANNOTATION) == backup_id)


def go_duration(seconds: float) -> str:
    """As Go writes it: `720h0m0s`."""
    whole = int(timedelta(seconds=seconds).total_seconds())
    return f"{whole // 3600}h{whole % 3600 // 60}m{whole % 60}s"


def _meta(namespace: str, name: str, backup_id: str, operation_id: str, target: Target) -> JsonObject:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "opsapi"},
        "annotations": {
            ANNOTATION: backup_id,
            "opsapi.dev/operation": operation_id,
            "opsapi.dev/application": f"{target.workspace_id}/{target.namespace}/{target.kind}/{target.name}"[:253],
        },
    }
