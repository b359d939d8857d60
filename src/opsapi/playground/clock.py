"""Virtual time: the one clock that the API server, the controllers and the kubelets of a playground live by.

Nothing sleeps. Who wants to act later registers a timer; `advance` runs what falls due in order of time, then of
registration, so that the same seed and the same calls give the same history byte for byte.
"""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_SLICE_SECONDS = 0.01
"""Wall time that one slice of `run` may take before it yields, so that the API stays responsive."""

_TICK_SECONDS = 0.05


class Timer:
    """A registered call; `cancel` is idempotent and may come from within any callback."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class SimClock:
    """Implements kit.clock.Clock. `settle` is called after each batch of timers that fall due together."""

    def __init__(self, epoch: datetime, seed: int = 0) -> None:
        if epoch.tzinfo is None:
            raise ValueError("epoch needs a UTC offset")
        self._epoch = epoch.astimezone(UTC)
        self._elapsed = 0.0
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = itertools.count()
        self._wakened: asyncio.Event | None = None
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 - reproducible names, no secrets
        self.settle: Callable[[], None] = _nothing
        self.settle_some: Callable[[float], bool] | None = None
        """Like settle, but stops once time.monotonic() passes the argument; whether it is done. For `run`."""
        self._unsettled = False

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    def at(self, moment: datetime) -> float:
        """The monotonic reading that belongs to a wall time (negative before the epoch)."""
        return (moment - self._epoch).total_seconds()

    def wall(self, reading: float) -> datetime:
        """The wall time that belongs to a monotonic reading."""
        return self._epoch + timedelta(seconds=reading)

    def call_at(self, due: float, callback: Callable[[], None]) -> Timer:
        """Calls back once monotonic() reaches `due`; what is already due runs with the next advance, even of 0."""
        timer = Timer(max(due, self._elapsed), callback)
        heapq.heappush(self._heap, (timer.due, next(self._sequence), timer))
        return timer

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return self.call_at(self._elapsed + delay, callback)

    def next_due(self) -> float | None:
        """When the earliest live timer is due; None where there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def advance(self, seconds: float) -> None:
        """Moves time on and runs everything due on the way, settling after each instant. Negative: ValueError."""
        if seconds < 0:
            raise ValueError("time does not go back")
        target = self._elapsed + seconds
        self.settle()
        while self._step(target):
            pass
        self._elapsed = target
        self.settle()

    def _step(self, target: float) -> bool:
        """Runs all timers of the next instant up to `target` and settles; False when none is left."""
        if not self._fire(target):
            return False
        self.settle()
        return True

    def _fire(self, target: float) -> bool:
        due = self.next_due()
        if due is None or due > target:
            return False
        self._elapsed = max(self._elapsed, due)
        while self._heap and self._heap[0][0] <= self._elapsed:
            callback = heapq.heappop(self._heap)[2].callback
            if callback is not None:
                callback()
        return True

    def wake(self) -> None:
        """Work has been queued from outside (an API call): `run` settles at once instead of with its next tick."""
        if self._wakened is not None:
            self._wakened.set()

    async def until(self, reading: float) -> None:
        """Waits until monotonic() reaches `reading`; someone else must move the clock."""
        done = asyncio.get_running_loop().create_future()
        timer = self.call_at(reading, lambda: None if done.done() else done.set_result(None))
        try:
            await done
        finally:
            timer.cancel()

    async def run(self, speed: float = 1.0) -> None:
        """Drives the clock from wall time at `speed` until cancelled.

        Where the work of an hour does not fit into its wall time, virtual time lags and catches up; it never skips.
        """
        self._wakened = asyncio.Event()
        last = time.monotonic()
        backlog = 0.0
        try:
            while True:
                now = time.monotonic()
                backlog += (now - last) * speed
                last = now
                before = self._elapsed
                self._slice(before + max(0.0, backlog))
                backlog -= self._elapsed - before
                if backlog > 1e-6 or self._unsettled:
                    await asyncio.sleep(0)
                    continue
                self._wakened.clear()
                try:
                    async with asyncio.timeout(_TICK_SECONDS):
                        await self._wakened.wait()
                except TimeoutError:
                    continue
        finally:
            self._wakened = None

    async def advance_in_slices(self, seconds: float) -> None:
        """Like advance, but others get their turn in between."""
        if seconds < 0:
            raise ValueError("time does not go back")
        target = self._elapsed + seconds
        while self._elapsed < target or self._unsettled:
            self._slice(max(target, self._elapsed))
            await asyncio.sleep(0)

    def _slice(self, target: float) -> None:
        """Advances toward the reading `target` for one slice of wall time.

        Time stands still while there is work left from an instant, so history does not depend on the machine's speed.
        """
        deadline = time.monotonic() + _SLICE_SECONDS
        while self._settled_by(deadline):
            if time.monotonic() > deadline:
                return
            if not self._fire(target):
                self._elapsed = target
                return

    def _settled_by(self, deadline: float) -> bool:
        if self.settle_some is None:
            self.settle()
            return True
        self._unsettled = not self.settle_some(deadline)
        return not self._unsettled


def _nothing() -> None:
    """The settle of a clock that drives no controllers."""
