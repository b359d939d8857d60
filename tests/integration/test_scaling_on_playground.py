"""Scaling through the real adapter on the playground, with its controllers, scheduler and kubelets at work."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from opsapi.adapters.sql.changes import SqlChangeStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.changes import ChangeRecorder
from opsapi.applications.changes_model import Change
from opsapi.applications.scaling_model import AutoScaleConfig, ScaleAnswer, ScaleBody, ScaleParams
from opsapi.applications.scaling_steps import ScalingSettings
from opsapi.kit.endpoint import Reply
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, State, UndoState
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from opsapi.workspaces.objects import DEPLOYMENT, Workload
from support.acting import SetClock, make_call
from support.cluster import running_api
from support.database import sqlite_template
from support.leaping import until
from support.live import Live, inline, living
from support.playground_world import EPOCH, container, deployment, small_world
from support.scaling import join_scaling

__all__ = ["sqlite_template"]


@dataclass
class Scene:
    world: World
    live: Live
    database: Database

    def __post_init__(self) -> None:
        self.clock = SetClock(EPOCH)
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.store = SqlChangeStore(self.database)
        self.recorder = ChangeRecorder(self.live.cluster.inventory, self.store, self.ledger)
        settings = ScalingSettings(verify_seconds=60, hold_seconds=5, poll_seconds=1)
        self.procedures = Procedures()
        self.endpoints = join_scaling(
            self.live.clusters, self.live.workloads, self.ledger, self.procedures, self.clock, settings
        )
        self.execution = Execution(self.ledger, self.procedures, self.clock, EngineSettings(), self.sleep)

    async def sleep(self, seconds: float) -> None:
        """The service's time and the cluster's go together."""
        self.clock.advance(seconds)
        self.world.advance(seconds)

    async def scale(self, replicas: int, config: AutoScaleConfig | None = None) -> tuple[Reply[ScaleAnswer], Operation]:
        params = ScaleParams(workspace_id="ws-live", deployment_name="web")
        body = ScaleBody(replicas=replicas, reason="more traffic", auto_scale_config=config)
        reply = await self.endpoints.scale_deployment(make_call(), params, body)
        lease = timedelta(days=36500)
        while (claim := await self.ledger.claim("worker", lease, self.procedures.runnable())) is not None:
            await self.execution.run(claim)
        assert reply.operation_id is not None
        ended = await self.ledger.get(reply.operation_id)
        assert ended is not None
        return reply, ended

    def held(self) -> Obj:
        found: Obj = self.world.registry.get("deployments.apps", "default", "web")
        return found

    async def changes(self, application_id: str) -> list[Change]:
        """Once the inventory has seen one."""
        await until(lambda: self.recorder.waiting, "the inventory sees the change")
        await self.recorder.flush()
        return await self.store.page("ws-live", application_id, before=None, limit=50)


@pytest.fixture
async def scene(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    world = small_world()
    world.apply(deployment("web", container(resources={"requests": {"cpu": "100m", "memory": "64Mi"}})))
    world.advance(120)
    async with running_api(world.objects, bootstrapped=False) as api, living(inline(api.kubeconfig())) as live:
        await live.until_synced()
        made = Scene(world, live, database)
        stop = made.recorder.start()
        await made.recorder.flush()
        yield made
        stop()
    await database.close()


async def test_an_application_grows_its_pods_run_and_the_change_is_known_as_ours(scene: Scene) -> None:
    reply, ended = await scene.scale(5)
    assert ended.state is State.COMPLETED, ended
    status = scene.held()["status"]
    assert (scene.held()["spec"]["replicas"], status["readyReplicas"]) == (5, 5)
    assert isinstance(reply.data.application_id, str)
    (change,) = await scene.changes(reply.data.application_id)
    assert (change.before, change.after, change.manager) == (3, 5, "opsapi")
    assert (change.actor, change.operation_id, change.reason) == ("sa-agent", ended.id, "more traffic")


async def test_an_application_that_finds_no_room_is_scaled_back(scene: Scene) -> None:
    for node in ("node-1", "node-2", "node-3"):
        held = scene.world.registry.get("nodes", "", node)
        scene.world.registry.update("nodes", "", node, held | {"spec": held["spec"] | {"unschedulable": True}})
    scene.world.settle()
    _, ended = await scene.scale(5)
    assert ended.state is State.ROLLED_BACK, ended
    assert ended.error is not None
    assert "3 of 5 replicas are ready" in ended.error.message
    undo = ended.step("set_replicas").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE
    assert scene.held()["spec"]["replicas"] == 3


async def test_an_autoscaler_is_created_and_then_owns_the_replicas(scene: Scene) -> None:
    config = AutoScaleConfig(min_replicas=2, max_replicas=8, target_cpu_percentage=70, scale_down_delay="5m")
    _, ended = await scene.scale(4, config)
    assert ended.state is State.COMPLETED, ended
    held = scene.world.registry.get("horizontalpodautoscalers.autoscaling", "default", "web")
    assert (held["spec"]["minReplicas"], held["spec"]["maxReplicas"]) == (2, 8)
    assert held["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    wider = AutoScaleConfig(min_replicas=3, max_replicas=8)
    _, edited = await scene.scale(4, wider)
    assert edited.state is State.COMPLETED, edited


async def test_the_inventory_is_not_believed_where_the_cluster_says_otherwise(scene: Scene) -> None:
    cached = scene.live.cluster.inventory.get(DEPLOYMENT, Workload, "default", "web")
    assert cached is not None
    assert cached.spec.replicas == 3
    held = scene.held()
    scene.world.registry.update("deployments.apps", "default", "web", held | {"spec": held["spec"] | {"replicas": 4}})
    reply, _ = await scene.scale(5)
    assert reply.data.previous_replicas == 4
