"""A worker dies by kill -9 at every point of healing and cleaning; another finishes, and nothing is done twice."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.operations.model import Operation, Outcome, State
from opsapi.playbooks.cleaning.model import CONFIG_MAPS, JOBS
from opsapi.workspaces.writing import ObjectKey
from support.cleaning import ago
from support.healing import DEPLOYMENTS, container, crashed
from support.mortal_playbooks import FiledObjects, MortalAttic, MortalWard, carry_out

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0
_AFTER_THE_LEASE = 60.0
OLD = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(image="shop/web:1.0")]}}
EFFECTS = [
    # before the effect, after it, after its record; of the first object, then of the second
    "after:put_item:1",
    "after:EFFECT:1",
    "after:put_item:2",
    pytest.param("before:put_item:1", marks=pytest.mark.slow),
    pytest.param("before:EFFECT:2", marks=pytest.mark.slow),
    pytest.param("after:EFFECT:2", marks=pytest.mark.slow),
    pytest.param("after:complete_step:2", marks=pytest.mark.slow),
    pytest.param("before:_end", marks=pytest.mark.slow),
]


async def run_worker(url: str, path: Path, kind: str, point: str) -> int:
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.mortal_playbooks", url, str(path), kind, point, env=environment
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Scene:
    def __init__(self, url: str, database: Database, path: Path) -> None:
        self.url = url
        self.database = database
        self.path = path

    async def play(self, kind: str, point: str) -> Operation:
        """A worker dies at `point`, another goes on to the end; then a third finds nothing to do."""
        assert await run_worker(self.url, self.path, kind, point) == -signal.SIGKILL
        ended = await carry_out(self.database, self.path, kind, "never", later=_AFTER_THE_LEASE)
        assert ended.state.final
        return ended

    @property
    def objects(self) -> FiledObjects:
        return FiledObjects(self.path)


@pytest.fixture
def scene(database_url: str, database: Database, tmp_path: Path) -> Scene:
    return Scene(database_url, database, tmp_path / "cluster.json")


def save(held: MortalWard | MortalAttic) -> None:
    objects = held.objects
    assert isinstance(objects, FiledObjects)
    objects.save()


async def hung(scene: Scene) -> None:
    ward = MortalWard(scene.database, scene.path)
    ward.deploy(ready=0)
    ward.pod("web-1", ready=False)
    ward.pod("web-2", ready=False)
    save(ward)
    await ward.heal()


async def released(scene: Scene) -> None:
    """Revision 2 crashes; one pod of revision 1 is left."""
    ward = MortalWard(scene.database, scene.path)
    ward.deploy(revision=2, ready=1)
    ward.revise("web", 1, OLD, ago=7200)
    ward.pod("web-old-1", revision=1)
    ward.pod("web-new-1", revision=2, ready=False, container_status=crashed())
    save(ward)
    await ward.heal()


async def littered(scene: Scene) -> None:
    attic = MortalAttic(scene.database, scene.path)
    condition = {"type": "Complete", "status": "True", "lastTransitionTime": ago(9)}
    attic.put(JOBS, "old", days=9, spec={"template": {}}, status={"conditions": [condition]})
    attic.put(CONFIG_MAPS, "over", days=2, meta={"annotations": {"janitor/ttl": "24h"}})
    save(attic)
    await attic.clean()


@pytest.mark.parametrize("point", EFFECTS)
async def test_a_restart_evicts_each_pod_once(scene: Scene, point: str) -> None:
    await hung(scene)
    ended = await scene.play("heal", point.replace("EFFECT", "evict"))
    assert (ended.state, ended.outcome, ended.attempts) == (State.COMPLETED, Outcome.CHANGED, 2), ended
    assert scene.objects.targets("evict") == ["pods/shop/web-1", "pods/shop/web-2"]


async def test_an_eviction_that_nobody_recorded_is_found(scene: Scene) -> None:
    await hung(scene)
    ended = await scene.play("heal", "after:evict:1")
    item = ended.step("restart_pods").items["uid-web-1"]
    assert item.effect is not None
    assert item.effect["found"] is True


@pytest.mark.parametrize("point", [*EFFECTS[:4], *EFFECTS[6:]])
async def test_a_rollback_is_written_once(scene: Scene, point: str) -> None:
    await released(scene)
    ended = await scene.play("heal", point.replace("EFFECT", "patch"))
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert scene.objects.targets("patch") == ["deployments.apps/shop/web"]
    held = scene.objects.find(DEPLOYMENTS, "shop", "web")
    assert held is not None
    assert held["spec"]["template"]["spec"]["containers"][0]["image"] == "shop/web:1.0"


@pytest.mark.parametrize("point", EFFECTS)
async def test_a_cleanup_deletes_each_object_once(scene: Scene, point: str) -> None:
    await littered(scene)
    ended = await scene.play("clean", point.replace("EFFECT", "delete"))
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert sorted(scene.objects.targets("delete")) == ["configmaps/shop/over", "jobs.batch/shop/old"]


async def test_a_deletion_that_nobody_recorded_is_found_and_its_snapshot_is_kept(scene: Scene) -> None:
    await littered(scene)
    ended = await scene.play("clean", "after:delete:1")
    items = ended.step("delete_leftovers").items
    assert [(item.effect or {}).get("found") for item in items.values()].count(True) == 1
    attic = MortalAttic(scene.database, scene.path)
    attic.clock.advance(_AFTER_THE_LEASE)
    for resource, name in ((JOBS, "old"), (CONFIG_MAPS, "over")):
        snapshot = await attic.snapshots.find(ended.id, ObjectKey("ws-123", resource, "shop", name))
        assert snapshot is not None
        assert snapshot["metadata"]["name"] == name
