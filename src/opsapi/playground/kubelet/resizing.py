"""Resizing pods in place: desired, allocated and actual resources, one after the other.

After pkg/kubelet/allocation and pkg/kubelet/kuberuntime. A resize that can never fit is Infeasible, one that does not
fit now is Deferred and tried again; what fits is allocated at once and reaches the running containers a moment later.
"""

import json
from collections.abc import Iterable
from typing import Protocol

from opsapi.kit.quantity import whole
from opsapi.playground.kubelet.state import NEVER, Container, Phase, PodRun
from opsapi.playground.registry import Obj
from opsapi.playground.scheduler.predicates import amount, demand_of

_ACTUATE_SECONDS = 2.0
_RETRY = 10.0
"""Seconds between tries of what is deferred, and of a limit below what the container uses."""


class Host(Protocol):
    """What resizing needs of its node."""

    def room(self, run: PodRun) -> tuple[Obj, list[Obj]]:
        """(the node's allocatable, the specs of all other pods on it as they are allocated)."""
        ...

    def emit(self, pod: Obj, kind: str, reason: str, message: str, container: str = "", init: bool = False) -> None: ...

    def memory(self, run: PodRun, container: Container, now: float) -> float: ...


def _changed(run: PodRun) -> list[Container]:
    return [one for one in run.every() if (one.spec.get("resources") or {}) != one.allocated]


def notice(run: PodRun, host: Host, now: float) -> None:
    """The desired resources may have changed: allocates them where they fit."""
    resize = run.resize
    if not _changed(run):
        resize.pending = None
        if resize.progress is None:
            resize.due = NEVER
        return
    resize.generation = int(run.pod["metadata"].get("generation", 1))
    refusal = _refusal(run, host)
    if refusal is not None:
        reason, message = refusal
        if resize.pending != refusal:
            host.emit(run.pod, "Warning", f"Resize{reason}", _told(run, f"Pod resize {reason}", message))
        resize.pending = refusal
        if resize.progress is None:
            resize.due = now + _RETRY if reason == "Deferred" else NEVER
        return
    for container in _changed(run):
        container.allocated = container.spec.get("resources") or {}
    resize.pending, resize.progress = None, ("", "")
    resize.due = now + _ACTUATE_SECONDS
    host.emit(run.pod, "Normal", "ResizeStarted", _told(run, "Pod resize started"))


def _refusal(run: PodRun, host: Host) -> tuple[str, str] | None:
    """(Infeasible or Deferred, why) where the node cannot give what is asked; CPU in millicores, memory in bytes."""
    allocatable, others = host.room(run)
    demand, held = demand_of(run.pod["spec"]), [demand_of(spec) for spec in others]
    rows = (
        ("memory", demand.memory, sum(one.memory for one in held)),
        ("cpu", demand.cpu, sum(one.cpu for one in held)),
    )
    for name, wanted, _ in rows:
        capacity = amount(name, allocatable.get(name, "0"))
        if wanted > capacity:
            why = f"{name}, requested: {wanted}, capacity: {capacity}"
            return "Infeasible", f"Node didn't have enough capacity: {why}"
    for name, wanted, used in reversed(rows):
        capacity = amount(name, allocatable.get(name, "0"))
        if wanted + used > capacity:
            why = f"{name}, requested: {wanted}, used: {used}, capacity: {capacity}"
            return "Deferred", f"Node didn't have enough resource: {why}"
    return None


def go_on(run: PodRun, host: Host, now: float) -> list[Container]:
    """What is due: another try, or the actuation. The containers that have to restart for their new resources."""
    resize = run.resize
    if resize.progress is None:
        notice(run, host, now)
        return []
    problem = _below_usage(run, host, now)
    if problem:
        if resize.progress[1] != problem:
            host.emit(run.pod, "Warning", "ResizeError", _told(run, "Pod resize error", problem))
        resize.progress, resize.due = ("Error", problem), now + _RETRY
        return []
    restarting = [one for one in run.every() if one.phase is Phase.RUNNING and _must_restart(one)]
    for container in run.every():
        if container not in restarting:
            container.resources = container.allocated
    resize.progress = None
    resize.due = now + _RETRY if resize.pending is not None else NEVER
    host.emit(run.pod, "Normal", "ResizeCompleted", _told(run, "Pod resize completed"))
    return restarting


def _below_usage(run: PodRun, host: Host, now: float) -> str:
    """Memory is not taken from a process that uses it."""
    problems = []
    for container in run.every():
        wanted, present = _memory_limit(container.allocated), _memory_limit(container.resources)
        if container.phase is not Phase.RUNNING or wanted is None or (present is not None and wanted >= present):
            continue
        used = int(host.memory(run, container, now))
        if used > wanted and not _must_restart(container):
            what = f'attempting to set container "{container.name}" memory limit ({wanted})'
            problems.append(f"{what} below current usage ({used})")
    return f"cannot decrease memory limits: {', '.join(problems)}" if problems else ""


def _memory_limit(resources: Obj) -> int | None:
    limit = (resources.get("limits") or {}).get("memory")
    return None if limit is None else whole(str(limit))


def _must_restart(container: Container) -> bool:
    policies = {one["resourceName"]: one.get("restartPolicy") for one in container.spec.get("resizePolicy") or []}
    return any(policies.get(name) == "RestartContainer" for name in _different(container))


def _different(container: Container) -> Iterable[str]:
    for name in ("cpu", "memory"):
        for part in ("requests", "limits"):
            new, old = container.allocated.get(part) or {}, container.resources.get(part) or {}
            if new.get(name) != old.get(name):
                yield name


def _told(run: PodRun, what: str, error: str = "") -> str:
    containers = [
        {"name": one.name, "resources": one.spec.get("resources") or {}}
        for one in run.every()
        if one.spec.get("resources")
    ]
    body: Obj = {"containers": containers, "generation": run.resize.generation}
    if error:
        body["error"] = error
    return f"{what}: {json.dumps(body, separators=(',', ':'))}"
