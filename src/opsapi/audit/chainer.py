"""Links entries as they come in: one of all replicas at a time, by a lease."""

import asyncio
import logging
from datetime import datetime, timedelta

from opsapi.audit.chain import ChainHead, ChainKeys, checkpoint, links
from opsapi.audit.ports import ChainStore, CheckpointSink, Lease, LeaseLost
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable

LEASE_NAME = "audit-chainer"
LEASE = timedelta(seconds=15)
BATCH = 500
PAUSE_SECONDS = 1.0
CHECKPOINT_ENTRIES = 1000
CHECKPOINT_EVERY = timedelta(minutes=1)

_log = logging.getLogger(__name__)


class Chainer:
    """The lease keeps replicas from working twice; that the chain cannot fork is held by the database: the head's row
    is locked and the lease's token checked in the transaction that appends."""

    def __init__(self, store: ChainStore, keys: ChainKeys, sink: CheckpointSink, clock: Clock, *, holder: str) -> None:
        self._store = store
        self._keys = keys
        self._sink = sink
        self._clock = clock
        self._holder = holder
        self._lease: Lease | None = None

    async def run(self) -> None:
        """Until cancelled; whoever cancels it calls `stop` then."""
        while True:
            try:
                await self.work()
            except (DependencyUnavailable, OSError) as error:
                _log.warning("the audit chain waits: %s", error)
            except Exception:
                _log.exception("the audit chain waits")
            await asyncio.sleep(PAUSE_SECONDS)

    async def stop(self) -> None:
        """Links what is left, vouches for it by a last checkpoint and frees the lease for the next one."""
        try:
            await self.work()
            if self._lease is not None:
                await self._mark(await self._store.head(), at_once=True)
        except OSError as error:
            _log.warning("the audit's last checkpoint was not exported: %s", error)
        if self._lease is not None:
            await self._store.release(self._lease)
            self._lease = None

    async def work(self) -> int:
        """Links all that waits, if the lease is ours; returns how many. Raises DependencyUnavailable, OSError."""
        total = 0
        while True:
            lease = self._lease = await self._store.acquire(LEASE_NAME, self._holder, LEASE)
            if lease is None:
                return total
            try:
                head, linked = await self._store.append(
                    lease, lambda before, entries: links(self._keys, before, entries), BATCH
                )
            except LeaseLost:
                self._lease = None
                return total
            total += linked
            await self._mark(head)
            if linked < BATCH:
                return total

    async def _mark(self, head: ChainHead, *, at_once: bool = False) -> None:
        """A checkpoint each thousand entries, and each minute in which there were any."""
        last = await self._store.last_checkpoint()
        now = self._clock.now()
        known = 0 if last is None else last.seq
        due = at_once or last is None or self._is_due(head, last.seq, last.at, now)
        if head.seq <= known or not due:
            return
        mark = checkpoint(self._keys, head, now)
        # Out of the database first: one that is only inside protects nothing.
        await self._sink.export(mark)
        await self._store.add_checkpoint(mark)

    @staticmethod
    def _is_due(head: ChainHead, seq: int, at: datetime, now: datetime) -> bool:
        return head.seq - seq >= CHECKPOINT_ENTRIES or now - at >= CHECKPOINT_EVERY
