"""A worker dies by kill -9 at every point of healing and cleaning; another finishes, and nothing is done twice."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.kit.caller import AccountKind, System
from opsapi.kit.errors import PolicyRule
from opsapi.operations.model import Operation, Outcome, State, Undo, UndoState
from opsapi.playbooks.cleaning.model import CONFIG_MAPS, JOBS
from opsapi.playbooks.cleaning.steps import RESTORED_BY
from opsapi.policy.admission import Admission
from opsapi.policy.model import Ask, Subject, Waiver
from opsapi.workspaces.writing import JsonObject, ObjectKey
from support.cleaning import ago
from support.healing import DEPLOYMENTS, UNHURRIED, container, crashed
from support.mortal_playbooks import FiledObjects, MortalAttic, MortalWard, carry_out

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0
_AFTER_THE_LEASE = 60.0
FREE = msgspec.structs.replace(UNHURRIED, waivers=(Waiver(account="sa-agent", rules=(PolicyRule.RESIZE,)),))
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

UNDOS = [
    # of the one template: the write is the first patch, the way back the second
    "after:put_item:4",
    "after:patch:2",
    "after:put_item:5",
    "before:fail_step",
    "before:note_undo",
    "before:_end",
]
RESTORES = [
    "after:put_item:1",
    "after:create:1",
    "after:put_item:2",
    "after:create:2",
    "before:note_undo",
    "before:_end",
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
        ledger = MortalWard(self.database, self.path).ledger
        assert [await ledger.holder(lock) for lock in ended.locks] == [None for _ in ended.locks]
        return ended

    def template(self) -> JsonObject:
        held = self.objects.find(DEPLOYMENTS, "shop", "web")
        assert held is not None
        found: JsonObject = held["spec"]["template"]
        return found

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


async def starved(scene: Scene) -> None:
    ward = MortalWard(scene.database, scene.path, policy=FREE)
    ward.deploy(ready=0)
    for name in ("web-1", "web-2"):
        ward.pod(name, ready=False, container_status=crashed("OOMKilled", 137))
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
    assert scene.template()["spec"]["containers"][0]["image"] == "shop/web:1.0"


@pytest.mark.parametrize("point", [*EFFECTS[:4], *EFFECTS[6:]])
async def test_a_memory_limit_is_raised_once(scene: Scene, point: str) -> None:
    await starved(scene)
    ended = await scene.play("heal", point.replace("EFFECT", "patch"))
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert scene.objects.targets("patch") == ["deployments.apps/shop/web"]
    assert scene.template()["spec"]["containers"][0]["resources"]["limits"]["memory"] == "260Mi"


@pytest.mark.parametrize("point", UNDOS)
@pytest.mark.parametrize(("ill", "step"), [("released", "rollback_release"), ("starved", "raise_memory_limit")])
async def test_a_template_that_did_not_heal_is_taken_back_once(scene: Scene, ill: str, step: str, point: str) -> None:
    await {"released": released, "starved": starved}[ill](scene)
    before = scene.template()
    ended = await scene.play("vain", point)
    assert (ended.state, ended.error and ended.error.code) == (State.ROLLED_BACK, "NOT_READY"), ended
    assert ended.step(step).undo == Undo(state=UndoState.UNDONE)
    assert scene.objects.targets("patch") == ["deployments.apps/shop/web"] * 2
    assert scene.template() == before


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


@pytest.mark.parametrize("point", RESTORES)
async def test_what_is_asked_back_is_created_once(scene: Scene, point: str) -> None:
    await littered(scene)
    done = await carry_out(scene.database, scene.path, "clean", "never")
    attic = MortalAttic(scene.database, scene.path)
    ask = Ask(
        subject=Subject("sa-person", AccountKind.PERSON, "ws-123", "act"), action=done.action, at=attic.clock.now()
    )
    admission = Admission(ask, UNHURRIED, exempt=True)
    until = attic.clock.now() + timedelta(days=36500)
    await attic.ledger.reopen(
        done.id, System(origin="cli", action="test", user="root"), admission=admission, until=until
    )
    ended = await scene.play("clean", point)
    assert ended.state is State.ROLLED_BACK, ended
    assert ended.step("delete_leftovers").undo == Undo(state=UndoState.UNDONE)
    assert sorted(scene.objects.targets("create")) == ["configmaps/shop/over", "jobs.batch/shop/old"]
    for resource, name in ((JOBS, "old"), (CONFIG_MAPS, "over")):
        held = scene.objects.find(resource, "shop", name)
        assert held is not None
        assert held["metadata"]["annotations"][RESTORED_BY] == done.id
