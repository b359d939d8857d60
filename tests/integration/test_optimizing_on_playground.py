"""optimize_resources through the real adapters on the playground: its metrics server, its rollouts, its OOM killer."""

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opsapi.adapters.kubernetes.metrics import KubernetesMetrics
from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.kit.caller import AccountKind
from opsapi.operations.desk import Desk
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, Outcome, State
from opsapi.operations.procedures import Procedures
from opsapi.operations.proposal import Proposal
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.model import Context
from opsapi.playbooks.optimizing.model import OptimizeParameters, OptimizingSettings
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Subject
from opsapi.telemetry.sources import MetricsSources
from opsapi.workspaces.objects import DEPLOYMENT, Workload
from support.acting import SetClock, make_call, make_caller
from support.cluster import running_api
from support.database import sqlite_template
from support.leaping import until
from support.live import Live, inline, living
from support.optimizing import join_optimizing
from support.playground_world import EPOCH, container, deployment, ready_pods, small_world
from support.scaling import UNHURRIED

__all__ = ["sqlite_template"]

PERSON = make_caller("workspace:admin", kind=AccountKind.PERSON)
SETTINGS = OptimizingSettings(verify_seconds=120, hold_seconds=20, poll_seconds=2, history_hours=4)


@dataclass
class Scene:
    world: World
    live: Live
    database: Database

    def __post_init__(self) -> None:
        self.clock = SetClock(EPOCH)
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.procedures = Procedures()
        book = PolicyBook(UNHURRIED)
        metrics = MetricsSources(KubernetesMetrics(self.live.clusters))
        objects = KubernetesObjects(self.live.clusters)
        self.playbook = join_optimizing(
            self.live.clusters, objects, self.live.workloads, metrics, self.procedures, book, SETTINGS
        )
        self.desk = Desk(self.ledger, self.procedures, book, self.clock)
        self.execution = Execution(self.ledger, self.procedures, self.clock, EngineSettings(), self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.world.advance(seconds)

    async def live_through(self, hours: float) -> None:
        """A reading a minute, as the service's poller would take them."""
        for _ in range(int(hours * 60)):
            await self.sleep(60)
            await self.live.cluster.measure()

    async def propose(self) -> Proposal:
        subject = Subject(PERSON.account_id, PERSON.kind, "ws-live", "act")
        parameters = OptimizeParameters(target_component="web")
        return await self.playbook.propose(
            self.live.cluster, subject, parameters, context=Context(), reason="too much", confirm=False
        )

    async def optimize(self) -> Operation:
        begun = await self.desk.begin(make_call(PERSON, "execute_workspace_operation"), await self.propose())
        lease = timedelta(days=36500)
        while (claim := await self.ledger.claim("worker", lease, self.procedures.runnable())) is not None:
            await self.execution.run(claim)
        ended = await self.ledger.get(begun.id)
        assert ended is not None
        return ended

    def resources(self) -> Obj:
        held = self.world.registry.get("deployments.apps", "default", "web")
        found: Obj = held["spec"]["template"]["spec"]["containers"][0]["resources"]
        return found


def web(profile: dict[str, Any], memory: str = "1Gi") -> Obj:
    asked = {"requests": {"cpu": "500m", "memory": memory}, "limits": {"memory": memory}}
    return deployment("web", container(resources=asked), profile=json.dumps(profile), replicas=2)


@pytest.fixture
async def scene(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    world = small_world()
    world.apply(request.param)
    world.advance(60)
    async with (
        running_api(world.objects, bootstrapped=False, metrics=world.metrics) as api,
        living(inline(api.kubeconfig())) as live,
    ):
        await live.until_synced()
        made = Scene(world, live, database)
        await live.cluster.measure()
        await until(lambda: live.cluster.usage().pods, "the metrics server answers")
        yield made
    await database.close()


QUIET = web({"cpu": {"base_millicores": 80, "per_request_ms": 0}, "memory": {"base": "200Mi", "per_rps": "0"}})


@pytest.mark.parametrize("scene", [QUIET], indirect=True)
async def test_an_application_gets_what_it_uses_and_stands_it(scene: Scene) -> None:
    short = await scene.propose()
    assert short.nothing_to_do
    await scene.live_through(3.2)
    ended = await scene.optimize()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    held = scene.resources()
    cpu, memory = int(held["requests"]["cpu"][:-1]), int(held["limits"]["memory"][:-2])
    assert 78 <= cpu <= 90
    assert 225 <= memory <= 245
    assert held["requests"]["memory"] == held["limits"]["memory"]
    assert "cpu" not in held["limits"]
    assert len(ready_pods(scene.world, "web")) == 2


@pytest.mark.parametrize("scene", [QUIET], indirect=True)
async def test_an_application_that_grows_after_all_is_rolled_back(scene: Scene) -> None:
    """A release would: the same template, but its memory is another from now on."""
    await scene.live_through(3.2)
    before = scene.resources()
    grown = web({"cpu": {"base_millicores": 80}, "memory": {"base": "400Mi", "per_rps": "0"}})
    held = scene.world.registry.get("deployments.apps", "default", "web")
    template = held["spec"]["template"]
    annotated = template | {"metadata": grown["spec"]["template"]["metadata"]}
    changed = held | {"spec": held["spec"] | {"template": annotated}}
    scene.world.registry.update("deployments.apps", "default", "web", changed)
    scene.world.settle()
    await scene.sleep(60)
    await until(lambda: not _rolling(scene), "the inventory sees the release")
    ended = await scene.optimize()
    assert ended.state is State.ROLLED_BACK, ended
    assert ended.error is not None
    assert ended.error.code == "OOM_KILLED", ended.error
    assert scene.resources() == before
    await scene.sleep(60)
    assert len(ready_pods(scene.world, "web")) == 2


def _rolling(scene: Scene) -> bool:
    held = scene.live.cluster.inventory.get(DEPLOYMENT, Workload, "default", "web")
    assert held is not None
    status = held.status
    return held.metadata.generation < 2 or status.updated_replicas < 2 or status.ready_replicas < 2
