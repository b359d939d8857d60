"""The whole of healing on fakes: a cluster whose Deployments, ReplicaSets and pods are JSON, the ledger on SQLite."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.ports import Workloads
from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import Reply
from opsapi.operations.desk import Desk
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation
from opsapi.operations.ports import Ledger, OperationFilter
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.endpoints import PlaybookEndpoints
from opsapi.playbooks.healing.facts import HealingFacts
from opsapi.playbooks.healing.model import PODS, REPLICA_SETS, RESOURCES, HealingSettings
from opsapi.playbooks.healing.planning import HealPlaybook
from opsapi.playbooks.healing.steps import HealingSteps
from opsapi.playbooks.model import OperationAnswer, OperationBody, OperationParams
from opsapi.playbooks.registry import Playbooks
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Limits, PolicySettings
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.model import Mode
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import JsonObject, Objects
from support.acting import SetClock, make_call, make_caller
from support.api_objects import FakeObjects
from support.inventory import START, FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.scaling import UNHURRIED
from support.workloads import FakeWorkloads

DEPLOYMENTS = RESOURCES["Deployment"]
__all__ = ["UNHURRIED", "Limits", "Ward", "ward"]


def moment(ago: float) -> str:
    """A moment so many seconds before the cluster's present."""
    return (START - timedelta(seconds=ago)).isoformat().replace("+00:00", "Z")


def join_healing(
    clusters: Clusters,
    objects: Objects,
    workloads: Workloads,
    ledger: Ledger,
    procedures: Procedures,
    clock: Clock,
    settings: HealingSettings,
    book: PolicyBook,
    metrics: Metrics | None = None,
) -> PlaybookEndpoints:
    """As wiring does."""
    steps = HealingSteps(clusters, objects, workloads, book, settings, metrics)
    playbook = HealPlaybook(clusters, HealingFacts(objects), book, steps, settings)
    procedures.register(playbook.procedure())
    return PlaybookEndpoints(clusters, Desk(ledger, procedures, book, clock), Playbooks([playbook]), clock)


def container(name: str = "app", image: str = "shop/web:1.0", limit: str = "160Mi") -> JsonObject:
    resources = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": limit}}
    return {"name": name, "image": image, "resources": resources}


@dataclass
class Ward:
    """`deploy` and `pod` make patients, `heal` asks, `work` carries out what is claimable until nothing is. The
    cluster's controllers are `behave`: it is called after every turn of the clock."""

    database: Database
    mode: Mode = Mode.ACT
    policy: PolicySettings = UNHURRIED
    clock: SetClock = field(default_factory=SetClock)
    metrics: Metrics | None = None
    workspace: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inventory = FakeInventory()
        self.objects = self.make_objects()
        self.objects.at = START
        self.workloads = FakeWorkloads()
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.behave: Any = lambda: None
        self.arrange()

    def make_objects(self) -> FakeObjects:
        return FakeObjects(self.inventory)

    def arrange(self) -> None:
        """Joins the parts again, after the policy, the mode or the metrics were changed."""
        self.cluster = FakeCluster(make_workspace(mode=self.mode, **self.workspace), self.inventory)
        self.clusters = FakeClusters(self.cluster)
        self.book = PolicyBook(self.policy)
        self.procedures = Procedures()
        settings = HealingSettings(verify_seconds=120, hold_seconds=10, poll_seconds=2, replacement_seconds=60)
        self.endpoints = join_healing(
            self.clusters, self.objects, self.workloads, self.ledger, self.procedures, self.clock, settings, self.book,
            self.metrics,
        )  # fmt: skip
        engine = EngineSettings(step_attempts=4, backoff_seconds=1)
        self.execution = Execution(self.ledger, self.procedures, self.clock, engine, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.inventory.at += timedelta(seconds=seconds)
        self.objects.at = self.inventory.at
        self.behave()

    # patients

    def deploy(
        self, name: str = "web", replicas: int = 2, *, revision: int = 1, namespace: str = "shop", **more: Any
    ) -> JsonObject:
        """A Deployment, and the ReplicaSet of its revision."""
        template = _template(name, more.pop("containers", None) or [container(image=f"shop/{name}:{revision}.0")])
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
        meta = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": moment(86400)}
        ready = more.pop("ready", replicas)
        held = self.objects.put(
            DEPLOYMENTS,
            {"metadata": meta | more.pop("meta", {}), "spec": spec | more, "status": _status(replicas, ready)},
        )
        self.revise(name, revision, template, namespace=namespace)
        return held

    def revise(
        self, name: str, revision: int, template: JsonObject, *, ago: float = 3600, namespace: str = "shop"
    ) -> JsonObject:
        """A ReplicaSet that holds a revision's template."""
        labels = template["metadata"]["labels"] | {"pod-template-hash": f"h{revision}"}
        held = template | {"metadata": template["metadata"] | {"labels": labels}}
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": f"uid-{name}", "controller": True}
        meta = {
            "name": f"{name}-h{revision}",
            "namespace": namespace,
            "uid": f"uid-{name}-h{revision}",
            "labels": labels,
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "creationTimestamp": moment(ago),
            "ownerReferences": [owner],
        }
        return self.objects.put(REPLICA_SETS, {"metadata": meta, "spec": {"replicas": 0, "template": held}})

    def pod(
        self,
        name: str,
        app: str = "web",
        *,
        revision: int = 1,
        ready: bool = True,
        unready_for: float = 600,
        **more: Any,
    ) -> JsonObject:
        """A pod that runs since an hour; where it is not `ready`, it has been so until `unready_for` seconds ago."""
        owner_name = f"{app}-h{revision}"
        owner = {
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner_name, "uid": f"uid-{owner_name}",
            "controller": True,
        }  # fmt: skip
        meta = {
            "name": name,
            "namespace": more.pop("namespace", "shop"),
            "uid": f"uid-{name}",
            "labels": {"app": app, "pod-template-hash": f"h{revision}"},
            "ownerReferences": [owner],
            "creationTimestamp": moment(3600),
        }
        status = {
            "phase": "Running",
            "startTime": moment(3600),
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "reason": "" if ready else "ContainersNotReady",
                    "lastTransitionTime": moment(3590 if ready else unready_for),
                }
            ],
            "containerStatuses": [
                more.pop("container_status", None)
                or {"name": "app", "ready": ready, "restartCount": 0, "state": {"running": {"startedAt": moment(3595)}}}
            ],
        }
        body = {
            "metadata": meta | more.pop("meta", {}),
            "spec": {"containers": more.pop("containers", None) or [container()], "nodeName": "node-1"},
            "status": status | more,
        }
        return self.objects.put(PODS, body)

    def set_ready(self, name: str = "web", ready: int = 2, **more: Any) -> None:
        """The Deployment's controller reports."""
        held = self.objects.find(DEPLOYMENTS, "shop", name)
        assert held is not None
        status = (
            _status(held["spec"]["replicas"], ready) | {"observedGeneration": held["metadata"]["generation"]} | more
        )
        self.objects.merge(DEPLOYMENTS, "shop", name, {"status": status})

    def replace_evicted(self, pod: JsonObject, *, ready: bool = True) -> None:
        """The controllers' answer to an eviction: a new pod in its place, and a new count."""
        number = len(self.objects.targets("evict")) + 1
        app = pod["metadata"]["labels"]["app"]
        revision = int(pod["metadata"]["labels"]["pod-template-hash"][1:])
        self.pod(f"{app}-new-{number}", app, revision=revision, ready=ready)
        self.count(app)

    def count(self, app: str = "web") -> None:
        pods = [held for (kind, _, _), held in self.objects.held.items() if kind == PODS]
        ready = sum(
            1
            for held in pods
            if held["metadata"]["labels"].get("app") == app
            and any(one["type"] == "Ready" and one["status"] == "True" for one in held["status"]["conditions"])
        )
        self.set_ready(app, ready)

    # asking and carrying out

    async def heal(
        self, target: str | None = "web", action: str = "auto", *, call: Call | None = None, **more: Any
    ) -> Reply[OperationAnswer]:
        parameters: dict[str, Any] = {"action": action} | more.pop("parameters", {})
        if target is not None:
            parameters["target_component"] = target
        body = OperationBody(operation="auto_heal", parameters=parameters, **more)
        made = call or make_call(make_caller("workspace:admin"), "execute_workspace_operation")
        return await self.endpoints.execute_workspace_operation(made, OperationParams(workspace_id="ws-123"), body)

    async def work(self, *, lease: timedelta = timedelta(days=1)) -> Operation:
        """Postponed operations are taken up when their time has come: the clock is moved there."""
        for _ in range(200):
            claim = await self.ledger.claim("worker", lease, self.procedures.runnable())
            if claim is not None:
                await self.execution.run(claim)
            elif (await self.ledger.depth()).running + (await self.ledger.depth()).queued:
                await self.idle()
            else:
                return await self.only()
        raise AssertionError("operations are stuck")

    async def idle(self) -> None:
        """Nothing is claimable yet."""
        await self.sleep(1)

    async def only(self) -> Operation:
        """The one operation that there is."""
        (found,) = await self.ledger.find(OperationFilter(workspaces=None))
        return found

    async def healed(self, target: str | None = "web", action: str = "auto", **more: Any) -> Operation:
        await self.heal(target, action, **more)
        return await self.work()


def crashed(
    reason: str = "Error", code: int = 1, *, restarts: int = 6, ago: float = 60, waiting: str = "CrashLoopBackOff"
) -> JsonObject:
    """A container's status between two tries."""
    ended = {"exitCode": code, "reason": reason, "startedAt": moment(ago + 5), "finishedAt": moment(ago)}
    said = (
        "back-off 5m0s restarting failed container=app pod=web-1_shop" if waiting == "CrashLoopBackOff" else "no such"
    )
    state = {"waiting": {"reason": waiting, "message": said}}
    held: JsonObject = {"name": "app", "ready": False, "restartCount": restarts, "state": state}
    return held | ({"lastState": {"terminated": ended}} if waiting == "CrashLoopBackOff" else {})


def _template(name: str, containers: list[JsonObject]) -> JsonObject:
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}


def _status(replicas: int, ready: int) -> JsonObject:
    return {
        "observedGeneration": 1,
        "replicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "updatedReplicas": replicas,
    }


@pytest.fixture
async def ward(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Ward]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield Ward(database)
    await database.close()
