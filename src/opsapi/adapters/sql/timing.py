"""How long queries take: a rolling window fed by SQLAlchemy's events."""

from collections import deque
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from opsapi.kit.clock import Clock

WINDOW_SECONDS = 300.0
BUCKET_SECONDS = 10.0
SLOW_SECONDS = 0.5
_STARTED = "opsapi_started"


class _Bucket:
    __slots__ = ("count", "seconds", "slow", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.count = 0
        self.seconds = 0.0
        self.slow = 0


class QueryTimes:
    """Count, total time and slow ones of the queries of the last five minutes, in buckets of ten seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: deque[_Bucket] = deque()

    def listen(self, engine: sa.Engine) -> None:
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)

    def _before(self, connection: sa.Connection, *_: Any) -> None:
        connection.info[_STARTED] = self._clock.monotonic()

    def _after(self, connection: sa.Connection, *_: Any) -> None:
        # One that failed or was cancelled says nothing of speed; the next one overwrites what it left.
        started = connection.info.pop(_STARTED, None)
        if started is not None:
            self.add(self._clock.monotonic() - started)

    def add(self, seconds: float) -> None:
        now = self._clock.monotonic()
        if not self._buckets or now - self._buckets[-1].start >= BUCKET_SECONDS:
            self._forget(now)
            self._buckets.append(_Bucket(now))
        bucket = self._buckets[-1]
        bucket.count += 1
        bucket.seconds += seconds
        bucket.slow += seconds >= SLOW_SECONDS

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0].start > WINDOW_SECONDS:
            self._buckets.popleft()

    def recent(self) -> tuple[float | None, int]:
        """(average in milliseconds or None without queries, number of queries of half a second or more)."""
        self._forget(self._clock.monotonic())
        count = sum(bucket.count for bucket in self._buckets)
        if not count:
            return None, 0
        total = sum(bucket.seconds for bucket in self._buckets)
        return round(total / count * 1000, 3), sum(bucket.slow for bucket in self._buckets)
