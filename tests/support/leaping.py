"""Time that leaps: nobody waits, and yet every wait is counted."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class LeapingTime:
    """Implements the adapter's Timing: a sleep moves the clock by its length and ends almost at once; what is already
    on its way over the loopback comes first."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.sleep(0.002)
        self.seconds += seconds


class HeldTime(LeapingTime):
    """Time that stands still: who sleeps, sleeps until woken otherwise."""

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await asyncio.Event().wait()


async def until(condition: Callable[[], object], what: str = "", *, seconds: float = 10.0) -> None:
    """Polls a real condition between turns of the event loop; fails after `seconds` of real time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"never happened: {what or condition}"
        await asyncio.sleep(0.001)
