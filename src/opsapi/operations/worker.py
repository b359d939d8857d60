"""Claims operations and keeps their leases while they run, in this process' event loop."""

import asyncio
import logging
import os
import socket
from datetime import timedelta

from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.ids import new_id
from opsapi.operations.errors import LeaseLost
from opsapi.operations.execution import Execution
from opsapi.operations.model import Claim, Outcome, State
from opsapi.operations.ports import Ledger
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals

_log = logging.getLogger(__name__)


class Worker:
    """`run()` until `stop()`; then what runs is let end for `drain_seconds`, and the rest handed over."""

    def __init__(
        self,
        ledger: Ledger,
        execution: Execution,
        procedures: Procedures,
        signals: Signals,
        clock: Clock,
        settings: EngineSettings,
        holder: str = "",
    ) -> None:
        self.holder = holder or f"{socket.gethostname()[:180]}-{os.getpid()}-{new_id('w')}"
        self._ledger = ledger
        self._execution = execution
        self._procedures = procedures
        self._signals = signals
        self._clock = clock
        self._settings = settings
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._stopping = False
        self._running: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """Operations that run here now."""
        return len(self._running)

    def stop(self) -> None:
        self._stopping = True
        self._signals.notify(Signals.QUEUED)

    async def run(self) -> None:
        try:
            with self._signals.subscribe(Signals.QUEUED) as work:
                while not self._stopping:
                    claim = await self._claim() if len(self._running) < self._settings.concurrency else None
                    if claim is None:
                        await work.wait(self._settings.poll_seconds)
                        continue
                    task = asyncio.create_task(self._work(claim), name=f"operation {claim.operation.id}")
                    self._running.add(task)
                    task.add_done_callback(self._ended)
        finally:
            await self._drain()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._signals.notify(Signals.QUEUED)

    async def _claim(self) -> Claim | None:
        try:
            return await self._ledger.claim(self.holder, self._lease, self._procedures.runnable())
        except DependencyUnavailable as error:
            _log.warning("no operation can be claimed: %s", error.message)
        except Exception:
            # A fault of ours must not end the worker: with it would end all work of this process.
            _log.exception("no operation can be claimed")
        return None

    async def _drain(self) -> None:
        running = set(self._running)
        if not running:
            return
        _, left = await asyncio.wait(running, timeout=self._settings.drain_seconds)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _work(self, claim: Claim) -> None:
        stop = asyncio.Event()
        execution = asyncio.create_task(self._execution.run(claim, stop))
        beat = asyncio.create_task(self._beat(claim, stop))
        try:
            await asyncio.wait({execution, beat}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(execution)
            await self._hand_over(claim)
            raise
        finally:
            await _end(beat)
            await _end(execution)
        await self._report(claim, execution)

    async def _hand_over(self, claim: Claim) -> None:
        try:
            await self._ledger.hand_over(claim)
        except (LeaseLost, DependencyUnavailable) as error:
            _log.info("operation %s could not be handed over: %s", claim.operation.id, error)

    async def _report(self, claim: Claim, execution: asyncio.Task[None]) -> None:
        """What an execution may end with is known to the ledger or found out by whoever takes over."""
        if execution.cancelled():
            _log.warning("operation %s: the lease is lost, another worker goes on", claim.operation.id)
            return
        error = execution.exception()
        if isinstance(error, LeaseLost):
            _log.warning("operation %s: the lease was lost, another worker goes on", claim.operation.id)
        elif isinstance(error, DependencyUnavailable):
            _log.warning("operation %s: the ledger is away; it goes on when the lease has run out", claim.operation.id)
        elif error is not None:
            _log.error("operation %s: the engine failed", claim.operation.id, exc_info=error)
            if claim.operation.attempts >= self._settings.step_attempts:
                await self._give_up(claim)

    async def _give_up(self, claim: Claim) -> None:
        """What the engine cannot even run would come back with every lease: it ends, and frees its locks."""
        touched = claim.operation.touched
        try:
            await self._ledger.finish(
                claim,
                State.FAILED,
                outcome=Outcome.PARTIAL if touched else None,
                result={"engine_failed": True},
            )
        except (LeaseLost, DependencyUnavailable) as error:
            _log.info("operation %s could not be ended: %s", claim.operation.id, error)

    async def _beat(self, claim: Claim, stop: asyncio.Event) -> None:
        """Renews the lease and learns whether to stop; returns once the lease is lost, or could not be renewed for as
        long as it lasts."""
        renewed = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            try:
                if await self._ledger.renew(claim, self._lease):
                    stop.set()
                renewed = self._clock.monotonic()
            except LeaseLost:
                return
            except DependencyUnavailable:
                if self._clock.monotonic() - renewed >= self._settings.lease_seconds:
                    return


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels it and waits until it has really stopped."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
