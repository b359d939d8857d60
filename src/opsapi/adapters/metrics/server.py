"""What one server of the Prometheus HTTP API answers to the port's questions."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from opsapi.adapters.metrics.client import Labels, PrometheusClient, Result, Sample, Series
from opsapi.adapters.metrics.queries import Queries, any_of
from opsapi.telemetry.model import (
    Answer,
    ContainerReading,
    ContainerSeries,
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
from opsapi.telemetry.naming import is_pod_of, pods_pattern
from opsapi.telemetry.quantiles import BeyondBuckets, quantile
from opsapi.telemetry.settings import CountedBy, MetricsSettings

SOURCE = "prometheus"


class _Place(NamedTuple):
    pod: str
    container: str


class PrometheusServer:
    """Raises Failed where the server does not answer.

    A rate looks back over at least four scrapes, so a window that is shorter is answered by a longer one: the query
    tells which.
    """

    def __init__(self, settings: MetricsSettings, client: PrometheusClient | None = None) -> None:
        self._client = client or PrometheusClient(settings)
        self._queries = Queries(settings)

    async def close(self) -> None:
        await self._client.close()

    async def usage_now(self, namespace: str, pods: Sequence[str]) -> Answer[tuple[ContainerReading, ...]]:
        wanted = set(pods)
        asked = self._queries
        queries = (
            asked.cpu(namespace, any_of(pods), timedelta(0)),
            asked.memory(namespace, any_of(pods)),
            asked.read_at(namespace, any_of(pods)),
        )
        if not wanted:
            return _nothing("no pod was asked about")
        cpu, memory, at = await self._instants(queries, None)
        millicores, held, read = (self._placed(one.rows) for one in (cpu, memory, at))
        found = sorted(place for place in millicores | held if place.pod in wanted)
        if not found:
            return _nothing("it has no series of these pods")
        readings, missing = [], dict.fromkeys(sorted(wanted - {place.pod for place in found}), "it has no series of it")
        for place in found:
            one = ContainerReading(
                *place,
                _value(millicores.get(place)),
                _whole(held.get(place)),
                _read_at(read.get(place), millicores, place),
            )
            readings.append(one)
            for field in ("cpu_millicores", "memory_bytes"):
                if getattr(one, field) is None:
                    missing[f"{place.pod}/{place.container}.{field}"] = "it has too few samples"
        newest = max(one.at for one in readings)
        return Observed(tuple(readings), SOURCE, "\n".join(queries), newest, missing, _said(cpu, memory, at))

    async def usage_history(self, workload: WorkloadSelector, span: Span) -> Answer[UsageHistory]:
        pods = pods_pattern(workload)
        cpu_query = self._queries.cpu(workload.namespace, pods, span.step)
        memory_query = self._queries.memory_peak(workload.namespace, pods, span.step)
        cpu, memory = await asyncio.gather(self._client.range(cpu_query, span), self._client.range(memory_query, span))
        millicores, held = self._columns(workload, cpu), self._columns(workload, memory)
        series = tuple(
            _joined(place, millicores.get(place, {}), held.get(place, {})) for place in sorted(millicores | held)
        )
        if not series:
            return _nothing("it has no series of the workload's pods in this time")
        history = UsageHistory(series, moment(min(one.at[0] for one in series)), span.step)
        newest = moment(max(one.at[-1] for one in series))
        return Observed(history, SOURCE, f"{cpu_query}\n{memory_query}", newest, warnings=_said(cpu, memory))

    async def throttling(
        self, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Throttling, ...]]:
        query = self._queries.throttling(workload, window)
        found = await self._of_containers(workload, query, at)
        if isinstance(found, Unobserved):
            return found
        # Two counters are read one after the other: their ratio may exceed the whole by a hair.
        figures = tuple(Throttling(*place, min(100.0, one.value)) for place, one in found.figures)
        return Observed(figures, SOURCE, query, found.observed_at, warnings=found.warnings)

    async def restarts(
        self, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Restarts, ...]]:
        query = self._queries.restarts(workload, window)
        found = await self._of_containers(workload, query, at)
        if isinstance(found, Unobserved):
            return found
        figures = tuple(Restarts(*place, round(one.value)) for place, one in found.figures)
        return Observed(figures, SOURCE, query, found.observed_at, warnings=found.warnings)

    async def traffic(
        self, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[Traffic]:
        asked = self._queries
        if asked.http.counted_by is CountedBy.SERVICE and not workload.services:
            return _nothing("requests are counted by Service, and none selects the workload's pods")
        queries = (
            asked.request_rate(workload, window),
            asked.coded_rate(workload, window),
            asked.error_rate(workload, window),
            asked.bucket_rates(workload, window),
            asked.counted_at(workload, window),
        )
        results = await self._instants(queries, at)
        rate, coded, errors, buckets, newest = results
        if not rate.rows:
            return _nothing("it has no series of requests to the workload in this time")
        missing: dict[str, str] = {}
        total = rate.rows[0].value
        figures = Traffic(
            request_rate=total,
            error_rate=_error_rate(_only(coded), _only(errors), missing, asked.http.code),
            latency_p50_ms=self._latency(0.5, buckets, "latency_p50_ms", missing),
            latency_p95_ms=self._latency(0.95, buckets, "latency_p95_ms", missing),
        )
        if total == 0:
            missing.update(dict.fromkeys(("error_rate", "latency_p50_ms", "latency_p95_ms"), "there was no request"))
        seen = _only(newest)
        observed_at = moment(seen if seen is not None and 0 <= seen <= rate.rows[0].at else rate.rows[0].at)
        return Observed(figures, SOURCE, "\n".join(queries), observed_at, missing, _said(*results))

    def _latency(self, share: float, buckets: Result[Sample], field: str, missing: dict[str, str]) -> float | None:
        by_bound: dict[float, float] = {}
        for row in buckets.rows:
            try:
                by_bound[float(row.labels.get("le", ""))] = row.value
            except ValueError:
                continue
        to_ms = self._queries.http.to_ms
        try:
            found = quantile(share, by_bound)
        except BeyondBuckets as beyond:
            missing[field] = f"it lies beyond the histogram's last bound, {beyond.bound * to_ms:g} ms"
            return None
        if found is None:
            missing[field] = f"{self._queries.http.buckets} has no observation in this time"
            return None
        return found * to_ms

    async def _instants(self, queries: Sequence[str], at: datetime | None) -> list[Result[Sample]]:
        return list(await asyncio.gather(*(self._client.instant(query, at) for query in queries)))

    async def _of_containers(
        self, workload: WorkloadSelector, query: str, at: datetime | None
    ) -> Answer[list[tuple[_Place, Sample]]]:
        result = await self._client.instant(query, at)
        placed = self._placed(result.rows)
        found = [(place, placed[place]) for place in sorted(placed) if is_pod_of(workload, place.pod)]
        if not found:
            return _nothing("it has no series of the workload's containers in this time")
        newest = moment(max(one.at for _, one in found))
        return Observed(found, SOURCE, query, newest, warnings=result.warnings)

    def _placed(self, rows: Iterable[Sample]) -> dict[_Place, Sample]:
        return {place: row for row in rows if (place := self._place(row.labels)) is not None}

    def _place(self, labels: Labels) -> _Place | None:
        names = self._queries.names
        pod, container = labels.get(names.pod), labels.get(names.container)
        return _Place(pod, container) if pod and container else None

    def _columns(self, workload: WorkloadSelector, result: Result[Series]) -> dict[_Place, dict[float, float]]:
        """Only pods that the workload could have made: a server that answers more than was asked is not believed."""
        return {
            place: dict(row.points)
            for row in result.rows
            if (place := self._place(row.labels)) is not None and is_pod_of(workload, place.pod)
        }


def _nothing(reason: str) -> Unobserved:
    return Unobserved(reason, SOURCE)


def _only(result: Result[Sample]) -> float | None:
    return result.rows[0].value if result.rows else None


def _error_rate(coded: float | None, errors: float | None, missing: dict[str, str], label: str) -> float | None:
    """Percent. A code that never occurred has no series: where others have, that is an observed 0."""
    if coded is None:
        missing["error_rate"] = f"the requests carry no label {label}"
        return None
    if coded <= 0:
        missing["error_rate"] = "there was no request"
        return None
    return min(100.0, 100 * (errors or 0.0) / coded)


def _value(sample: Sample | None) -> float | None:
    return None if sample is None else sample.value


def _whole(sample: Sample | None) -> int | None:
    return None if sample is None else round(sample.value)


def _read_at(read: Sample | None, cpu: dict[_Place, Sample], place: _Place) -> datetime:
    """The working set's own moment; of a container without one, that of the rate's window."""
    if read is None:
        return moment(cpu[place].at)
    return moment(read.value if 0 <= read.value <= read.at else read.at)


def _joined(place: _Place, cpu: dict[float, float], memory: dict[float, float]) -> ContainerSeries:
    at = sorted(cpu.keys() | memory.keys())
    held = (memory.get(one, math.nan) for one in at)
    return ContainerSeries(
        place.pod,
        place.container,
        tuple(at),
        tuple(cpu.get(one) for one in at),
        tuple(None if math.isnan(one) else round(one) for one in held),
    )


def _said(*results: Result[Sample] | Result[Series]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for one in results for text in one.warnings))
