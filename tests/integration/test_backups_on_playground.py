"""Backups through the real adapters on the playground: with snapshots, with Velero, with neither."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.objectstore.store import BucketStore
from opsapi.adapters.sql.backups import SqlBackupRecords
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.backups.errors import BackupDamaged, ObjectsExist
from opsapi.backups.model import Backup, Engine, Status
from opsapi.backups.restore_endpoint import RestoreBody
from opsapi.backups.settings import BackupSettings, BackupStoreSettings, RetentionSettings
from opsapi.backups.views import ApplicationParams, BackupBody, BackupParams, DeleteParams, VerifyBody
from opsapi.kit.caller import AccountKind, Call
from opsapi.kit.endpoint import NoBody, Reply
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, Outcome, State, UndoState
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.playground.api.authentication import service_account
from opsapi.playground.faults.world import FaultSpec
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from opsapi.workspaces.access import Feature, check, manifest
from support.acting import SetClock, make_call, make_caller
from support.cluster import running_api
from support.database import sqlite_template
from support.joining_backups import join_backups
from support.leaping import until
from support.live import Live, inline, living
from support.playground_world import container, deployment, ready_pods, service, small_world
from support.s3_server import S3Server, s3
from support.scaling import UNHURRIED

__all__ = ["s3", "sqlite_template"]

_TOKEN = "a-service-accounts-token"
ADMIN = make_caller("workspace:admin", "application:write", account_id="sa-person", kind=AccountKind.PERSON)


def moved(obj: Obj, **labels: str) -> Obj:
    meta = obj["metadata"]
    return {**obj, "metadata": {**meta, "namespace": "shop", "labels": {"app": meta["name"]} | labels}}


def furnish(world: World) -> None:
    """A Deployment on a claim with a ConfigMap, a Secret, a Service, an Ingress and an HPA, all running."""
    for name in ("shop", "copy"):
        world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    world.apply(
        moved({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": wanted})
    )
    for kind, name in (("ConfigMap", "settings"), ("Secret", "password")):
        held: Obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": {"key": "dmFsdWU="}}
        world.apply(moved(held, app="web"))
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "settings", "configMap": {"name": "settings"}},
    ]
    sources = [{"secretRef": {"name": "password"}}]
    wanted_cpu = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    app = container(envFrom=sources, resources=wanted_cpu)
    world.apply(moved(deployment("web", app, replicas=2, pod={"volumes": volumes})))
    world.apply(moved(service("web", type="LoadBalancer")))
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rule = {"host": "shop.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    world.apply(
        moved(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": {"name": "web"},
                "spec": {"rules": [rule]},
            }
        )
    )
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 2,
            "maxReplicas": 4}  # fmt: skip
    world.apply(
        moved(
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "web"},
                "spec": spec,
            }
        )
    )
    world.advance(120)
    world.write_volume("shop", "data", "the orders of Monday")


@dataclass
class Scene:
    world: World
    live: Live
    database: Database
    store: BucketStore
    settings: BackupSettings = field(default_factory=lambda: BackupSettings(secrets=True, snapshot_seconds=120))

    def __post_init__(self) -> None:
        self.clock = SetClock(self.world.clock.now())
        self.ledger = SqlLedger(self.database, self.clock, Signals())
        self.records = SqlBackupRecords(self.database, self.clock)
        self.join()

    def join(self) -> None:
        clusters = self.live.clusters
        self.joined = join_backups(
            clusters,
            KubernetesObjects(clusters),
            self.live.workloads,
            self.records,
            self.store,
            self.ledger,
            self.clock,
            self.settings,
            UNHURRIED,
        )
        engine = EngineSettings(step_attempts=3, backoff_seconds=1)
        self.execution = Execution(self.ledger, self.joined.procedures, self.clock, engine, self.sleep)

    async def sleep(self, seconds: float) -> None:
        """The service's time and the cluster's go together."""
        self.clock.advance(seconds)
        self.world.advance(seconds)

    def call(self) -> Call:
        return make_call(ADMIN, "trigger_backup")

    def application(self) -> str:
        index = self.joined.applications.index("ws-live", ADMIN.grants)
        return next(ref.id for ref in index.after(None, "shop") if ref.name == "web")

    async def back_up(self, **body: Any) -> tuple[Operation, Backup]:
        params = ApplicationParams(application_id=self.application())
        reply = await self.joined.backups.trigger_backup(self.call(), params, BackupBody(**body))
        operation = await self.ended(reply)
        backup = await self.records.get(reply.data.backup_id or "")
        assert backup is not None
        return operation, backup

    async def restore(self, backup: Backup, **body: Any) -> Operation:
        return await self.ended(await self.ask(backup, **body))

    async def ask(self, backup: Backup, **body: Any) -> Reply[Any]:
        params = BackupParams(backup_id=backup.id)
        return await self.joined.restores.restore_backup(self.call(), params, RestoreBody(**body))

    async def verify(self, backup: Backup) -> Operation:
        params = BackupParams(backup_id=backup.id)
        return await self.ended(await self.joined.reads.verify_backup(self.call(), params, VerifyBody()))

    async def delete(self, backup: Backup) -> Operation:
        params = DeleteParams(backup_id=backup.id)
        return await self.ended(await self.joined.reads.delete_backup(self.call(), params, NoBody()))

    async def ended(self, reply: Reply[Any]) -> Operation:
        lease = timedelta(days=36500)
        for _ in range(200):
            claim = await self.ledger.claim("worker", lease, self.joined.procedures.runnable())
            if claim is not None:
                await self.execution.run(claim)
                continue
            operation = await self.ledger.get(reply.operation_id or "")
            assert operation is not None
            if operation.state.final:
                return operation
            await self.sleep(1)
        raise AssertionError("the operation is stuck")

    def find(self, resource: str, name: str = "web", namespace: str = "copy") -> Obj | None:
        found: Obj | None = self.world.registry.find(resource, namespace, name)
        return found

    def lose(self) -> None:
        """Everything of the application but its Velero backups and snapshots."""
        for resource, name in (
            ("horizontalpodautoscalers.autoscaling", "web"), ("ingresses.networking.k8s.io", "web"),
            ("deployments.apps", "web"), ("services", "web"), ("configmaps", "settings"), ("secrets", "password"),
        ):  # fmt: skip
            self.world.registry.delete(resource, "shop", name)
        self.world.advance(120)
        self.world.registry.delete("persistentvolumeclaims", "shop", "data")
        self.world.advance(120)
        assert self.find("persistentvolumeclaims", "data", "shop") is None

    async def synced(self) -> None:
        """The application stands in the inventory."""
        await until(self._known, "the application is known")

    def _known(self) -> bool:
        index = self.joined.applications.index("ws-live", ADMIN.grants)
        return any(ref.name == "web" for ref in index.after(None, "shop"))


async def opened(
    stack: AsyncExitStack,
    sqlite_template: Path,
    tmp_path: Path,
    store: BucketStore,
    *installed: str,
    features: tuple[Feature, ...] = (),
) -> Scene:
    """With `features`, under an account that holds their rights and no others."""
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    stack.push_async_callback(database.close)
    world = small_world()
    for name in installed:
        world.install(name)
    furnish(world)
    for document in yaml.safe_load_all(manifest(features)) if features else ():
        world.apply(document)
    tokens = {_TOKEN: service_account("opsapi", "opsapi")}
    api = await stack.enter_async_context(running_api(world.objects, tokens=tokens, bootstrapped=False))
    live = await stack.enter_async_context(living(inline(api.kubeconfig(_TOKEN if features else ""))))
    await live.until_synced()
    scene = Scene(world, live, database, store)
    await scene.synced()
    return scene


@pytest.fixture
def folder(tmp_path: Path) -> BucketStore:
    return BucketStore(BackupStoreSettings(url=f"file://{tmp_path}/backups"))


@pytest.fixture
async def snapshots(sqlite_template: Path, tmp_path: Path, folder: BucketStore) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield await opened(stack, sqlite_template, tmp_path, folder, "snapshots")


@pytest.fixture
async def bare(sqlite_template: Path, tmp_path: Path, folder: BucketStore) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield await opened(stack, sqlite_template, tmp_path, folder)


@pytest.fixture
async def velero(sqlite_template: Path, tmp_path: Path, folder: BucketStore) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield await opened(stack, sqlite_template, tmp_path, folder, "snapshots", "velero")


# manifests


async def test_manifests_and_snapshots_bring_an_application_back_with_its_data(snapshots: Scene) -> None:
    held = snapshots.world.volume_contents("shop", "data")
    operation, backup = await snapshots.back_up()
    assert (operation.state, backup.status) == (State.COMPLETED, Status.COMPLETED), operation.error
    assert (backup.volumes_expected, backup.volumes_captured) == (1, 1)
    snapshots.world.write_volume("shop", "data", "a ransom note")
    snapshots.lose()
    restored = await snapshots.restore(backup, activate=True)
    assert restored.state is State.COMPLETED, restored
    assert len(ready_pods(snapshots.world, "web", "shop")) == 2
    assert snapshots.world.volume_contents("shop", "data") == held
    secret = snapshots.find("secrets", "password", "shop")
    assert secret is not None
    assert secret["data"] == {"key": "dmFsdWU="}


async def test_a_copy_in_another_namespace_is_inert_and_has_the_data_once_it_is_started(snapshots: Scene) -> None:
    held = snapshots.world.volume_contents("shop", "data")
    _, backup = await snapshots.back_up()
    restored = await snapshots.restore(backup, target_namespace="copy")
    assert restored.state is State.COMPLETED, restored
    made = snapshots.find("deployments.apps")
    assert made is not None
    assert made["spec"]["replicas"] == 0
    assert snapshots.find("ingresses.networking.k8s.io") is None
    assert snapshots.find("horizontalpodautoscalers.autoscaling") is None
    exposed = snapshots.find("services")
    assert exposed is not None
    assert exposed["spec"]["type"] == "ClusterIP"
    assert ready_pods(snapshots.world, "web", "copy") == []
    snapshots.world.registry.update("deployments.apps", "copy", "web", made | {"spec": made["spec"] | {"replicas": 1}})
    snapshots.world.advance(120)
    assert len(ready_pods(snapshots.world, "web", "copy")) == 1
    assert snapshots.world.volume_contents("copy", "data") == held


async def test_a_dry_run_has_every_object_accepted_by_the_server_and_leaves_none(snapshots: Scene) -> None:
    _, backup = await snapshots.back_up()
    reply = await snapshots.ask(backup, target_namespace="copy", dry_run=True)
    plan = msgspec.to_builtins(reply.data.plan)
    assert plan["allowed"], plan
    assert {one["accepted"] for one in plan["details"]["objects"]} == {True}
    assert snapshots.find("configmaps", "settings") is None


async def test_where_the_cluster_takes_no_snapshots_the_volume_is_named_and_nothing_is_called_complete(
    bare: Scene,
) -> None:
    operation, backup = await bare.back_up()
    assert (operation.outcome, backup.status) == (Outcome.PARTIAL, Status.PARTIALLY_FAILED)
    assert backup.engine is Engine.MANIFESTS
    (volume,) = backup.volumes
    assert "does not serve" in (volume.reason or "")
    restored = await bare.restore(backup, target_namespace="copy", include_volumes=False)
    assert restored.state is State.COMPLETED


async def test_a_driver_that_refuses_makes_the_backup_partial(snapshots: Scene) -> None:
    snapshots.world.faults.inject(FaultSpec("snapshot-fails", namespace="shop", claim="data"))
    operation, backup = await snapshots.back_up()
    assert (operation.outcome, backup.status) == (Outcome.PARTIAL, Status.PARTIALLY_FAILED)
    assert "cannot take a snapshot" in (backup.volumes[0].reason or "")


async def test_deleting_a_backup_deletes_the_drivers_snapshots(snapshots: Scene) -> None:
    _, backup = await snapshots.back_up()
    assert len(snapshots.world.disks.snapshots()) == 1
    assert (await snapshots.delete(backup)).state is State.COMPLETED
    snapshots.world.advance(30)
    assert snapshots.world.disks.snapshots() == {}
    assert await snapshots.store.list("ws-live") == []


async def test_a_file_that_was_altered_in_the_folder_is_found_before_anything_is_touched(
    snapshots: Scene, tmp_path: Path
) -> None:
    _, backup = await snapshots.back_up()
    path = tmp_path / "backups" / backup.location / "objects" / "deployments.apps" / "web.json"
    path.write_bytes(path.read_bytes().replace(b"registry.example", b"registry.evil!!!"))
    assert (await snapshots.verify(backup)).state is State.FAILED
    with pytest.raises(BackupDamaged):
        await snapshots.ask(backup, target_namespace="copy")


async def test_the_same_in_a_bucket_of_a_real_s3_server(snapshots: Scene, s3: S3Server) -> None:
    settings = s3.settings()
    snapshots.store = BucketStore(settings)
    snapshots.join()
    _, backup = await snapshots.back_up()
    assert backup.status is Status.COMPLETED
    stored = await snapshots.store.list(backup.location)
    assert sum(one.size for one in stored) == backup.size_bytes
    assert (await snapshots.verify(backup)).state is State.COMPLETED
    restored = await snapshots.restore(backup, target_namespace="copy")
    assert restored.state is State.COMPLETED, restored
    assert (await snapshots.delete(backup)).state is State.COMPLETED
    assert await snapshots.store.list(backup.location) == []


# Velero


async def test_velero_is_used_where_it_is_and_what_it_says_is_what_counts(velero: Scene) -> None:
    operation, backup = await velero.back_up(reason="before the release")
    assert operation.state is State.COMPLETED, operation
    assert (backup.engine, backup.status) == (Engine.VELERO, Status.COMPLETED)
    assert (backup.volumes_expected, backup.volumes_captured) == (1, 1)
    held = velero.world.registry.get("backups.velero.io", "velero", backup.location.partition("/")[2])
    assert held["status"]["phase"] == "Completed"
    assert held["spec"]["ttl"] == "720h0m0s"
    stored = velero.world.backups.get(held["metadata"]["name"])
    assert stored is not None
    labels = {item.label for item in stored.items}
    assert {"deployments.apps/shop/web", "persistentvolumeclaims/shop/data", "configmaps/shop/settings"} <= labels
    assert await velero.store.list("ws-live") == []


async def test_what_velero_does_not_select_is_named(velero: Scene) -> None:
    meta = {"name": "web", "namespace": "shop", "labels": {"unrelated": "true"}}
    held = velero.world.registry.get("services", "shop", "web")
    velero.world.registry.update("services", "shop", "web", held | {"metadata": held["metadata"] | meta})
    _, backup = await velero.back_up()
    assert {(one.kind, one.name) for one in backup.left_out if "selects by labels" in one.reason} == {
        ("Service", "web")
    }
    assert "Service" not in {one.kind for one in backup.objects}


async def test_a_partially_failed_velero_backup_is_never_complete(velero: Scene) -> None:
    velero.world.faults.inject(FaultSpec("snapshot-fails", namespace="shop", claim="data"))
    operation, backup = await velero.back_up()
    assert (operation.outcome, backup.status) == (Outcome.PARTIAL, Status.PARTIALLY_FAILED)
    assert (backup.volumes_expected, backup.volumes_captured) == (1, 0)


async def test_storage_that_is_unavailable_is_refused_up_front(velero: Scene) -> None:
    velero.world.faults.inject(FaultSpec("backup-storage-away", location="default"))
    velero.world.advance(120)
    with pytest.raises(DependencyUnavailable, match="is Unavailable"):
        await velero.back_up()
    assert not list(velero.world.registry.iterate("backups.velero.io", "velero"))


async def test_velero_that_fails_half_way_fails_the_operation(velero: Scene) -> None:
    velero.world.faults.inject(FaultSpec("backup-storage-away", location="default"))
    operation, backup = await velero.back_up()
    assert operation.state is State.FAILED
    assert backup.status is Status.FAILED
    assert operation.error is not None
    assert operation.error.code == "VELERO_FAILED"
    undo = operation.step("create_velero_backup").undo
    assert undo is not None
    assert undo.state is UndoState.SKIPPED


async def test_velero_brings_an_application_back_in_its_place(velero: Scene) -> None:
    held = velero.world.volume_contents("shop", "data")
    _, backup = await velero.back_up()
    with pytest.raises(ObjectsExist):
        await velero.ask(backup)
    velero.world.write_volume("shop", "data", "a ransom note")
    velero.lose()
    restored = await velero.restore(backup, activate=True)
    assert restored.state is State.COMPLETED, restored
    assert len(ready_pods(velero.world, "web", "shop")) == 2
    assert velero.world.volume_contents("shop", "data") == held


async def test_velero_restores_elsewhere_inert_and_leaves_no_rules_behind(velero: Scene) -> None:
    _, backup = await velero.back_up()
    restored = await velero.restore(backup, target_namespace="copy")
    assert restored.state is State.COMPLETED, restored
    made = velero.find("deployments.apps")
    assert made is not None
    assert made["spec"]["replicas"] == 0
    assert velero.find("ingresses.networking.k8s.io") is None
    assert velero.find("horizontalpodautoscalers.autoscaling") is None
    exposed = velero.find("services")
    assert exposed is not None
    assert exposed["spec"]["type"] == "ClusterIP"
    assert [one["metadata"]["name"] for one in velero.world.registry.iterate("configmaps", "velero")] in (
        [], ["kube-root-ca.crt"],
    )  # fmt: skip


async def test_a_velero_restore_that_partly_fails_is_undone(velero: Scene) -> None:
    _, backup = await velero.back_up()
    velero.world.faults.inject(FaultSpec("restore-fails", namespace="copy"))
    restored = await velero.restore(backup, target_namespace="copy")
    assert restored.state in (State.FAILED, State.ROLLED_BACK)
    assert restored.error is not None
    assert restored.error.code == "VELERO_FAILED"
    assert velero.find("deployments.apps") is None
    assert velero.find("services") is None


async def test_a_velero_restore_that_does_not_arrive_inert_is_undone(
    velero: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Velero without resource modifiers ignores them."""
    _, backup = await velero.back_up()
    monkeypatch.setattr("opsapi.playground.velero.restores.rules_of", lambda *_: [])
    restored = await velero.restore(backup, target_namespace="copy")
    assert restored.state is State.ROLLED_BACK
    assert restored.error is not None
    assert restored.error.code == "NOT_INERT"
    velero.world.advance(60)
    for resource, name in (("deployments.apps", "web"), ("services", "web"), ("configmaps", "settings")):
        assert velero.find(resource, name) is None
    assert ready_pods(velero.world, "web", "copy") == []
    assert len(ready_pods(velero.world, "web", "shop")) == 2


async def test_velero_is_asked_to_verify_and_to_delete(velero: Scene) -> None:
    _, backup = await velero.back_up()
    assert (await velero.verify(backup)).state is State.COMPLETED
    assert (await velero.delete(backup)).state is State.COMPLETED
    assert not list(velero.world.registry.iterate("backups.velero.io", "velero"))
    held = await velero.records.get(backup.id)
    assert held is not None
    assert held.status is Status.DELETED


async def test_a_velero_backup_that_is_gone_is_damaged(velero: Scene) -> None:
    _, backup = await velero.back_up()
    velero.world.backups.delete(backup.location.partition("/")[2])
    velero.world.registry.delete("backups.velero.io", "velero", backup.location.partition("/")[2])
    verified = await velero.verify(backup)
    assert verified.error is not None
    assert verified.error.code == "BACKUP_DAMAGED"
    with pytest.raises(BackupDamaged):
        await velero.ask(backup, target_namespace="copy")


async def test_veleros_own_ttl_ends_its_backups_and_their_records_follow(velero: Scene) -> None:
    velero.settings = BackupSettings(retention=(RetentionSettings(name="standard", keep="1h"),))
    velero.join()
    _, backup = await velero.back_up()
    velero.clock.advance(3660)
    assert await velero.joined.retention.sweep() == 0
    velero.world.advance(2 * 3600)
    assert await velero.joined.retention.sweep() == 1
    held = await velero.records.get(backup.id)
    assert held is not None
    assert held.status is Status.DELETED


# rights

MANIFESTS = (Feature.READ, Feature.EVENTS, Feature.BACKUP, Feature.BACKUP_SECRETS, Feature.BACKUP_VOLUMES)
RESTORES = (Feature.RESTORE, Feature.RESTORE_SECRETS)


async def test_the_features_own_rights_are_enough_for_backup_restore_and_deletion(
    sqlite_template: Path, tmp_path: Path, folder: BucketStore
) -> None:
    async with AsyncExitStack() as stack:
        features = (*MANIFESTS, *RESTORES)
        scene = await opened(stack, sqlite_template, tmp_path, folder, "snapshots", features=features)
        assert (await check(scene.live.cluster, features)).missing == []
        _, backup = await scene.back_up()
        assert backup.status is Status.COMPLETED
        restored = await scene.restore(backup, target_namespace="copy")
        assert restored.state is State.COMPLETED, restored
        assert (await scene.delete(backup)).state is State.COMPLETED


async def test_veleros_feature_is_enough_for_velero(sqlite_template: Path, tmp_path: Path, folder: BucketStore) -> None:
    async with AsyncExitStack() as stack:
        features = (Feature.READ, Feature.EVENTS, Feature.BACKUP, Feature.VELERO, Feature.RESTORE)
        scene = await opened(stack, sqlite_template, tmp_path, folder, "snapshots", "velero", features=features)
        _, backup = await scene.back_up()
        assert (backup.engine, backup.status) == (Engine.VELERO, Status.COMPLETED)
        restored = await scene.restore(backup, target_namespace="copy")
        assert restored.state is State.COMPLETED, restored
        assert (await scene.delete(backup)).state is State.COMPLETED


async def test_without_rights_to_velero_manifests_are_taken_and_that_is_said(
    sqlite_template: Path, tmp_path: Path, folder: BucketStore
) -> None:
    async with AsyncExitStack() as stack:
        scene = await opened(stack, sqlite_template, tmp_path, folder, "snapshots", "velero", features=MANIFESTS)
        params = ApplicationParams(application_id=scene.application())
        reply = await scene.joined.backups.trigger_backup(scene.call(), params, BackupBody(dry_run=True))
        assert reply.data.engine is Engine.MANIFESTS
        assert any("Velero is passed over: its objects may not be read: Forbidden" in one for one in reply.warnings)


async def test_without_the_right_to_restore_the_dry_run_says_so_and_nothing_is_left(
    sqlite_template: Path, tmp_path: Path, folder: BucketStore
) -> None:
    async with AsyncExitStack() as stack:
        features = (*MANIFESTS, Feature.RESTORE)
        scene = await opened(stack, sqlite_template, tmp_path, folder, "snapshots", features=features)
        _, backup = await scene.back_up()
        reply = await scene.ask(backup, target_namespace="copy", dry_run=True)
        plan = msgspec.to_builtins(reply.data.plan)
        assert not plan["allowed"]
        refused = [one["kind"] for one in plan["details"]["objects"] if one["accepted"] is False]
        assert refused == ["Secret"]
        restored = await scene.restore(backup, target_namespace="copy")
        assert restored.state is State.ROLLED_BACK
        assert scene.find("persistentvolumeclaims", "data") is None
