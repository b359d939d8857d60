"""The board: refreshed in the background every few seconds, so that asking for health costs nothing."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from opsapi import __version__
from opsapi.health.model import ApiServer, Components, Health, Status
from opsapi.health.ports import DatabaseProbe, OwnFigures, Queue
from opsapi.health.probes import no_database, no_queue, probe_database, probe_queue, survey
from opsapi.kit.clock import Clock
from opsapi.kit.duration import format_uptime
from opsapi.kit.endpoint import Partial, Reply
from opsapi.workspaces.objects import NODE
from opsapi.workspaces.ports import Sync
from opsapi.workspaces.views import Views, WorkspaceView

INTERVAL_SECONDS = 5.0
STARTING_SECONDS = 0.5
TIMEOUT_SECONDS = 3.0
_NOT_YET = "not probed yet"
_log = logging.getLogger(__name__)


class HealthBoard:
    """Holds the last findings as a finished reply."""

    def __init__(
        self,
        views: Views,
        clock: Clock,
        *,
        database: DatabaseProbe,
        queue: Queue,
        figures: OwnFigures | None = None,
        unreadable: Callable[[], int] = lambda: 0,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._views = views
        self._clock = clock
        self._database = database
        self._queue = queue
        self._figures = figures
        self._unreadable = unreadable
        self._timeout = timeout
        self._started = clock.now()
        self._database_health = no_database(_NOT_YET, None, Status.UNKNOWN)
        self._queue_health = no_queue(_NOT_YET, None, Status.UNKNOWN)
        self.reply: Reply[Health] = self._compose()

    async def refresh(self) -> None:
        """Probes everything at once and puts the findings together; returns within the timeout."""
        self._database_health, self._queue_health = await asyncio.gather(
            probe_database(self._database, self._clock, self._timeout),
            probe_queue(self._queue, self._clock, self._timeout),
        )
        for view in self._views.all():
            await _work_through(view)
        self.reply = self._compose()

    @contextlib.asynccontextmanager
    async def running(self, interval: float = INTERVAL_SECONDS) -> AsyncIterator[None]:
        """Keeps the board fresh while the block runs; the first findings are there when it begins."""
        await self._try_refresh()
        task = asyncio.create_task(self._keep_fresh(interval), name="health")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep_fresh(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval if self._is_settled() else min(interval, STARTING_SECONDS))
            await self._try_refresh()

    def _is_settled(self) -> bool:
        """Whether every workspace has been tried and its nodes read or refused: until then, news come in quickly."""
        return all(
            view.cluster.state().reachable is not None and view.inventory.state(NODE).sync is not Sync.PENDING
            for view in self._views.all()
        )

    async def _try_refresh(self) -> None:
        try:
            await self.refresh()
        except Exception:
            # A probe with a bug must not end the loop: the last findings stay, and their age shows.
            _log.exception("health could not be refreshed")

    def _compose(self) -> Reply[Health]:
        now = self._clock.now().replace(microsecond=0)
        database, database_partial = self._database_health
        queue, queue_partial = self._queue_health
        fleet = survey(self._views.all(), self._unreadable())
        own, own_partial = self._own()
        statuses = (database.status, fleet.kubernetes.status, queue.status)
        moments = [
            at
            for at in (database.observed_at, queue.observed_at, fleet.kubernetes.observed_at)
            if at is not None and at is not msgspec.UNSET
        ]
        health = Health(
            status=overall(statuses),
            timestamp=now,
            version=__version__,
            components=Components(
                api_server=own, database=database, kubernetes_api=fleet.kubernetes, message_queue=queue
            ),
            workspaces=fleet.workspaces,
            resource_usage=fleet.usage,
        )
        partial = [*own_partial, *database_partial, *queue_partial, *fleet.partial]
        encoded = msgspec.Raw(msgspec.json.encode(health))
        return Reply(health, observed_at=min(moments, default=now), partial=partial, encoded=encoded)

    def _own(self) -> tuple[ApiServer, list[Partial]]:
        now = self._clock.now()
        taken = self._figures.response_time_ms() if self._figures is not None else None
        partial = []
        if taken is None:
            partial.append(Partial("components.api_server.response_time_ms", "no request has been answered yet"))
        own = ApiServer(
            status=Status.HEALTHY,
            response_time_ms=round(taken, 2) if taken is not None else None,
            uptime=format_uptime(now - self._started),
            observed_at=now.replace(microsecond=0),
        )
        return own, partial


def overall(statuses: tuple[Status, ...]) -> Status:
    """The database decides alone; what else is not healthy degrades the whole."""
    if statuses[0] is Status.UNHEALTHY or all(status is Status.UNHEALTHY for status in statuses):
        return Status.UNHEALTHY
    if all(status is Status.UNKNOWN for status in statuses):
        return Status.UNKNOWN
    return Status.HEALTHY if all(status is Status.HEALTHY for status in statuses) else Status.DEGRADED


async def _work_through(view: WorkspaceView) -> None:
    """A new reading of usage in slices, so that a large workspace does not hold the event loop."""
    for _ in view.read_usage():
        await asyncio.sleep(0)
