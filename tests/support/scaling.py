"""The whole of scaling on fakes: a cluster, its writes, the ledger on SQLite, one worker's execution."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.ports import Workloads
from opsapi.applications.scale_endpoint import ScaleEndpoints
from opsapi.applications.scale_planning import ScalePlanner
from opsapi.applications.scale_rehearsal import ScaleRehearsal
from opsapi.applications.scaling_model import ScaleAnswer, ScaleBody, ScaleParams
from opsapi.applications.scaling_steps import ScalingSettings, ScalingSteps
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
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import Limits, PolicySettings
from opsapi.workspaces.model import Mode
from opsapi.workspaces.objects import DEPLOYMENT, NODE, Condition, Node, NodeStatus, ObjectMeta
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import Objects
from support.acting import SetClock, make_call
from support.api_objects import FakeObjects
from support.inventory import FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.workloads import FakeWorkloads, make_deployment

__all__ = ["Stage", "make_node", "stage"]


def make_node(name: str = "node-1", cpu: str = "4", memory: str = "16Gi", **changes: object) -> Node:
    held: dict[str, object] = {
        "metadata": ObjectMeta(name=name, uid=f"uid-{name}"),
        "status": NodeStatus(
            allocatable={"cpu": cpu, "memory": memory, "pods": "110"},
            conditions=(Condition(type="Ready", status="True"),),
        ),
    }
    return Node(**(held | changes))  # type: ignore[arg-type]


UNHURRIED = PolicySettings(
    limits=Limits(
        changes_per_hour_account=1000, changes_per_hour_workspace=1000, cooldown_seconds=0, same_action_per_hour=1000
    )
)
"""For tests of anything but budgets and cooldowns."""


def join_scaling(
    clusters: Clusters,
    workloads: Workloads,
    ledger: Ledger,
    procedures: Procedures,
    clock: Clock,
    settings: ScalingSettings,
    book: PolicyBook | None = None,
    objects: Objects | None = None,
) -> ScaleEndpoints:
    """As wiring does: the procedure registered, and the endpoint over the same planner."""
    book = book or PolicyBook(UNHURRIED)
    objects = objects or FakeObjects()
    planner = ScalePlanner(clusters, workloads, objects, book)
    steps = ScalingSteps(clusters, workloads, objects, book, settings)
    procedures.register(steps.procedure(planner.replan))
    desk = Desk(ledger, procedures, book, clock)
    rehearsal = ScaleRehearsal(workloads, steps.scaled_objects, desk)
    return ScaleEndpoints(clusters, rehearsal, planner, desk, ledger, clock)


@dataclass
class Stage:
    """`scale` asks, `work` carries out what is claimable until nothing is."""

    database: Database
    mode: Mode = Mode.ACT
    policy: PolicySettings = UNHURRIED
    clock: SetClock = field(default_factory=SetClock)

    def __post_init__(self) -> None:
        self.inventory = FakeInventory()
        self.cluster = FakeCluster(make_workspace(mode=self.mode), self.inventory)
        self.clusters = FakeClusters(self.cluster)
        self.workloads = FakeWorkloads(self.inventory)
        self.objects = FakeObjects(self.inventory)
        self.workloads.put(make_deployment())
        self.inventory.put(NODE, make_node())
        self.signals = Signals()
        self.ledger = SqlLedger(self.database, self.clock, self.signals)
        self.arrange()

    def arrange(self, **changes: object) -> None:
        """Joins the parts again, after the policy or the workspace was changed (`mode=…`, `plan=…`)."""
        if changes:
            self.cluster = FakeCluster(make_workspace("ws-123", **changes), self.inventory)
            self.clusters = FakeClusters(self.cluster)
        settings = ScalingSettings(verify_seconds=60, hold_seconds=5, poll_seconds=1)
        self.book = PolicyBook(self.policy)
        self.procedures = Procedures()
        self.endpoints = join_scaling(
            self.clusters, self.workloads, self.ledger, self.procedures, self.clock, settings, self.book, self.objects
        )
        self.execution = Execution(
            self.ledger,
            self.procedures,
            self.clock,
            EngineSettings(step_attempts=4, backoff_seconds=1),
            self.clock.sleep,
        )

    async def scale(
        self, replicas: int, *, call: Call | None = None, name: str = "web", project: str | None = None, **more: object
    ) -> Reply[ScaleAnswer]:
        params = ScaleParams(workspace_id="ws-123", deployment_name=name, project=project)
        body = ScaleBody(replicas=replicas, **more)  # type: ignore[arg-type]
        return await self.endpoints.scale_deployment(call or make_call(), params, body)

    async def work(self, *, lease: timedelta = timedelta(minutes=1)) -> None:
        """Postponed operations are taken up when their time has come: the clock is moved there."""
        for _ in range(200):
            claim = await self.ledger.claim("worker", lease, self.procedures.runnable())
            if claim is not None:
                await self.execution.run(claim)
            elif (await self.ledger.depth()).running + (await self.ledger.depth()).queued:
                self.clock.advance(1)
            else:
                return
        raise AssertionError("operations are stuck")

    async def only(self) -> Operation:
        """The one operation that there is."""
        (found,) = await self.ledger.find(OperationFilter(workspaces=None))
        return found

    async def untouched(self) -> bool:
        """Nothing was begun and nothing written."""
        begun = await self.ledger.find(OperationFilter(workspaces=None))
        return not begun and not self.workloads.writes and not self.workloads.autoscaler_writes

    def sync(self) -> None:
        """The inventory catches up with the cluster."""
        for held in self.workloads.deployments.values():
            self.inventory.put(DEPLOYMENT, held)


@pytest.fixture
async def stage(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Stage]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield Stage(database)
    await database.close()
