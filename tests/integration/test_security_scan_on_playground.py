"""A scan through the real adapter: with and without the Trivy operator's kinds, and with the rights alone that the
feature names."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.security import SqlFindingStore
from opsapi.kit.endpoint import NoBody
from opsapi.operations.desk import Desk
from opsapi.operations.execution import Execution
from opsapi.operations.model import State
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.model import Context
from opsapi.playbooks.scanning.endpoint import FindingEndpoints, FindingsParams, SecurityFindings
from opsapi.playbooks.scanning.model import Category
from opsapi.playbooks.scanning.playbook import ScanParameters, SecurityScan
from opsapi.playbooks.scanning.reports import REPORT_KINDS
from opsapi.playbooks.scanning.steps import ScanSettings, ScanSteps
from opsapi.playground.registry import User
from opsapi.playground.world import World
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings, Subject
from opsapi.workspaces.access import Feature, check, manifest
from opsapi.workspaces.model import Mode
from support.acting import SetClock, make_call, make_caller
from support.cluster import ADMIN, ADMIN_TOKEN, ApiHandle, running_api
from support.database import sqlite_template
from support.live import Admin, Live, administrating, inline, living
from support.playground_world import EPOCH, container, deployment, small_world
from support.security import audit_check, audit_report, secret_report, vulnerability, vulnerability_report

__all__ = ["sqlite_template"]
SCANNER_TOKEN = "scanner-token"
SCANNER = User("system:serviceaccount:opsapi:opsapi", ("system:authenticated", "system:serviceaccounts"))


def report_definition(kind: str, plural: str, *, namespaced: bool) -> dict[str, Any]:
    """As the operator's own definitions: everything under `report` is kept."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.aquasecurity.github.io"},
        "spec": {
            "group": "aquasecurity.github.io",
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema | {"properties": {"report": schema}}},
                }
            ],
        },
    }


async def install_operator(admin: Admin) -> None:
    for kind in REPORT_KINDS:
        body = report_definition(kind.kind, kind.resource.plural, namespaced=kind.resource.namespaced)
        await admin.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)


async def add_report(admin: Admin, body: dict[str, Any]) -> None:
    """Without its owner, whose uid is not the world's: garbage collection would take it at once."""
    body["metadata"].pop("ownerReferences", None)
    kind = next(one.resource for one in REPORT_KINDS if one.kind == body["kind"])
    scope = f"/namespaces/{body['metadata']['namespace']}" if kind.namespaced else ""
    await admin.create(f"/apis/aquasecurity.github.io/v1alpha1{scope}/{kind.plural}", body)


@dataclass
class Scene:
    world: World
    api: ApiHandle
    admin: Admin
    database: Database

    def __post_init__(self) -> None:
        self.clock = SetClock(EPOCH)
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.store = SqlFindingStore(self.database, self.clock)

    async def scan(self, live: Live) -> SecurityFindings:
        clusters = live.clusters
        steps = ScanSteps(clusters, KubernetesObjects(clusters), self.store, ScanSettings())
        playbook = SecurityScan(clusters, steps)
        procedures = Procedures()
        procedures.register(playbook.procedure())
        desk = Desk(self.ledger, procedures, PolicyBook(PolicySettings()), self.clock)
        call = make_call(make_caller("workspace:admin"))
        subject = Subject(call.caller.account_id, call.caller.kind, "ws-live", live.cluster.workspace.mode)
        proposal = await playbook.propose(
            live.cluster, subject, ScanParameters(), context=Context(), reason=None, confirm=False
        )
        begun = await desk.begin(call, proposal)
        execution = Execution(self.ledger, procedures, self.clock, EngineSettings(), self.clock.sleep)
        while (claim := await self.ledger.claim("w", timedelta(days=36500), procedures.runnable())) is not None:
            await execution.run(claim)
        ended = await self.ledger.get(begun.id)
        assert ended is not None
        assert ended.state is State.COMPLETED, ended
        endpoints = FindingEndpoints(clusters, self.store)
        params = FindingsParams(workspace_id="ws-live", limit=500)
        return (await endpoints.list_security_findings(call, params, NoBody())).data


@pytest.fixture
async def scene(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Scene]:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    world = small_world()
    world.apply(deployment("web", container(securityContext={"privileged": True}), replicas=2))
    world.apply(deployment("api", container(image="registry.example/shop/api"), replicas=1))
    world.advance(120)
    tokens = {ADMIN_TOKEN: ADMIN, SCANNER_TOKEN: SCANNER}
    async with running_api(world.objects, bootstrapped=False, tokens=tokens) as api, administrating(api) as admin:
        yield Scene(world, api, admin, database)
    await database.close()


async def test_a_cluster_without_the_operator_is_judged_by_our_own_checks(scene: Scene) -> None:
    async with living(inline(scene.api.kubeconfig()), mode=Mode.OBSERVE) as live:
        await live.until_synced()
        read = await scene.scan(live)
    assert read.scan.by_category["vulnerability"] is None
    assert all("not installed" in (one.reason or "") for one in read.scan.reports)
    assert read.scan.unread == []
    assert read.scan.pod_security.levels["privileged"] >= 1
    worst = read.findings[0]
    assert (worst.check, worst.resource.kind, worst.resource.name) == ("privileged", "Deployment", "web")
    assert worst.evidence[0].field == "$.spec.template.spec.containers[0].securityContext.privileged"
    found = {(one.check, one.resource.name) for one in read.findings}
    assert ("mutable-image-tag", "api") in found
    assert ("network-policy-missing", "default") in found


async def test_reports_that_the_cluster_serves_are_read_with_their_age_and_lead_to_the_deployment(scene: Scene) -> None:
    await install_operator(scene.admin)
    (replica_set,) = [
        one["metadata"]["name"]
        for one in scene.world.registry.iterate("replicasets.apps", "default")
        if one["metadata"]["name"].startswith("web-")
    ]
    about = ("ReplicaSet", replica_set)
    hours = timedelta(hours=5)
    async with living(inline(scene.api.kubeconfig()), mode=Mode.OBSERVE) as live:
        await live.until_synced()
        at = live.cluster.inventory.now() - hours
        image = ("registry.example", "shop/app", "1.0")
        for body in (
            vulnerability_report(vulnerability(), about=about, namespace="default", at=at, image=image),
            secret_report("stripe-access-token", about=about, at=at)
            | {"metadata": {"name": "s", "namespace": "default"}},
            audit_report("ConfigAuditReport", audit_check("KSV014"), about=about, namespace="default", at=at),
            audit_report(
                "ClusterRbacAssessmentReport", audit_check("KSV046"), about=("ClusterRole", "x"), namespace=""
            ),
        ):
            await add_report(scene.admin, body)
        read = await scene.scan(live)
    told = {one.kind: one for one in read.scan.reports}
    assert told["VulnerabilityReport"].reports == 1
    assert told["VulnerabilityReport"].oldest_age_hours == pytest.approx(5, abs=0.2)
    assert told["ClusterRbacAssessmentReport"].undated == 1
    assert told["InfraAssessmentReport"].reports == 0
    assert "registry.example/shop/app:1.0" not in (read.scan.unscanned_images.images or [])
    assert "registry.example/shop/api" in (read.scan.unscanned_images.images or [])
    (found,) = [one for one in read.findings if one.category is Category.VULNERABILITY]
    assert (found.check, found.resource.kind, found.resource.name) == ("CVE-2019-20367", "Deployment", "web")


async def test_the_features_own_rights_are_enough_and_proved(scene: Scene) -> None:
    await install_operator(scene.admin)
    for document in yaml.safe_load_all(manifest([Feature.READ, Feature.SECURITY_SCAN])):
        if document["kind"].startswith("ClusterRole"):
            plural = f"{document['kind'].lower()}s"
            await scene.admin.create(f"/apis/rbac.authorization.k8s.io/v1/{plural}", document)
    async with living(inline(scene.api.kubeconfig(SCANNER_TOKEN)), mode=Mode.OBSERVE) as live:
        await live.until_synced()
        report = await check(live.cluster, [Feature.READ, Feature.SECURITY_SCAN])
        read = await scene.scan(live)
    assert report.missing == []
    assert read.scan.unread == []
    assert [one.reason for one in read.scan.reports] == [None] * len(REPORT_KINDS)


async def test_without_the_features_rights_what_is_missing_is_said(scene: Scene) -> None:
    await install_operator(scene.admin)
    for document in yaml.safe_load_all(manifest([Feature.READ])):
        if document["kind"].startswith("ClusterRole"):
            plural = f"{document['kind'].lower()}s"
            await scene.admin.create(f"/apis/rbac.authorization.k8s.io/v1/{plural}", document)
    async with living(inline(scene.api.kubeconfig(SCANNER_TOKEN)), mode=Mode.OBSERVE) as live:
        await live.until_synced()
        read = await scene.scan(live)
    assert {one.kind for one in read.scan.unread} == {"NetworkPolicy", "ServiceAccount"}
    assert read.scan.by_category["vulnerability"] is None
    assert "may not list" in (read.scan.reports[0].reason or "")
    assert not any(one.check == "network-policy-missing" for one in read.findings)
    assert read.findings[0].check == "privileged"


async def test_a_workspace_of_one_namespace_scans_it_alone(scene: Scene) -> None:
    async with living(inline(scene.api.kubeconfig()), mode=Mode.OBSERVE, namespaces=("default",)) as live:
        await live.until_synced()
        read = await scene.scan(live)
    assert {one.resource.namespace for one in read.findings} == {"default"}
