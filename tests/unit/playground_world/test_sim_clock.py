"""Virtual time: order, settling, cancellation, and the drive from wall time."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.clock import SimClock

EPOCH = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def test_a_clock_needs_an_epoch_with_an_offset() -> None:
    with pytest.raises(ValueError, match="UTC offset"):
        SimClock(datetime(2026, 3, 2, 9, 0))  # noqa: DTZ001


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        SimClock(EPOCH).advance(-1)


@given(st.lists(st.floats(0, 1000), max_size=40))
def test_timers_fire_in_order_of_time_then_of_registration(delays: list[float]) -> None:
    clock = SimClock(EPOCH)
    fired: list[tuple[float, int]] = []

    def note(number: int) -> None:
        fired.append((clock.monotonic(), number))

    for index, delay in enumerate(delays):
        clock.call_later(delay, lambda number=index: note(number))  # type: ignore[misc]
    clock.advance(1000)
    assert [number for _, number in fired] == sorted(range(len(delays)), key=lambda i: (delays[i], i))
    assert [at for at, _ in fired] == sorted(delays)
    assert clock.monotonic() == 1000


def test_a_timer_set_by_a_timer_fires_within_the_same_advance() -> None:
    clock = SimClock(EPOCH)
    fired: list[float] = []

    def again() -> None:
        fired.append(clock.monotonic())
        if len(fired) < 3:
            clock.call_later(10, again)

    clock.call_later(10, again)
    clock.advance(100)
    assert fired == [10, 20, 30]


def test_a_cancelled_timer_does_not_fire() -> None:
    clock = SimClock(EPOCH)
    fired: list[int] = []
    timer = clock.call_later(5, lambda: fired.append(1))
    timer.cancel()
    timer.cancel()
    clock.advance(10)
    assert fired == []
    assert clock.next_due() is None


def test_the_world_settles_after_each_instant_and_sees_its_time() -> None:
    clock = SimClock(EPOCH)
    settled: list[float] = []
    clock.settle = lambda: settled.append(clock.monotonic())
    for delay in (1.0, 1.0, 4.0):
        clock.call_later(delay, lambda: None)
    clock.advance(5)
    assert settled == [0, 1, 4, 5]


def test_wall_time_and_readings_convert_both_ways() -> None:
    clock = SimClock(EPOCH)
    clock.advance(90.5)
    assert clock.at(clock.now()) == 90.5
    assert clock.wall(90.5) == clock.now()


async def test_driven_from_wall_time_it_moves_on_and_wakes_who_waits() -> None:
    clock = SimClock(EPOCH)
    driving = asyncio.create_task(clock.run(speed=1000))
    await asyncio.wait_for(clock.until(20), timeout=10)
    assert clock.monotonic() >= 20
    driving.cancel()
    with suppress(asyncio.CancelledError):
        await driving


async def test_a_wake_settles_without_waiting_for_time_to_pass() -> None:
    clock = SimClock(EPOCH)
    settled = asyncio.Event()
    driving = asyncio.create_task(clock.run(speed=1))
    await asyncio.sleep(0)
    clock.settle = settled.set
    clock.wake()
    await asyncio.wait_for(settled.wait(), timeout=10)
    driving.cancel()
    with suppress(asyncio.CancelledError):
        await driving


async def test_a_long_advance_lets_others_run_in_between() -> None:
    clock = SimClock(EPOCH)
    count = 0

    def busy() -> None:
        nonlocal count
        count += sum(range(2000)) > 0
        clock.call_later(0.01, busy)

    busy()
    others = 0

    async def other() -> None:
        nonlocal others
        while clock.monotonic() < 60:
            others += 1
            await asyncio.sleep(0)

    await asyncio.gather(clock.advance_in_slices(60), other())
    assert count > 5000
    assert others > 1
