"""Where metrics come from: each workspace's Prometheus where one is configured, then metrics.k8s.io."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.metrics import KubernetesMetrics
from opsapi.adapters.metrics.prometheus import PrometheusMetrics
from opsapi.settings.model import Settings
from opsapi.telemetry.ports import Metrics
from opsapi.telemetry.sources import MetricsSources


@asynccontextmanager
async def joined_metrics(settings: Settings, clusters: KubernetesClusters) -> AsyncIterator[Metrics]:
    prometheus = PrometheusMetrics({one.id: one.metrics for one in settings.workspaces if one.metrics is not None})
    try:
        yield MetricsSources(prometheus, KubernetesMetrics(clusters))
    finally:
        await prometheus.close()
