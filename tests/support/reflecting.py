"""A reflector at work against a misbehaving server, and what it told its listeners."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from opsapi.adapters.kubernetes.cache import Cache
from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.reflector import Reflector
from opsapi.adapters.kubernetes.transport import Line, Transport
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.workspaces.objects import POD, Kind, KubernetesObject
from opsapi.workspaces.ports import KindState, Sync
from support.leaping import LeapingTime, until
from support.misbehaving import Collection, MisbehavingServer

QUICK = Tuning(page_size=3, request_timeout=2.0, connect_timeout=2.0)


def filled(count: int = 8) -> Collection:
    """Pods web-0, web-1, … in namespace shop, on two nodes in turn."""
    collection = Collection()
    for number in range(count):
        collection.put("shop", f"web-{number}", spec={"nodeName": f"node-{number % 2}"})
    return collection


class PlainAccess:
    """HTTP without credentials."""

    def __init__(self, server: str, authorization: str | None = None) -> None:
        self.session = aiohttp.ClientSession()
        self.rejections = 0
        self._line = Line(server, self.session, authorization)

    async def line(self) -> Line:
        return self._line

    def rejected(self, line: Line) -> None:
        self.rejections += 1

    async def close(self) -> None:
        await self.session.close()


class Ear:
    """A listener that keeps its own copy from what it is told, and checks that each `old` is what it knew."""

    def __init__(self) -> None:
        self.known: dict[tuple[Kind, str, str], KubernetesObject] = {}
        self.told: list[tuple[KubernetesObject | None, KubernetesObject | None]] = []

    def __call__(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        self.told.append((old, new))
        one = new if new is not None else old
        meta = one.metadata  # type: ignore[union-attr]
        key = (kind, meta.namespace, meta.name)
        assert self.known.get(key) == old, f"told of {key} as it never was"
        if new is None:
            del self.known[key]
        else:
            self.known[key] = new

    def versions(self, kind: Kind) -> dict[tuple[str, str], tuple[str, str]]:
        return {
            (space, name): (one.metadata.uid, one.metadata.resource_version)  # type: ignore[attr-defined]
            for (of, space, name), one in self.known.items()
            if of == kind
        }


class Rig:
    """One collection, its server, a cache and a reflector on leaping time."""

    def __init__(self, server: MisbehavingServer, time: LeapingTime, tuning: Tuning, kind: Kind = POD) -> None:
        self.server = server
        self.time = time
        self.kind = kind
        self.collection = server.collections[MisbehavingServer._path(kind)]
        self.clock = ClusterClock(time)
        self.cache = Cache("ws-1", tuning, time, self.clock)
        self.access = PlainAccess(server.url)
        self.transport = Transport(self.access, tuning, time, self.clock)
        self.reflector = Reflector(self.cache.feed(kind), self.transport, tuning, time, lambda: 0.5)
        self.ear = Ear()
        self.cache.subscribe(self.ear)

    @property
    def state(self) -> KindState:
        return self.cache.state(self.kind)

    def versions(self) -> dict[tuple[str, str], tuple[str, str]]:
        return {
            (one.metadata.namespace, one.metadata.name): (one.metadata.uid, one.metadata.resource_version)  # type: ignore[attr-defined]
            for one in self.cache.all(self.kind, self.kind.struct)
        }

    def faithful(self) -> bool:
        """Cache and listener both hold what the server holds."""
        return self.versions() == self.collection.versions() == self.ear.versions(self.kind)

    async def until_faithful(self) -> None:
        await self.collection.publish()
        await until(lambda: self.state.sync is Sync.SYNCED and self.faithful(), "the cache equals the server")
        await until(lambda: self.server.requests[-1].is_watch, "it watches")


@asynccontextmanager
async def reflecting(
    collection: Collection | None = None, *, tuning: Tuning = QUICK, time: LeapingTime | None = None
) -> AsyncIterator[Rig]:
    """The reflector runs, but has not been given a turn yet: faults can still be queued."""
    time = time or LeapingTime()
    one = collection or Collection()
    async with MisbehavingServer(one, time=time.monotonic) as server:
        rig = Rig(server, time, tuning, one.kind)
        task = asyncio.create_task(rig.reflector.run())
        try:
            yield rig
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await rig.transport.close()
