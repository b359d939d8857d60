"""The service's own figures for /metrics, beyond what http counts: caches, watches, the audit's lag, the queue."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from opsapi.audit.recorder import AuditRecorder
from opsapi.operations.worker import Worker
from opsapi.workspaces.objects import KINDS
from opsapi.workspaces.ports import Clusters


class ServiceCollector(Collector):
    """Reads memory only; a scrape costs no call to a cluster or the database."""

    def __init__(self, clusters: Clusters, recorder: AuditRecorder, worker: Worker) -> None:
        self._clusters = clusters
        self._recorder = recorder
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        yield from self._caches()
        figures = self._recorder.figures()
        yield GaugeMetricFamily("opsapi_audit_lag_seconds", "Age of the oldest unwritten entry.", figures.lag_seconds)
        yield GaugeMetricFamily("opsapi_audit_waiting", "Audit entries that wait to be written.", figures.waiting)
        yield CounterMetricFamily("opsapi_audit_written", "Audit entries written behind answers.", figures.written)
        yield CounterMetricFamily("opsapi_audit_rejected", "Audit entries that went to the log.", figures.rejected)
        yield GaugeMetricFamily("opsapi_operations_running", "Operations that run in this process.", self._worker.busy)

    def _caches(self) -> Iterator[Metric]:
        objects = GaugeMetricFamily("opsapi_cache_objects", "Objects in the cache.", labels=["workspace", "kind"])
        age = GaugeMetricFamily(
            "opsapi_cache_age_seconds",
            "Since the kind was last known to equal the cluster.",
            labels=["workspace", "kind"],
        )
        restarts = CounterMetricFamily(
            "opsapi_watch_restarts", "Lists and watches begun again.", labels=["workspace", "kind"]
        )
        synced = GaugeMetricFamily(
            "opsapi_cache_state", "1 for the state that the kind is in.", labels=["workspace", "kind", "state"]
        )
        reachable = GaugeMetricFamily(
            "opsapi_cluster_reachable", "1 when the API server answers.", labels=["workspace"]
        )
        for cluster in self._clusters.all():
            workspace = cluster.workspace.id
            reachable.add_metric([workspace], 1 if cluster.state().reachable else 0)
            now = cluster.inventory.now()
            for kind in KINDS:
                state = cluster.inventory.state(kind)
                labels = [workspace, str(kind)]
                objects.add_metric(labels, state.objects)
                restarts.add_metric(labels, state.restarts)
                synced.add_metric([*labels, state.sync.value], 1)
                if state.observed_at is not None:
                    age.add_metric(labels, max(0.0, (now - state.observed_at).total_seconds()))
        yield from (objects, age, restarts, synced, reachable)
