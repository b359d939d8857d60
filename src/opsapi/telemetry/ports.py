"""The metrics port: questions of the domain, whatever measures."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from opsapi.telemetry.model import (
    Answer,
    ContainerReading,
    Restarts,
    Span,
    Throttling,
    Traffic,
    UsageHistory,
    WorkloadSelector,
)


class Metrics(Protocol):
    """Nothing is raised for a source that is away, refuses or knows too little: the answer is Unobserved with the
    reason. Figures are never guessed, and no answer is ever 0 for want of a sample.

    A window ends at `at`, or at the source's present where that is None.
    """

    async def usage_now(
        self, workspace_id: str, namespace: str, pods: Sequence[str]
    ) -> Answer[tuple[ContainerReading, ...]]:
        """The latest readings of these pods' containers, ordered by pod and container. A pod without one is named in
        `missing`; Unobserved where none has any."""
        ...

    async def usage_history(self, workspace_id: str, workload: WorkloadSelector, span: Span) -> Answer[UsageHistory]:
        """The workload's containers over time, pods that are gone included, ordered by pod and container. Where the
        history begins later than `span.since` for want of a memory, `missing["since"]` says why."""
        ...

    async def throttling(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Throttling, ...]]:
        """Of each container with a CPU limit."""
        ...

    async def restarts(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[tuple[Restarts, ...]]:
        """Of each container that was there in the window, those that did not restart included."""
        ...

    async def traffic(
        self, workspace_id: str, workload: WorkloadSelector, window: timedelta, at: datetime | None = None
    ) -> Answer[Traffic]:
        """Requests over the window. A null figure is named in `missing` by its field."""
        ...
