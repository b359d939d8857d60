"""Between the stored version of a kind and the others that are served: HPA v1 and v2, both groups' events."""

from collections.abc import Callable
from typing import Any

import msgspec

from opsapi.playground.kinds import Kind
from opsapi.playground.registry import Obj

_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_ANNOTATIONS = (_BEHAVIOR, _CONDITIONS, _METRICS, _CURRENT)

Converter = Callable[[Obj], Obj]


def from_storage(kind: Kind, obj: Obj) -> Obj:
    """A stored object as `kind`'s version shows it."""
    if kind.is_storage_version:
        return obj
    converter = _FROM.get((kind.group, kind.plural))
    made = obj if converter is None else converter(obj)
    return {**made, "kind": kind.kind, "apiVersion": kind.api_version}


def to_storage(kind: Kind, obj: Obj) -> Obj:
    """An object of `kind`'s version as it is stored."""
    if kind.is_storage_version:
        return obj
    converter = _TO.get((kind.group, kind.plural))
    made = obj if converter is None else converter(obj)
    return {**made, "apiVersion": kind.storage_api_version}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _is_cpu(metric: Obj) -> bool:
    resource = metric.get("resource") or {}
    return (
        metric.get("type") == "Resource"
        and resource.get("name") == "cpu"
        and (resource.get("target") or resource.get("current") or {}).get("averageUtilization") is not None
    )


def _go_names(value: Any) -> Any:
    """Internal types have no JSON tags, so annotations carry Go's field names."""
    if isinstance(value, dict):
        return {key[0].upper() + key[1:]: _go_names(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_go_names(one) for one in value]
    return value


def _json_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _json_names(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_json_names(one) for one in value]
    return value


def _behavior_annotation(behavior: Obj) -> str:
    made = {}
    for direction in ("scaleUp", "scaleDown"):
        if direction in behavior:
            rules = {"Tolerance": None, **_go_names(behavior[direction])}
            order = ("StabilizationWindowSeconds", "SelectPolicy", "Policies", "Tolerance")
            made[direction[0].upper() + direction[1:]] = {name: rules.get(name) for name in order}
    return _json(made)


def _hpa_v2_to_v1(obj: Obj) -> Obj:
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    annotations = dict(obj["metadata"].get("annotations") or {})
    metrics = spec.pop("metrics", None) or []
    behavior = spec.pop("behavior", None)
    cpu = next((one for one in metrics if _is_cpu(one)), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    others = [one for one in metrics if one is not cpu]
    if others:
        annotations[_METRICS] = _json([_metric_v1(one) for one in others])
    if behavior:
        annotations[_BEHAVIOR] = _behavior_annotation(behavior)
    if status.get("conditions"):
        annotations[_CONDITIONS] = _json(status["conditions"])
    current = status.pop("currentMetrics", None) or []
    now = next((one for one in current if _is_cpu(one)), None)
    if now is not None:
        status["currentCPUUtilizationPercentage"] = now["resource"]["current"]["averageUtilization"]
    rest = [one for one in current if one is not now]
    if rest:
        annotations[_CURRENT] = _json([_metric_v1(one) for one in rest])
    status.pop("conditions", None)
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)
    meta = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    if annotations:
        meta["annotations"] = annotations
    return {**obj, "metadata": meta, "spec": spec, "status": status}


def _metric_v1(metric: Obj) -> Obj:
    made: Obj = {"type": metric.get("type", "")}
    for source, held in metric.items():
        if source == "type":
            continue
        flat = {key: value for key, value in held.items() if key not in ("target", "current")}
        for name, prefix in (("target", "target"), ("current", "current")):
            for key, value in (held.get(name) or {}).items():
                if key == "averageUtilization":
                    flat[f"{prefix}AverageUtilization"] = value
                elif key in ("averageValue", "value"):
                    flat[f"{prefix}{key[0].upper()}{key[1:]}"] = value
        made[source] = flat
    return made


def _metric_v2(metric: Obj) -> Obj:
    made: Obj = {"type": metric.get("type", "")}
    for source, held in metric.items():
        if source == "type":
            continue
        target: Obj = {}
        kept = {key: value for key, value in held.items() if not key.startswith(("target", "current"))}
        for flat, name, kind in (
            ("targetAverageUtilization", "averageUtilization", "Utilization"),
            ("targetAverageValue", "averageValue", "AverageValue"),
            ("targetValue", "value", "Value"),
        ):
            if flat in held:
                target = {"type": kind, name: held[flat]}
        if source == "object" and isinstance(held.get("target"), dict):
            kept["describedObject"] = held["target"]
        made[source] = {**kept, "target": target}
    return made


def _current_v2(metric: Obj) -> Obj:
    made: Obj = {"type": metric.get("type", "")}
    for source, held in metric.items():
        if source != "type":
            current = {
                name: held[flat]
                for flat, name in (
                    ("currentAverageUtilization", "averageUtilization"),
                    ("currentAverageValue", "averageValue"),
                    ("currentValue", "value"),
                )
                if flat in held
            }
            made[source] = {**{k: v for k, v in held.items() if not k.startswith("current")}, "current": current}
    return made


def _hpa_v1_to_v2(obj: Obj) -> Obj:
    spec = dict(obj.get("spec") or {})
    annotations = dict(obj["metadata"].get("annotations") or {})
    metrics = [_metric_v2(one) for one in _decoded(annotations.get(_METRICS)) or []]
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *metrics]
    if metrics:
        spec["metrics"] = metrics
    behavior = _decoded(annotations.get(_BEHAVIOR))
    if behavior:
        spec["behavior"] = _json_names(behavior)
    status = dict(obj.get("status") or {})
    conditions = _decoded(annotations.get(_CONDITIONS))
    if conditions:
        status["conditions"] = conditions
    now = status.pop("currentCPUUtilizationPercentage", None)
    if now is not None:
        current = {"name": "cpu", "current": {"averageUtilization": now}}
        status["currentMetrics"] = [{"type": "Resource", "resource": current}]
    others = _decoded(annotations.get(_CURRENT))
    if others:
        status["currentMetrics"] = [*(status.get("currentMetrics") or []), *map(_current_v2, others)]
    kept = {key: value for key, value in annotations.items() if key not in _ANNOTATIONS}
    meta = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    if kept:
        meta["annotations"] = kept
    made = {**obj, "metadata": meta, "spec": spec}
    if status:
        made["status"] = status
    return made


def _decoded(text: str | None) -> Any:
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


_EVENT_TO_NEW = (
    ("eventTime", "eventTime"),
    ("series", "series"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
    ("action", "action"),
    ("reason", "reason"),
    ("involvedObject", "regarding"),
    ("related", "related"),
    ("message", "note"),
    ("type", "type"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
)
_OMITTED_EMPTY = ("reportingController", "reportingInstance", "action")


def _event_to_new(obj: Obj) -> Obj:
    made: Obj = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": obj["metadata"]}
    for core, new in _EVENT_TO_NEW:
        if core in obj and not (new in _OMITTED_EMPTY and not obj[core]):
            made[new] = obj[core]
    return made


def _event_to_core(obj: Obj) -> Obj:
    made: Obj = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": obj["metadata"]}
    for core, new in _EVENT_TO_NEW:
        if new in obj:
            made[core] = obj[new]
    made.setdefault("involvedObject", {})
    made.setdefault("source", {})
    return made


_FROM: dict[tuple[str, str], Converter] = {
    ("autoscaling", "horizontalpodautoscalers"): _hpa_v2_to_v1,
    ("events.k8s.io", "events"): _event_to_new,
}
_TO: dict[tuple[str, str], Converter] = {
    ("autoscaling", "horizontalpodautoscalers"): _hpa_v1_to_v2,
    ("events.k8s.io", "events"): _event_to_core,
}
