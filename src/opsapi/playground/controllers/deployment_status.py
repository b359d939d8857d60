"""A Deployment's status and conditions, pure. After pkg/controller/deployment/{progress,sync}.go."""

from collections.abc import Sequence
from datetime import datetime

from opsapi.playground.controllers.base import set_condition
from opsapi.playground.controllers.pods import condition, parse_time
from opsapi.playground.controllers.rollout import fenceposts
from opsapi.playground.registry import Obj

NEW_AVAILABLE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
_NO_DEADLINE = 2**31 - 1


def _sum(sets: Sequence[Obj], field: str) -> int:
    return sum(int(rs.get("status", {}).get(field, 0)) for rs in sets)


def counts(deployment: Obj, new: Obj | None, every: Sequence[Obj]) -> Obj:
    """The figures of .status, zero ones left out as Go's omitempty does."""
    available = _sum(every, "availableReplicas")
    wanted = sum(int(rs["spec"].get("replicas", 0)) for rs in every)
    status: Obj = {"observedGeneration": deployment["metadata"].get("generation", 1)}
    figures = {
        "replicas": _sum(every, "replicas"),
        "updatedReplicas": _sum([new] if new else [], "replicas"),
        "readyReplicas": _sum(every, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }
    status |= {name: count for name, count in figures.items() if count}
    status["terminatingReplicas"] = _sum(every, "terminatingReplicas")
    if "collisionCount" in deployment.get("status", {}):
        status["collisionCount"] = deployment["status"]["collisionCount"]
    return status


def _availability(deployment: Obj, status: Obj) -> Obj:
    minimum = int(deployment["spec"].get("replicas", 1)) - fenceposts(deployment)[1]
    if status.get("availableReplicas", 0) >= minimum:
        return {
            "type": "Available",
            "status": "True",
            "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.",
        }
    return {
        "type": "Available",
        "status": "False",
        "reason": "MinimumReplicasUnavailable",
        "message": "Deployment does not have minimum availability.",
    }


def is_complete(deployment: Obj, status: Obj) -> bool:
    replicas = int(deployment["spec"].get("replicas", 1))
    observed = int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 1))
    return observed and all(
        int(status.get(name, 0)) == replicas for name in ("updatedReplicas", "replicas", "availableReplicas")
    )


def _has_progressed(old: Obj, new: Obj) -> bool:
    def old_pods(status: Obj) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return old_pods(new) < old_pods(old) or any(int(new.get(name, 0)) > int(old.get(name, 0)) for name in grown)


def deadline(deployment: Obj) -> int | None:
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds is None or seconds == _NO_DEADLINE else int(seconds)


def overdue_in(deployment: Obj, progressing: Obj | None, now: datetime) -> float | None:
    """Seconds until the rollout counts as stuck (0: it is); None where that cannot happen."""
    seconds = deadline(deployment)
    if progressing is None or seconds is None or progressing.get("reason") in (NEW_AVAILABLE, "DeploymentPaused"):
        return None
    if progressing.get("reason") == TIMED_OUT:
        return 0.0
    return max(0.0, (parse_time(progressing["lastUpdateTime"]) - now).total_seconds() + seconds)


def _progress(deployment: Obj, status: Obj, new: Obj | None, now: datetime) -> Obj | None:
    """The new Progressing condition; None where it stays as it is."""
    current = condition(deployment, "Progressing")
    name = new["metadata"]["name"] if new else deployment["metadata"]["name"]
    kind = "ReplicaSet" if new else "Deployment"
    settled = status.get("replicas", 0) == status.get("updatedReplicas", 0)
    if deadline(deployment) is None or (settled and current is not None and current.get("reason") == NEW_AVAILABLE):
        return None
    if is_complete(deployment, status):
        message = f'{kind} "{name}" has successfully progressed.'
        return {"type": "Progressing", "status": "True", "reason": NEW_AVAILABLE, "message": message}
    if _has_progressed(deployment.get("status", {}), status):
        message = f'{kind} "{name}" is progressing.'
        return {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": message}
    if overdue_in(deployment, current, now) == 0.0:
        message = f'{kind} "{name}" has timed out progressing.'
        return {"type": "Progressing", "status": "False", "reason": TIMED_OUT, "message": message}
    return None


def _failure(new: Obj | None, every: Sequence[Obj]) -> Obj | None:
    for rs in ([new] if new else []) + list(every):
        found = condition(rs, "ReplicaFailure")
        if found is not None:
            return found
    return None


def status_of(deployment: Obj, new: Obj | None, every: Sequence[Obj], now: datetime, stamp: str) -> Obj:
    """The whole .status after a sync."""
    status = counts(deployment, new, every)
    conditions: list[Obj] = deployment.get("status", {}).get("conditions") or []
    conditions = set_condition(conditions, _availability(deployment, status), update_time=True, stamp=stamp)
    progress = None if deployment["spec"].get("paused") else _progress(deployment, status, new, now)
    if progress is not None:
        conditions = with_progress(conditions, progress, stamp)
    failure = _failure(new, every)
    conditions = [item for item in conditions if item["type"] != "ReplicaFailure"]
    if failure is not None:
        old = condition(deployment, "ReplicaFailure")
        times = {"lastUpdateTime": failure["lastTransitionTime"], "lastTransitionTime": failure["lastTransitionTime"]}
        fresh = {"type": "ReplicaFailure", "status": failure["status"], **times}
        fresh |= {"reason": failure["reason"], "message": failure["message"]}
        conditions.append(old if old is not None and old["message"] == failure["message"] else fresh)
    status["conditions"] = conditions
    return status


def with_progress(conditions: list[Obj], progress: Obj, stamp: str) -> list[Obj]:
    """Like set_condition, but progress refreshes lastUpdateTime even when nothing else changes: the deadline counts
    from there."""
    result = set_condition(conditions, progress, update_time=True, stamp=stamp)
    if progress["status"] != "True":
        return result
    fresh = [{**item, "lastUpdateTime": stamp} for item in result if item["type"] == "Progressing"]
    return [*(item for item in result if item["type"] != "Progressing"), *fresh]
