"""The rate limiter: Redis' where the configuration names one, else this process' own."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from opsapi.adapters.limits.memory import MemoryRateLimiter
from opsapi.kit.limits import RateLimiter
from opsapi.settings.model import LimitSettings
from opsapi.settings.source import InvalidConfiguration

if TYPE_CHECKING:
    from opsapi.adapters.limits.redis import Figures


@asynccontextmanager
async def rate_limiter(settings: LimitSettings) -> AsyncIterator[tuple[RateLimiter, Sequence[Collector]]]:
    """With what there is to tell of it. Raises InvalidConfiguration."""
    if settings.redis_url is None:
        yield MemoryRateLimiter(), ()
        return
    try:
        from opsapi.adapters.limits.redis import redis_pool, redis_rate_limiter
    except ImportError:
        raise InvalidConfiguration(["limits.redis_url: needs another package: pip install 'opsapi[redis]'"]) from None
    seconds = settings.redis_timeout_seconds
    try:
        pool = redis_pool(settings.redis_url, timeout_seconds=seconds, ca_file=settings.redis_ca_file)
    except ValueError as error:
        raise InvalidConfiguration([f"limits.redis_url: {error}"]) from None
    async with redis_rate_limiter(pool, seconds) as limiter:
        yield limiter, (RedisCollector(limiter.figures),)


class RedisCollector(Collector):
    """Reads memory only."""

    def __init__(self, figures: "Figures") -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("opsapi_rate_limits_shared", "1 while Redis answers.", 1 if self._figures.shared else 0)
        yield CounterMetricFamily(
            "opsapi_rate_limits_alone", "Requests that were counted in this process alone.", self._figures.alone
        )
