"""A worker that carries a playbook out on a cluster in a file, and kills itself with SIGKILL at a named point.

    python -m support.mortal_playbooks DATABASE_URL FILE (heal|vain|clean) POINT

`vain` heals, but no new pod becomes ready, so that it is undone. POINT as in mortal_worker. Time is each process' own
and leaps, but for leases, which PostgreSQL measures by its own.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from opsapi.adapters.sql.engine import Database
from opsapi.operations.model import Operation
from opsapi.policy.model import PolicySettings
from opsapi.workspaces.writing import JsonObject, ObjectKey, Resource
from support.api_objects import PODS, FakeObjects, Write
from support.cleaning import Attic
from support.healing import DEPLOYMENTS, UNHURRIED, Ward
from support.inventory import FakeInventory
from support.mortal_worker import arm

LEASE = timedelta(seconds=0.3)
_POLL_SECONDS = 0.005


class Kept(msgspec.Struct):
    held: list[tuple[Resource, str, str, JsonObject]]
    writes: list[Write]
    version: int


class FiledObjects(FakeObjects):
    """What is written is in the file before the call returns; `react` are the cluster's controllers, whose answer to a
    write is there with it."""

    def __init__(self, path: Path, inventory: FakeInventory | None = None) -> None:
        super().__init__(inventory)
        self._path = path
        self.react: Callable[[str, str], None] = lambda _verb, _target: None
        if path.exists():
            kept = msgspec.json.decode(path.read_bytes(), type=Kept)
            for resource, namespace, name, body in kept.held:
                self._keep((resource, namespace, name), body)
            self.writes, self._version = list(kept.writes), kept.version

    def save(self) -> None:
        held = [(resource, namespace, name, body) for (resource, namespace, name), body in self.held.items()]
        self._path.write_bytes(msgspec.json.encode(Kept(held, self.writes, self._version)))

    async def create(self, *arguments: Any, **named: Any) -> JsonObject:
        created: JsonObject = await self._write(super().create(*arguments, **named), "create")
        return created

    async def patch(self, key: ObjectKey, *arguments: Any, **named: Any) -> JsonObject:
        patched: JsonObject = await self._write(super().patch(key, *arguments, **named), "patch", str(key))
        return patched

    async def delete(self, key: ObjectKey, **named: Any) -> None:
        await self._write(super().delete(key, **named), "delete", str(key))

    async def evict(self, key: ObjectKey, **named: Any) -> None:
        await self._write(super().evict(key, **named), "evict", str(key))

    async def _write(self, writing: Awaitable[Any], verb: str, target: str = "") -> Any:
        answer = await writing
        self.react(verb, target)
        self.save()
        return answer


class MortalWard(Ward):
    def __init__(
        self, database: Database, path: Path, *, cures: bool = True, policy: PolicySettings = UNHURRIED
    ) -> None:
        self._path = path
        self._cures = cures
        super().__init__(database, policy=policy)
        self.objects.evicted = self.replace_evicted

    def make_objects(self) -> FakeObjects:
        filed = FiledObjects(self._path, self.inventory)
        filed.react = self._roll
        return filed

    async def idle(self) -> None:
        await asyncio.sleep(_POLL_SECONDS)
        await super().idle()

    def _roll(self, verb: str, target: str) -> None:
        """The Deployment's controller: new pods for a new template, which are well but for revision 2's."""
        if verb != "patch":
            return
        held = self.objects.find(DEPLOYMENTS, "shop", "web")
        assert held is not None
        revision = int(held["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2].partition(".")[0])
        for kind, namespace, name in list(self.objects.held):
            if kind == PODS:
                self.objects.remove(kind, namespace, name)
        for number in (1, 2):
            self.pod(f"web-r{revision}-{number}", revision=revision, ready=self._cures and revision == 1)
        self.count()


class MortalAttic(Attic):
    def __init__(self, database: Database, path: Path) -> None:
        self._path = path
        super().__init__(database)

    def make_objects(self) -> FakeObjects:
        return FiledObjects(self._path)

    async def idle(self) -> None:
        await asyncio.sleep(_POLL_SECONDS)
        await super().idle()


SCENES: dict[str, Callable[[Database, Path], MortalWard | MortalAttic]] = {
    "heal": MortalWard,
    "vain": partial(MortalWard, cures=False),
    "clean": MortalAttic,
}


async def carry_out(database: Database, path: Path, kind: str, point: str, *, later: float = 0) -> Operation:
    """Until nothing is claimable; `later` seconds after the operation began."""
    scene = SCENES[kind](database, path)
    scene.clock.advance(later)
    if point != "never":
        when, method, *nth = point.split(":")
        for held in (scene.ledger, scene.objects):
            arm(held, method, when, int(nth[0]) if nth else 1)
    return await scene.work(lease=LEASE)


async def _main(url: str, path: str, kind: str, point: str) -> None:
    await carry_out(Database(url), Path(path), kind, point)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:5]))
