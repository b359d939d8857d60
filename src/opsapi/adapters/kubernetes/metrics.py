"""Implements the metrics port on metrics.k8s.io: CPU and memory, now and as far back as the process remembers."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.recollection import KEPT
from opsapi.kit.clock import rfc3339
from opsapi.telemetry.model import (
    Answer,
    ContainerReading,
    Observed,
    Restarts,
    Span,
    Throttling,
    Traffic,
    Unobserved,
    UsageHistory,
    WorkloadSelector,
    moment,
)

SOURCE = "metrics.k8s.io"
_QUERY = "GET /apis/metrics.k8s.io/v1beta1/pods"
_NO_READING = "it has no reading of the pod"
_ONLY_USAGE = Unobserved("it tells CPU and memory only", SOURCE)


class KubernetesMetrics:
    """Implements Metrics for every workspace that is followed."""

    def __init__(self, clusters: KubernetesClusters) -> None:
        self._clusters = clusters

    async def usage_now(
        self, workspace_id: str, namespace: str, pods: Sequence[str]
    ) -> Answer[tuple[ContainerReading, ...]]:
        cluster = self._clusters.find(workspace_id)
        if cluster is None:
            return Unobserved("the workspace is not followed", SOURCE)
        snapshot = cluster.usage()
        if snapshot.pods is None:
            return Unobserved(snapshot.reason or "it has not been read yet", SOURCE)
        held = {pod: snapshot.pods.get((namespace, pod)) for pod in sorted(set(pods))}
        readings = tuple(
            ContainerReading(pod, container, figures.cpu_millicores, figures.memory_bytes, usage.at)
            for pod, usage in held.items()
            if usage is not None
            for container, figures in sorted(usage.containers.items())
        )
        if not readings:
            return Unobserved("it has no reading of these pods", SOURCE)
        missing = {pod: _NO_READING for pod, usage in held.items() if usage is None}
        return Observed(readings, SOURCE, _QUERY, max(one.at for one in readings), missing)

    async def usage_history(self, workspace_id: str, workload: WorkloadSelector, span: Span) -> Answer[UsageHistory]:
        cluster = self._clusters.find(workspace_id)
        if cluster is None:
            return Unobserved("the workspace is not followed", SOURCE)
        memory = cluster.recollection
        if memory.since is None:
            return Unobserved(cluster.usage().reason or "it has not been read yet", SOURCE)
        series = memory.series(workload, span)
        if not series:
            why = "there is no room to remember more containers" if memory.overflowing else "no reading of its pods"
            return Unobserved(f"{why} since {rfc3339(memory.since)}", SOURCE)
        newest = moment(max(one.at[-1] for one in series))
        first = moment(min(one.at[0] for one in series))
        missing = _forgotten(memory.since, newest, span)
        if memory.overflowing:
            missing["series"] = "there is no room to remember more containers"
        return Observed(UsageHistory(series, first, span.step), SOURCE, _QUERY, newest, missing)

    async def throttling(
        self,
        workspace_id: str,  # noqa: ARG002
        workload: WorkloadSelector,  # noqa: ARG002
        window: timedelta,  # noqa: ARG002
        at: datetime | None = None,  # noqa: ARG002
    ) -> Answer[tuple[Throttling, ...]]:
        return _ONLY_USAGE

    async def restarts(
        self,
        workspace_id: str,  # noqa: ARG002
        workload: WorkloadSelector,  # noqa: ARG002
        window: timedelta,  # noqa: ARG002
        at: datetime | None = None,  # noqa: ARG002
    ) -> Answer[tuple[Restarts, ...]]:
        return _ONLY_USAGE

    async def traffic(
        self,
        workspace_id: str,  # noqa: ARG002
        workload: WorkloadSelector,  # noqa: ARG002
        window: timedelta,  # noqa: ARG002
        at: datetime | None = None,  # noqa: ARG002
    ) -> Answer[Traffic]:
        return _ONLY_USAGE


def _forgotten(since: datetime, newest: datetime, span: Span) -> dict[str, str]:
    """Why a history begins later than it was asked for."""
    if span.since < newest - KEPT:
        return {"since": f"readings are kept in memory for {KEPT // timedelta(hours=1)} hours"}
    if span.since < since - span.step:
        return {"since": f"readings are kept in memory, since this process began with them at {rfc3339(since)}"}
    return {}
