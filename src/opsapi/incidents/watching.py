"""What the service sees to by itself: nobody acknowledges, a target is blocked, a remediation has ended."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from opsapi.incidents.model import Change, Incident, Severity, Source
from opsapi.incidents.opening import Report
from opsapi.incidents.ports import IncidentStore, Transition
from opsapi.incidents.remediating import Remediating
from opsapi.incidents.reporting import Reporter
from opsapi.incidents.settings import IncidentSettings
from opsapi.incidents.transitions import check_seen, escalate
from opsapi.kit.caller import System
from opsapi.kit.clock import Clock
from opsapi.kit.duration import format_seconds
from opsapi.kit.errors import DependencyUnavailable, InvalidState, ResourceNotFound
from opsapi.operations.model import locked_resource
from opsapi.policy.model import TargetHistory

BLOCKED = "failing_target"
_BATCH = 100
_PURGE_EVERY = timedelta(hours=1)
_ESCALATING = System("incidents", "escalate")
_BLOCKING = System("incidents", "failure block")
Turn = Callable[[], Awaitable[bool]]
"""Whether this replica has the turn; of all replicas one has."""
Failing = Callable[[], Awaitable[dict[str, TargetHistory]]]
"""Targets that are blocked now, by lock key."""
_log = logging.getLogger(__name__)


class Watch:
    def __init__(
        self,
        store: IncidentStore,
        reporter: Reporter,
        remediating: Remediating,
        failing: Failing,
        turn: Turn,
        settings: IncidentSettings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._remediating = remediating
        self._failing = failing
        self._turn = turn
        self._settings = settings
        self._clock = clock
        self._purged_at = clock.now() - _PURGE_EVERY

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                if await self._turn():
                    await self.look()
            except DependencyUnavailable as error:
                _log.warning("incidents wait to be looked after: %s", error.message)
            except Exception:
                _log.exception("incidents could not be looked after")

    async def look(self) -> None:
        """Everything once. Repeating it, on other replicas too, changes nothing more."""
        await self.report_blocked()
        await self._remediating.settle()
        await self.escalate_overdue()
        await self._purge()

    async def escalate_overdue(self) -> int:
        """High and critical incidents that nobody acknowledged in time; how many."""
        after = self._settings.escalate_after_seconds
        if not after:
            return 0
        now, escalated = self._clock.now(), 0
        for incident in await self._store.overdue(now - timedelta(seconds=after), _BATCH):
            try:
                await self._store.change(incident.id, self._overdue(incident), _ESCALATING)
            except (InvalidState, ResourceNotFound):
                continue
            escalated += 1
        return escalated

    def _overdue(self, seen: Incident) -> Transition:
        after = format_seconds(timedelta(seconds=self._settings.escalate_after_seconds))
        why, channels, now = f"Nobody acknowledged it in {after}", self._settings.escalation_channels, self._clock.now()

        def overdue(held: Incident) -> Change:
            check_seen(held, seen.revision)
            return escalate(held, _ESCALATING.account_id, now, channels=channels, why=why)

        return overdue

    async def report_blocked(self) -> int:
        """One incident a target, that people are told of at once; how many told something new."""
        told = 0
        for target, history in (await self._failing()).items():
            told += await self._reporter.report(blocked_report(target, history), _BLOCKING) is not None
        return told

    async def _purge(self) -> None:
        now = self._clock.now()
        if now - self._purged_at < _PURGE_EVERY:
            return
        self._purged_at = now
        while await self._store.purge(now - timedelta(days=self._settings.keep_days)) == 500:
            pass


def blocked_report(target: str, history: TargetHistory) -> Report:
    workspace_id, _, rest = target.partition("/")
    resource = locked_resource(target)
    application = bool(rest) and not rest.startswith("/")
    told = f"{history.failures} operations on {resource} failed in a row: it is left alone for now"
    return Report(
        workspace_id=workspace_id,
        type=BLOCKED,
        severity=Severity.HIGH,
        source=Source.FAILURE_BLOCK,
        title=told[:300],
        affected_applications=(resource,) if application else (),
        key=f"blocked:{hashlib.sha256(target.encode()).hexdigest()}",
        failed_at=history.failed_at,
        escalated=told,
    )
