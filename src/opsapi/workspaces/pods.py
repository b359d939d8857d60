"""What one pod means: its phase, what it asks for, whether it is ready, and what is wrong with it. Pure."""

from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from opsapi.kit.quantity import millicores, whole
from opsapi.workspaces.objects import Condition, Container, ContainerStatus, Pod, Terminated


class Phase(StrEnum):
    RUNNING = "running"
    PENDING = "pending"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    UNKNOWN = "unknown"


class Trouble(StrEnum):
    """What is wrong with a pod, worst first; a pod has the first that fits."""

    CRASH_LOOP = "crash_loop"
    IMAGE_PULL_FAILED = "image_pull_failed"
    CONFIG_ERROR = "config_error"
    START_ERROR = "start_error"
    UNSCHEDULABLE = "unschedulable"
    SCHEDULING_GATED = "scheduling_gated"
    EVICTED = "evicted"
    POD_FAILED = "pod_failed"


_RANK = {trouble: rank for rank, trouble in enumerate(Trouble)}
_WAITING = {
    "CrashLoopBackOff": Trouble.CRASH_LOOP,
    "ImagePullBackOff": Trouble.IMAGE_PULL_FAILED,
    "ErrImagePull": Trouble.IMAGE_PULL_FAILED,
    "InvalidImageName": Trouble.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Trouble.IMAGE_PULL_FAILED,
    "ImageInspectError": Trouble.IMAGE_PULL_FAILED,
    "RegistryUnavailable": Trouble.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": Trouble.CONFIG_ERROR,
    "CreateContainerError": Trouble.START_ERROR,
    "RunContainerError": Trouble.START_ERROR,
    "PostStartHookError": Trouble.START_ERROR,
}
"""The kubelet's waiting reasons that mean trouble; ContainerCreating and PodInitializing do not."""
_PHASES = {phase.value.capitalize(): phase for phase in Phase}
_FUNCTION_LABELS = ("serving.knative.dev/service", "functionName")


class PodFacts(msgspec.Struct, frozen=True, gc=False):
    """One pod's contribution to the tallies; two pods with equal facts count the same.

    `cpu` millicores and `memory` bytes are the effective requests, 0 once the pod has ended; `node` is "" unless the
    pod holds room there. `cause` are the kubelet's words for `trouble`. `oom_at`: a container's last OOM kill.
    """

    phase: Phase
    terminating: bool
    ready: bool
    node: str
    cpu: int
    memory: int
    trouble: Trouble | None
    cause: str
    oom_at: datetime | None
    function: str


def phase_of(pod: Pod) -> Phase:
    return _PHASES.get(pod.status.phase, Phase.UNKNOWN)


def is_ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def effective_requests(pod: Pod) -> tuple[int, int]:
    """(cpu millicores, memory bytes) that the scheduler reserves.

    All containers and sidecars together, or the largest that an init container needs beside the sidecars started
    before it: https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    """
    cpu = memory = 0
    for container in pod.spec.containers:
        one = _requests(container)
        cpu, memory = cpu + one[0], memory + one[1]
    side_cpu = side_memory = peak_cpu = peak_memory = 0
    for container in pod.spec.init_containers:
        one = _requests(container)
        if container.restart_policy == "Always":
            side_cpu, side_memory = side_cpu + one[0], side_memory + one[1]
            peak_cpu, peak_memory = max(peak_cpu, side_cpu), max(peak_memory, side_memory)
        else:
            peak_cpu, peak_memory = max(peak_cpu, side_cpu + one[0]), max(peak_memory, side_memory + one[1])
    return max(cpu + side_cpu, peak_cpu), max(memory + side_memory, peak_memory)


def _requests(container: Container) -> tuple[int, int]:
    asked = container.resources.requests
    if not asked:
        return 0, 0
    cpu, memory = asked.get("cpu"), asked.get("memory")
    return (quantity_millicores(cpu) if cpu else 0), (quantity_bytes(memory) if memory else 0)


@lru_cache(maxsize=4096)
def quantity_millicores(text: str) -> int:
    """0 for what is no quantity: the API server admits none, so nothing is lost."""
    try:
        return millicores(text)
    except ValueError:
        return 0


@lru_cache(maxsize=4096)
def quantity_bytes(text: str) -> int:
    try:
        return whole(text)
    except ValueError:
        return 0


def facts_of(pod: Pod) -> PodFacts:
    phase = phase_of(pod)
    ended = phase in (Phase.FAILED, Phase.SUCCEEDED)
    cpu, memory = (0, 0) if ended else effective_requests(pod)
    terminating = pod.metadata.deletion_timestamp is not None
    trouble, cause = (None, "") if terminating else trouble_of(pod, phase)
    return PodFacts(
        phase=phase,
        terminating=terminating,
        ready=not ended and is_ready(pod),
        node="" if ended else pod.spec.node_name,
        cpu=cpu,
        memory=memory,
        trouble=trouble,
        cause=cause,
        oom_at=None if terminating else _last_oom(pod),
        function=_function(pod) if phase is Phase.RUNNING and not terminating else "",
    )


def trouble_of(pod: Pod, phase: Phase) -> tuple[Trouble | None, str]:
    """The pod's trouble and its cause in the kubelet's words, (None, "") where there is none."""
    if phase is Phase.FAILED:
        controller = pod.metadata.controller
        if controller is not None and controller.kind == "Job":
            return None, ""  # a Job retries: its own failure is the finding
        return (Trouble.EVICTED, "Evicted") if pod.status.reason == "Evicted" else (Trouble.POD_FAILED, _failure(pod))
    if phase is Phase.SUCCEEDED:
        return None, ""
    found: tuple[Trouble, str] | None = None
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        waiting = status.state.waiting
        trouble = _WAITING.get(waiting.reason) if waiting else None
        if waiting is not None and trouble is not None and (found is None or _RANK[trouble] < _RANK[found[0]]):
            found = trouble, _cause(status, waiting.reason)
    if found is not None:
        return found
    for condition in pod.status.conditions if phase is Phase.PENDING else ():
        if condition.type == "PodScheduled" and condition.status == "False":
            if condition.reason == "SchedulingGated":
                return Trouble.SCHEDULING_GATED, "SchedulingGated"
            return Trouble.UNSCHEDULABLE, _scheduler_says(condition)
    return None, ""


def _scheduler_says(condition: Condition) -> str:
    """`Unschedulable: 0/4 nodes are available: 3 Insufficient cpu`; what follows is about preemption."""
    reason = condition.reason or "Unschedulable"
    said = condition.message.partition(". ")[0].removesuffix(".")
    return f"{reason}: {said}" if said else reason


def _cause(status: ContainerStatus, reason: str) -> str:
    last = status.last_state.terminated
    return f"{reason}, last exit {_exit(last)}" if last is not None else reason


def _failure(pod: Pod) -> str:
    if pod.status.reason:
        return pod.status.reason
    ended = [s.state.terminated for s in pod.status.container_statuses if s.state.terminated is not None]
    bad = next((t for t in ended if t.exit_code != 0), None)
    return f"exit {_exit(bad)}" if bad is not None else "Failed"


def _exit(terminated: Terminated) -> str:
    return f"{terminated.exit_code} ({terminated.reason})" if terminated.reason else str(terminated.exit_code)


def _last_oom(pod: Pod) -> datetime | None:
    latest: datetime | None = None
    for status in pod.status.container_statuses:
        for state in (status.state, status.last_state):
            ended = state.terminated
            if ended is not None and ended.reason == "OOMKilled" and ended.finished_at is not None:
                latest = ended.finished_at if latest is None else max(latest, ended.finished_at)
    return latest


def _function(pod: Pod) -> str:
    for label in _FUNCTION_LABELS:
        name = pod.metadata.labels.get(label)
        if name:
            return f"{pod.metadata.namespace}/{name}"
    return ""
