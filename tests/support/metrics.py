"""Metrics from memory: what a test measures is what the product sees."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

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
from opsapi.telemetry.naming import is_pod_of

SOURCE = "fake"
T = TypeVar("T")


class Sample(NamedTuple):
    at: float
    cpu_millicores: float
    memory_bytes: int


class FakeMetrics:
    """Implements Metrics. `measure` adds a reading of a container; `serve` sets the traffic of a workload: several
    answers are given in turn, the last one again and again. `away` is a reason for which nothing is answered.
    A pod whose last reading is five minutes older than the newest of all is gone. `asked` lists the questions by name,
    in order."""

    def __init__(self, workspace_id: str = "ws-123") -> None:
        self.workspace_id = workspace_id
        self.away: str | None = None
        self.asked: list[str] = []
        self.throttled: dict[tuple[str, str, str], float] = {}
        """(namespace, pod, container) -> percent."""
        self.restarted: dict[tuple[str, str, str], int] = {}
        self._samples: dict[tuple[str, str, str], list[Sample]] = {}
        self._traffic: dict[tuple[str, str, str], list[Traffic | Unobserved]] = {}
        self._served_at: datetime | None = None

    def measure(
        self, pod: str, container: str, at: datetime, *, cpu: float, memory: int, namespace: str = "shop"
    ) -> None:
        samples = self._samples.setdefault((namespace, pod, container), [])
        samples.append(Sample(at.timestamp(), cpu, memory))
        samples.sort()

    def serve(
        self,
        workload: str,
        *answers: Traffic | Unobserved,
        at: datetime,
        namespace: str = "shop",
        kind: str = "Deployment",
    ) -> None:
        self._traffic[kind, namespace, workload] = list(answers)
        self._served_at = at

    async def usage_now(
        self, workspace_id: str, namespace: str, pods: Sequence[str]
    ) -> Answer[tuple[ContainerReading, ...]]:
        if refusal := self._refusal("usage_now", workspace_id):
            return refusal
        readings = tuple(
            ContainerReading(pod, container, last.cpu_millicores, last.memory_bytes, moment(last.at))
            for (held_in, pod, container), samples in sorted(self._samples.items())
            if held_in == namespace and pod in pods
            for last in samples[-1:]
            if last.at > self._newest() - 300
        )
        if not readings:
            return Unobserved("no pod was measured", SOURCE)
        missing = dict.fromkeys(sorted(set(pods) - {one.pod for one in readings}), "it was not measured")
        return Observed(readings, SOURCE, "usage_now", max(one.at for one in readings), missing)

    async def usage_history(self, workspace_id: str, workload: WorkloadSelector, span: Span) -> Answer[UsageHistory]:
        if refusal := self._refusal("usage_history", workspace_id):
            return refusal
        series = tuple(
            one
            for (held_in, pod, container), samples in sorted(self._samples.items())
            if held_in == workload.namespace and is_pod_of(workload, pod)
            for one in (_stepped(pod, container, samples, span),)
            if one.at
        )
        if not series:
            return Unobserved("no pod of the workload was measured", SOURCE)
        history = UsageHistory(series, moment(min(one.at[0] for one in series)), span.step)
        return Observed(history, SOURCE, "usage_history", moment(max(one.at[-1] for one in series)))

    async def throttling(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Throttling, ...]]:
        if refusal := self._refusal("throttling", workspace_id):
            return refusal
        found = tuple(Throttling(pod, name, held) for pod, name, held in _of(workload, self.throttled))
        return self._answer("throttling", found, at)

    async def restarts(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Restarts, ...]]:
        if refusal := self._refusal("restarts", workspace_id):
            return refusal
        found = tuple(Restarts(pod, name, held) for pod, name, held in _of(workload, self.restarted))
        return self._answer("restarts", found, at)

    async def traffic(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[Traffic]:
        if refusal := self._refusal("traffic", workspace_id):
            return refusal
        answers = self._traffic.get((workload.kind, workload.namespace, workload.name))
        if not answers:
            return Unobserved("no request of the workload was counted", SOURCE)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Unobserved):
            return answer
        assert self._served_at is not None
        fields = ("error_rate", "latency_p50_ms", "latency_p95_ms")
        missing = {field: "there was no request" for field in fields if getattr(answer, field) is None}
        return Observed(answer, SOURCE, "traffic", at or self._served_at, missing)

    def _refusal(self, question: str, workspace_id: str) -> Unobserved | None:
        self.asked.append(question)
        if self.away is not None:
            return Unobserved(self.away, SOURCE)
        if workspace_id != self.workspace_id:
            return Unobserved("the workspace is not measured", SOURCE)
        return None

    def _answer(self, question: str, found: tuple[T, ...], at: datetime | None) -> Answer[tuple[T, ...]]:
        if not found:
            return Unobserved("no container of the workload was measured", SOURCE)
        return Observed(found, SOURCE, question, at or moment(self._newest()))

    def _newest(self) -> float:
        return max((samples[-1].at for samples in self._samples.values()), default=0.0)


def _of(workload: WorkloadSelector, held: dict[tuple[str, str, str], T]) -> list[tuple[str, str, T]]:
    return [
        (pod, container, value)
        for (namespace, pod, container), value in sorted(held.items())
        if namespace == workload.namespace and is_pod_of(workload, pod)
    ]


def _stepped(pod: str, container: str, samples: list[Sample], span: Span) -> ContainerSeries:
    """The mean of CPU and the peak of memory in the step that ends at each moment."""
    width = span.step.total_seconds()
    rows = [(at, [one for one in samples if at - width < one.at <= at]) for at in span.moments()]
    full = [(at, inside) for at, inside in rows if inside]
    return ContainerSeries(
        pod,
        container,
        tuple(at for at, _ in full),
        tuple(sum(one.cpu_millicores for one in inside) / len(inside) for _, inside in full),
        tuple(max(one.memory_bytes for one in inside) for _, inside in full),
    )
