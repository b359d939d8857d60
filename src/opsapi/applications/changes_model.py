"""Who changed what of an application, when and why. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from opsapi.applications.field_managers import REPLICAS, container_path, writer_of
from opsapi.applications.ports import FIELD_MANAGER
from opsapi.operations.model import Operation
from opsapi.workspaces.objects import (
    CRON_JOB,
    Container,
    CronJob,
    HorizontalPodAutoscaler,
    Kind,
    KubernetesObject,
    ManagedField,
    PodSpec,
    Workload,
)

UNKNOWN = "unknown"
AUTOSCALER_ACTOR = "autoscaler"
CONTROLLER_MANAGER = "kube-controller-manager"
"""The field manager of Kubernetes' own controllers."""
Fields = dict[str, Any]
_TEMPLATE = ("containers[", "initContainers[")
_AUTOSCALER_PATHS = {
    "autoscaler.minReplicas": ("f:spec", "f:minReplicas"),
    "autoscaler.maxReplicas": ("f:spec", "f:maxReplicas"),
    "autoscaler.metrics": ("f:spec", "f:metrics"),
    "autoscaler.scaleDown.stabilizationWindowSeconds": ("f:spec", "f:behavior", "f:scaleDown"),
}


class Snapshot(msgspec.Struct, frozen=True):
    """What an object was last seen to be, as far as changes are kept."""

    uid: str
    resource_version: str
    fields: Fields


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field's change. `changed_at` is when Kubernetes noted the write (to the second, null where it does not say),
    `observed_at` when it was seen here. `manager` is the field manager that the API server names. `actor` is the
    account behind an operation of ours, or the HorizontalPodAutoscaler that set replicas (`actor_kind` `autoscaler`),
    else null."""

    id: str
    workspace_id: str
    application_id: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    field: str
    before: Any
    after: Any
    observed_at: datetime
    changed_at: datetime | None = None
    manager: str | None = None
    actor: str | None = None
    actor_kind: str | None = None
    operation_id: str | None = None
    approved_by: str | None = None
    reason: str | None = None


def tracked_fields(held: KubernetesObject) -> Fields:
    """Replicas, images and resources by container of an application; bounds and targets of an autoscaler."""
    if isinstance(held, HorizontalPodAutoscaler):
        return _autoscaler_fields(held)
    if isinstance(held, CronJob):
        return _pod_fields(held.spec.job_template.spec.template.spec)
    if not isinstance(held, Workload):
        return {}
    fields = _pod_fields(held.spec.template.spec)
    if held.spec.replicas is not None:
        fields["replicas"] = held.spec.replicas
    return fields


def _pod_fields(spec: PodSpec) -> Fields:
    fields: Fields = {}
    for prefix, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        for container in containers:
            fields[f"{prefix}[{container.name}].image"] = container.image
            fields[f"{prefix}[{container.name}].resources"] = _resources(container)
    return fields


def _resources(container: Container) -> Fields:
    resources = container.resources
    return {"requests": dict(resources.requests), "limits": dict(resources.limits)}


def _autoscaler_fields(held: HorizontalPodAutoscaler) -> Fields:
    spec = held.spec
    fields: Fields = {
        "autoscaler.minReplicas": spec.min_replicas,
        "autoscaler.maxReplicas": spec.max_replicas,
        "autoscaler.metrics": [_metric(metric) for metric in msgspec.to_builtins(spec.metrics)],
    }
    down = spec.behavior.scale_down if spec.behavior is not None else None
    if down is not None and down.stabilization_window_seconds is not None:
        fields["autoscaler.scaleDown.stabilizationWindowSeconds"] = down.stabilization_window_seconds
    return fields


def _metric(metric: Mapping[str, Any]) -> Fields:
    return {key: value for key, value in metric.items() if value is not None}


def differences(before: Fields, after: Fields) -> list[tuple[str, Any, Any]]:
    """(field, before, after), sorted by field; None stands for a field that is not there."""
    return [
        (name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def writer_of_field(kind: Kind, managed: tuple[ManagedField, ...], field: str) -> ManagedField | None:
    """Who wrote the tracked field last."""
    if field == "replicas":
        return writer_of(managed, REPLICAS)
    if field in _AUTOSCALER_PATHS:
        return writer_of(managed, _AUTOSCALER_PATHS[field])
    prefix, _, rest = field.partition("[")
    name, _, leaf = rest.rpartition("].")
    path = container_path(name, f"f:{leaf}")
    if prefix == "initContainers":
        path = tuple("f:initContainers" if key == "f:containers" else key for key in path)
    if kind == CRON_JOB:
        path = ("f:spec", "f:jobTemplate", *path)
    return writer_of(managed, path)


def operation_behind(
    field: str, after: Any, manager: str | None, operations: Iterable[Operation], uid: str
) -> Operation | None:
    """The newest of an application's operations that wrote this value, or wrote it back; only for writes that carry
    our field manager. An intent counts: the change may be seen before its effect is recorded. Of a template, the newest
    that touched the object (`uid`), since annotations that name one are anybody's to write."""
    if manager != FIELD_MANAGER:
        return None
    for operation in sorted(operations, key=lambda held: held.created_at, reverse=True):
        for step in operation.steps:
            written = (step.intent or {}) | (step.effect or {})
            if field == "replicas" and after in (written.get("replicas"), _undone(step.undo, written)):
                return operation
            if field.startswith("autoscaler.") and "autoscaler" in written:
                return operation
            item = step.items.get(uid)
            if field.startswith(_TEMPLATE) and item is not None and item.touched:
                return operation
    return None


def _undone(undo: object, written: Mapping[str, Any]) -> Any:
    return written.get("previous") if undo is not None else None
