"""Autoscaling through the real adapters on the playground: its pods, its metrics server, its controllers."""

import json
import math
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from opsapi.adapters.kubernetes.metrics import KubernetesMetrics
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.autoscaling_model import (
    AutoscaleAnswer,
    AutoscaleBody,
    AutoscaleParams,
    ScalingAction,
    Trigger,
)
from opsapi.applications.identity import Applications
from opsapi.applications.scaling_steps import ScalingSettings
from opsapi.kit.caller import AccountKind
from opsapi.kit.endpoint import Reply
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, State
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from opsapi.telemetry.sources import MetricsSources
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.objects import DEPLOYMENT, ObjectMeta
from opsapi.workspaces.views import Views
from support.acting import SetClock, make_call, make_caller
from support.autoscaling import join_autoscaling
from support.cluster import running_api
from support.database import sqlite_template
from support.leaping import until
from support.live import Live, inline, living
from support.playground_world import EPOCH, container, deployment, small_world

__all__ = ["sqlite_template"]

APP = application_id("ws-live", DEPLOYMENT, ObjectMeta(name="web", namespace="default"))


@dataclass
class Scene:
    world: World
    live: Live
    database: Database

    def __post_init__(self) -> None:
        self.clock = SetClock(EPOCH)
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.procedures = Procedures()
        self.endpoints = join_autoscaling(
            self.live.clusters,
            self.live.workloads,
            self.ledger,
            self.procedures,
            self.clock,
            ScalingSettings(verify_seconds=60, hold_seconds=5, poll_seconds=1),
            MetricsSources(KubernetesMetrics(self.live.clusters)),
            Applications(Views(self.live.clusters)),
        )
        self.execution = Execution(self.ledger, self.procedures, self.clock, EngineSettings(), self.sleep)

    async def sleep(self, seconds: float) -> None:
        """The service's time and the cluster's go together."""
        self.clock.advance(seconds)
        self.world.advance(seconds)

    async def autoscale(self) -> Reply[AutoscaleAnswer]:
        person = make_caller("application:write", kind=AccountKind.PERSON)
        body = AutoscaleBody(trigger=Trigger.CPU)
        call = make_call(person, "autoscale_application")
        return await self.endpoints.autoscale_application(call, AutoscaleParams(application_id=APP), body)

    async def work(self, operation_id: str | None) -> Operation:
        assert operation_id is not None
        lease = timedelta(days=36500)
        while (claim := await self.ledger.claim("worker", lease, self.procedures.runnable())) is not None:
            await self.execution.run(claim)
        ended = await self.ledger.get(operation_id)
        assert ended is not None
        return ended

    def held(self) -> Obj:
        found: Obj = self.world.registry.get("deployments.apps", "default", "web")
        return found


def web(cpu: float) -> Obj:
    """Three pods that each use about `cpu` millicores of the 100 that they request."""
    profile = json.dumps({"cpu": {"base_millicores": cpu, "per_request_ms": 0}})
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    return deployment("web", container(resources=resources), profile=profile)


@pytest.fixture
async def scene(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    world = small_world()
    world.apply(web(request.param))
    world.advance(120)
    metrics = world.metrics
    async with (
        running_api(world.objects, bootstrapped=False, metrics=metrics) as api,
        living(inline(api.kubeconfig())) as live,
    ):
        await live.until_synced()
        made = Scene(world, live, database)
        await live.cluster.measure()
        await until(lambda: live.cluster.usage().pods, "the metrics server answers")
        yield made
    await database.close()


@pytest.mark.parametrize("scene", [95.0], indirect=True)
async def test_pods_that_work_too_hard_get_company(scene: Scene) -> None:
    reply = await scene.autoscale()
    data = reply.data
    assert data.scaling_action is ScalingAction.UP, data
    assert not isinstance(data.measured, msgspec.UnsetType)
    measured = data.measured.value
    assert measured is not None
    assert 85 < measured < 105
    assert data.new_replicas == math.ceil(3 * measured / 55)
    ended = await scene.work(reply.operation_id)
    assert ended.state is State.COMPLETED, ended
    assert scene.held()["status"]["readyReplicas"] == data.new_replicas


@pytest.mark.parametrize("scene", [50.0], indirect=True)
async def test_between_the_thresholds_nothing_is_begun(scene: Scene) -> None:
    reply = await scene.autoscale()
    assert (reply.status, reply.data.scaling_action, reply.data.new_replicas) == (200, ScalingAction.NONE, 3)


@pytest.mark.parametrize("scene", [8.0], indirect=True)
async def test_idle_pods_go_only_once_minutes_have_shown_it(scene: Scene) -> None:
    early = await scene.autoscale()
    assert early.data.scaling_action is ScalingAction.NONE
    assert "nothing is taken away without a history" in early.data.reason
    for _ in range(14):
        await scene.sleep(30)
        await scene.live.cluster.measure()
    reply = await scene.autoscale()
    assert (reply.data.scaling_action, reply.data.new_replicas) == (ScalingAction.DOWN, 1), reply.data
    ended = await scene.work(reply.operation_id)
    assert ended.state is State.COMPLETED, ended
    assert scene.held()["spec"]["replicas"] == 1
