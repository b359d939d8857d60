"""The rate-limit port: fixed windows of one minute, in memory or in Redis."""

from typing import Protocol

import msgspec


class Window(msgspec.Struct, frozen=True):
    """Where a caller stands: `remaining` after this request (0 with `allowed` false), `reset` as Unix seconds."""

    allowed: bool
    limit: int
    remaining: int
    reset: int


class RateLimiter(Protocol):
    async def hit(self, key: str, per_minute: int) -> Window:
        """Counts one request against `key`'s current window."""
        ...

    async def peek(self, key: str, per_minute: int) -> Window:
        """Where `key` stands, counting nothing; `allowed` says whether a next request would be."""
        ...
