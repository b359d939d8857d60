"""Rate limits keep the same promises in memory and in Redis; in Redis, replicas share them."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from opsapi.adapters.limits.memory import MemoryRateLimiter
from opsapi.adapters.limits.redis import AWAY_SECONDS, PREFIX, RedisRateLimiter, redis_pool, redis_rate_limiter
from opsapi.kit.limits import RateLimiter
from opsapi.kit.secret import Secret
from support.certificates import Authority
from support.redis_server import PROGRAM, RedisServer, redis_server, settled

__all__ = ["redis_server"]
TIMEOUT = 0.5


def shared_limiter(
    url: Secret, *, timeout_seconds: float, ca_file: Path | None = None
) -> AbstractAsyncContextManager[RedisRateLimiter]:
    return redis_rate_limiter(redis_pool(url, timeout_seconds=timeout_seconds, ca_file=ca_file), timeout_seconds)


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[RateLimiter]:
    await settled()
    if request.param == "memory":
        yield MemoryRateLimiter()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    async with shared_limiter(server.url, timeout_seconds=5) as shared:
        yield shared


async def test_a_window_allows_its_limit_and_then_refuses_until_the_minute_ends(limiter: RateLimiter) -> None:
    windows = [await limiter.hit("a", 3) for _ in range(5)]
    assert [(one.allowed, one.remaining, one.limit) for one in windows] == [
        (True, 2, 3), (True, 1, 3), (True, 0, 3), (False, 0, 3), (False, 0, 3),
    ]  # fmt: skip
    (reset,) = {one.reset for one in windows}
    assert reset % 60 == 0
    assert 0 < reset - time.time() <= 60


async def test_keys_are_counted_apart_and_a_peek_counts_nothing(limiter: RateLimiter) -> None:
    await limiter.hit("a", 1)
    peeks = [await limiter.peek("b", 2) for _ in range(3)]
    assert {(one.allowed, one.remaining) for one in peeks} == {(True, 2)}
    assert (await limiter.hit("b", 2)).remaining == 1
    assert (await limiter.peek("a", 1)).allowed is False
    assert await limiter.peek("b", 2) == await limiter.peek("b", 2)


async def test_of_many_at_once_no_more_than_the_limit_pass(limiter: RateLimiter) -> None:
    windows = await asyncio.gather(*(limiter.hit("a", 37) for _ in range(100)))
    assert sum(one.allowed for one in windows) == 37
    assert sorted(one.remaining for one in windows if one.allowed) == list(range(37))


@pytest.mark.parametrize("key", ["", "a b", "ключ", "x" * 2000, "\0\n", "{a}:*"])
async def test_any_key_will_do(limiter: RateLimiter, key: str) -> None:
    assert [(await limiter.hit(key, 1)).allowed for _ in range(2)] == [True, False]


async def test_two_replicas_share_their_limits(redis_server: RedisServer) -> None:
    await settled()
    async with (
        shared_limiter(redis_server.url, timeout_seconds=5) as one,
        shared_limiter(redis_server.url, timeout_seconds=5) as two,
    ):
        windows = await asyncio.gather(*((one, two)[number % 2].hit("a", 37) for number in range(100)))
        assert sum(window.allowed for window in windows) == 37
        assert (await one.peek("a", 37)) == (await two.peek("a", 37))
        assert (one.figures.alone, two.figures.alone) == (0, 0)


async def test_a_count_ends_with_its_window_and_leaves_nothing_behind(redis_server: RedisServer) -> None:
    await settled()
    async with shared_limiter(redis_server.url, timeout_seconds=5) as limiter:
        window = await limiter.hit("a", 5)
        await limiter.hit("a", 5)
        await limiter.peek("never", 5)
    async with Redis.from_url(redis_server.url.reveal()) as client:
        assert await client.keys() == [f"{PREFIX}a".encode()]
        assert await client.expiretime(f"{PREFIX}a") == window.reset


def _messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "opsapi.adapters.limits.redis"]


async def _asked_again(limiter: RedisRateLimiter) -> None:
    """Until the limiter has found Redis back."""
    async with asyncio.timeout(30):
        while not limiter.figures.shared:
            await limiter.peek("probe", 1)
            await asyncio.sleep(0.02)


async def test_while_redis_is_away_each_process_limits_alone_says_so_once_and_comes_back(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await settled()
    async with shared_limiter(redis_server.url, timeout_seconds=TIMEOUT) as limiter:
        assert [(await limiter.hit("a", 4)).remaining for _ in range(2)] == [3, 2]
        redis_server.kill()
        with caplog.at_level(logging.WARNING):
            # What this process let pass before still counts.
            assert [(await limiter.hit("a", 4)).allowed for _ in range(4)] == [True, True, False, False]
            assert (await limiter.peek("a", 4)).allowed is False
            assert (limiter.figures.shared, limiter.figures.alone) == (False, 4)
            assert _messages(caplog) == ["Redis is away (ConnectionError): rate limits hold per process"]
            redis_server.start()
            await _asked_again(limiter)
            assert (await limiter.hit("b", 4)).remaining == 3
        assert _messages(caplog)[1:] == ["Redis answers again: replicas share their rate limits"]
        assert limiter.figures.alone == 4


async def test_a_redis_that_hangs_delays_one_request_by_the_timeout_and_no_other(redis_server: RedisServer) -> None:
    await settled()
    now = 0.0
    async with shared_limiter(redis_server.url, timeout_seconds=0.1) as made:
        limiter = RedisRateLimiter(made._client, 0.1, monotonic=lambda: now)
        await limiter.hit("a", 1000)
        redis_server.send(signal.SIGSTOP)
        try:
            await limiter.hit("a", 1000)
            assert not limiter.figures.shared
            for _ in range(200):
                await limiter.hit("a", 1000)
            assert limiter.figures.alone == 201
            now = AWAY_SECONDS
            # One asks again, and while it waits the others do not.
            windows = await asyncio.gather(*(limiter.hit("a", 1000) for _ in range(50)))
            assert all(window.allowed for window in windows)
            assert limiter.figures.alone == 251
        finally:
            redis_server.send(signal.SIGCONT)
        now = 10 * AWAY_SECONDS
        await limiter.hit("a", 1000)
        assert limiter.figures.shared


async def test_over_tls_the_server_is_verified(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority()
    issued = authority.issue("localhost")
    for name, pem in (("cert.pem", issued.certificate), ("key.pem", issued.key), ("ca.pem", authority.pem)):
        (tmp_path / name).write_bytes(pem)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    files = [f"--tls-{what}-file" for what in ("cert", "key", "ca-cert")]
    paths = [str(tmp_path / name) for name in ("cert.pem", "key.pem", "ca.pem")]
    more = [part for pair in zip(files, paths, strict=True) for part in pair]
    server = RedisServer(tmp_path, "--tls-port", str(port), "--tls-auth-clients", "no", *more)
    url = Secret(f"rediss://127.0.0.1:{port}/0")
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (Debian: redis-server)")
    server.start()
    try:
        async with shared_limiter(url, timeout_seconds=5, ca_file=tmp_path / "ca.pem") as trusting:
            await trusting.hit("a", 5)
            assert trusting.figures.alone == 0
        async with shared_limiter(url, timeout_seconds=5) as wary:
            await wary.hit("a", 5)
            assert wary.figures.alone == 1
    finally:
        server.kill()


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost:notaport/0"])
async def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be used") as refused:
        redis_pool(Secret(url), timeout_seconds=1)
    assert url not in str(refused.value)
