"""Deadlines for handlers at the price of a dict entry: one sweep for all instead of a timer for each."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineExceeded(Exception):
    """The handler was cancelled for taking too long."""


class Deadlines:
    """Cancels what runs longer than `seconds`, late by a quarter of that or a second, whichever is less."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tick = min(1.0, seconds / 4)
        self._running: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._sweeping = False

    async def run(self, work: Awaitable[T]) -> T:
        """Raises DeadlineExceeded, and what `work` raises."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._tick, self._sweep, loop)
        self._running[task] = loop.time()
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._expired and task.uncancel() == 0:
                raise DeadlineExceeded from None
            raise
        finally:
            del self._running[task]
            self._expired.discard(task)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        overdue = loop.time() - self._seconds
        for task, since in self._running.items():
            if since <= overdue and task not in self._expired:
                self._expired.add(task)
                task.cancel()
        self._sweeping = bool(self._running)
        if self._sweeping:
            loop.call_later(self._tick, self._sweep, loop)
