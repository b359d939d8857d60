"""Which source answers: the first that has figures, the richest asked first; an answer says who gave it."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from opsapi.telemetry.model import (
    Answer,
    ContainerReading,
    Restarts,
    Span,
    Throttling,
    Traffic,
    Unobserved,
    UsageHistory,
    WorkloadSelector,
)
from opsapi.telemetry.ports import Metrics

T = TypeVar("T")
NO_SOURCE = "no source of metrics is connected"


class MetricsSources:
    """Implements Metrics over others, asked in order. Without any, every answer is that nothing measures."""

    def __init__(self, *sources: Metrics) -> None:
        self._sources = sources

    async def usage_now(
        self, workspace_id: str, namespace: str, pods: Sequence[str]
    ) -> Answer[tuple[ContainerReading, ...]]:
        return await self._first(lambda one: one.usage_now(workspace_id, namespace, pods))

    async def usage_history(self, workspace_id: str, workload: WorkloadSelector, span: Span) -> Answer[UsageHistory]:
        return await self._first(lambda one: one.usage_history(workspace_id, workload, span))

    async def throttling(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Throttling, ...]]:
        return await self._first(lambda one: one.throttling(workspace_id, workload, window, at))

    async def restarts(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Restarts, ...]]:
        return await self._first(lambda one: one.restarts(workspace_id, workload, window, at))

    async def traffic(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[Traffic]:
        return await self._first(lambda one: one.traffic(workspace_id, workload, window, at))

    async def _first(self, ask: Callable[[Metrics], Awaitable[Answer[T]]]) -> Answer[T]:
        """Where none has figures, all their reasons, each by its source's name."""
        reasons: list[str] = []
        for source in self._sources:
            answer = await ask(source)
            if not isinstance(answer, Unobserved):
                return answer
            reasons.append(f"{answer.source}: {answer.reason}" if answer.source else answer.reason)
        return Unobserved("; ".join(reasons) or NO_SOURCE)
