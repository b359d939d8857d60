"""Whatever happens to the cluster and to the connection, the cache and its listeners end up equal to the cluster."""

from collections.abc import Callable

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsapi.adapters.kubernetes.tuning import Tuning
from support.misbehaving import (
    GONE_IN_STREAM,
    Collection,
    Fault,
    Reply,
    Request,
    answers,
    events,
    hangs,
    hangs_in_stream,
    slams,
    streams,
)
from support.reflecting import Rig, reflecting

TUNING = Tuning(page_size=2, request_timeout=0.05, stale_after=0.05, read_grace=0.02)


class Step(msgspec.Struct, frozen=True):
    """One thing that happens; the name is what a failing example shows."""

    what: str
    name: str = ""
    number: int = 0


def _backwards(rig: Rig) -> Fault:
    """A watch that tells all that happened, twice, the newest first."""

    async def fault(request: Request, reply: Reply) -> None:
        since = list(rig.collection.since(int(request.query["resourceVersion"])))
        if int(request.query["resourceVersion"]) < rig.collection.compacted:
            await GONE_IN_STREAM(request, reply)
            return
        told = [(kind, one) for _, kind, one in reversed(since)]
        await streams(events(*told, *told))(request, reply)

    return fault


def _half(rig: Rig) -> Fault:
    """A watch that is cut in the middle of its last line."""

    async def fault(request: Request, reply: Reply) -> None:
        since = [(kind, one) for _, kind, one in rig.collection.since(int(request.query["resourceVersion"]))]
        await streams(events(*since)[:-25], clean=False)(request, reply)

    return fault


FAULTS: dict[str, Callable[[Rig], Fault]] = {
    "500": lambda _: answers(500, "InternalError"),
    "429": lambda _: answers(429, "TooManyRequests", headers={"Retry-After": "3"}),
    "403": lambda _: answers(403, "Forbidden"),
    "404": lambda _: answers(404, body=b"404 page not found\n"),
    "401": lambda _: answers(401, "Unauthorized"),
    "410": lambda _: answers(410, "Expired"),
    "slammed": lambda _: slams,
    "hanging": lambda _: hangs,
    "no JSON": lambda _: answers(200, body=b"<html>"),
}
WATCH_FAULTS: dict[str, Callable[[Rig], Fault]] = FAULTS | {
    "gone in the stream": lambda _: GONE_IN_STREAM,
    "closed at once": lambda _: streams(),
    "silent": lambda _: hangs_in_stream,
    "garbage": lambda _: streams(b'{"type":\n'),
    "unknown event": lambda _: streams(b'{"type": "NEWS", "object": {}}\n'),
    "backwards": _backwards,
    "half a line": _half,
}
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
STEPS = st.lists(
    st.one_of(
        st.builds(Step, st.sampled_from(["put", "recreate", "delete"]), NAMES, st.integers(0, 3)),
        st.builds(Step, st.sampled_from(["publish", "compact", "cut", "away", "turn"])),
        st.builds(Step, st.just("list fault"), st.sampled_from(sorted(FAULTS))),
        st.builds(Step, st.just("watch fault"), st.sampled_from(sorted(WATCH_FAULTS))),
    ),
    max_size=25,
)


async def _take(rig: Rig, step: Step) -> None:
    collection, server = rig.collection, rig.server
    match step.what:
        case "put" | "recreate":
            recreate = step.what == "recreate"
            collection.put("shop", step.name, recreate=recreate, spec={"nodeName": f"node-{step.number}"})
        case "delete":
            collection.delete("shop", step.name)
        case "publish":
            await collection.publish()
        case "compact":
            collection.compact()
        case "cut":
            await server.cut()
        case "away":
            await server.stop()
            await rig.time.sleep(0)
            await server.start()
        case "turn":
            await rig.time.sleep(0)
        case "list fault":
            server.list_faults.append(FAULTS[step.name](rig))
        case "watch fault":
            server.watch_faults.append(WATCH_FAULTS[step.name](rig))


@given(steps=STEPS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_the_cache_always_converges_to_the_cluster(steps: list[Step]) -> None:
    collection = Collection()
    collection.put("shop", "a")
    collection.put("shop", "b")
    collection.put("shop", "c")
    async with reflecting(collection, tuning=TUNING) as rig:
        for step in steps:
            await _take(rig, step)
        await rig.until_faithful()
        on_node = {pod.metadata.name for number in range(4) for pod in rig.cache.pods_on(f"node-{number}")}
        bound = {name for (_, name), one in collection.objects.items() if one.get("spec")}
        assert on_node == bound
