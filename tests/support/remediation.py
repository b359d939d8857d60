"""Incidents over a fake cluster whose Deployments can be healed and scaled: one cluster of JSON objects for both."""

import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.incidents import SqlIncidentStore
from opsapi.applications.ports import (
    FIELD_MANAGER,
    AutoscalerBounds,
    ScaleState,
    WorkloadRef,
    WrittenEvent,
)
from opsapi.applications.scale_planning import ScalePlanner
from opsapi.applications.scaling_steps import ScalingSettings, ScalingSteps
from opsapi.incidents.alertmanager import AlertsBody
from opsapi.incidents.alerts_endpoint import AlertEndpoints, ReceivedAlerts
from opsapi.incidents.endpoints import IncidentEndpoints
from opsapi.incidents.manage_endpoint import ManageIncidentEndpoints
from opsapi.incidents.remediating import Remediating
from opsapi.incidents.remediation_planning import RemediationPlanner
from opsapi.incidents.remediation_steps import RemediationSteps
from opsapi.incidents.reporting import Reporter
from opsapi.incidents.settings import IncidentSettings
from opsapi.incidents.views import (
    CreateIncidentBody,
    IncidentParams,
    IncidentView,
    ManageBody,
    ManagedIncident,
    ManageParams,
    ReportedIncident,
)
from opsapi.incidents.watching import Watch
from opsapi.kit.caller import Call
from opsapi.kit.endpoint import NoBody, NoParams, Reply
from opsapi.operations.desk import Desk
from opsapi.playbooks.healing.facts import HealingFacts, decoded
from opsapi.playbooks.healing.model import RESOURCES, HealingSettings
from opsapi.playbooks.healing.planning import HealPlaybook
from opsapi.playbooks.healing.steps import HealingSteps
from opsapi.policy.model import TargetHistory
from opsapi.workspaces.objects import AUTOSCALER, HorizontalPodAutoscaler, Workload
from opsapi.workspaces.writing import JsonObject, ObjectKey, Objects
from support.acting import make_call, make_caller
from support.api_objects import PODS
from support.healing import DEPLOYMENTS, Ward
from support.incidents import SETTINGS
from support.inventory import FakeInventory

HEALING = HealingSettings(verify_seconds=120, hold_seconds=10, poll_seconds=2, replacement_seconds=60)
REMEDY = ("incident:write", "workspace:admin")


class ObjectWorkloads:
    """Implements Workloads over the same objects that healing writes."""

    def __init__(self, objects: Objects, inventory: FakeInventory) -> None:
        self._objects = objects
        self._inventory = inventory
        self.events: list[WrittenEvent] = []

    @staticmethod
    def _key(ref: WorkloadRef) -> ObjectKey:
        return ObjectKey(ref.workspace_id, RESOURCES[ref.kind.kind], ref.namespace, ref.name, ref.uid)

    async def read_workload(self, ref: WorkloadRef) -> Workload:
        return decoded(await self._objects.get(self._key(ref)), Workload)

    async def read_scale(self, ref: WorkloadRef) -> ScaleState:
        return _scale(await self.read_workload(ref))

    async def write_scale(
        self, ref: WorkloadRef, replicas: int, *, resource_version: str, dry_run: bool = False
    ) -> ScaleState:
        mark = {"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        body = {"metadata": {"managedFields": [mark]}, "spec": {"replicas": replicas}}
        written = await self._objects.patch(self._key(ref), body, resource_version=resource_version, dry_run=dry_run)
        return _scale(decoded(written, Workload))

    async def find_autoscaler(self, ref: WorkloadRef) -> HorizontalPodAutoscaler | None:
        for held in self._inventory.all(AUTOSCALER, HorizontalPodAutoscaler, ref.namespace):
            if held.spec.scale_target_ref.name == ref.name:
                return held
        return None

    async def write_autoscaler(
        self,
        ref: WorkloadRef,
        bounds: AutoscalerBounds,
        *,
        existing: HorizontalPodAutoscaler | None,
        operation_id: str,
        dry_run: bool = False,
    ) -> HorizontalPodAutoscaler:
        raise AssertionError("a remediation writes no autoscaler")

    async def write_event(self, ref: WorkloadRef, event: WrittenEvent, *, operation_id: str, at: datetime) -> None:
        self.events.append(event)


def _scale(held: Workload) -> ScaleState:
    meta = held.metadata
    return ScaleState(meta.uid, meta.resource_version, held.spec.replicas or 0, held.status.replicas)


class Emergency(Ward):
    """`report`, `manage`, `look_at` and `alert` call the endpoints; `pods_come` plays the controllers."""

    settings: IncidentSettings = SETTINGS
    blocked: dict[str, TargetHistory]

    def arrange(self) -> None:
        super().arrange()
        self.blocked = {}
        self.objects.evicted = self.replace_evicted
        self.store = SqlIncidentStore(self.database, self.clock)
        workloads = ObjectWorkloads(self.objects, self.inventory)
        steps = HealingSteps(self.clusters, self.objects, workloads, self.book, HEALING, self.metrics)
        healing = HealPlaybook(self.clusters, HealingFacts(self.objects), self.book, steps, HEALING)
        scaling = ScalePlanner(self.clusters, workloads, self.objects, self.book)
        planner = RemediationPlanner(self.clusters, healing, scaling, self.book)
        scaled = ScalingSteps(self.clusters, workloads, self.objects, self.book, ScalingSettings())
        self.procedures.register(RemediationSteps(healing.procedure(), scaled).procedure(planner.replan))
        self.desk = Desk(self.ledger, self.procedures, self.book, self.clock)
        self.reporter = Reporter(self.store, self.settings, self.clock)
        self.remediating = Remediating(
            self.store, self.clusters, planner, self.desk, self.ledger, self.settings, self.clock
        )
        self.incidents = IncidentEndpoints(self.store, self.reporter, self.clusters, self.ledger, self.book)
        self.managing = ManageIncidentEndpoints(self.store, self.remediating, self.settings, self.clock)
        self.alerting = AlertEndpoints(self.store, self.clusters, self.settings, self.clock)
        self.watch = Watch(
            self.store, self.reporter, self.remediating, self._failing, self._turn, self.settings, self.clock
        )

    async def _failing(self) -> dict[str, TargetHistory]:
        return self.blocked

    async def _turn(self) -> bool:
        return True

    def call(self, *permissions: str, **more: Any) -> Call:
        return make_call(make_caller(*(permissions or REMEDY), **more), "manage_incident")

    async def report(self, *permissions: str, **changes: Any) -> Reply[ReportedIncident]:
        given: dict[str, Any] = {
            "workspace_id": "ws-123",
            "type": "application_failure",
            "severity": "high",
            "title": "The shop is slow",
            "affected_applications": ["web"],
        }
        body = msgspec.convert(given | changes, CreateIncidentBody)
        return await self.incidents.create_incident(self.call(*permissions), NoParams(), body)

    async def manage(
        self, incident_id: str, action: str, *permissions: str, call: Call | None = None, **more: Any
    ) -> Reply[ManagedIncident]:
        body = msgspec.convert({"action": action} | more, ManageBody)
        params = ManageParams(incident_id=incident_id)
        return await self.managing.manage_incident(call or self.call(*permissions), params, body)

    async def look_at(self, incident_id: str, *permissions: str, **more: Any) -> Reply[IncidentView]:
        params = IncidentParams(incident_id=incident_id, **more)
        return await self.incidents.get_incident(self.call(*permissions), params, NoBody())

    async def alert(self, body: dict[str, Any], *permissions: str) -> Reply[ReceivedAlerts]:
        call = self.call(*(permissions or ("incident:write@ws-123",)))
        return await self.alerting.receive_alerts(call, NoParams(), msgspec.convert(body, AlertsBody))

    def pods_come(self, *, ready: bool = True) -> None:
        """The Deployment's controller: as many pods as it says."""
        held = self.objects.find(DEPLOYMENTS, "shop", "web")
        assert held is not None
        pods = sorted(name for kind, _, name in self.objects.held if kind == PODS)
        wanted = held["spec"]["replicas"]
        for number in range(len(pods), wanted):
            self.pod(f"web-more-{number}", ready=ready)
        for name in pods[wanted:]:
            self.objects.remove(PODS, "shop", name)
        self.count()
        self.objects.merge(DEPLOYMENTS, "shop", "web", {"status": {"replicas": wanted, "updatedReplicas": wanted}})

    def replicas(self) -> int:
        held = self.objects.find(DEPLOYMENTS, "shop", "web")
        assert held is not None
        return int(held["spec"]["replicas"])


def payload(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """As Alertmanager sends it."""
    firing = any(alert["status"] == "firing" for alert in alerts)
    held: dict[str, Any] = {
        "version": "4",
        "groupKey": '{}:{alertname="HighErrorRate"}',
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "opsapi",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
    }
    return held | changes


def wire(status: str = "firing", *, fingerprint: str = "0123456789abcdef", **labels: str) -> JsonObject:
    return {
        "status": status,
        "labels": {"alertname": "HighErrorRate", "severity": "critical", "namespace": "shop"} | labels,
        "annotations": {"summary": "Errors in the shop"},
        "startsAt": "2024-01-20T11:59:00Z",
        "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else "2024-01-20T12:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint,
    }


@pytest.fixture
async def emergency(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Emergency]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield Emergency(database)
    await database.close()
