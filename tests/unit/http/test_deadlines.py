"""One sweep that ends what takes too long."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from opsapi.http.deadlines import Deadlines

T = TypeVar("T")


class DeadlineExceeded(Exception):
    pass


async def bounded(deadlines: Deadlines, work: Awaitable[T]) -> T:
    """As serving.py does it."""
    task = deadlines.enter()
    try:
        return await work
    except asyncio.CancelledError:
        if not deadlines.expired(task):
            raise
        raise DeadlineExceeded from None
    finally:
        deadlines.leave(task)


async def test_what_is_done_in_time_gives_its_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await bounded(Deadlines(5), work()) == 7


async def test_what_takes_too_long_is_cancelled_and_says_so() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    deadlines = Deadlines(0.02)
    with pytest.raises(DeadlineExceeded):
        await bounded(deadlines, work())
    assert cancelled.is_set()
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    assert deadlines._running == {}


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    deadlines = Deadlines(5)
    task = asyncio.create_task(bounded(deadlines, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_each_is_ended_by_its_own_deadline_only() -> None:
    deadlines = Deadlines(0.04)
    release = asyncio.Event()

    async def quick() -> str:
        await release.wait()
        return "done"

    slow = asyncio.create_task(bounded(deadlines, asyncio.Event().wait()))
    with pytest.raises(DeadlineExceeded):
        await slow
    later = asyncio.create_task(bounded(deadlines, quick()))
    await asyncio.sleep(0)
    release.set()
    assert await later == "done"


async def test_a_timeout_of_the_work_itself_is_not_taken_for_the_deadline() -> None:
    async def work() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await bounded(Deadlines(5), work())
