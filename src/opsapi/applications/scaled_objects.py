"""KEDA: a ScaledObject owns the HorizontalPodAutoscaler and the replicas, so its bounds are what is edited.

Format: https://keda.sh/docs/latest/reference/scaledobject-spec/
"""

from typing import Any

import msgspec

from opsapi.applications.ports import AutoscalerBounds, WorkloadRef
from opsapi.applications.scaling_model import ScaledBounds
from opsapi.workspaces.objects import SCALED_OBJECT, CustomObject, HorizontalPodAutoscaler
from opsapi.workspaces.writing import JsonObject, ObjectKey, Objects, Resource, TargetGone, WriteRefused

SCALED_OBJECTS = Resource(SCALED_OBJECT.group, SCALED_OBJECT.version, SCALED_OBJECT.resource, SCALED_OBJECT.kind)
DEFAULT_MINIMUM, DEFAULT_MAXIMUM = 0, 100
"""KEDA's own, where a ScaledObject states none."""
_BEHAVIOR = ("advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown", "stabilizationWindowSeconds")


def owner_of(autoscaler: HorizontalPodAutoscaler | None) -> str:
    """The ScaledObject that made the HPA, by its name, or ""."""
    owners = autoscaler.metadata.owner_references if autoscaler is not None else ()
    return next((owner.name for owner in owners if owner.kind == SCALED_OBJECT.kind), "")


async def read_scaled_object(objects: Objects, ref: WorkloadRef, name: str) -> CustomObject | None:
    """Fresh; None where it is gone, aims elsewhere, or may not be read. Raises DependencyUnavailable."""
    key = ObjectKey(ref.workspace_id, SCALED_OBJECTS, ref.namespace, name)
    try:
        held = msgspec.json.decode(msgspec.json.encode(await objects.get(key)), type=CustomObject)
    except (TargetGone, WriteRefused, msgspec.ValidationError):
        return None
    return held if targets(held, ref) else None


def targets(held: CustomObject, ref: WorkloadRef) -> bool:
    """`scaleTargetRef.kind` defaults to Deployment."""
    target = held.spec.get("scaleTargetRef")
    return isinstance(target, dict) and (target.get("kind", "Deployment"), target.get("name")) == (
        ref.kind.kind,
        ref.name,
    )


def scaled_bounds(spec: dict[str, Any]) -> ScaledBounds:
    """As the object states them; None where it leaves them to KEDA."""
    window: Any = spec
    for key in _BEHAVIOR:
        window = window.get(key) if isinstance(window, dict) else None
    return ScaledBounds(_whole(spec.get("minReplicaCount")), _whole(spec.get("maxReplicaCount")), _whole(window))


def effective(bounds: ScaledBounds) -> AutoscalerBounds:
    """With KEDA's defaults; the CPU target is a trigger's, and not ours."""
    low = DEFAULT_MINIMUM if bounds.min_replicas is None else bounds.min_replicas
    high = DEFAULT_MAXIMUM if bounds.max_replicas is None else bounds.max_replicas
    return AutoscalerBounds(low, high, None, bounds.stabilization_seconds)


def bounds_patch(bounds: ScaledBounds, *, window: bool) -> JsonObject:
    """A merge patch: null takes a field away. `window`: the stabilisation window is touched too."""
    spec: JsonObject = {"minReplicaCount": bounds.min_replicas, "maxReplicaCount": bounds.max_replicas}
    if window:
        nested: Any = bounds.stabilization_seconds
        for key in reversed(_BEHAVIOR):
            nested = {key: nested}
        spec |= nested
    return spec


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
