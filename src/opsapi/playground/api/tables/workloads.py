"""The cells of workloads: what runs pods, and what scales it."""

from datetime import datetime
from typing import Any

from opsapi.kit.clock import parse_rfc3339
from opsapi.playground.api.tables.ages import age, human_duration
from opsapi.playground.api.tables.parts import (
    NONE,
    age_of,
    images,
    name_of,
    plain_selector,
    selector_of,
    spec_of,
    status_of,
)
from opsapi.playground.registry import Obj


def deployment(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    return [
        name_of(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age_of(obj, now),
        *images(spec),
        selector_of(spec),
    ]


def replica_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    return [
        name_of(obj),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age_of(obj, now),
        *images(spec),
        selector_of(spec),
    ]


def replication_controller(obj: Obj, now: datetime) -> list[Any]:
    return [
        *replica_set({**obj, "spec": {**spec_of(obj), "selector": None}}, now)[:-1],
        plain_selector(spec_of(obj).get("selector")),
    ]


def stateful_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name_of(obj), ready, age_of(obj, now), *images(spec)]


def daemon_set(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    node_selector = ((spec.get("template") or {}).get("spec") or {}).get("nodeSelector")
    return [
        name_of(obj),
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        plain_selector(node_selector),
        age_of(obj, now),
        *images(spec),
        selector_of(spec),
    ]


def job(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    wanted, done = spec.get("completions"), status.get("succeeded", 0)
    if wanted is not None:
        completions = f"{done}/{wanted}"
    else:
        parallelism = spec.get("parallelism", 0)
        completions = f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"
    return [
        name_of(obj),
        _job_state(obj, status),
        completions,
        _job_duration(status, now),
        age_of(obj, now),
        *images(spec),
        selector_of(spec),
    ]


def _job_state(obj: Obj, status: Obj) -> str:
    true = {one["type"] for one in status.get("conditions") or [] if one.get("status") == "True"}
    if "Complete" in true:
        return "Complete"
    if "Failed" in true:
        return "Failed"
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    if "Suspended" in true:
        return "Suspended"
    if "FailureTarget" in true:
        return "FailureTarget"
    return "SuccessCriteriaMet" if "SuccessCriteriaMet" in true else "Running"


def _job_duration(status: Obj, now: datetime) -> str:
    if not status.get("startTime"):
        return ""
    end = parse_rfc3339(status["completionTime"]) if status.get("completionTime") else now
    return human_duration((end - parse_rfc3339(status["startTime"])).total_seconds())


def cron_job(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    last = status.get("lastScheduleTime")
    job_spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        name_of(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or []),
        age(last, now) if last else NONE,
        age_of(obj, now),
        *images(job_spec),
        selector_of(job_spec),
    ]


def scale(obj: Obj, now: datetime) -> list[Any]:
    replicas = status_of(obj).get("replicas", 0)
    return [name_of(obj), spec_of(obj).get("replicas", 0), replicas, age_of(obj, now)]


def autoscaler(obj: Obj, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    target = spec.get("scaleTargetRef") or {}
    low = spec.get("minReplicas")
    return [
        name_of(obj),
        f"{target.get('kind')}/{target.get('name')}",
        _targets(spec.get("metrics") or [], status.get("currentMetrics") or []),
        "<unset>" if low is None else str(low),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age_of(obj, now),
    ]


def _targets(metrics: list[Obj], current: list[Obj]) -> str:
    shown = []
    for index, metric in enumerate(metrics):
        source = metric.get("type", "")
        key = source[:1].lower() + source[1:]
        held = metric.get(key) or {}
        now = ((current[index].get(key) or {}).get("current") or {}) if index < len(current) else {}
        shown.append(_one_target(source, held, now))
    if not shown:
        return NONE
    more = f" + {len(shown) - 2} more..." if len(shown) > 2 else ""
    return ", ".join(shown[:2]) + more


def _one_target(source: str, held: Obj, now: Obj) -> str:
    target = held.get("target") or {}
    unknown = "<unknown>"
    if source in ("Resource", "ContainerResource"):
        label = f"{held.get('name', '')}: "
        if target.get("averageValue") is not None:
            return f"{label}{now.get('averageValue', unknown)}/{target['averageValue']}"
        value = now.get("averageUtilization")
        return f"{label}{unknown if value is None else f'{value}%'}/{target.get('averageUtilization', '<auto>')}%"
    if target.get("averageValue") is not None:
        return f"{now.get('averageValue', unknown)}/{target['averageValue']} (avg)"
    return f"{now.get('value', unknown)}/{target.get('value', unknown)}"
