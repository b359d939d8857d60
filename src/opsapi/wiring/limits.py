"""The rate limiter: Redis' where the configuration names one, else this process' own."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from opsapi.adapters.limits.memory import MemoryRateLimiter
from opsapi.kit.limits import RateLimiter
from opsapi.kit.secret import Secret
from opsapi.settings.model import LimitSettings
from opsapi.settings.source import InvalidConfiguration

if TYPE_CHECKING:
    from opsapi.adapters.limits.redis import Figures, RedisRateLimiter


@asynccontextmanager
async def rate_limiter(settings: LimitSettings) -> AsyncIterator[tuple[RateLimiter, Sequence[Collector]]]:
    """With what there is to tell of it. Raises InvalidConfiguration."""
    if settings.redis_url is None:
        yield MemoryRateLimiter(), ()
        return
    async with _shared(settings, settings.redis_url) as limiter:
        yield limiter, (RedisCollector(limiter.figures),)


async def redis_answers(settings: LimitSettings) -> bool:
    """Asks the configured Redis once, counting nothing. Raises InvalidConfiguration."""
    if settings.redis_url is None:
        return False
    async with _shared(settings, settings.redis_url) as limiter:
        await limiter.peek("check", 1)
        return limiter.figures.shared


@asynccontextmanager
async def _shared(settings: LimitSettings, url: Secret) -> AsyncIterator["RedisRateLimiter"]:
    try:
        from opsapi.adapters.limits.redis import redis_pool, redis_rate_limiter
    except ImportError:
        raise InvalidConfiguration(["limits.redis_url: needs another package: pip install 'opsapi[redis]'"]) from None
    seconds = settings.redis_timeout_seconds
    try:
        pool = redis_pool(url, timeout_seconds=seconds, ca_file=settings.redis_ca_file)
    except ValueError as error:
        raise InvalidConfiguration([f"limits.redis_url: {error}"]) from None
    async with redis_rate_limiter(pool, seconds) as limiter:
        yield limiter


class RedisCollector(Collector):
    """Reads memory only."""

    def __init__(self, figures: "Figures") -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("opsapi_rate_limits_shared", "1 while Redis answers.", 1 if self._figures.shared else 0)
        yield CounterMetricFamily(
            "opsapi_rate_limits_alone", "Requests that were counted in this process alone.", self._figures.alone
        )
