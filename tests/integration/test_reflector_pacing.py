"""How often a reflector tries: spaced out, told to wait, woken, and never in a hot loop."""

import json
from itertools import pairwise

import pytest

from support.leaping import HeldTime, until
from support.misbehaving import GONE_IN_STREAM, Fault, Reply, Request, answers, slams, streams
from support.reflecting import QUICK, filled, reflecting


async def test_429_waits_as_long_as_retry_after_says() -> None:
    async with reflecting(filled(1)) as rig:
        rig.server.list_faults.append(answers(429, "TooManyRequests", headers={"Retry-After": "42"}))
        await rig.until_faithful()
        first, second = rig.server.tries(watch=False)[:2]
        assert 42 <= second.at - first.at < 44


async def test_500s_are_retried_further_and_further_apart() -> None:
    async with reflecting(filled(1)) as rig:
        rig.server.list_faults.extend([answers(500, "InternalError")] * 8)
        await rig.until_faithful()
        times = [one.at for one in rig.server.tries(watch=False)]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == sorted(gaps)
        assert gaps[0] >= 1.0
        assert gaps[-1] == pytest.approx(QUICK.backoff_cap * 0.75)


async def test_a_nudge_ends_a_long_back_off_but_not_the_minimum_interval() -> None:
    time = HeldTime()
    async with reflecting(filled(), time=time) as rig:
        rig.server.list_faults.append(answers(503, "ServiceUnavailable"))
        await until(lambda: time.sleeps)
        rig.reflector.nudge()
        await until(lambda: len(time.sleeps) == 2)
        assert len(rig.server.requests) == 1
        time.seconds += QUICK.minimum_interval
        rig.reflector.nudge()
        await rig.until_faithful()


async def test_a_nudge_does_not_disturb_who_was_told_to_wait() -> None:
    time = HeldTime()
    async with reflecting(filled(), time=time) as rig:
        rig.server.list_faults.append(answers(403, "Forbidden"))
        await until(lambda: time.sleeps)
        time.seconds += 100
        rig.reflector.nudge()
        await rig.server.cut()
        assert len(rig.server.requests) == len(time.sleeps) == 1


NASTY = {
    "empty watches": streams(),
    "410 for ever": GONE_IN_STREAM,
    "410 as status": answers(410, "Expired"),
    "500": answers(500, "InternalError"),
    "503 at once again": answers(503, headers={"Retry-After": "0"}),
    "429 at once again": answers(429, "TooManyRequests", headers={"Retry-After": "0"}),
    "401": answers(401, "Unauthorized"),
    "slammed doors": slams,
    "garbage": streams(b"<html>\n"),
    "half lines": streams(b'{"type": "AD'),
    "not JSON at all": answers(200, body=b"<html></html>"),
    "a redirect": answers(302, headers={"Location": "http://127.0.0.1:9/"}),
    "one event and a cut": streams(
        json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "5"}}}).encode() + b"\n"
    ),
}


@pytest.mark.parametrize("fault", NASTY.values(), ids=NASTY.keys())
async def test_no_fault_makes_a_hot_loop(fault: Fault) -> None:
    """At most one try a second in the long run, where a list with the watch that follows it is one try."""
    async with reflecting(filled(3)) as rig:

        async def every_watch(request: Request, reply: Reply) -> None:
            if request.is_watch or fault is NASTY["500"]:
                await fault(request, reply)
            else:
                await rig.server._list(rig.collection, request, reply)

        rig.server.always["/api/v1/pods"] = every_watch
        await until(lambda: rig.time.seconds > 300)
        seconds = rig.time.seconds
        watches, lists = rig.server.tries(watch=True), rig.server.tries(watch=False)
        assert len(watches) <= seconds + 1
        assert len(lists) <= seconds + 1
        # The client itself repeats a GET once when a kept-alive connection turns out to be closed: hence pairs.
        for tries in (watches, lists):
            assert all(later.at - earlier.at >= 0.99 for earlier, later in pairwise(tries[::2]))
        assert len(rig.server.requests) >= 5
        rig.server.always.clear()
        await rig.until_faithful()
