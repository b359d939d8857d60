"""The service's own metrics for /metrics, in a registry of their own.

Requests are counted in plain integers on the event loop and turned into Prometheus' families only when scraped.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
RECENT = 1000
"""Requests that the mean response time is over."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Latency:
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0


class RequestMetrics(Collector):
    """Endpoint names come from declarations and statuses from us, so callers cannot make new series."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._requests: dict[tuple[str, str, int], int] = {}
        self._refusals: dict[tuple[str, str], int] = {}
        self._latencies: dict[str, _Latency] = {}

    def observe(self, endpoint: str, method: str, status: int, code: str | None, seconds: float) -> None:
        key = (endpoint, method if method in _METHODS else "OTHER", status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._recent.append(seconds)
        latency = self._latencies.get(endpoint)
        if latency is None:
            latency = self._latencies[endpoint] = _Latency()
        latency.counts[bisect_left(BUCKETS, seconds)] += 1
        latency.sum += seconds
        if code is not None:
            refusal = (endpoint, code)
            self._refusals[refusal] = self._refusals.get(refusal, 0) + 1

    def response_time_ms(self) -> float | None:
        """The mean time to answer over the last requests; None before the first."""
        return round(sum(self._recent) / len(self._recent) * 1000, 3) if self._recent else None

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "opsapi_http_requests", "Answered requests.", labels=["endpoint", "method", "status"]
        )
        for (endpoint, method, status), number in self._requests.items():
            requests.add_metric([endpoint, method, str(status)], number)
        yield requests
        refusals = CounterMetricFamily("opsapi_http_refusals", "Error answers by code.", labels=["endpoint", "code"])
        for (endpoint, code), number in self._refusals.items():
            refusals.add_metric([endpoint, code], number)
        yield refusals
        durations = HistogramMetricFamily(
            "opsapi_http_request_duration_seconds",
            "From the first byte of the head to the answer.",
            labels=["endpoint"],
        )
        for endpoint, latency in self._latencies.items():
            durations.add_metric([endpoint], _cumulative(latency.counts), latency.sum)
        yield durations
        yield GaugeMetricFamily("opsapi_http_requests_in_flight", "Requests being served.", value=self.in_flight)


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    buckets = []
    for bound, number in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        total += number
        buckets.append((bound, float(total)))
    return buckets


def registry_of(requests: RequestMetrics, others: Iterable[Collector]) -> CollectorRegistry:
    """`others` is what wiring adds: cache age and size, watch restarts, audit lag."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(requests)
    for other in others:
        registry.register(other)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    return generate_latest(registry)
