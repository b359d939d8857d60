"""When to try again: time as a port, and the pace that no reflector outruns."""

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.kit.clock import Clock, SystemClock


class Timing(Clock, Protocol):
    async def sleep(self, seconds: float) -> None: ...


class SystemTiming(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Pace:
    """Spaces out the tries of one kind: never closer than the minimum interval, and after failures exponentially
    further apart, each wait drawn from the upper half of its bound so that kinds do not return in step."""

    def __init__(self, tuning: Tuning, timing: Timing, jitter: Callable[[], float] = random.random) -> None:
        self._tuning = tuning
        self._timing = timing
        self._jitter = jitter
        self._failures = 0
        self._started = float("-inf")
        self._earliest = float("-inf")

    def begin(self) -> None:
        """A try starts now."""
        self._started = self._timing.monotonic()
        self._earliest = self._started + self._tuning.minimum_interval

    def succeed(self) -> None:
        self._failures = 0

    def fail(self, retry_after: float | None = None) -> None:
        bound = min(self._tuning.backoff_cap, self._tuning.minimum_interval * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        wait = bound * (0.5 + self._jitter() / 2)
        if retry_after is not None:
            wait = max(wait, min(retry_after, self._tuning.retry_after_cap))
        self.postpone(wait)

    def postpone(self, seconds: float) -> None:
        self._earliest = max(self._earliest, self._timing.monotonic() + seconds)

    def hasten(self) -> None:
        """Forgets the back-off (the server is back), but not the minimum interval."""
        self._failures = 0
        self._earliest = self._started + self._tuning.minimum_interval

    def remaining(self) -> float:
        return max(0.0, self._earliest - self._timing.monotonic())


class Rest:
    """A sleep that can be cut short."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def sleep(self, seconds: float) -> None:
        self._woken.clear()
        if seconds <= 0:
            return
        sleeper = asyncio.ensure_future(self._timing.sleep(seconds))
        waker = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeper, waker):
                task.cancel()
            await asyncio.gather(sleeper, waker, return_exceptions=True)
