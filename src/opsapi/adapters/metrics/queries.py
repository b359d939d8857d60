"""The queries behind each question of the port, for one server's names."""

import re
from collections.abc import Sequence
from datetime import timedelta

from opsapi.adapters.metrics.presets import http_metrics
from opsapi.adapters.metrics.promql import Matcher, duration, equal, selector
from opsapi.telemetry.model import WorkloadSelector
from opsapi.telemetry.naming import pods_pattern
from opsapi.telemetry.settings import CountedBy, MetricsSettings

_SCRAPES = 4
"""A rate over fewer scrapes than this is undone by one that is missed (Grafana's $__rate_interval)."""


class Queries:
    def __init__(self, settings: MetricsSettings) -> None:
        self.names = settings.containers
        self.http = http_metrics(settings)
        self._everywhere = equal(settings.matchers)
        self._scrape = timedelta(seconds=settings.scrape_interval_seconds)
        self._by = f"by ({self.names.pod}, {self.names.container})"

    def looking_back(self, step: timedelta) -> timedelta:
        """At least the step, and enough scrapes for a rate."""
        return max(step, _SCRAPES * self._scrape)

    # Usage. cAdvisor also has series of whole pods (no container) and of the sandbox (POD).

    def cpu(self, namespace: str, pods: str, window: timedelta) -> str:
        """Millicores. `pods` is a regular expression, here and below."""
        held = self._containers(self.names.cpu, namespace, pods)
        return f"1000 * sum {self._by} (rate({held}[{duration(self.looking_back(window))}]))"

    def memory(self, namespace: str, pods: str) -> str:
        return f"max {self._by} ({self._containers(self.names.memory, namespace, pods)})"

    def memory_peak(self, namespace: str, pods: str, window: timedelta) -> str:
        held = self._containers(self.names.memory, namespace, pods)
        return f"max {self._by} (max_over_time({held}[{duration(max(window, 2 * self._scrape))}]))"

    def read_at(self, namespace: str, pods: str) -> str:
        """When the working set was read: an instant query's own time is that of the question."""
        return f"max {self._by} (timestamp({self._containers(self.names.memory, namespace, pods)}))"

    def throttling(self, workload: WorkloadSelector, window: timedelta) -> str:
        pods, back = pods_pattern(workload), duration(self.looking_back(window))
        throttled = self._containers(self.names.throttled, workload.namespace, pods)
        periods = self._containers(self.names.periods, workload.namespace, pods)
        return f"100 * sum {self._by} (increase({throttled}[{back}])) / sum {self._by} (increase({periods}[{back}]))"

    def restarts(self, workload: WorkloadSelector, window: timedelta) -> str:
        """`increase` would extrapolate; the counter is a pod's own and only grows."""
        held = self._containers(self.names.restarts, workload.namespace, pods_pattern(workload))
        back = duration(self.looking_back(window))
        return f"sum {self._by} (max_over_time({held}[{back}]) - min_over_time({held}[{back}]))"

    def _containers(self, metric: str, namespace: str, pods: str) -> str:
        names = self.names
        return selector(
            metric,
            (
                Matcher(names.namespace, "=", namespace),
                Matcher(names.pod, "=~", pods),
                Matcher(names.container, "!~", "|POD"),
                *self._everywhere,
            ),
        )

    # Traffic.

    def request_rate(self, workload: WorkloadSelector, window: timedelta) -> str:
        return self._rate(self.http.requests, workload, window)

    def coded_rate(self, workload: WorkloadSelector, window: timedelta) -> str:
        """Requests whose status code is known: without any, nothing is said about errors."""
        return self._rate(self.http.requests, workload, window, Matcher(self.http.code, "!=", ""))

    def error_rate(self, workload: WorkloadSelector, window: timedelta) -> str:
        return self._rate(self.http.requests, workload, window, Matcher(self.http.code, "=~", "5.."))

    def bucket_rates(self, workload: WorkloadSelector, window: timedelta) -> str:
        held = selector(self.http.buckets, self._requests_of(workload))
        return f"sum by (le) (rate({held}[{duration(self.looking_back(window))}]))"

    def counted_at(self, workload: WorkloadSelector, window: timedelta) -> str:
        """When the newest sample within the window was taken; a subquery alone would only look at whole steps."""
        held = selector(self.http.requests, self._requests_of(workload))
        back = duration(self.looking_back(window))
        earlier = f"max_over_time(timestamp({held})[{back}:{duration(self._scrape)}])"
        return f"max(timestamp({held}) or {earlier})"

    def _rate(self, metric: str, workload: WorkloadSelector, window: timedelta, *more: Matcher) -> str:
        held = selector(metric, (*self._requests_of(workload), *more))
        return f"sum(rate({held}[{duration(self.looking_back(window))}]))"

    def _requests_of(self, workload: WorkloadSelector) -> Sequence[Matcher]:
        http = self.http
        match http.counted_by:
            case CountedBy.POD:
                whose = Matcher(http.name, "=~", pods_pattern(workload))
            case CountedBy.WORKLOAD:
                whose = Matcher(http.name, "=", workload.name)
            case CountedBy.SERVICE:
                whose = Matcher(http.name, "=~", any_of(workload.services))
        return (Matcher(http.namespace, "=", workload.namespace), whose, *http.only, *self._everywhere)


def any_of(names: Sequence[str]) -> str:
    """A regular expression that matches just these names."""
    return "|".join(map(re.escape, names))
