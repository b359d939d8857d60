"""Fixed windows in memory."""

from hypothesis import given
from hypothesis import strategies as st

from opsapi.adapters.limits.memory import MemoryRateLimiter


class Time:
    def __init__(self, now: float = 1200.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def test_a_window_allows_its_limit_and_then_refuses_until_the_minute_ends() -> None:
    time = Time()
    limiter = MemoryRateLimiter(time)
    windows = [await limiter.hit("a", 2) for _ in range(3)]
    assert [(w.allowed, w.remaining) for w in windows] == [(True, 1), (True, 0), (False, 0)]
    assert {w.reset for w in windows} == {1260}
    time.now = 1259.9
    assert not (await limiter.hit("a", 2)).allowed
    time.now = 1260
    assert await limiter.hit("a", 2) == await MemoryRateLimiter(time).hit("a", 2)


async def test_keys_are_counted_apart() -> None:
    limiter = MemoryRateLimiter(Time())
    await limiter.hit("a", 1)
    assert (await limiter.hit("b", 1)).allowed


async def test_a_peek_counts_nothing() -> None:
    time = Time()
    limiter = MemoryRateLimiter(time)
    await limiter.hit("a", 2)
    peeks = [await limiter.peek("a", 2) for _ in range(5)]
    assert {(w.allowed, w.remaining) for w in peeks} == {(True, 1)}
    await limiter.hit("a", 2)
    assert not (await limiter.peek("a", 2)).allowed
    time.now += 60
    assert (await limiter.peek("a", 2)).remaining == 2


async def test_endless_keys_meet_a_shared_limit_and_known_keys_go_on() -> None:
    limiter = MemoryRateLimiter(Time(), max_keys=3)
    for key in ("a", "b", "c"):
        assert (await limiter.hit(key, 2)).allowed
    strangers = [(await limiter.hit(f"stranger-{i}", 2)).allowed for i in range(4)]
    assert strangers == [True, True, False, False]
    assert (await limiter.hit("a", 2)).allowed
    assert len(limiter._counts) == 4


@given(
    limit=st.integers(1, 20),
    hits=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=200),
)
async def test_no_key_passes_more_than_its_limit_in_a_minute(limit: int, hits: list[tuple[str, int]]) -> None:
    time = Time()
    limiter = MemoryRateLimiter(time)
    passed: dict[tuple[str, int], int] = {}
    for key, later in hits:
        time.now += later
        window = await limiter.hit(key, limit)
        at = (key, int(time.now) // 60)
        passed[at] = passed.get(at, 0) + window.allowed
        assert window.remaining == limit - passed[at]
        assert time.now < window.reset <= time.now + 60
    assert all(number <= limit for number in passed.values())
