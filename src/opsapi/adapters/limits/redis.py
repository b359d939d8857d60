"""The same windows in Redis, so that replicas share them; by the server's clock, each request one atomic script.

While Redis is away each process counts for itself: limits then hold per replica, and no request waits for it.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from opsapi.adapters.limits.memory import MemoryRateLimiter
from opsapi.kit.limits import RateLimiter, Window
from opsapi.kit.secret import Secret

PREFIX = "opsapi:limit:"
AWAY_SECONDS = 1.0
"""After a failure nobody asks for so long; then one request tries, while the others still count here."""
_CONNECTIONS = 32
_LONGEST_KEY = 300
_WINDOW = """
local now = tonumber(redis.call('TIME')[1])
local reset = now - now % 60 + 60
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
"""
_HIT = (
    _WINDOW
    + """
local allowed = 0
if used < tonumber(ARGV[1]) then
  allowed = 1
  used = used + 1
  redis.call('SET', KEYS[1], used, 'EXAT', reset)
end
return {allowed, used, reset}
"""
)
_PEEK = _WINDOW + "return {used < tonumber(ARGV[1]) and 1 or 0, used, reset}"
_log = logging.getLogger(__name__)


class Figures(msgspec.Struct):
    """Of this process since its start. `shared` is false while Redis is away."""

    shared: bool = True
    alone: int = 0
    """Requests that were counted in this process alone."""


class RedisRateLimiter:
    """Implements RateLimiter. What is allowed is counted in this process too, so that nobody starts anew in the minute
    in which Redis goes away."""

    def __init__(
        self,
        client: Redis,
        timeout_seconds: float,
        alone: RateLimiter | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._hit = client.register_script(_HIT)
        self._peek = client.register_script(_PEEK)
        self._timeout = timeout_seconds
        self._alone = alone or MemoryRateLimiter()
        self._monotonic = monotonic
        self._ask_from = 0.0
        self.figures = Figures()

    async def hit(self, key: str, per_minute: int) -> Window:
        window = await self._ask(self._hit, key, per_minute)
        if window is None:
            self.figures.alone += 1
            return await self._alone.hit(key, per_minute)
        if window.allowed:
            await self._alone.hit(key, per_minute)
        return window

    async def peek(self, key: str, per_minute: int) -> Window:
        window = await self._ask(self._peek, key, per_minute)
        return await self._alone.peek(key, per_minute) if window is None else window

    async def _ask(self, script: Any, key: str, per_minute: int) -> Window | None:
        """None while Redis is away."""
        now = self._monotonic()
        if now < self._ask_from:
            return None
        if not self.figures.shared:
            self._ask_from = now + self._timeout + AWAY_SECONDS
        try:
            async with asyncio.timeout(self._timeout):
                allowed, used, reset = await script(keys=[_name(key)], args=[per_minute])
        except (RedisError, OSError) as error:  # of which a timeout is one
            await self._gone(error)
            return None
        if not self.figures.shared:
            self.figures.shared, self._ask_from = True, 0.0
            _log.warning("Redis answers again: replicas share their rate limits")
        return Window(bool(allowed), per_minute, max(0, per_minute - used), reset)

    async def _gone(self, error: Exception) -> None:
        self._ask_from = self._monotonic() + AWAY_SECONDS
        if self.figures.shared:
            self.figures.shared = False
            _log.warning("Redis is away (%s): rate limits hold per process", type(error).__name__)
        # A server that comes back knows none of the connections.
        with suppress(RedisError, OSError):
            await self._client.connection_pool.disconnect(inuse_connections=False)


def _name(key: str) -> str:
    """Callers choose parts of some keys; none makes a name of any length."""
    if len(key) <= _LONGEST_KEY:
        return PREFIX + key
    return f"{PREFIX}sha256:{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()}"


def redis_pool(url: Secret, *, timeout_seconds: float, ca_file: Path | None = None) -> BlockingConnectionPool:
    """`url`: redis://, rediss:// (TLS, verified) or unix://. Raises ValueError for one that cannot be used, without
    showing it."""
    tls = {} if ca_file is None else {"ssl_ca_certs": str(ca_file)}
    try:
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url.reveal(),
            max_connections=_CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            client_name="opsapi",
            **tls,
        )
    except (ValueError, TypeError):
        raise ValueError("cannot be used; write it like redis://host:6379/0 or rediss://host:6379/0") from None
    return pool


@asynccontextmanager
async def redis_rate_limiter(pool: BlockingConnectionPool, timeout_seconds: float) -> AsyncIterator[RedisRateLimiter]:
    """Connects when first asked; closes the pool."""
    client = Redis(connection_pool=pool)
    try:
        yield RedisRateLimiter(client, timeout_seconds)
    finally:
        await client.aclose()
        await pool.disconnect()
