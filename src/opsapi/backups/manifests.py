"""One object on its way into a backup, and out of it into a namespace. Pure, over JSON."""

import copy
from typing import Any

from opsapi.backups.model import INERT_NODE, RESTORED_BY, RESTORED_REPLICAS, Snapshot
from opsapi.kit.quantity import whole
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL
from opsapi.workspaces.writing import JsonObject

_KEPT_META = ("name", "namespace", "labels", "annotations")
_DROPPED_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "autoscaling.alpha.kubernetes.io/conditions",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-resizer",
    RESTORED_BY,
    RESTORED_REPLICAS,
)
"""What controllers and earlier restores noted: it would lie about the new object."""
GITOPS_MARKS = (
    "argocd.argoproj.io/instance",
    "argocd.argoproj.io/tracking-id",
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "helm.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/namespace",
    "meta.helm.sh/release-name",
    "meta.helm.sh/release-namespace",
)
"""Marks by which Argo CD, Flux and Helm know what is theirs: on a copy elsewhere they would claim (or prune) it."""
_NODE_PORT_FIELDS = ("clusterIP", "clusterIPs", "healthCheckNodePort", "ipFamilies", "ipFamilyPolicy")
_LEFT_OUT_INERT = ("Ingress", "HorizontalPodAutoscaler")


def cleaned(obj: JsonObject) -> JsonObject:
    """Without status and all that the server set: what somebody would write to make the object anew."""
    held = copy.deepcopy(obj)
    meta = held.get("metadata") or {}
    kept = {name: meta[name] for name in _KEPT_META if meta.get(name)}
    annotations = {key: one for key, one in (meta.get("annotations") or {}).items() if key not in _DROPPED_ANNOTATIONS}
    kept.pop("annotations", None)
    if annotations:
        kept["annotations"] = annotations
    result: JsonObject = {"apiVersion": held["apiVersion"], "kind": held["kind"], "metadata": kept}
    result |= {key: one for key, one in held.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    change = _CLEANERS.get(held["kind"])
    return change(result) if change is not None else result


def _service(obj: JsonObject) -> JsonObject:
    """A headless Service stays one; addresses and node ports are given out anew."""
    spec = dict(obj.get("spec") or {})
    headless = spec.get("clusterIP") == "None"
    for name in _NODE_PORT_FIELDS:
        spec.pop(name, None)
    if headless:
        spec["clusterIP"] = "None"
    if spec.get("ports"):
        spec["ports"] = [{key: one for key, one in port.items() if key != "nodePort"} for port in spec["ports"]]
    return obj | {"spec": spec}


def _claim(obj: JsonObject) -> JsonObject:
    """Bound to nothing, and filled by nothing yet."""
    spec = {
        key: one
        for key, one in (obj.get("spec") or {}).items()
        if key not in ("volumeName", "dataSource", "dataSourceRef")
    }
    return obj | {"spec": spec}


def _account(obj: JsonObject) -> JsonObject:
    """The token Secrets that old clusters listed are the old account's."""
    return {key: one for key, one in obj.items() if key != "secrets"}


def _workload(obj: JsonObject) -> JsonObject:
    spec = copy.deepcopy(obj.get("spec") or {})
    meta = (spec.get("template") or {}).get("metadata")
    if isinstance(meta, dict):
        meta.pop("creationTimestamp", None)
    for template in spec.get("volumeClaimTemplates") or ():
        template.pop("status", None)
        (template.get("metadata") or {}).pop("creationTimestamp", None)
    return obj | {"spec": spec}


_CLEANERS: dict[str, Any] = {
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "ServiceAccount": _account,
    "Deployment": _workload,
    "StatefulSet": _workload,
    "DaemonSet": _workload,
}


def placed(obj: JsonObject, namespace: str, operation_id: str, *, moved: bool = False) -> JsonObject:
    """The object for its new namespace, marked as the operation's. Elsewhere than it came from, in another namespace or
    (`moved`) another workspace, it loses what would make others take it for the original: the application's id, and
    the marks of GitOps tools."""
    held = copy.deepcopy(obj)
    meta = held["metadata"]
    if moved or meta.get("namespace", namespace) != namespace:
        _forget(meta)
        template = _template(held)
        if template is not None:
            _forget(template.setdefault("metadata", {}))
    meta["namespace"] = namespace
    meta["annotations"] = {**(meta.get("annotations") or {}), RESTORED_BY: operation_id}
    return held


def _forget(meta: JsonObject) -> None:
    for part in ("labels", "annotations"):
        if meta.get(part):
            meta[part] = {k: v for k, v in meta[part].items() if k not in (*GITOPS_MARKS, APPLICATION_ID_LABEL)}


def _template(obj: JsonObject) -> JsonObject | None:
    spec = obj.get("spec") or {}
    if obj.get("kind") == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    found: JsonObject | None = spec.get("template") if isinstance(spec, dict) else None
    return found


def inert(obj: JsonObject) -> JsonObject | None:
    """The object so that nothing of it runs, is scaled or gets traffic; None for what would do nothing else.

    Deployments and StatefulSets with 0 replicas, DaemonSets for nodes that bear a label which none bears, CronJobs
    suspended, Services within the cluster alone, no Ingress, no HorizontalPodAutoscaler.
    """
    if obj["kind"] in _LEFT_OUT_INERT:
        return None
    change = _INERT.get(obj["kind"])
    return change(copy.deepcopy(obj)) if change is not None else obj


def _scaled_down(obj: JsonObject) -> JsonObject:
    spec = obj.setdefault("spec", {})
    before = spec.get("replicas", 1)
    spec["replicas"] = 0
    meta = obj["metadata"]
    meta["annotations"] = {**(meta.get("annotations") or {}), RESTORED_REPLICAS: str(before)}
    return obj


def _nowhere(obj: JsonObject) -> JsonObject:
    pods = obj["spec"]["template"].setdefault("spec", {})
    pods["nodeSelector"] = {**(pods.get("nodeSelector") or {}), INERT_NODE: "true"}
    return obj


def _suspended(obj: JsonObject) -> JsonObject:
    obj.setdefault("spec", {})["suspend"] = True
    return obj


def _within(obj: JsonObject) -> JsonObject:
    spec = obj.setdefault("spec", {})
    if spec.get("type") == "ExternalName":
        return obj
    spec["type"] = "ClusterIP"
    for name in (
        "externalIPs", "externalTrafficPolicy", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges",
        "allocateLoadBalancerNodePorts",
    ):  # fmt: skip
        spec.pop(name, None)
    return obj


_INERT: dict[str, Any] = {
    "Deployment": _scaled_down,
    "StatefulSet": _scaled_down,
    "DaemonSet": _nowhere,
    "CronJob": _suspended,
    "Service": _within,
}


def from_snapshot(claim: JsonObject, snapshot_name: str, restore_size: str | None) -> JsonObject:
    """The claim, filled from a VolumeSnapshot of its namespace; never smaller than the snapshot."""
    spec = dict(claim.get("spec") or {})
    spec["dataSource"] = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot_name}
    resources = dict(spec.get("resources") or {})
    requests = dict(resources.get("requests") or {})
    if restore_size and whole(restore_size) > whole(str(requests.get("storage", "0"))):
        requests["storage"] = restore_size
    spec["resources"] = resources | {"requests": requests}
    return claim | {"spec": spec}


def copied_snapshot(snapshot: Snapshot, namespace: str, name: str) -> tuple[JsonObject, JsonObject]:
    """(VolumeSnapshotContent, VolumeSnapshot) by which a snapshot can be used in another namespace. The content's
    policy is Retain: the driver's snapshot belongs to the backup, and outlives the copy."""
    named = {"volumeSnapshotClassName": snapshot.snapshot_class} if snapshot.snapshot_class else {}
    reference = {"kind": "VolumeSnapshot", "name": name, "namespace": namespace}
    content = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": f"{namespace}-{name}"[:253]},
        "spec": {
            "deletionPolicy": "Retain",
            "driver": snapshot.driver,
            "source": {"snapshotHandle": snapshot.handle},
            "volumeSnapshotRef": reference,
            **named,
        },
    }
    copied = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"volumeSnapshotContentName": content["metadata"]["name"]}, **named},  # type: ignore[index]
    }
    return content, copied
