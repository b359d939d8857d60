"""The whole of backups on fakes: a cluster's objects, a store of bytes, the ledger on SQLite, one execution."""

import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from opsapi.adapters.sql.backups import SqlBackupRecords
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.backups import kinds
from opsapi.backups.model import Backup
from opsapi.backups.ports import ObjectStore
from opsapi.backups.restore_endpoint import RestoreAnswer, RestoreBody
from opsapi.backups.settings import BackupSettings
from opsapi.backups.views import ApplicationParams, BackupAnswer, BackupBody, BackupParams
from opsapi.kit.caller import AccountKind, Call
from opsapi.kit.endpoint import Reply
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation
from opsapi.operations.ports import OperationFilter
from opsapi.operations.proposal import Proposal
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playbooks.backing_up import BackupAllParameters
from opsapi.playbooks.model import Context
from opsapi.policy.model import PolicySettings, Subject
from opsapi.workspaces.model import Mode
from opsapi.workspaces.writing import JsonObject, ObjectKey, Resource
from support.acting import SetClock, make_call, make_caller
from support.api_objects import FakeObjects
from support.backup_stores import FakeStore
from support.inventory import FakeCluster, FakeClusters, FakeInventory, make_workspace
from support.joining_backups import join_backups
from support.scaling import UNHURRIED
from support.several_clusters import SeveralClusters
from support.workloads import FakeWorkloads

SETTINGS = BackupSettings(secrets=True, poll_seconds=2)
LABELS = {"app": "db"}
PERMISSIONS = ("workspace:admin@ws-123", "application:write@ws-123")


def meta(name: str, namespace: str = "shop", **more: Any) -> JsonObject:
    return {"name": name, "namespace": namespace} | more


def application(name: str = "db", kind: str = "StatefulSet", namespace: str = "shop", **labels: str) -> JsonObject:
    """A workload that refers to one of everything."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "serviceAccountName": f"{name}-runner",
            "imagePullSecrets": [{"name": f"{name}-pull"}],
            "containers": [
                {
                    "name": "app",
                    "image": "registry.example/db:1",
                    "envFrom": [{"configMapRef": {"name": f"{name}-env"}}],
                    "env": [
                        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": f"{name}-password", "key": "p"}}}
                    ],
                }
            ],
            "volumes": [
                {"name": "settings", "configMap": {"name": f"{name}-settings"}},
                {"name": "extra", "persistentVolumeClaim": {"claimName": f"{name}-extra"}},
            ],
        },
    }
    spec: JsonObject = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}
    if kind == "StatefulSet":
        spec |= {
            "serviceName": f"{name}-headless",
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        }
    return {"kind": kind, "metadata": meta(name, namespace, labels={"app": name} | labels), "spec": spec}


def claim(name: str, size: str = "1Gi", namespace: str = "shop") -> JsonObject:
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": meta(name, namespace, annotations={"pv.kubernetes.io/bind-completed": "yes"}),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "storageClassName": "fast",
            "volumeName": f"pv-{name}",
        },
        "status": {"phase": "Bound"},
    }


def belongings(name: str = "db", namespace: str = "shop") -> list[tuple[Resource, JsonObject]]:
    """Everything that `application(name)` needs, and what lets it be reached and scaled."""
    backend = {"service": {"name": name, "port": {"number": 80}}}
    return [
        (kinds.SERVICE_ACCOUNTS, {"metadata": meta(f"{name}-runner", namespace)}),
        (kinds.CONFIG_MAPS, {"metadata": meta(f"{name}-env", namespace), "data": {"LEVEL": "info"}}),
        (kinds.CONFIG_MAPS, {"metadata": meta(f"{name}-settings", namespace), "data": {"a": "1"}}),
        (kinds.SECRETS, {"metadata": meta(f"{name}-password", namespace), "type": "Opaque", "data": {"p": "c2VjcmV0"}}),
        (kinds.SECRETS, {"metadata": meta(f"{name}-pull", namespace), "type": "Opaque", "data": {"x": "cHVsbA=="}}),
        (kinds.SECRETS, {"metadata": meta(f"{name}-tls", namespace), "type": "kubernetes.io/tls", "data": {}}),
        (kinds.CLAIMS, claim(f"data-{name}-0", "10Gi", namespace)),
        (kinds.CLAIMS, claim(f"data-{name}-1", "10Gi", namespace)),
        (kinds.CLAIMS, claim(f"{name}-extra", "512Mi", namespace)),
        (
            kinds.SERVICES,
            {
                "metadata": meta(name, namespace),
                "spec": {
                    "selector": {"app": name}, "type": "LoadBalancer", "clusterIP": "10.0.0.7",
                    "ports": [{"port": 80, "nodePort": 30080}],
                },
            },
        ),
        (
            kinds.SERVICES,
            {"metadata": meta(f"{name}-headless", namespace), "spec": {"clusterIP": "None", "ports": [{"port": 80}]}},
        ),
        (
            kinds.INGRESSES,
            {
                "metadata": meta(name, namespace),
                "spec": {
                    "tls": [{"hosts": ["db.example"], "secretName": f"{name}-tls"}],
                    "rules": [{"host": "db.example", "http": {"paths": [{"path": "/", "backend": backend}]}}],
                },
            },
        ),
        (
            kinds.AUTOSCALERS,
            {
                "metadata": meta(name, namespace),
                "spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": name}, "minReplicas": 2, "maxReplicas": 4},
            },
        ),
        (
            kinds.BUDGETS,
            {
                "metadata": meta(name, namespace),
                "spec": {"selector": {"matchLabels": {"app": name}}, "minAvailable": 1},
            },
        ),
    ]  # fmt: skip


def others(namespace: str = "shop") -> list[tuple[Resource, JsonObject]]:
    """What stands beside it and belongs to others."""
    return [
        (kinds.CONFIG_MAPS, {"metadata": meta("not-mine", namespace)}),
        (kinds.SECRETS, {"metadata": meta("not-mine", namespace), "data": {"p": "b3RoZXI="}}),
        (kinds.SERVICES, {"metadata": meta("other", namespace), "spec": {"selector": {"app": "other"}}}),
        (kinds.CLAIMS, claim("data-dbx-0", "1Gi", namespace)),
        (kinds.BUDGETS, {"metadata": meta("everything", namespace), "spec": {"selector": {}, "minAvailable": 1}}),
    ]


class Snapshotter:
    """Plays the CSI snapshot controller on every VolumeSnapshot that is made, once it is looked at `after` times;
    `refuses` names claims whose driver cannot."""

    def __init__(self, objects: FakeObjects, after: int = 1) -> None:
        self._objects = objects
        self.after = after
        self.refuses: set[str] = set()
        self.looks: dict[str, int] = {}
        self._get = objects.get
        objects.get = self.get  # type: ignore[method-assign]

    async def get(self, key: ObjectKey, subresource: str = "") -> JsonObject:
        if key.resource == kinds.SNAPSHOTS:
            self.looks[key.name] = self.looks.get(key.name, 0) + 1
            held = self._objects.find(kinds.SNAPSHOTS, key.namespace, key.name)
            if held is not None and "status" not in held and self.looks[key.name] > self.after:
                self._settle(held)
        return await self._get(key, subresource)

    def _settle(self, held: JsonObject) -> None:
        source = held["spec"]["source"]
        name = source.get("persistentVolumeClaimName")
        if name in self.refuses:
            status: JsonObject = {"readyToUse": False, "error": {"message": "the driver\ncannot"}}
        else:
            content = source.get("volumeSnapshotContentName") or f"content-{held['metadata']['name']}"
            status = {"readyToUse": True, "boundVolumeSnapshotContentName": content, "restoreSize": "10Gi"}
            if name is not None:
                body = {
                    "metadata": {"name": content, "namespace": ""},
                    "spec": {"driver": "csi.example", "volumeSnapshotClassName": "snap"},
                    "status": {"snapshotHandle": f"handle-of-{name}", "readyToUse": True},
                }
                self._objects.put(kinds.SNAPSHOT_CONTENTS, body)
        self._objects.put(kinds.SNAPSHOTS, held | {"status": status})


@dataclass
class BackupStage:
    """`back_up` and `restore` ask, `work` carries out what is claimable until nothing is. `others` are the objects of
    further workspaces, by id."""

    database: Database
    store: ObjectStore = field(default_factory=FakeStore)
    settings: BackupSettings = SETTINGS
    mode: Mode = Mode.ACT
    policy: PolicySettings = UNHURRIED
    with_store: bool = True
    others: dict[str, FakeObjects] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = SetClock()
        self.inventory = FakeInventory(at=self.clock.now())
        self.objects = self.make_objects()
        self.objects.unserved |= {"backups.velero.io", "podvolumebackups.velero.io"}
        self.signals = Signals()
        self.ledger = SqlLedger(self.database, self.clock, self.signals)
        self.records = SqlBackupRecords(self.database, self.clock)
        self.workloads = FakeWorkloads(self.inventory)
        self.snapshotter = Snapshotter(self.objects)
        for name in ("shop", "elsewhere", "kube-system"):
            if self.objects.find(kinds.NAMESPACES, "", name) is None:
                self.objects.put(kinds.NAMESPACES, {"metadata": {"name": name, "namespace": ""}})
        self.arrange()

    def make_objects(self) -> FakeObjects:
        return FakeObjects(self.inventory)

    async def idle(self) -> None:
        """Nothing can be claimed now."""
        self.clock.advance(1)

    def arrange(self, **changes: Any) -> None:
        """Joins the parts again, after settings were changed."""
        for name, value in changes.items():
            setattr(self, name, value)
        workspace = make_workspace("ws-123", mode=self.mode)
        self.cluster = FakeCluster(workspace, self.inventory)
        further = (FakeCluster(make_workspace(name, mode=self.mode)) for name in self.others)
        self.clusters = FakeClusters(self.cluster, *further)
        joined = join_backups(
            self.clusters,
            SeveralClusters({"ws-123": self.objects, **self.others}),
            self.workloads,
            self.records,
            self.store if self.with_store else None,
            self.ledger,
            self.clock,
            self.settings,
            self.policy,
        )
        self.procedures, self.desk, self.applications = joined.procedures, joined.desk, joined.applications
        self.reader, self.backups, self.reads = joined.reader, joined.backups, joined.reads
        self.restores, self.retention, self.playbook = joined.restores, joined.retention, joined.playbook
        self.execution = Execution(
            self.ledger,
            self.procedures,
            self.clock,
            EngineSettings(step_attempts=4, backoff_seconds=1),
            self.clock.sleep,
        )

    def put_application(
        self, name: str = "db", kind: str = "StatefulSet", namespace: str = "shop", **labels: str
    ) -> None:
        self.objects.put(kinds.WORKLOADS[kind], application(name, kind, namespace, **labels))
        for resource, body in (*belongings(name, namespace), *others(namespace)):
            self.objects.put(resource, copy.deepcopy(body))

    def application_id(self, name: str = "db") -> str:
        index = self.applications.index("ws-123", self.call().caller.grants)
        (found,) = [ref for ref in index.after(None) if ref.name == name]
        return found.id

    def call(self, *permissions: str, kind: AccountKind = AccountKind.PERSON, endpoint: str = "backup") -> Call:
        return make_call(make_caller(*(permissions or PERMISSIONS), kind=kind, account_id=f"sa-{kind.value}"), endpoint)

    async def back_up(self, name: str = "db", *, call: Call | None = None, **body: Any) -> Reply[BackupAnswer]:
        self.views_settle()
        params = ApplicationParams(application_id=self.application_id(name))
        return await self.backups.trigger_backup(call or self.call(), params, BackupBody(**body))

    async def made(self, name: str = "db", **body: Any) -> Backup:
        """A backup that is done, however it ended."""
        reply = await self.back_up(name, **body)
        await self.work()
        assert reply.data.backup_id is not None
        found = await self.records.get(reply.data.backup_id)
        assert found is not None
        return found

    async def restore(self, backup: Backup, *, call: Call | None = None, **body: Any) -> Reply[RestoreAnswer]:
        params = BackupParams(backup_id=backup.id)
        return await self.restores.restore_backup(call or self.call(), params, RestoreBody(**body))

    async def proposed(self, **parameters: Any) -> Proposal:
        """backup_all, as it would be begun."""
        caller = self.call().caller
        return await self.playbook.propose(
            self.cluster,
            Subject(caller.account_id, caller.kind, "ws-123", self.cluster.workspace.mode),
            BackupAllParameters(**parameters),
            context=Context(),
            reason="nightly",
            confirm=False,
        )

    async def work(self, *, lease: timedelta = timedelta(minutes=1)) -> None:
        """Postponed operations are taken up when their time has come: the clock is moved there."""
        for _ in range(400):
            claim = await self.ledger.claim("worker", lease, self.procedures.runnable())
            if claim is not None:
                await self.execution.run(claim)
            elif (await self.ledger.depth()).running + (await self.ledger.depth()).queued:
                await self.idle()
            else:
                return
        raise AssertionError("operations are stuck")

    async def last(self) -> Operation:
        found = await self.ledger.find(OperationFilter(workspaces=None))
        return found[0]

    async def ended(self, reply: Reply[Any]) -> Operation:
        await self.work()
        assert reply.operation_id is not None
        found = await self.ledger.get(reply.operation_id)
        assert found is not None
        return found

    def views_settle(self) -> None:
        """The applications' index follows the inventory from its first use on."""
        self.applications.index("ws-123", self.call().caller.grants)

    def destroy(self, name: str = "db", namespace: str = "shop") -> None:
        """All of the application is lost, but for its snapshots."""
        for resource, body in [(kinds.WORKLOADS["StatefulSet"], application(name)), *belongings(name, namespace)]:
            if self.objects.find(resource, namespace, body["metadata"]["name"]) is not None:
                self.objects.remove(resource, namespace, body["metadata"]["name"])
