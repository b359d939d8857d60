"""The controllers' queues: each key once, retries that wait, and a loop that notices when it goes nowhere."""

from datetime import UTC, datetime

import pytest

from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.queue import Controller, Drain, Livelock, SyncError, WorkQueue
from opsapi.playground.registry import ApiError


def clock() -> SimClock:
    return SimClock(datetime(2026, 3, 2, tzinfo=UTC))


def test_a_key_is_queued_once_and_in_order() -> None:
    queue = WorkQueue(clock())
    for key in ("a", "b", "a", "c", "b"):
        queue.add(key)
    assert [queue.pop() for _ in range(len(queue))] == ["a", "b", "c"]


def test_of_several_delays_the_earliest_counts() -> None:
    time = clock()
    queue = WorkQueue(time)
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    time.advance(9)
    assert len(queue) == 0
    time.advance(1)
    assert queue.pending() == ["a"]


def test_failures_double_the_delay_up_to_a_thousand_seconds() -> None:
    time = clock()
    queue = WorkQueue(time)
    waits = []
    for _ in range(24):
        begun = time.monotonic()
        queue.add_rate_limited("a")
        due = time.next_due()
        assert due is not None
        time.advance(due - begun)
        waits.append(time.monotonic() - begun)
        queue.pop()
    assert waits[:4] == pytest.approx([0.005, 0.01, 0.02, 0.04])
    assert waits[-1] == pytest.approx(1000)


class Scripted(Controller):
    name = "scripted"

    def __init__(self, time: SimClock, failures: int, error: Exception) -> None:
        super().__init__(time)
        self.failures = failures
        self.error = error
        self.synced = 0

    def sync(self, namespace: str, name: str) -> None:
        self.synced += 1
        if self.synced <= self.failures:
            raise self.error


def test_a_refused_write_is_retried_until_it_works() -> None:
    time = clock()
    controller = Scripted(time, 3, ApiError({"message": "quota", "code": 403}))
    drain = Drain()
    drain.add(controller)
    time.settle = drain.settle
    controller.queue.add("default/web")
    time.advance(1)
    assert controller.synced == 4


def test_an_unforeseen_failure_is_raised_or_handed_to_who_asked_for_it() -> None:
    time = clock()
    controller = Scripted(time, 2, KeyError("spec"))
    drain = Drain()
    drain.add(controller)
    controller.queue.add("default/web")
    with pytest.raises(SyncError, match="scripted failed on default/web"):
        drain.settle()
    heard: list[Exception] = []
    drain.on_error = heard.append
    time.settle = drain.settle
    time.advance(1)
    assert controller.synced == 3
    assert len(heard) == 1


def test_controllers_that_never_settle_are_named() -> None:
    class Restless(Controller):
        name = "restless"

        def sync(self, namespace: str, name: str) -> None:
            self.queue.add(f"{namespace}/{name}")

    controller = Restless(clock())
    drain = Drain()
    drain.add(controller)
    controller.queue.add("default/web")
    with pytest.raises(Livelock, match="restless:default/web"):
        drain.settle()
