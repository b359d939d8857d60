"""Pod templates, reports of the Trivy operator as the operator writes them, and a stage for whole scans."""

import copy
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.security import SqlFindingStore
from opsapi.kit.caller import Call
from opsapi.kit.endpoint import NoBody, Reply
from opsapi.operations.desk import Desk
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.model import Context
from opsapi.playbooks.scanning.endpoint import FindingEndpoints, FindingsParams, SecurityFindings
from opsapi.playbooks.scanning.gathering import NETWORK_POLICIES, PODS, SERVICE_ACCOUNTS, SERVICES, TEMPLATES
from opsapi.playbooks.scanning.model import Finding, Source
from opsapi.playbooks.scanning.playbook import ScanParameters, SecurityScan
from opsapi.playbooks.scanning.pods import PlacedPod, place
from opsapi.playbooks.scanning.ports import FindingFilter, LastScan
from opsapi.playbooks.scanning.reports import REPORT_KINDS
from opsapi.playbooks.scanning.steps import ScanSettings, ScanSteps
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings, Subject
from opsapi.workspaces.model import Mode
from opsapi.workspaces.objects import NAMESPACE, Namespace, ObjectMeta
from opsapi.workspaces.writing import JsonObject, Resource
from support.acting import SetClock, make_call, make_caller
from support.api_objects import FakeObjects
from support.inventory import START, FakeCluster, FakeClusters, FakeInventory, make_workspace

__all__ = ["ScanStage", "scan_stage"]

REPORTS = {kind.kind: kind.resource for kind in REPORT_KINDS}
KINDS: dict[str, Resource] = {resource.kind: resource for resource in (*TEMPLATES, PODS)} | {
    "Service": SERVICES,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "NetworkPolicy": NETWORK_POLICIES,
}
HARDENED: JsonObject = {
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "app",
                "image": "ghcr.io/example/app:1.4.2",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
}
"""A pod template that the restricted level allows."""


def hardened(**changes: Any) -> JsonObject:
    """`spec` changed by keyword; `app` merges into the container, `context` into its securityContext."""
    made = copy.deepcopy(HARDENED)
    container = made["spec"]["containers"][0]
    container["securityContext"] |= changes.pop("context", {})
    container |= changes.pop("app", {})
    made["spec"] |= changes
    return made


def placed(template: JsonObject) -> PlacedPod:
    return place("$.spec.template", template)


def workload(kind: str, name: str, template: JsonObject, namespace: str = "shop", **spec: Any) -> JsonObject:
    held = {"template": template} if kind != "CronJob" else {"jobTemplate": {"spec": {"template": template}}}
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{kind}-{name}"},
            "spec": held | spec}  # fmt: skip


def replica_set(name: str, deployment: str, replicas: int = 2, namespace: str = "shop") -> JsonObject:
    made = workload("ReplicaSet", name, hardened(), namespace, replicas=replicas)
    made["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": deployment,
            "uid": f"uid-Deployment-{deployment}",
            "controller": True,
        }
    ]
    return made


def pod(name: str, template: JsonObject, namespace: str = "shop", phase: str = "Running", **meta: Any) -> JsonObject:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"} | meta,
        "spec": template["spec"],
        "status": {"phase": phase},
    }


def _report(
    kind: str,
    name: str,
    body: JsonObject,
    *,
    about: tuple[str, str],
    namespace: str = "shop",
    container: str | None = None,
    at: datetime | None = None,
) -> JsonObject:
    labels = {
        "resource-spec-hash": "7cb64cb677",
        "trivy-operator.resource.kind": about[0],
        "trivy-operator.resource.name": about[1],
        "trivy-operator.resource.namespace": namespace,
    } | ({"trivy-operator.container.name": container} if container else {})
    meta = {
        "name": name,
        "labels": labels,
        "annotations": {"trivy-operator.aquasecurity.github.io/report-ttl": "24h0m0s"},
    }
    owner = {"apiVersion": "apps/v1", "kind": about[0], "name": about[1], "uid": "aa345200", "controller": True}
    dated = {"updateTimestamp": at.isoformat().replace("+00:00", "Z")} if at is not None else {}
    scanner = {"name": "Trivy", "vendor": "Aqua Security", "version": "0.66.0"}
    return {
        "apiVersion": "aquasecurity.github.io/v1alpha1",
        "kind": kind,
        "metadata": meta | {"ownerReferences": [owner]} | ({"namespace": namespace} if namespace else {}),
        "report": {"scanner": scanner} | body | dated,
    }


def vulnerability(number: str = "CVE-2019-20367", severity: str = "CRITICAL", **changes: Any) -> JsonObject:
    return {
        "fixedVersion": "0.9.1-2+deb10u1",
        "installedVersion": "0.9.1-2",
        "links": [],
        "primaryLink": "https://avd.aquasec.com/nvd/cve-2019-20367",
        "publishedDate": "2020-01-08T17:15:00Z",
        "lastModifiedDate": "2021-06-29T15:15:00Z",
        "resource": "libbsd0",
        "score": 9.1,
        "severity": severity,
        "target": "",
        "title": "nlist.c in libbsd has an out-of-bounds read",
        "vulnerabilityID": number,
    } | changes


def vulnerability_report(
    *vulnerabilities: JsonObject,
    about: tuple[str, str] = ("ReplicaSet", "web-6d4cf56db6"),
    container: str = "app",
    namespace: str = "shop",
    at: datetime | None = START,
    image: tuple[str, str, str] = ("index.docker.io", "library/nginx", "1.16"),
    **artifact: str,
) -> JsonObject:
    server, repository, tag = image
    body = {
        "artifact": {"repository": repository, "tag": tag} | artifact,
        "os": {"family": "debian", "name": "10.3"},
        "registry": {"server": server},
        "summary": {
            "criticalCount": len(vulnerabilities),
            "highCount": 0,
            "lowCount": 0,
            "mediumCount": 0,
            "unknownCount": 0,
        },
        "vulnerabilities": list(vulnerabilities),
    }
    name = f"{about[0].lower()}-{about[1]}-{container}"
    return _report("VulnerabilityReport", name, body, about=about, namespace=namespace, container=container, at=at)


def secret_report(
    *rules: str, about: tuple[str, str] = ("ReplicaSet", "web-6d4cf56db6"), at: datetime | None = START
) -> JsonObject:
    secrets = [
        {
            "category": "Stripe",
            "match": "secret_key: sk_live_51TheRealThing",
            "ruleID": rule,
            "severity": "HIGH",
            "target": f"/app/config/{place}.yaml",
            "title": "Stripe Secret Key",
        }
        for place, rule in enumerate(rules)
    ]
    body = {
        "artifact": {"repository": "example/web", "tag": "v1.2.3"},
        "registry": {"server": "ghcr.io"},
        "secrets": secrets,
        "summary": {"criticalCount": 0, "highCount": len(secrets), "lowCount": 0, "mediumCount": 0},
    }
    return _report("ExposedSecretReport", "replicaset-web-app", body, about=about, container="app", at=at)


def audit_check(check: str, severity: str = "HIGH", *, success: bool = False, container: str = "") -> JsonObject:
    made: JsonObject = {
        "category": "Kubernetes Security Check",
        "checkID": check,
        "description": "A program inside the container can elevate its own privileges.",
        "messages": [f"Container 'app' should satisfy {check}"] if not success else [""],
        "severity": severity,
        "success": success,
        "title": f"Title of {check}",
    }
    return made | ({"scope": {"type": "Container", "value": container}} if container else {})


def audit_report(
    kind: str,
    *checks: JsonObject,
    about: tuple[str, str] = ("ReplicaSet", "web-6d4cf56db6"),
    namespace: str = "shop",
    at: datetime | None = None,
) -> JsonObject:
    summary = {"criticalCount": 0, "highCount": len(checks), "lowCount": 0, "mediumCount": 0}
    body = {"checks": list(checks), "summary": summary}
    return _report(kind, f"{about[0].lower()}-{about[1]}", body, about=about, namespace=namespace, at=at)


class FakeFindings:
    """Implements FindingStore."""

    def __init__(self) -> None:
        self.staged: dict[str, dict[Source, list[Finding]]] = {}
        self.scans: dict[str, LastScan] = {}

    async def stage(self, workspace_id: str, scan_id: str, source: Source, findings: Sequence[Finding]) -> None:
        held = self.scans.get(workspace_id)
        if held is None or held.id != scan_id:
            self.staged.setdefault(scan_id, {})[source] = list(findings)

    async def publish(self, workspace_id: str, scan: LastScan) -> None:
        held = self.scans.get(workspace_id)
        if held is not None and held.id == scan.id:
            return
        if held is not None and held.at > scan.at:
            self.staged.pop(scan.id, None)
            return
        if held is not None:
            self.staged.pop(held.id, None)
        self.scans[workspace_id] = scan

    async def last(self, workspace_id: str) -> LastScan | None:
        return self.scans.get(workspace_id)

    async def find(self, scan_id: str, wanted: FindingFilter) -> list[Finding]:
        held = [one for found in self.staged.get(scan_id, {}).values() for one in found]
        fitting = [
            one
            for one in sorted(held, key=lambda one: (one.weight, one.id))
            if (wanted.severities is None or one.severity in wanted.severities)
            and (wanted.categories is None or one.category in wanted.categories)
            and (wanted.namespace is None or one.resource.namespace == wanted.namespace)
            and (wanted.after is None or (one.weight, one.id) > wanted.after)
        ]
        return fitting[: wanted.limit]

    async def count(self, scan_id: str) -> int:
        return sum(len(found) for found in self.staged.get(scan_id, {}).values())


@dataclass
class ScanStage:
    """The whole of scanning on fakes with the real ledger and store on SQLite. Namespaces `shop` and `pay` are there;
    `put` adds an object under its kind."""

    database: Database
    mode: Mode = Mode.OBSERVE

    def __post_init__(self) -> None:
        self.clock = SetClock()
        self.inventory = FakeInventory()
        self.objects = FakeObjects(self.inventory)
        self.store = SqlFindingStore(self.database, self.clock)
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        for name in ("shop", "pay"):
            self.inventory.put(NAMESPACE, Namespace(metadata=ObjectMeta(name=name, uid=f"uid-{name}")))
        self.arrange()

    def arrange(self, settings: ScanSettings | None = None, **changes: object) -> None:
        """Joins the parts again, after the workspace was changed (`mode=…`, `namespaces=…`)."""
        self.cluster = FakeCluster(make_workspace("ws-123", **({"mode": self.mode} | changes)), self.inventory)
        self.clusters = FakeClusters(self.cluster)
        self.procedures = Procedures()
        steps = ScanSteps(self.clusters, self.objects, self.store, settings or ScanSettings())
        self.playbook = SecurityScan(self.clusters, steps)
        self.procedures.register(self.playbook.procedure())
        self.desk = Desk(self.ledger, self.procedures, PolicyBook(PolicySettings()), self.clock)
        self.execution = Execution(self.ledger, self.procedures, self.clock, EngineSettings(), self.clock.sleep)
        self.endpoints = FindingEndpoints(self.clusters, self.store)

    def put(self, *bodies: JsonObject) -> None:
        for body in bodies:
            self.objects.put((KINDS | REPORTS)[body["kind"]], body)

    async def begin(self, call: Call | None = None) -> Operation:
        call = call or make_call(make_caller("workspace:admin"))
        subject = Subject(call.caller.account_id, call.caller.kind, "ws-123", self.cluster.workspace.mode)
        proposal = await self.playbook.propose(
            self.cluster, subject, ScanParameters(), context=Context(), reason="weekly", confirm=False
        )
        return await self.desk.begin(call, proposal)

    async def work(self) -> None:
        while (
            claim := await self.ledger.claim("worker", timedelta(minutes=1), self.procedures.runnable())
        ) is not None:
            await self.execution.run(claim)

    async def scan(self) -> Operation:
        """A whole scan, and its operation at the end."""
        begun = await self.begin()
        await self.work()
        ended = await self.ledger.get(begun.id)
        assert ended is not None
        return ended

    async def read(self, **params: Any) -> Reply[SecurityFindings]:
        wanted = FindingsParams(workspace_id="ws-123", **params)
        return await self.endpoints.list_security_findings(make_call(), wanted, NoBody())

    async def read_after_scan(self) -> Reply[SecurityFindings]:
        await self.scan()
        return await self.read()

    async def findings(self, **params: Any) -> list[Finding]:
        return (await self.read(limit=500, **params)).data.findings


@pytest.fixture
async def scan_stage(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[ScanStage]:
    path = tmp_path / "opsapi.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield ScanStage(database)
    await database.close()
