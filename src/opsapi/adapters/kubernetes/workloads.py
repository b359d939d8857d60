"""Writes to clusters: fresh reads, preconditions on uid and resourceVersion, and no repetition of what may have
happened."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.failures import COMPONENT, reading, writing
from opsapi.adapters.kubernetes.reflector import collection_path
from opsapi.adapters.kubernetes.transport import Transport
from opsapi.adapters.kubernetes.wire import decode_object, decode_page
from opsapi.applications.errors import WriteConflict
from opsapi.applications.ports import (
    FIELD_MANAGER,
    OPERATION_ANNOTATION,
    AutoscalerBounds,
    ScaleState,
    WorkloadRef,
    WrittenEvent,
)
from opsapi.kit.clock import rfc3339
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.ids import stable_id
from opsapi.workspaces.objects import AUTOSCALER, EVENT, HorizontalPodAutoscaler, Workload

_MANAGED_BY = "app.kubernetes.io/managed-by"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_EVENT_MESSAGE = 1024
_NAME = 253


class _ScaleMeta(msgspec.Struct, frozen=True, rename="camel"):
    uid: str
    resource_version: str


class _ScaleSpec(msgspec.Struct, frozen=True):
    replicas: int = 0


class _Scale(msgspec.Struct, frozen=True):
    """autoscaling/v1 Scale."""

    metadata: _ScaleMeta
    spec: _ScaleSpec = _ScaleSpec()
    status: _ScaleSpec = _ScaleSpec()


def _state(scale: _Scale) -> ScaleState:
    return ScaleState(scale.metadata.uid, scale.metadata.resource_version, scale.spec.replicas, scale.status.replicas)


class KubernetesWorkloads:
    """Implements the Workloads port over the live clusters' acting credentials."""

    def __init__(self, clusters: KubernetesClusters) -> None:
        self._clusters = clusters

    async def read_workload(self, ref: WorkloadRef) -> Workload:
        with reading(ref.workspace_id):
            workload = decode_object(Workload, await self._acting(ref).get(_path(ref)))
        _check_uid(ref, workload.metadata.uid)
        return workload

    async def read_scale(self, ref: WorkloadRef) -> ScaleState:
        with reading(ref.workspace_id):
            scale = decode_object(_Scale, await self._acting(ref).get(f"{_path(ref)}/scale"))
        _check_uid(ref, scale.metadata.uid)
        return _state(scale)

    async def write_scale(
        self, ref: WorkloadRef, replicas: int, *, resource_version: str, dry_run: bool = False
    ) -> ScaleState:
        patch = {
            "metadata": {"uid": ref.uid, "resourceVersion": resource_version},
            "spec": {"replicas": replicas},
        }
        with writing(ref.workspace_id, dry_run=dry_run):
            answer = await self._acting(ref).send(
                "PATCH", f"{_path(ref)}/scale", patch, query=_query(dry_run), content_type=_MERGE
            )
            scale = decode_object(_Scale, answer)
        _check_uid(ref, scale.metadata.uid)
        return _state(scale)

    async def find_autoscaler(self, ref: WorkloadRef) -> HorizontalPodAutoscaler | None:
        with reading(ref.workspace_id):
            body = await self._acting(ref).get(collection_path(AUTOSCALER, ref.namespace), large=True)
            page = decode_page(AUTOSCALER, body)
        for one in page.items or ():
            if isinstance(one, HorizontalPodAutoscaler) and _targets(one, ref):
                return one
        return None

    async def write_autoscaler(
        self,
        ref: WorkloadRef,
        bounds: AutoscalerBounds,
        *,
        existing: HorizontalPodAutoscaler | None,
        operation_id: str,
        dry_run: bool = False,
    ) -> HorizontalPodAutoscaler:
        if existing is None:
            return await self._create_autoscaler(ref, bounds, operation_id, dry_run=dry_run)
        return await self._edit_autoscaler(ref, bounds, existing, operation_id, dry_run=dry_run)

    async def _create_autoscaler(
        self, ref: WorkloadRef, bounds: AutoscalerBounds, operation_id: str, *, dry_run: bool
    ) -> HorizontalPodAutoscaler:
        body = {
            "apiVersion": AUTOSCALER.api_version,
            "kind": AUTOSCALER.kind,
            "metadata": {
                "name": ref.name,
                "namespace": ref.namespace,
                "labels": {_MANAGED_BY: FIELD_MANAGER},
                "annotations": {OPERATION_ANNOTATION: operation_id},
            },
            "spec": {
                "scaleTargetRef": {"apiVersion": ref.kind.api_version, "kind": ref.kind.kind, "name": ref.name},
                **_bounds_spec(bounds, []),
            },
        }
        collection = collection_path(AUTOSCALER, ref.namespace)
        try:
            with writing(ref.workspace_id, dry_run=dry_run):
                answer = await self._acting(ref).send(
                    "POST", collection, body, query=_query(dry_run), content_type=_JSON
                )
                return decode_object(HorizontalPodAutoscaler, answer)
        except WriteConflict:
            # The name is taken: by this very operation, before its answer was lost, or by somebody else.
            with reading(ref.workspace_id):
                held = decode_object(HorizontalPodAutoscaler, await self._acting(ref).get(f"{collection}/{ref.name}"))
            if not dry_run and held.metadata.annotations.get(OPERATION_ANNOTATION) == operation_id:
                return held
            raise

    async def _edit_autoscaler(
        self,
        ref: WorkloadRef,
        bounds: AutoscalerBounds,
        existing: HorizontalPodAutoscaler,
        operation_id: str,
        *,
        dry_run: bool,
    ) -> HorizontalPodAutoscaler:
        """Only the bounds and the CPU target: metrics of other kinds, which our slim Struct does not hold, stay."""
        path = f"{collection_path(AUTOSCALER, ref.namespace)}/{existing.metadata.name}"
        with reading(ref.workspace_id):
            held: dict[str, Any] = decode_object(dict[str, Any], await self._acting(ref).get(path))
        meta = held.get("metadata", {})
        seen = (existing.metadata.uid, existing.metadata.resource_version)
        if (meta.get("uid"), meta.get("resourceVersion")) != seen:
            raise WriteConflict(f"HorizontalPodAutoscaler {existing.metadata.name} changed since it was read")
        patch = {
            "metadata": {
                "uid": existing.metadata.uid,
                "resourceVersion": existing.metadata.resource_version,
                "annotations": {OPERATION_ANNOTATION: operation_id},
            },
            "spec": _bounds_spec(bounds, held.get("spec", {}).get("metrics") or []),
        }
        with writing(ref.workspace_id, dry_run=dry_run):
            answer = await self._acting(ref).send("PATCH", path, patch, query=_query(dry_run), content_type=_MERGE)
            return decode_object(HorizontalPodAutoscaler, answer)

    async def write_event(self, ref: WorkloadRef, event: WrittenEvent, *, operation_id: str, at: datetime) -> None:
        moment = rfc3339(at)
        suffix = stable_id("ops", operation_id, ref.uid, event.reason)
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "name": f"{ref.name[: _NAME - len(suffix) - 1]}.{suffix}",
                "namespace": ref.namespace,
                "annotations": {OPERATION_ANNOTATION: operation_id},
            },
            "involvedObject": {
                "apiVersion": ref.kind.api_version,
                "kind": ref.kind.kind,
                "namespace": ref.namespace,
                "name": ref.name,
                "uid": ref.uid,
            },
            "type": "Normal",
            "reason": event.reason,
            "message": event.message[:_EVENT_MESSAGE],
            "action": event.action,
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": FIELD_MANAGER,
        }
        try:
            with writing(ref.workspace_id, dry_run=False):
                await self._acting(ref).send(
                    "POST", collection_path(EVENT, ref.namespace), body, query=_query(False), content_type=_JSON
                )
        except WriteConflict:
            return  # written before; its name says so

    def _acting(self, ref: WorkloadRef) -> Transport:
        cluster = self._clusters.find(ref.workspace_id)
        if cluster is None:
            raise DependencyUnavailable(COMPONENT, "the workspace is not served", workspace_id=ref.workspace_id)
        return cluster.acting


def _path(ref: WorkloadRef) -> str:
    return f"{collection_path(ref.kind, ref.namespace)}/{ref.name}"


def _query(dry_run: bool) -> Mapping[str, str]:
    manager = {"fieldManager": FIELD_MANAGER}
    return manager | {"dryRun": "All"} if dry_run else manager


def _check_uid(ref: WorkloadRef, uid: str) -> None:
    if uid != ref.uid:
        raise WriteConflict(f"{ref.kind.kind} {ref.name} was replaced by a namesake")


def _targets(one: HorizontalPodAutoscaler, ref: WorkloadRef) -> bool:
    """The group counts, not its version; an old HPA may leave it out."""
    target = one.spec.scale_target_ref
    group = target.api_version.rpartition("/")[0]
    return (target.kind, target.name) == (ref.kind.kind, ref.name) and group in (ref.kind.group, "")


def _bounds_spec(bounds: AutoscalerBounds, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = {"minReplicas": bounds.min_replicas, "maxReplicas": bounds.max_replicas}
    if bounds.target_cpu_percentage is not None:
        target = {"type": "Utilization", "averageUtilization": bounds.target_cpu_percentage}
        cpu = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
        # A list is replaced whole by a merge patch: the others are written as they are.
        spec["metrics"] = [cpu, *(metric for metric in metrics if not _is_cpu(metric))]
    if bounds.scale_down_stabilization_seconds is not None:
        window = {"stabilizationWindowSeconds": bounds.scale_down_stabilization_seconds}
        spec["behavior"] = {"scaleDown": window}
    return spec


def _is_cpu(metric: dict[str, Any]) -> bool:
    return metric.get("type") == "Resource" and metric.get("resource", {}).get("name") == "cpu"
