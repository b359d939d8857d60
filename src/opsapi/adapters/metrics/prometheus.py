"""Implements the metrics port on servers of the Prometheus HTTP API, one a workspace."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from opsapi.adapters.metrics.client import Failed
from opsapi.adapters.metrics.server import SOURCE, PrometheusServer
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
from opsapi.telemetry.settings import MetricsSettings

T = TypeVar("T")
NOT_CONFIGURED = Unobserved("no server is configured for the workspace", SOURCE)


class PrometheusMetrics:
    """Implements Metrics; `close` on shutdown."""

    def __init__(self, settings: Mapping[str, MetricsSettings]) -> None:
        """`settings` by workspace id."""
        self._servers = {workspace_id: PrometheusServer(one) for workspace_id, one in settings.items()}

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    async def usage_now(
        self, workspace_id: str, namespace: str, pods: Sequence[str]
    ) -> Answer[tuple[ContainerReading, ...]]:
        return await self._ask(workspace_id, lambda server: server.usage_now(namespace, pods))

    async def usage_history(self, workspace_id: str, workload: WorkloadSelector, span: Span) -> Answer[UsageHistory]:
        return await self._ask(workspace_id, lambda server: server.usage_history(workload, span))

    async def throttling(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Throttling, ...]]:
        return await self._ask(workspace_id, lambda server: server.throttling(workload, window, at))

    async def restarts(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Restarts, ...]]:
        return await self._ask(workspace_id, lambda server: server.restarts(workload, window, at))

    async def traffic(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[Traffic]:
        return await self._ask(workspace_id, lambda server: server.traffic(workload, window, at))

    async def _ask(self, workspace_id: str, question: Callable[[PrometheusServer], Awaitable[Answer[T]]]) -> Answer[T]:
        server = self._servers.get(workspace_id)
        if server is None:
            return NOT_CONFIGURED
        try:
            return await question(server)
        except Failed as failure:
            return Unobserved(str(failure), SOURCE)
