"""Logs: the same each time they are read, in order, and cut where the client asks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from opsapi.playground.api.providers import LogOptions
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.world import World
from support.playground_world import container, deployment, pods_of, service, small_world

PROFILE = json.dumps({"traffic": {"rps": 9}, "error_rate": 0.2, "logs": {"format": "json", "per_request": 1}})


def serving() -> tuple[World, Obj]:
    world = small_world()
    world.apply(service("web"))
    world.apply(deployment("web", container(ports=[{"containerPort": 80}]), profile=PROFILE))
    world.advance(120)
    return world, pods_of(world, "web")[0]


async def collect(stream: AsyncIterator[bytes]) -> list[str]:
    return [chunk.decode() async for chunk in stream]


async def test_a_log_is_the_same_each_time_and_in_order_of_time() -> None:
    world, pod = serving()
    first = await collect(world.logs(pod, "app", LogOptions()))
    assert first == await collect(world.logs(pod, "app", LogOptions()))
    stamps = [json.loads(line)["ts"] for line in first]
    assert stamps == sorted(stamps)
    assert {json.loads(line)["level"] for line in first} == {"info", "error"}
    assert [json.loads(line)["msg"] for line in first[:2]] == ["starting", "listening on :80"]


async def test_what_was_written_stays_when_the_world_changes() -> None:
    world, pod = serving()
    before = await collect(world.logs(pod, "app", LogOptions()))
    found = world.registry.get("deployments.apps", "default", "web")
    world.registry.update("deployments.apps", "default", "web", {**found, "spec": {**found["spec"], "replicas": 6}})
    world.advance(60)
    after = await collect(world.logs(pod, "app", LogOptions()))
    assert after[: len(before)] == before
    assert len(after) > len(before)


@pytest.mark.parametrize("count", [0, 1, 7, 100000])
async def test_the_tail_is_the_end_of_the_whole(count: int) -> None:
    world, pod = serving()
    whole = await collect(world.logs(pod, "app", LogOptions()))
    tail = await collect(world.logs(pod, "app", LogOptions(tail_lines=count)))
    assert tail == (whole[-count:] if count else [])


async def test_since_timestamps_and_a_limit_of_bytes_are_honoured() -> None:
    world, pod = serving()
    whole = await collect(world.logs(pod, "app", LogOptions()))
    recent = await collect(world.logs(pod, "app", LogOptions(since_seconds=10)))
    assert recent == whole[-len(recent) :]
    assert 5 < len(recent) < 60
    stamped = await collect(world.logs(pod, "app", LogOptions(timestamps=True, tail_lines=1)))
    assert stamped[0].split(" ", 1)[0].endswith("000Z")
    cut = await collect(world.logs(pod, "app", LogOptions(limit_bytes=100)))
    assert "".join(cut) == "".join(whole)[:100]


async def test_a_follower_sees_what_a_later_reader_sees() -> None:
    world, pod = serving()
    stream = world.logs(pod, "app", LogOptions(follow=True))
    seen: list[str] = []

    async def follow() -> None:
        async for chunk in stream:
            seen.append(chunk.decode())

    following = asyncio.create_task(follow())
    for _ in range(30):
        await asyncio.sleep(0)
        world.advance(1)
    for _ in range(5):
        await asyncio.sleep(0)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    whole = await collect(world.logs(pod, "app", LogOptions()))
    assert seen == whole[: len(seen)]
    assert len(seen) > len(whole) - 30


async def test_the_last_words_of_a_crash_are_in_the_previous_log() -> None:
    world = small_world()
    world.apply(deployment("crash", replicas=1, profile='{"requires_env": ["TOKEN"]}'))
    world.advance(60)
    lines = await collect(world.logs(pods_of(world, "crash")[0], "app", LogOptions(previous=True)))
    assert "required environment variable TOKEN is not set" in lines[-1]
    assert json.loads(lines[-1])["level"] == "fatal"


async def test_a_container_that_has_not_started_has_no_log() -> None:
    world = small_world()
    world.apply(deployment("bad", container(image="nosuch/image:1"), replicas=1))
    world.advance(10)
    with pytest.raises(ApiError, match="is waiting to start: trying and failing to pull image"):
        await collect(world.logs(pods_of(world, "bad")[0], "app", LogOptions()))


async def test_a_script_logs_what_it_echoes() -> None:
    world = small_world()
    script = container(image="busybox:1.36", command=["sh", "-c", "echo one; sleep 5; echo two; sleep 1000"])
    world.apply(deployment("job", script, replicas=1))
    world.advance(30)
    assert await collect(world.logs(pods_of(world, "job")[0], "app", LogOptions())) == ["one\n", "two\n"]
