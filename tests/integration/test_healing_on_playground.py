"""auto_heal through the real adapters on the playground's clinic, where each patient is cured by one remedy alone."""

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.kit.errors import PolicyRule
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, Outcome, State, UndoState
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.healing.model import HealingSettings
from opsapi.playbooks.model import OperationBody, OperationParams
from opsapi.playground.faults.world import FaultSpec
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Waiver
from opsapi.workspaces.objects import POD, Pod
from support.acting import SetClock, make_call, make_caller
from support.cluster import running_api
from support.database import sqlite_template
from support.healing import UNHURRIED, join_healing
from support.leaping import until
from support.live import Live, inline, living
from support.playground_world import container, pods_of, ready_pods, small_world, template

__all__ = ["sqlite_template"]

POLICY = msgspec.structs.replace(UNHURRIED, waivers=(Waiver(account="sa-agent", rules=(PolicyRule.RESIZE,)),))

CRASHES = json.dumps({"exit": {"after_seconds": 3, "code": 1, "logs": ["panic"]}})
KINDS = {"StatefulSet": "statefulsets.apps", "DaemonSet": "daemonsets.apps"}


@dataclass
class Scene:
    world: World
    live: Live
    database: Database

    def __post_init__(self) -> None:
        self.clock = SetClock(self.world.clock.now())
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.procedures = Procedures()
        settings = HealingSettings(verify_seconds=120, hold_seconds=30, poll_seconds=2)
        objects = KubernetesObjects(self.live.clusters)
        self.endpoints = join_healing(
            self.live.clusters, objects, self.live.workloads, self.ledger, self.procedures, self.clock, settings,
            PolicyBook(POLICY),
        )  # fmt: skip
        self.execution = Execution(self.ledger, self.procedures, self.clock, EngineSettings(), self.sleep)

    async def sleep(self, seconds: float) -> None:
        """The service's time and the cluster's go together, and the inventory keeps up."""
        self.clock.advance(seconds)
        self.world.advance(seconds)
        await self.caught_up()

    async def caught_up(self) -> None:
        def same() -> bool:
            held = {
                (pod.metadata.uid, pod.metadata.resource_version)
                for pod in self.live.cluster.inventory.all(POD, Pod, "clinic")
            }
            there = {
                (pod["metadata"]["uid"], pod["metadata"]["resourceVersion"])
                for pod in self.world.registry.iterate("pods", "clinic")
            }
            return held == there

        await until(same, "the inventory catches up")

    async def heal(self, target: str, action: str = "auto", **parameters: Any) -> Operation:
        given = {"target_component": target, "action": action, "condition_held_seconds": 60} | parameters
        body = OperationBody(operation="auto_heal", parameters=given)
        call = make_call(make_caller("workspace:admin"), "execute_workspace_operation")
        params = OperationParams(workspace_id="ws-live")
        reply = await self.endpoints.execute_workspace_operation(call, params, body)
        assert reply.data.status == "running", reply
        lease = timedelta(days=36500)
        while (claim := await self.ledger.claim("worker", lease, self.procedures.runnable())) is not None:
            await self.execution.run(claim)
        assert reply.operation_id is not None
        ended = await self.ledger.get(reply.operation_id)
        assert ended is not None
        return ended

    def ready(self, name: str) -> int:
        return len(ready_pods(self.world, name, "clinic"))

    def template(self, name: str) -> Obj:
        found: Obj = self.world.registry.get("deployments.apps", "clinic", name)["spec"]["template"]
        return found


@pytest.fixture
async def scene(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    world = small_world()
    world.install("sick")
    async with running_api(world.objects, bootstrapped=False) as api, living(inline(api.kubeconfig())) as live:
        await live.until_synced()
        made = Scene(world, live, database)
        await made.caught_up()
        yield made
    await database.close()


async def test_what_hangs_is_restarted_and_is_well(scene: Scene) -> None:
    before = {pod["metadata"]["uid"] for pod in pods_of(scene.world, "hung", "clinic")}
    ended = await scene.heal("hung", "restart_unhealthy_pods")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert scene.ready("hung") == 2
    assert not before & {pod["metadata"]["uid"] for pod in pods_of(scene.world, "hung", "clinic")}


async def test_a_bad_release_is_rolled_back_and_is_well(scene: Scene) -> None:
    ended = await scene.heal("bad-release")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert [step.name for step in ended.steps] == ["identify_unhealthy_pods", "rollback_release", "verify_health"]
    assert scene.template("bad-release")["spec"]["containers"][0]["image"].endswith("bad-release:1.4.0")
    assert scene.ready("bad-release") == 2


async def test_what_runs_out_of_memory_gets_more_and_is_well(scene: Scene) -> None:
    ended = await scene.heal("oom-killed")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    resources = scene.template("oom-killed")["spec"]["containers"][0]["resources"]
    assert resources["limits"]["memory"] == "260Mi"
    assert scene.ready("oom-killed") == 2


@pytest.mark.parametrize("patient", ["bad-config", "bad-image"])
@pytest.mark.parametrize("action", ["auto", "restart_unhealthy_pods"])
async def test_what_no_action_cures_is_reported_and_left_alone(scene: Scene, patient: str, action: str) -> None:
    before = {pod["metadata"]["uid"] for pod in pods_of(scene.world, patient, "clinic")}
    generation = scene.world.registry.get("deployments.apps", "clinic", patient)["metadata"]["generation"]
    ended = await scene.heal(patient, action)
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.PROPOSED), ended
    assert before == {pod["metadata"]["uid"] for pod in pods_of(scene.world, patient, "clinic")}
    assert scene.world.registry.get("deployments.apps", "clinic", patient)["metadata"]["generation"] == generation
    (found,) = (ended.result or {})["findings"]
    assert found["findings"][0]["cause"] == "crash_loop"
    assert any("exit code" in one["value"] for one in found["findings"][0]["evidence"])


async def test_what_is_well_is_left_alone(scene: Scene) -> None:
    ended = await scene.heal("guarded")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.NOTHING_TO_DO)


# StatefulSets and DaemonSets, by their ControllerRevisions


def release(world: World, kind: str, number: int, profile: str = "") -> None:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "initialDelaySeconds": 5, "periodSeconds": 5}
    app = container(image=f"registry.example/shop/db:{number}.0", readinessProbe=probe)
    made = template("db", app, profile=profile)
    spec: Obj = {"selector": {"matchLabels": {"app": "db"}}, "template": made}
    spec |= {"replicas": 3, "serviceName": "db"} if kind == "StatefulSet" else {}
    world.apply(
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "db", "namespace": "clinic"}, "spec": spec}
    )


async def sickened(scene: Scene, kind: str) -> None:
    """Revision 1 runs well, revision 2 crashes, so that its rollout stands still at its first pod."""
    release(scene.world, kind, 1)
    scene.world.advance(120)
    assert len(ready_pods(scene.world, "db", "clinic")) == 3
    release(scene.world, kind, 2, CRASHES)
    scene.world.advance(240)
    assert len(ready_pods(scene.world, "db", "clinic")) == 2
    await scene.caught_up()


def images(scene: Scene, kind: str) -> tuple[str, set[str]]:
    """Of the template, and of the pods."""
    held: Any = scene.world.registry.get(KINDS[kind], "clinic", "db")["spec"]["template"]
    pods = pods_of(scene.world, "db", "clinic")
    image = held["spec"]["containers"][0]["image"].rpartition(":")[2]
    return image, {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in pods}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bad_release_is_rolled_back_by_its_controller_revision_and_is_well(scene: Scene, kind: str) -> None:
    await sickened(scene, kind)
    before = {pod["metadata"]["uid"] for pod in ready_pods(scene.world, "db", "clinic")}
    ended = await scene.heal("db")
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED), ended
    assert images(scene, kind) == ("1.0", {"1.0"})
    ready = {pod["metadata"]["uid"] for pod in ready_pods(scene.world, "db", "clinic")}
    assert len(ready) == 3
    assert before < ready
    evicted = [item for item in ended.step("rollback_release").items.values() if "pod" in (item.effect or {})]
    assert len(evicted) == (kind == "StatefulSet")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rollback_that_cannot_be_verified_is_taken_back(scene: Scene, kind: str) -> None:
    await sickened(scene, kind)
    scene.world.faults.inject(FaultSpec("bad-image", namespace="clinic", workload="db"))
    ended = await scene.heal("db")
    assert ended.state is State.ROLLED_BACK, ended
    undo = ended.step("rollback_release").undo
    assert undo is not None
    assert undo.state is UndoState.UNDONE
    assert images(scene, kind)[0] == "2.0"
