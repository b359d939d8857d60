"""Counters that only grow: the behaviour's rates integrated from a container's start, when someone looks."""

import math
from dataclasses import dataclass, field

from opsapi.playground.clock import SimClock
from opsapi.playground.telemetry.observation import Instance, Observation

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds, Prometheus' defaults; +Inf is the count."""

_MOST_STEPS = 60
_P99 = 2.3263478740408408
"""The 99 % quantile of the standard normal distribution."""


@dataclass(slots=True)
class Counter:
    """Totals of one container's run up to the clock's reading `at`."""

    at: float
    cpu_seconds: float = 0.0
    throttled_seconds: float = 0.0
    requests: float = 0.0
    failures: float = 0.0
    duration_seconds: float = 0.0
    buckets: list[float] = field(default_factory=lambda: [0.0] * len(BUCKETS))


def share_below(bound_ms: float, p50: float, p99: float) -> float:
    """The share of requests faster than `bound_ms`, of a log-normal with these quantiles."""
    sigma = math.log(max(p99, p50 * 1.0001) / p50) / _P99
    return 0.5 * (1 + math.erf(math.log(bound_ms / p50) / (sigma * math.sqrt(2))))


def mean_ms(p50: float, p99: float) -> float:
    sigma = math.log(max(p99, p50 * 1.0001) / p50) / _P99
    return p50 * math.exp(sigma * sigma / 2)


class Counters:
    def __init__(self, clock: SimClock, observation: Observation) -> None:
        self._clock = clock
        self._observation = observation
        self._known: dict[tuple[str, str, str], Counter] = {}

    def read(self, one: Instance) -> Counter:
        """The run's counters now. A restarted container starts from 0, as the kernel's do."""
        key = (one.pod["metadata"]["uid"], one.spec["name"], one.status.get("containerID", ""))
        counter = self._known.get(key)
        if counter is None:
            counter = self._known[key] = Counter(one.started)
        self._integrate(one, counter)
        return counter

    def forget_all_but(self, alive: set[tuple[str, str, str]]) -> None:
        for key in [key for key in self._known if key not in alive]:
            del self._known[key]

    def _integrate(self, one: Instance, counter: Counter) -> None:
        now = self._clock.monotonic()
        span = now - counter.at
        if span <= 0:
            return
        steps = max(1, min(_MOST_STEPS, math.ceil(span / 15)))
        width = span / steps
        for step in range(steps):
            figures = self._observation.measure(one, counter.at + width * (step + 0.5))
            counter.cpu_seconds += figures.cpu / 1000 * width
            counter.throttled_seconds += figures.throttled * width
            served = figures.rps * width
            counter.requests += served
            counter.failures += served * figures.error_rate
            if served:
                counter.duration_seconds += served * mean_ms(figures.p50, figures.p99) / 1000
                for index, bound in enumerate(BUCKETS):
                    counter.buckets[index] += served * share_below(bound * 1000, figures.p50, figures.p99)
        counter.at = now
