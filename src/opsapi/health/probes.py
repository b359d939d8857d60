"""One probe per component: each bounded in time, none able to take another down."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from opsapi.health.model import (
    Connections,
    DatabaseHealth,
    KubernetesHealth,
    NodeCounts,
    QueryPerformance,
    QueueHealth,
    Status,
    UsagePercentages,
    WorkspaceCounts,
)
from opsapi.health.ports import DatabaseProbe, Queue
from opsapi.kit.clock import Clock
from opsapi.kit.duration import format_seconds
from opsapi.kit.endpoint import Partial
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.quantity import percentage
from opsapi.workspaces.addons import observed
from opsapi.workspaces.findings import DEDUCTIONS, Severity
from opsapi.workspaces.objects import NODE
from opsapi.workspaces.views import WorkspaceView

T = TypeVar("T")
_log = logging.getLogger(__name__)
_STUCK_SECONDS = 60.0
"""An operation that has waited longer than this for a worker means that none takes any."""
_CRITICAL = frozenset(kind for kind, deduction in DEDUCTIONS.items() if deduction.severity is Severity.CRITICAL)


class Fleet(msgspec.Struct, frozen=True):
    """What all workspaces add up to."""

    kubernetes: KubernetesHealth
    workspaces: WorkspaceCounts
    usage: UsagePercentages
    partial: list[Partial]


async def _within(seconds: float, asked: Awaitable[T]) -> T:
    """Raises DependencyUnavailable with what to tell operators; a bug in a probe is a failure of that probe alone."""
    try:
        return await asyncio.wait_for(asked, seconds)
    except DependencyUnavailable:
        raise
    except TimeoutError:
        raise DependencyUnavailable("probe", f"no answer within {seconds:g} s") from None
    except Exception as error:
        _log.exception("a health probe failed")
        raise DependencyUnavailable("probe", "the probe itself failed") from error


async def probe_database(database: DatabaseProbe, clock: Clock, seconds: float) -> tuple[DatabaseHealth, list[Partial]]:
    try:
        reading = await _within(seconds, database.probe())
    except DependencyUnavailable as error:
        return no_database(_reason(error), clock.now())
    held = reading.connections
    partial = [
        Partial(f"components.database.connections.{name}", "the connection pool does not tell")
        for name in ("active", "idle", "max")
        if getattr(held, name) is None
    ]
    if reading.avg_query_ms is None:
        partial.append(
            Partial("components.database.query_performance.avg_response_ms", "no query in the last five minutes")
        )
    health = DatabaseHealth(
        status=Status.HEALTHY,
        connections=Connections(active=held.active, idle=held.idle, max=held.max),
        query_performance=QueryPerformance(avg_response_ms=reading.avg_query_ms, slow_queries=reading.slow_queries),
        observed_at=clock.now().replace(microsecond=0),
    )
    return health, partial


def no_database(
    reason: str, at: datetime | None, status: Status = Status.UNHEALTHY
) -> tuple[DatabaseHealth, list[Partial]]:
    health = DatabaseHealth(
        status=status,
        connections=Connections(active=None, idle=None, max=None),
        query_performance=QueryPerformance(avg_response_ms=None, slow_queries=None),
        reason=reason,
        observed_at=at.replace(microsecond=0) if at is not None else None,
    )
    fields = ("connections.active", "connections.idle", "connections.max")
    performance = ("query_performance.avg_response_ms", "query_performance.slow_queries")
    return health, [Partial(f"components.database.{field}", reason) for field in (*fields, *performance)]


async def probe_queue(queue: Queue, clock: Clock, seconds: float) -> tuple[QueueHealth, list[Partial]]:
    try:
        depth = await _within(seconds, queue.depth())
    except DependencyUnavailable as error:
        return no_queue(_reason(error), clock.now())
    now = clock.now()
    waited = (now - depth.oldest_queued_at) if depth.oldest_queued_at is not None else now - now
    stuck = waited.total_seconds() > _STUCK_SECONDS
    health = QueueHealth(
        status=Status.DEGRADED if stuck else Status.HEALTHY,
        queue_depth=depth.queued,
        consumer_lag=format_seconds(max(waited, now - now)),
        reason="no worker takes what waits" if stuck else msgspec.UNSET,
        observed_at=now.replace(microsecond=0),
    )
    return health, []


def no_queue(reason: str, at: datetime | None, status: Status = Status.UNHEALTHY) -> tuple[QueueHealth, list[Partial]]:
    observed_at = at.replace(microsecond=0) if at is not None else None
    health = QueueHealth(status=status, queue_depth=None, consumer_lag=None, reason=reason, observed_at=observed_at)
    return health, [Partial(f"components.message_queue.{field}", reason) for field in ("queue_depth", "consumer_lag")]


def _reason(error: DependencyUnavailable) -> str:
    return getattr(error.details, "reason", "") or error.message


def survey(views: Sequence[WorkspaceView], unreadable: int) -> Fleet:
    """What the workspaces' caches say by now; asks nobody. `unreadable`: registrations that cannot be served."""
    partial: list[Partial] = []
    answering = [view for view in views if view.cluster.state().reachable]
    kubernetes = _kubernetes(views, answering, partial)
    ill = sum(1 for view in views if not view.cluster.state().reachable or _is_critical(view))
    counts = WorkspaceCounts(total=len(views) + unreadable, active=len(answering), issues=ill + unreadable)
    return Fleet(kubernetes, counts, _usage(views, partial), partial)


def _is_critical(view: WorkspaceView) -> bool:
    tallies = view.settle()
    return any(kind in _CRITICAL for kind, count in tallies.finding_counts.items() if count)


def _kubernetes(
    views: Sequence[WorkspaceView], answering: Sequence[WorkspaceView], partial: list[Partial]
) -> KubernetesHealth:
    prefix = "components.kubernetes_api"
    versions = {view.cluster.state().version for view in answering} - {None}
    version = versions.pop() if len(versions) == 1 else None
    if version is None:
        told = next((reason for view in answering if (reason := view.cluster.state().reason)), "none answers")
        reason = "the workspaces' versions differ" if versions else f"no control plane has told its version: {told}"
        partial.append(Partial(f"{prefix}.version", reason))
    nodes = _nodes(views)
    if nodes.total is None:
        reason = "no workspace's nodes could be read"
        partial += [Partial(f"{prefix}.nodes.{name}", reason) for name in ("total", "ready", "not_ready")]
    moments = [at for view in views if (at := view.cluster.state().observed_at) is not None]
    status, reason = _kubernetes_status(views, answering)
    return KubernetesHealth(
        status=status,
        version=version,
        nodes=nodes,
        reason=reason or msgspec.UNSET,
        observed_at=min(moments).replace(microsecond=0) if moments else None,
    )


def _kubernetes_status(views: Sequence[WorkspaceView], answering: Sequence[WorkspaceView]) -> tuple[Status, str]:
    if not views:
        return Status.UNKNOWN, "no workspace is registered"
    away = [view for view in views if view.cluster.state().reachable is False]
    untried = len(views) - len(away) - len(answering)
    if len(answering) == len(views):
        return Status.HEALTHY, ""
    named = ", ".join(sorted(view.workspace.id for view in away)[:5])
    if away:
        status = Status.DEGRADED if answering else Status.UNHEALTHY
        return status, f"{len(away)} of {len(views)} control planes do not answer: {named}"
    return Status.UNKNOWN, f"{untried} of {len(views)} control planes have not been tried yet"


def _nodes(views: Iterable[WorkspaceView]) -> NodeCounts:
    ready: dict[str, bool] = {}
    read = False
    for view in views:
        if observed(view.inventory, NODE):
            read = True
            ready.update({facts.uid: facts.ready for facts in view.tallies.nodes.values()})
    if not read:
        return NodeCounts(total=None, ready=None, not_ready=None)
    up = sum(ready.values())
    return NodeCounts(total=len(ready), ready=up, not_ready=len(ready) - up)


def _usage(views: Iterable[WorkspaceView], partial: list[Partial]) -> UsagePercentages:
    """Used over allocatable of the nodes that were measured, each counted once."""
    cpu = memory = 0.0
    cpu_room = memory_room = 0
    seen: set[str] = set()
    for view in views:
        usages = view.figures.nodes or {}
        for name, facts in view.tallies.nodes.items():
            usage = usages.get(name)
            if usage is None or facts.uid in seen:
                continue
            seen.add(facts.uid)
            cpu, cpu_room = cpu + usage.cpu_millicores, cpu_room + (facts.allocatable.cpu or 0)
            memory, memory_room = memory + usage.memory_bytes, memory_room + (facts.allocatable.memory or 0)
    if not seen:
        reason = "no node was measured: no workspace serves metrics.k8s.io or its first reading is pending"
        partial += [Partial(f"resource_usage.{name}_percentage", reason) for name in ("cpu", "memory")]
    partial.append(Partial("resource_usage.storage_percentage", "no source of disk usage is connected"))
    return UsagePercentages(
        cpu_percentage=percentage(cpu, cpu_room),
        memory_percentage=percentage(memory, memory_room),
        storage_percentage=None,
    )
