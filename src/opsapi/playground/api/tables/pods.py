"""The pod columns, as kubectl get pods has them: what state a pod is in is told by its containers."""

from datetime import datetime
from typing import Any

from opsapi.kit.clock import parse_rfc3339
from opsapi.playground.api.tables.ages import age, human_duration
from opsapi.playground.registry import Obj


def pod_cells(pod: Obj, now: datetime) -> list[Any]:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    ready, state, restarts, last = _summary(pod, spec, status)
    told = str(restarts)
    if restarts and last is not None:
        told = f"{restarts} ({human_duration((now - last).total_seconds())} ago)"
    addresses = status.get("podIPs") or []
    gates = spec.get("readinessGates") or []
    return [
        pod["metadata"]["name"],
        f"{ready}/{_total(spec)}",
        state,
        told,
        age(pod["metadata"].get("creationTimestamp"), now),
        addresses[0]["ip"] if addresses else status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        f"{_gates_passed(gates, status)}/{len(gates)}" if gates else "<none>",
    ]


def _total(spec: Obj) -> int:
    sidecars = sum(1 for one in spec.get("initContainers") or [] if one.get("restartPolicy") == "Always")
    return len(spec.get("containers") or []) + sidecars


def _gates_passed(gates: list[Obj], status: Obj) -> int:
    true = {one["type"] for one in status.get("conditions") or [] if one.get("status") == "True"}
    return sum(1 for gate in gates if gate.get("conditionType") in true)


def _summary(pod: Obj, spec: Obj, status: Obj) -> tuple[int, str, int, datetime | None]:
    reason = status.get("reason") or status.get("phase") or ""
    if any(
        one.get("type") == "PodScheduled" and one.get("reason") == "SchedulingGated"
        for one in status.get("conditions") or []
    ):
        reason = "SchedulingGated"
    initializing = _init_reason(spec, status)
    statuses = status.get("containerStatuses") or []
    ready = 0
    restarts = sum(one.get("restartCount", 0) for one in status.get("initContainerStatuses") or [])
    last = _latest([*statuses, *(status.get("initContainerStatuses") or [])])
    if initializing is not None:
        reason = initializing
    else:
        restarts = sum(one.get("restartCount", 0) for one in statuses)
        reason, ready, running = _container_reason(statuses, reason)
        if reason == "Completed" and running:
            reason = "Running" if _is_ready(status) else "NotReady"
    ready += sum(
        1
        for one in status.get("initContainerStatuses") or []
        if one.get("started") and one.get("ready") and "running" in (one.get("state") or {})
    )
    if "deletionTimestamp" in pod["metadata"]:
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return ready, reason, restarts, last


def _is_ready(status: Obj) -> bool:
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or [])


def _init_reason(spec: Obj, status: Obj) -> str | None:
    """`Init:0/2`, `Init:Error` and the like; None once the init containers are through."""
    declared = {one["name"]: one for one in spec.get("initContainers") or []}
    total = len(declared)
    for index, one in enumerate(status.get("initContainerStatuses") or []):
        state = one.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        sidecar = declared.get(one["name"], {}).get("restartPolicy") == "Always"
        if sidecar and one.get("started"):
            continue
        if terminated is not None:
            return f"Init:{_terminated(terminated)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return None


def _terminated(state: Obj) -> str:
    if state.get("reason"):
        return str(state["reason"])
    if state.get("signal"):
        return f"Signal:{state['signal']}"
    return f"ExitCode:{state.get('exitCode', 0)}"


def _container_reason(statuses: list[Obj], reason: str) -> tuple[str, int, bool]:
    ready, running = 0, False
    for one in reversed(statuses):
        state = one.get("state") or {}
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            reason = _terminated(terminated)
        elif one.get("ready") and state.get("running") is not None:
            running = True
            ready += 1
    return reason, ready, running


def _latest(statuses: list[Obj]) -> datetime | None:
    ended = [((one.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for one in statuses]
    moments = [parse_rfc3339(one) for one in ended if one]
    return max(moments, default=None)
