"""A worker dies by kill -9 at every point of resizing applications; another finishes, and patches no template twice."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.operations.model import Operation, Outcome, State, lock_key
from support.mortal_optimizer import MortalStage, carry_out
from support.mortal_playbooks import FiledObjects

_TESTS = Path(__file__).parents[1]
_DEADLINE = 60.0
_AFTER_THE_LEASE = 60.0
OURS = {"requests": {"cpu": "120m", "memory": "230Mi"}, "limits": {"memory": "230Mi"}}
BEFORE = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}


class Scene:
    def __init__(self, url: str, database: Database, path: Path) -> None:
        self.url = url
        self.database = database
        self.path = path

    async def begin(self, *names: str) -> None:
        stage = MortalStage(self.database, self.path)
        for name in names:
            stage.run(name)
            stage.used(120, 200, name)
        objects = stage.objects
        assert isinstance(objects, FiledObjects)
        objects.save()
        await stage.begin(None if len(names) > 1 else names[0])

    async def play(self, how: str, point: str) -> Operation:
        environment = os.environ | {"PYTHONPATH": str(_TESTS)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.mortal_optimizer", self.url, str(self.path), how, point, env=environment
        )
        try:
            async with asyncio.timeout(_DEADLINE):
                assert await process.wait() == -signal.SIGKILL
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        ended = await carry_out(self.database, self.path, how, "never", later=_AFTER_THE_LEASE)
        assert ended.state.final
        return ended

    @property
    def stage(self) -> MortalStage:
        return MortalStage(self.database, self.path)


@pytest.fixture
def scene(database_url: str, database: Database, tmp_path: Path) -> Scene:
    return Scene(database_url, database, tmp_path / "cluster.json")


@pytest.mark.parametrize(
    "point",
    [
        # before the effect, after it, after its record; then before the verdict, and of the second application
        "after:put_item:1",
        "after:patch:1",
        "after:put_item:2",
        pytest.param("after:acquire:1", marks=pytest.mark.slow),
        pytest.param("before:put_item:3", marks=pytest.mark.slow),
        pytest.param("before:release:1", marks=pytest.mark.slow),
        pytest.param("after:patch:2", marks=pytest.mark.slow),
        pytest.param("before:_end", marks=pytest.mark.slow),
    ],
)
async def test_each_template_is_patched_once_and_verified(scene: Scene, point: str) -> None:
    await scene.begin("api", "web")
    ended = await scene.play("stands", point)
    assert (ended.state, ended.outcome, ended.attempts) == (State.COMPLETED, Outcome.CHANGED, 2), ended
    stage = scene.stage
    assert stage.objects.targets("patch") == ["deployments.apps/shop/api", "deployments.apps/shop/web"]
    assert [stage.resources(name) for name in ("api", "web")] == [OURS, OURS]
    for item in ended.step("apply_recommendations").items.values():
        assert item.effect is not None
        assert "verified" in item.effect
    for name in ("api", "web"):
        assert await stage.ledger.holder(lock_key("ws-123", f"app-{name}")) is None


async def test_a_patch_that_nobody_recorded_is_found_not_repeated(scene: Scene) -> None:
    await scene.begin("web")
    ended = await scene.play("stands", "after:patch:1")
    (item,) = ended.step("apply_recommendations").items.values()
    assert item.effect is not None
    assert item.effect["found"] is True
    assert len(scene.stage.objects.writes) == 1


@pytest.mark.parametrize(
    "point",
    [
        "after:patch:2",
        pytest.param("after:put_item:3", marks=pytest.mark.slow),
        pytest.param("after:put_item:4", marks=pytest.mark.slow),
        pytest.param("before:fail_step", marks=pytest.mark.slow),
    ],
)
async def test_the_way_back_survives_the_workers_death_as_well(scene: Scene, point: str) -> None:
    await scene.begin("web")
    ended = await scene.play("falls", point)
    assert ended.state is State.ROLLED_BACK, ended
    assert ended.error is not None
    assert ended.error.code == "NOT_READY"
    stage = scene.stage
    assert stage.resources("web") == BEFORE
    assert len(stage.objects.writes) == 2
