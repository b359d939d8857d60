"""Fixed windows of one minute in this process's memory: right for one replica, nothing to run beside it."""

import time
from collections.abc import Callable

from opsapi.kit.limits import Window

MAX_KEYS = 200_000
_OVERFLOW = "\0overflow"


class MemoryRateLimiter:
    """Windows start at whole minutes of `unix_time`, the same for all keys, so that a new minute drops all counts.

    Beyond `max_keys` keys in one minute further ones share a single count: an attacker with endless keys meets a
    limit instead of filling the memory.
    """

    def __init__(self, unix_time: Callable[[], float] = time.time, max_keys: int = MAX_KEYS) -> None:
        self._unix_time = unix_time
        self._max_keys = max_keys
        self._minute = 0
        self._counts: dict[str, int] = {}

    async def hit(self, key: str, per_minute: int) -> Window:
        minute = int(self._unix_time()) // 60
        counts = self._counts
        if minute != self._minute:
            self._minute = minute
            counts = self._counts = {}
        used = counts.get(key, 0)
        if used == 0 and len(counts) >= self._max_keys:
            key = _OVERFLOW
            used = counts.get(key, 0)
        if used >= per_minute:
            return Window(False, per_minute, 0, (minute + 1) * 60)
        counts[key] = used + 1
        return Window(True, per_minute, per_minute - used - 1, (minute + 1) * 60)

    async def peek(self, key: str, per_minute: int) -> Window:
        minute = int(self._unix_time()) // 60
        used = self._counts.get(key, 0) if minute == self._minute else 0
        return Window(used < per_minute, per_minute, max(0, per_minute - used), (minute + 1) * 60)
