"""Autoscaling on fakes: scaling's stage, with pods and what they use."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.applications.autoscaling_endpoint import AutoscaleEndpoints
from opsapi.applications.autoscaling_model import (
    AutoscaleAnswer,
    AutoscaleBody,
    AutoscaleParams,
    ScalingPolicy,
    Trigger,
)
from opsapi.applications.autoscaling_planning import AutoscalePlanner
from opsapi.applications.autoscaling_steps import autoscale_procedure
from opsapi.applications.identity import Applications
from opsapi.applications.measuring import Measurer
from opsapi.applications.ports import Workloads
from opsapi.applications.scale_rehearsal import ScaleRehearsal
from opsapi.applications.scaling_steps import ScalingSettings, ScalingSteps
from opsapi.kit.caller import Call, Caller
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import Reply
from opsapi.operations.desk import Desk
from opsapi.operations.ports import Ledger
from opsapi.operations.procedures import Procedures
from opsapi.policy.book import PolicyBook
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    POD,
    REPLICA_SET,
    Condition,
    Container,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
    Resources,
    Workload,
    WorkloadMeta,
)
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.views import Views
from opsapi.workspaces.writing import Objects
from support.acting import make_call, make_caller
from support.api_objects import FakeObjects
from support.inventory import FakeClusters
from support.metrics import FakeMetrics
from support.scaling import UNHURRIED, Stage
from support.workloads import make_deployment

__all__ = ["AutoscaleStage", "autoscale_stage"]

APP = "app-123"
POD_NAMES = ("bcdfg", "hjklm", "npqrs", "tvwxz", "24567", "bbbbb", "ccccc", "ddddd", "fffff", "ggggg")


def make_pod(
    name: str, owner_uid: str, *, ready: bool = True, requests: dict[str, str] | None = None, namespace: str = "shop"
) -> Pod:
    owner = OwnerReference(kind="ReplicaSet", name="web-6d4cf56db6", uid=owner_uid, controller=True)
    asked = {"cpu": "100m", "memory": "64Mi"} if requests is None else requests
    container = Container(name="app", image="nginx:1.27", resources=Resources(requests=asked))
    return Pod(
        metadata=ObjectMeta(name=name, namespace=namespace, uid=f"uid-{name}", owner_references=(owner,)),
        spec=PodSpec(containers=(container,), node_name="node-1"),
        status=PodStatus(phase="Running", conditions=(Condition(type="Ready", status="True" if ready else "False"),)),
    )


def join_autoscaling(
    clusters: Clusters,
    workloads: Workloads,
    ledger: Ledger,
    procedures: Procedures,
    clock: Clock,
    settings: ScalingSettings,
    metrics: Metrics,
    applications: Applications,
    book: PolicyBook | None = None,
    objects: Objects | None = None,
) -> AutoscaleEndpoints:
    """As wiring does."""
    book, objects = book or PolicyBook(UNHURRIED), objects or FakeObjects()
    steps = ScalingSteps(clusters, workloads, objects, book, settings)
    planner = AutoscalePlanner(
        clusters, workloads, objects, Measurer(metrics), book, stabilization_seconds=settings.stabilization_seconds
    )
    procedures.register(autoscale_procedure(steps, planner.replan))
    desk = Desk(ledger, procedures, book, clock)
    rehearsal = ScaleRehearsal(workloads, steps.scaled_objects, desk)
    return AutoscaleEndpoints(applications, clusters, rehearsal, planner, desk, clock)


def applications_of(clusters: FakeClusters) -> Applications:
    return Applications(Views(clusters))


class AutoscaleStage(Stage):
    """`run` sets the pods, `autoscale` asks."""

    def arrange(self, **changes: object) -> None:
        super().arrange(**changes)
        self.metrics = getattr(self, "metrics", None) or FakeMetrics()
        self.autoscaler = join_autoscaling(
            self.clusters,
            self.workloads,
            self.ledger,
            self.procedures,
            self.clock,
            ScalingSettings(verify_seconds=60, hold_seconds=5, poll_seconds=1),
            self.metrics,
            applications_of(self.clusters),
            self.book,
            self.objects,
        )

    def run(self, replicas: int = 3, *, ready: int | None = None, **changes: object) -> None:
        """The deployment `web`, id `app-123`, with its pods, none of them measured yet."""
        held = make_deployment(replicas=replicas, ready=ready, labels={APPLICATION_ID_LABEL: APP})
        self.workloads.put(held)
        self.own(DEPLOYMENT.kind, held.metadata.uid)
        for index in range(replicas):
            pod = make_pod(self.pod(index), "uid-rs", ready=index < (replicas if ready is None else ready), **changes)  # type: ignore[arg-type]
            self.inventory.put(POD, pod)
        self.arrange()

    def own(self, kind: str, uid: str) -> None:
        owner = OwnerReference(kind=kind, name="web", uid=uid, controller=True)
        meta = WorkloadMeta(name="web-6d4cf56db6", namespace="shop", uid="uid-rs", owner_references=(owner,))
        self.inventory.put(REPLICA_SET, Workload(metadata=meta))

    def pod(self, index: int) -> str:
        return f"web-6d4cf56db6-{POD_NAMES[index]}"

    def measure(self, *percentages: float, minutes_ago: float = 0, memory: int = 32 * 2**20) -> None:
        """Each pod's CPU in percent of its request of 100m; so its millicores."""
        at = self.inventory.now() - timedelta(minutes=minutes_ago)
        for index, percentage in enumerate(percentages):
            self.metrics.measure(self.pod(index), "app", at, cpu=percentage, memory=memory)

    def remember(self, percentage: float, *, pods: int, minutes: range = range(1, 8)) -> None:
        """A reading a minute."""
        for minute in minutes:
            self.measure(*[percentage] * pods, minutes_ago=minute)

    async def autoscale(
        self,
        trigger: Trigger = Trigger.CPU,
        *,
        call: Call | None = None,
        caller: Caller | None = None,
        application: str = APP,
        policy: ScalingPolicy | None = None,
        **more: object,
    ) -> Reply[AutoscaleAnswer]:
        call = call or make_call(caller or make_caller("application:write"), "autoscale_application")
        body = AutoscaleBody(trigger=trigger, scaling_policy=policy or ScalingPolicy(), **more)  # type: ignore[arg-type]
        params = AutoscaleParams(application_id=application)
        return await self.autoscaler.autoscale_application(call, params, body)


@pytest.fixture
async def autoscale_stage(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AutoscaleStage]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    stage = AutoscaleStage(database)
    stage.run()
    yield stage
    await database.close()
