"""The Prometheus exposition: what cAdvisor, kube-state-metrics and the services themselves tell, on one page."""

import math
from collections.abc import Iterable, Iterator

from opsapi.playground.registry import Obj, Registry
from opsapi.playground.scheduler.predicates import amount
from opsapi.playground.telemetry import kube_state
from opsapi.playground.telemetry.counters import BUCKETS, Counter, Counters
from opsapi.playground.telemetry.exposition import CONTENT_TYPE, Family, counter, gauge, line
from opsapi.playground.telemetry.observation import Instance, Observation

__all__ = ["CONTENT_TYPE", "Exposition", "line"]
_PERIODS = 10
"""Of the kernel's scheduler in a second: each 100 ms."""

_Read = list[tuple[Instance, Counter]]


class Exposition:
    def __init__(self, registry: Registry, observation: Observation, counters: Counters) -> None:
        self._registry = registry
        self._observation = observation
        self._counters = counters

    def text(self) -> str:
        return "\n".join(family.text() for family in self._families()) + "\n"

    def _families(self) -> Iterator[Family]:
        instances = [one for pod in self._registry.iterate("pods") for one in self._observation.running(pod)]
        read = [(one, self._counters.read(one)) for one in instances]
        alive = {(o.pod["metadata"]["uid"], o.spec["name"], o.status.get("containerID", "")) for o in instances}
        self._counters.forget_all_but(alive)
        yield from self._usage(read)
        yield from _throttling(read)
        yield from _requests(read)
        yield from kube_state.families(self._registry)

    def _usage(self, read: _Read) -> Iterator[Family]:
        """Of every container, and as cAdvisor does of every pod's own group, which has no container's name."""
        cpu = counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.")
        memory = gauge("container_memory_working_set_bytes", "Current working set in bytes.")
        limit = gauge("container_spec_memory_limit_bytes", "Memory limit of the container; 0 is none.")
        pods: dict[tuple[str, str], tuple[float, float]] = {}
        for one, counted in read:
            labels, used = {**_container_labels(one), "image": one.spec["image"]}, self._observation.measure(one).memory
            cpu.add(labels, counted.cpu_seconds)
            memory.add(labels, round(used))
            limit.add(labels, float(_limit(one, "memory") or 0))
            place = (one.pod["metadata"]["namespace"], one.pod["metadata"]["name"])
            seconds, held = pods.get(place, (0.0, 0.0))
            pods[place] = seconds + counted.cpu_seconds, held + used
        for (namespace, name), (seconds, held) in pods.items():
            labels = {"namespace": namespace, "pod": name, "container": "", "image": ""}
            cpu.add(labels, seconds)
            memory.add(labels, round(held))
        yield from (cpu, memory, limit)


def _throttling(read: _Read) -> Iterable[Family]:
    """Of containers with a CPU limit: only those have periods."""
    prefix = "container_cpu_cfs"
    periods = counter(f"{prefix}_periods_total", "Number of elapsed enforcement period intervals.")
    throttled = counter(f"{prefix}_throttled_periods_total", "Number of throttled period intervals.")
    seconds = counter(f"{prefix}_throttled_seconds_total", "Total time duration the container has been throttled.")
    for one, counted in read:
        if _limit(one, "cpu") is None:
            continue
        labels = {**_container_labels(one), "image": one.spec["image"]}
        periods.add(labels, math.floor((counted.at - one.started) * _PERIODS))
        throttled.add(labels, math.floor(counted.throttled_seconds * _PERIODS))
        seconds.add(labels, counted.throttled_seconds)
    return periods, throttled, seconds


def _requests(read: _Read) -> Iterable[Family]:
    """As an HTTP middleware counts them; the pod's labels are what a scrape would add."""
    totals = counter("http_requests_total", "Requests served, by status code.")
    durations = Family("http_request_duration_seconds", "histogram", "Time to serve a request.")
    for one, counted in read:
        if one.model.profile.traffic.rps <= 0:
            continue
        labels = _container_labels(one)
        totals.add({**labels, "code": "200"}, counted.requests - counted.failures)
        totals.add({**labels, "code": "500"}, counted.failures)
        for bound, count in zip(BUCKETS, counted.buckets, strict=True):
            durations.add({**labels, "le": f"{bound:g}"}, count, "_bucket")
        durations.add({**labels, "le": "+Inf"}, counted.requests, "_bucket")
        durations.add(labels, counted.duration_seconds, "_sum")
        durations.add(labels, counted.requests, "_count")
    return totals, durations


def _limit(one: Instance, resource: str) -> float | None:
    """Millicores or bytes."""
    limits: Obj = (one.spec.get("resources") or {}).get("limits") or {}
    return float(amount(resource, limits[resource])) if resource in limits else None


def _container_labels(one: Instance) -> dict[str, str]:
    meta = one.pod["metadata"]
    return {"namespace": meta["namespace"], "pod": meta["name"], "container": one.spec["name"]}
