"""Deadlines for handlers at the price of a dict entry: one sweep for all instead of a timer for each."""

import asyncio
from typing import Any


class Deadlines:
    """Cancels what runs longer than `seconds`, late by a quarter of that or a second, whichever is less."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tick = min(1.0, seconds / 4)
        self._running: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._sweeping = False

    def enter(self) -> asyncio.Task[Any]:
        """The current task is bounded until `leave` is called with it."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._tick, self._sweep, loop)
        self._running[task] = loop.time()
        return task

    def expired(self, task: asyncio.Task[Any]) -> bool:
        """Whether a cancellation was the deadline's and nobody else's; then it is undone."""
        return task in self._expired and task.uncancel() == 0

    def leave(self, task: asyncio.Task[Any]) -> None:
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
