"""Writes audit entries behind the answers, without losing one: a bounded queue and one writer."""

import asyncio
import logging
from collections import deque

import msgspec

from opsapi.audit.model import AuditEntry
from opsapi.audit.ports import AuditStore, EntryRejected
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable

CAPACITY = 10_000
SLACK = 1000
"""Entries beyond the capacity that are still taken: of calls that were let in while there was room."""
BATCH = 200
PAUSE_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class RecorderFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`lag_seconds`: how long the oldest waiting entry has waited, 0 when none does."""

    waiting: int
    lag_seconds: float
    written: int
    rejected: int


class AuditRecorder:
    """`record` only queues; `run` writes, a batch each tenth of a second or 200 entries.

    A database that is away is tried again until it is back. When the queue is full, `ensure_room` raises, so that
    nothing is begun that could not be audited, and soon after `record` does. An entry that the database will never
    take goes to the log instead, whole.
    """

    def __init__(self, store: AuditStore, clock: Clock, *, capacity: int = CAPACITY) -> None:
        self._store = store
        self._clock = clock
        self._capacity = capacity
        self._waiting: deque[tuple[float, AuditEntry]] = deque()
        self._wake = asyncio.Event()
        self._full_batch = asyncio.Event()
        self._writing = asyncio.Lock()
        self._written = 0
        self._rejected = 0

    def record(self, entry: AuditEntry) -> None:
        """Raises DependencyUnavailable when the queue is full to its last place."""
        self._ensure(self._capacity + SLACK)
        self._waiting.append((self._clock.monotonic(), entry))
        self._wake.set()
        if len(self._waiting) >= BATCH:
            self._full_batch.set()

    def ensure_room(self) -> None:
        """For the guard, before work begins. Raises DependencyUnavailable."""
        self._ensure(self._capacity)

    def _ensure(self, bound: int) -> None:
        if len(self._waiting) >= bound:
            raise DependencyUnavailable("audit", "its entries cannot be written and too many wait", retry_after=5)

    def figures(self) -> RecorderFigures:
        lag = self._clock.monotonic() - self._waiting[0][0] if self._waiting else 0.0
        return RecorderFigures(
            waiting=len(self._waiting), lag_seconds=max(0.0, lag), written=self._written, rejected=self._rejected
        )

    async def run(self) -> None:
        """Until cancelled; whoever cancels it calls `flush` then."""
        delay = PAUSE_SECONDS
        while True:
            await self._wake.wait()
            await self._pause(delay)
            try:
                await self.flush()
                delay = PAUSE_SECONDS
            except DependencyUnavailable as error:
                _log.warning("%d audit entries wait: %s", len(self._waiting), error.message)
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)
            except Exception:
                # A fault of ours must not end the writer: entries wait, and soon nothing is answered any more.
                _log.exception("%d audit entries wait", len(self._waiting))
                delay = LONGEST_RETRY_SECONDS

    async def _pause(self, seconds: float) -> None:
        """Lets a batch gather; a full one cuts the usual pause short, but not a retry's."""
        if seconds > PAUSE_SECONDS:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._full_batch.wait()
        except TimeoutError:
            pass

    async def flush(self) -> None:
        """Writes all that waits now. Raises DependencyUnavailable; what was not written waits on."""
        async with self._writing:
            while self._waiting:
                batch = [entry for _, entry in list(self._waiting)[:BATCH]]
                await self._write(batch)
                # Entries leave the queue only once they are written: a cancelled or failed write loses none.
                for _ in batch:
                    self._waiting.popleft()
            self._wake.clear()
            self._full_batch.clear()

    async def _write(self, batch: list[AuditEntry]) -> None:
        try:
            await self._store.insert(batch)
            self._written += len(batch)
        except EntryRejected:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._write(batch[:middle])
                await self._write(batch[middle:])
                return
            self._rejected += 1
            _log.exception("the database takes no such audit entry: %s", msgspec.json.encode(batch[0]).decode())
