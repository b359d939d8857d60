"""The pods of one application: which they are, how they fare, what they use."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec import UNSET

from opsapi.applications.details_model import Checks, MetricsView, PodView
from opsapi.kit.duration import format_age
from opsapi.kit.quantity import percentage
from opsapi.workspaces.objects import (
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    POD,
    REPLICA_SET,
    Container,
    Job,
    Kind,
    Pod,
    Workload,
)
from opsapi.workspaces.pods import Phase, is_ready, phase_of, quantity_bytes, quantity_millicores, trouble_of
from opsapi.workspaces.ports import Inventory, PodUsage, UsageSnapshot

MEBIBYTE = 2**20
LIVENESS_WINDOW = timedelta(minutes=5)
"""How long a failed liveness probe counts as failing after the kubelet last reported it."""
_ORDER = {
    Phase.FAILED: 1,
    Phase.UNKNOWN: 2,
    Phase.PENDING: 3,
    Phase.RUNNING: 4,
    Phase.SUCCEEDED: 5,
}


def pods_of(inventory: Inventory, kind: Kind, uid: str) -> list[Pod]:
    """Through the controllers between: ReplicaSets of a Deployment, Jobs of a CronJob."""
    between: Sequence[Workload | Job]
    if kind == DEPLOYMENT:
        between = inventory.owned_by(uid, REPLICA_SET, Workload)
    elif kind == CRON_JOB:
        between = inventory.owned_by(uid, JOB, Job)
    else:
        return list(inventory.owned_by(uid, POD, Pod))
    return [pod for one in between for pod in inventory.owned_by(one.metadata.uid, POD, Pod)]


def living(pods: Sequence[Pod]) -> list[Pod]:
    """Without those that have ended."""
    return [pod for pod in pods if phase_of(pod) not in (Phase.FAILED, Phase.SUCCEEDED)]


def usage_of(pod: Pod, snapshot: UsageSnapshot) -> PodUsage | None:
    return snapshot.pods.get((pod.metadata.namespace, pod.metadata.name)) if snapshot.pods is not None else None


def worst_first(pods: Sequence[Pod]) -> list[Pod]:
    """In trouble, then not ready, then by restarts; by name among equals."""

    def rank(pod: Pod) -> tuple[int, int, int, str]:
        phase = phase_of(pod)
        trouble, _ = trouble_of(pod, phase)
        order = 0 if trouble is not None else _ORDER[phase]
        return order, int(is_ready(pod)), -restarts_of(pod), pod.metadata.name

    return sorted(pods, key=rank)


def restarts_of(pod: Pod) -> int:
    return sum(status.restart_count for status in pod.status.container_statuses)


def pod_view(pod: Pod, usage: PodUsage | None, now: datetime) -> PodView:
    phase = phase_of(pod)
    _, cause = trouble_of(pod, phase)
    created = pod.metadata.creation_timestamp
    terminating = pod.metadata.deletion_timestamp is not None
    return PodView(
        name=pod.metadata.name,
        status="terminating" if terminating else phase.value,
        ready=is_ready(pod),
        node=pod.spec.node_name or None,
        cpu_usage=round(usage.cpu_millicores, 1) if usage is not None else None,
        memory_usage=round(usage.memory_bytes / MEBIBYTE) if usage is not None else None,
        restarts=restarts_of(pod),
        age=format_age(now - created) if created is not None else None,
        reason=cause or UNSET,
    )


def readiness_checks(pods: Sequence[Pod]) -> Checks | None:
    """None where no container has a readiness probe. Passing: every container that has one is ready."""
    return _checks(pods, lambda c: c.readiness_probe is not None, _ready)


def liveness_checks(pods: Sequence[Pod], failed_at: Callable[[str], datetime | None], now: datetime) -> Checks | None:
    """None where no container has a liveness probe. Passing: every container that has one runs, and the kubelet has
    reported no failed probe of the pod for five minutes."""

    def passes(pod: Pod, names: set[str]) -> bool:
        last = failed_at(pod.metadata.uid)
        if last is not None and now - last < LIVENESS_WINDOW:
            return False
        running = {status.name for status in pod.status.container_statuses if status.state.running is not None}
        return names <= running

    return _checks(pods, lambda c: c.liveness_probe is not None, passes)


def _checks(
    pods: Sequence[Pod], probed: Callable[[Container], bool], passes: Callable[[Pod, set[str]], bool]
) -> Checks | None:
    passing = failing = 0
    for pod in living(pods):
        names = {container.name for container in pod.spec.containers if probed(container)}
        if not names:
            continue
        if passes(pod, names):
            passing += 1
        else:
            failing += 1
    return Checks(passing=passing, failing=failing) if passing + failing else None


def _ready(pod: Pod, names: set[str]) -> bool:
    return names <= {status.name for status in pod.status.container_statuses if status.ready}


class _Share(msgspec.Struct):
    used: float = 0.0
    bound: int = 0

    @property
    def percentage(self) -> float | None:
        return percentage(self.used, self.bound)


def usage_metrics(pods: Sequence[Pod], snapshot: UsageSnapshot) -> tuple[MetricsView, dict[str, str]]:
    """Usage against requests and limits over measured pods, and why a figure is null (by field).

    A container without the request or limit counts on neither side of that percentage.
    """
    shares = {(base, name): _Share() for base in ("request", "limit") for name in ("cpu", "memory")}
    measured = 0
    for pod in pods:
        usage = usage_of(pod, snapshot)
        if usage is None:
            continue
        measured += 1
        for container in pod.spec.containers:
            used = usage.containers.get(container.name)
            if used is None:
                continue
            bases = (("request", container.resources.requests), ("limit", container.resources.limits))
            for base, quantities in bases:
                if "cpu" in quantities:
                    share = shares[(base, "cpu")]
                    share.used += used.cpu_millicores
                    share.bound += quantity_millicores(quantities["cpu"])
                if "memory" in quantities:
                    share = shares[(base, "memory")]
                    share.used += used.memory_bytes
                    share.bound += quantity_bytes(quantities["memory"])
    fields = {
        "cpu_usage_percentage": ("request", "cpu"),
        "memory_usage_percentage": ("limit", "memory"),
        "cpu_usage_percentage_of_limit": ("limit", "cpu"),
        "memory_usage_percentage_of_request": ("request", "memory"),
    }
    figures = {field: shares[key].percentage for field, key in fields.items()}
    reasons = {
        field: f"no measured container sets a {fields[field][1]} {fields[field][0]}"
        if measured
        else snapshot.reason or "none of its pods was measured"
        for field, figure in figures.items()
        if figure is None
    }
    return MetricsView(request_rate=None, error_rate=None, response_time_p95=None, **figures), reasons
