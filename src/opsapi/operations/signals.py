"""Wakes those who wait in this process; what other replicas do, they find out by polling."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """Topics are free words: an operation's id, or `QUEUED` for work that waits."""

    QUEUED = "queued"

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def notify(self, topic: str) -> None:
        for event in self._waiting.get(topic, ()):
            event.set()

    @contextmanager
    def subscribe(self, topic: str) -> Iterator["Subscription"]:
        """Subscribe first, look afterwards, then wait: so that nothing is missed in between."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(topic, set())
        waiting.add(event)
        try:
            yield Subscription(event)
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(topic, None)


class Subscription:
    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, seconds: float) -> bool:
        """Whether something was notified since the last wait; returns at the latest after `seconds`."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True
