"""optimize_resources on fakes: applications with pods, a past of usage, and a cluster that rolls templates out."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.costs import CostSettings
from opsapi.applications.effects import Permitted
from opsapi.applications.ports import Workloads
from opsapi.kit.caller import AccountKind, Caller
from opsapi.operations.desk import Desk
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation
from opsapi.operations.ports import OperationFilter
from opsapi.operations.procedures import Procedures
from opsapi.operations.proposal import Proposal
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.model import Context
from opsapi.playbooks.optimizing.gathering import Gatherer
from opsapi.playbooks.optimizing.model import ACTION, RESOURCES, OptimizeParameters, OptimizingSettings
from opsapi.playbooks.optimizing.playbook import OptimizeResources
from opsapi.playbooks.optimizing.steps import OptimizeSteps
from opsapi.playbooks.optimizing.verifying import Verifier
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings, Subject
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL
from opsapi.workspaces.objects import REPLICA_SET, OwnerReference, Workload, WorkloadMeta
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import JsonObject, Objects
from support.acting import SetClock, make_call, make_caller
from support.api_objects import PODS, FakeObjects
from support.autoscaling import POD_NAMES
from support.inventory import FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.metrics import FakeMetrics
from support.scaling import UNHURRIED
from support.workloads import FakeWorkloads

__all__ = ["OptimizeStage", "optimize_stage"]

DEPLOYMENTS = RESOURCES["Deployment"]
MIB = 2**20
QUICK = OptimizingSettings(verify_seconds=60, hold_seconds=10, poll_seconds=1, history_hours=4)
PERSON = make_caller("workspace:admin", kind=AccountKind.PERSON)


def join_optimizing(
    clusters: Clusters,
    objects: Objects,
    workloads: Workloads,
    metrics: Metrics,
    procedures: Procedures,
    book: PolicyBook,
    settings: OptimizingSettings = QUICK,
) -> OptimizeResources:
    """As wiring does."""
    costs = CostSettings()
    gatherer = Gatherer(objects, metrics, costs, settings)
    verifier = Verifier(clusters, gatherer, metrics, settings)
    steps = OptimizeSteps(objects, workloads, gatherer, verifier, Permitted(clusters, book), book)
    playbook = OptimizeResources(clusters, gatherer, steps, book, costs, settings)
    procedures.register(playbook.procedure())
    return playbook


def container(resources: JsonObject | None = None, name: str = "app") -> JsonObject:
    given = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    return {"name": name, "image": "nginx:1.27", "resources": given if resources is None else resources}


def deployment(
    name: str = "web", *containers: JsonObject, replicas: int = 2, ready: int | None = None, **changes: Any
) -> JsonObject:
    ready = replicas if ready is None else ready
    labels = {APPLICATION_ID_LABEL: f"app-{name}"} | changes.pop("labels", {})
    spec = {
        "replicas": replicas,
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": list(containers) or [container()]}},
    }
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": labels},
        "spec": spec | changes,
        "status": _status(1, replicas, ready),
    }


def _status(generation: int, replicas: int, ready: int) -> JsonObject:
    return {
        "observedGeneration": generation,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
    }


class OptimizeStage:
    """`propose` plans, `begin` begins, `work` carries out. `stands` says whether pods become ready at a new size."""

    def __init__(self, database: Database, clock: SetClock | None = None) -> None:
        self.clock = clock or SetClock()
        self.inventory = FakeInventory()
        self.clusters = FakeClusters(FakeCluster(make_workspace(), self.inventory))
        self.objects = self.make_objects()
        self.objects.after = self._rolled_out
        self.workloads = FakeWorkloads()
        self.metrics = FakeMetrics()
        self.ledger = SqlLedger(database, self.clock, Signals())
        self.stands = True
        self.killed = False
        """Whether a container of the new size is killed for its memory."""
        self.arrange(UNHURRIED)

    def arrange(self, policy: PolicySettings, settings: OptimizingSettings = QUICK) -> None:
        self.book = PolicyBook(policy)
        self.procedures = Procedures()
        self.playbook = join_optimizing(
            self.clusters, self.objects, self.workloads, self.metrics, self.procedures, self.book, settings
        )
        self.desk = Desk(self.ledger, self.procedures, self.book, self.clock)
        self.execution = Execution(
            self.ledger,
            self.procedures,
            self.clock,
            EngineSettings(step_attempts=4, backoff_seconds=1),
            self.clock.sleep,
        )

    def make_objects(self) -> FakeObjects:
        return FakeObjects(self.inventory)

    def run(self, name: str = "web", *containers: JsonObject, **changes: Any) -> None:
        self.objects.put(DEPLOYMENTS, deployment(name, *containers, **changes))
        self.own(name)
        self._pods(name)

    def own(self, name: str) -> None:
        owner = OwnerReference(kind="Deployment", name=name, uid=f"uid-{name}", controller=True)
        meta = WorkloadMeta(name=self.replica_set(name), namespace="shop", uid=f"rs-{name}", owner_references=(owner,))
        self.inventory.put(REPLICA_SET, Workload(metadata=meta))

    def replica_set(self, name: str) -> str:
        return f"{name}-6d4cf56db6"

    def used(
        self, cpu: float, memory: int, name: str = "web", *, minutes: int = 200, pods: int = 2, of: str = "app"
    ) -> None:
        """A reading a minute of each pod: CPU in millicores, memory in MiB."""
        for minute in range(minutes):
            at = self.inventory.now() - timedelta(minutes=minute)
            for index in range(pods):
                pod = f"{self.replica_set(name)}-{POD_NAMES[index]}"
                self.metrics.measure(pod, of, at, cpu=cpu, memory=memory * MIB)

    def held(self, name: str = "web") -> JsonObject:
        found = self.objects.find(DEPLOYMENTS, "shop", name)
        assert found is not None
        return found

    def resources(self, name: str = "web", of: str = "app") -> JsonObject:
        containers = self.held(name)["spec"]["template"]["spec"]["containers"]
        found: JsonObject = next(one["resources"] for one in containers if one["name"] == of)
        return found

    def _rolled_out(self, verb: str, target: str) -> None:
        resource, _, name = target.split("/")
        if verb != "patch" or resource != str(DEPLOYMENTS):
            return
        held = self.held(name)
        replicas = held["spec"]["replicas"]
        ready = replicas if self.stands or self._is_back(name) else 0
        generation = held["metadata"]["generation"]
        self.objects.merge(DEPLOYMENTS, "shop", name, {"status": _status(generation, replicas, ready)})
        self._pods(name)

    def _is_back(self, name: str) -> bool:
        return bool(self.resources(name) == container()["resources"])

    def _pods(self, name: str) -> None:
        held = self.held(name)
        for index in range(held["spec"]["replicas"]):
            owner = {"kind": "ReplicaSet", "name": self.replica_set(name), "uid": f"rs-{name}", "controller": True}
            pod = f"{self.replica_set(name)}-{POD_NAMES[index]}"
            meta = {"name": pod, "namespace": "shop", "uid": f"uid-{pod}", "ownerReferences": [owner]}
            status: JsonObject = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            if self.killed:
                end = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
                status["containerStatuses"] = [{"name": "app", "restartCount": 1, "lastState": end}]
            self.objects.put(PODS, {"metadata": meta, "spec": held["spec"]["template"]["spec"], "status": status})

    async def propose(self, target: str | None = "web", *, caller: Caller = PERSON, confirm: bool = False) -> Proposal:
        (cluster,) = self.clusters.all()
        subject = Subject(caller.account_id, caller.kind, "ws-123", cluster.workspace.mode)
        parameters = OptimizeParameters(target_component=target)
        return await self.playbook.propose(
            cluster, subject, parameters, context=Context(), reason="too much", confirm=confirm
        )

    async def begin(self, target: str | None = "web", *, caller: Caller = PERSON) -> Operation:
        proposal = await self.propose(target, caller=caller)
        return await self.desk.begin(make_call(caller, "execute_workspace_operation"), proposal)

    async def idle(self) -> None:
        self.clock.advance(1)

    async def work(self, *, lease: timedelta = timedelta(days=1)) -> Operation:
        for _ in range(500):
            claim = await self.ledger.claim("worker", lease, self.procedures.runnable())
            if claim is not None:
                await self.execution.run(claim)
            elif (await self.ledger.depth()).running + (await self.ledger.depth()).queued:
                await self.idle()
            else:
                break
        (found,) = await self.ledger.find(OperationFilter(workspaces=None, action=ACTION))
        return found


@pytest.fixture
async def optimize_stage(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[OptimizeStage]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield OptimizeStage(database)
    await database.close()
