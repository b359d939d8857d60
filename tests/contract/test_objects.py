"""The Objects port: the fake that domains are tested with behaves as the adapter does on a real API server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.kit.errors import DependencyUnavailable
from opsapi.playground.api.faults import ApiFault, FaultMode
from opsapi.workspaces.writing import (
    EvictionBlocked,
    JsonObject,
    ObjectKey,
    Objects,
    Resource,
    TargetGone,
    WriteConflict,
    WriteRefused,
)
from support.api_objects import BUDGETS, PODS, FakeObjects
from support.cluster import ApiHandle, running_api
from support.live import Admin, administrating, deployment, inline, living

WORKSPACE = "ws-live"
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
BACKUPS = Resource("velero.io", "v1", "backups", "Backup")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)


class World(Protocol):
    """A namespace `shop`, and others who change what is in it."""

    objects: Objects

    async def put(self, resource: Resource, body: JsonObject) -> ObjectKey: ...

    async def merge(self, key: ObjectKey, changes: JsonObject, subresource: str = "") -> None: ...

    async def delete(self, key: ObjectKey) -> None: ...

    async def goes_away(self) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self._fake = FakeObjects()
        self._fake.unserved.add(str(BACKUPS))
        self.objects: Objects = self._fake

    async def put(self, resource: Resource, body: JsonObject) -> ObjectKey:
        return _key(resource, self._fake.put(resource, body))

    async def merge(self, key: ObjectKey, changes: JsonObject, subresource: str = "") -> None:
        self._fake.merge(key.resource, key.namespace, key.name, changes)

    async def delete(self, key: ObjectKey) -> None:
        self._fake.remove(key.resource, key.namespace, key.name)

    async def goes_away(self) -> None:
        self._fake.away = True


class RealWorld:
    def __init__(self, objects: Objects, admin: Admin, api: ApiHandle) -> None:
        self.objects = objects
        self._admin = admin
        self._api = api

    async def put(self, resource: Resource, body: JsonObject) -> ObjectKey:
        return _key(resource, await self._admin.create(_path(resource, body["metadata"].get("namespace", "")), body))

    async def merge(self, key: ObjectKey, changes: JsonObject, subresource: str = "") -> None:
        path = f"{_path(key.resource, key.namespace)}/{key.name}"
        await self._admin.merge(f"{path}/{subresource}" if subresource else path, changes)

    async def delete(self, key: ObjectKey) -> None:
        await self._admin.delete(f"{_path(key.resource, key.namespace)}/{key.name}")

    async def goes_away(self) -> None:
        self._api.faults.add(ApiFault(FaultMode.AWAY))


def _key(resource: Resource, held: JsonObject) -> ObjectKey:
    meta = held["metadata"]
    return ObjectKey(WORKSPACE, resource, meta.get("namespace", ""), meta["name"], meta["uid"])


def _path(resource: Resource, namespace: str) -> str:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    return f"{root}/namespaces/{namespace}/{resource.plural}" if namespace else f"{root}/{resource.plural}"


@asynccontextmanager
async def _real() -> AsyncIterator[RealWorld]:
    async with running_api() as api, administrating(api) as admin:
        await admin.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        async with living(inline(api.kubeconfig())) as live:
            yield RealWorld(KubernetesObjects(live.clusters), admin, api)


@pytest.fixture(params=["fake", "kubernetes"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    async with _real() as real:
        yield real


def config_map(name: str = "settings", **more: Any) -> JsonObject:
    return {"metadata": {"name": name, "namespace": "shop", **more}, "data": {"colour": "blue", "size": "large"}}


def web(name: str = "web") -> JsonObject:
    body = deployment(name)
    return body | {"metadata": body["metadata"] | {"namespace": "shop"}}


def pod(name: str = "web-1", app: str = "web") -> JsonObject:
    meta = {"name": name, "namespace": "shop", "labels": {"app": app}}
    return {"metadata": meta, "spec": {"containers": [{"name": "app", "image": "nginx:1.27"}]}}


async def running(world: World, name: str = "web-1", *, ready: bool = True) -> ObjectKey:
    key = await world.put(PODS, pod(name))
    readiness = {"type": "Ready", "status": "True" if ready else "False"}
    await world.merge(key, {"status": {"phase": "Running", "conditions": [readiness]}}, "status")
    return key


async def budget(world: World, *, allowed: int, healthy: int, wanted: int) -> ObjectKey:
    spec = {"minAvailable": wanted, "selector": {"matchLabels": {"app": "web"}}}
    key = await world.put(BUDGETS, {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": wanted,
        "expectedPods": healthy,
    }
    await world.merge(key, {"status": status}, "status")
    return key


async def test_what_there_is_can_be_read_as_the_server_writes_it(world: World) -> None:
    key = await world.put(CONFIG_MAPS, config_map(labels={"team": "a"}))
    held = await world.objects.get(key)
    assert (held["apiVersion"], held["kind"], held["data"]["colour"]) == ("v1", "ConfigMap", "blue")
    assert held["metadata"]["uid"] == key.uid
    assert held["metadata"]["resourceVersion"]


async def test_a_list_says_kind_and_obeys_namespace_and_selector(world: World) -> None:
    await world.put(CONFIG_MAPS, config_map("one", labels={"team": "a"}))
    await world.put(CONFIG_MAPS, config_map("two", labels={"team": "b"}))
    listed = await world.objects.list(WORKSPACE, CONFIG_MAPS, "shop")
    ours = [one for one in listed if one["metadata"]["name"] in ("one", "two")]
    assert [one["metadata"]["name"] for one in ours] == ["one", "two"]
    assert {(one["apiVersion"], one["kind"]) for one in ours} == {("v1", "ConfigMap")}
    chosen = await world.objects.list(WORKSPACE, CONFIG_MAPS, selector="team=b")
    assert [one["metadata"]["name"] for one in chosen] == ["two"]
    assert await world.objects.list(WORKSPACE, CONFIG_MAPS, "elsewhere") == []


async def test_a_list_goes_on_past_its_first_page(world: World) -> None:
    for number in range(501):
        await world.put(CONFIG_MAPS, config_map(f"many-{number:03}", labels={"many": "yes"}))
    assert len(await world.objects.list(WORKSPACE, CONFIG_MAPS, "shop", selector="many=yes")) == 501


async def test_what_a_cluster_serves_is_known(world: World) -> None:
    assert await world.objects.served(WORKSPACE, DEPLOYMENTS)
    assert await world.objects.served(WORKSPACE, NODES)
    assert not await world.objects.served(WORKSPACE, BACKUPS)
    with pytest.raises(TargetGone):
        await world.objects.list(WORKSPACE, BACKUPS, "shop")


async def test_a_creation_takes_a_name_once(world: World) -> None:
    tried = await world.objects.create(WORKSPACE, CONFIG_MAPS, _whole(config_map()), dry_run=True)
    assert tried["data"]["size"] == "large"
    made = await world.objects.create(WORKSPACE, CONFIG_MAPS, _whole(config_map()))
    assert made["metadata"]["uid"]
    for dry_run in (True, False):
        with pytest.raises(WriteConflict):
            await world.objects.create(WORKSPACE, CONFIG_MAPS, _whole(config_map()), dry_run=dry_run)


def _whole(body: JsonObject) -> JsonObject:
    return {"apiVersion": "v1", "kind": "ConfigMap"} | body


async def test_a_merge_patch_writes_and_removes_fields_under_the_version_seen(world: World) -> None:
    key = await world.put(CONFIG_MAPS, config_map())
    seen = await world.objects.get(key)
    version = seen["metadata"]["resourceVersion"]
    changes: JsonObject = {"data": {"colour": "red", "size": None}, "metadata": {"labels": {"a": "b"}}}
    tried = await world.objects.patch(key, changes, resource_version=version, dry_run=True)
    assert tried["data"] == {"colour": "red"}
    assert (await world.objects.get(key))["data"]["colour"] == "blue"
    written = await world.objects.patch(key, changes, resource_version=version)
    assert written["data"] == {"colour": "red"}
    assert written["metadata"]["labels"] == {"a": "b"}
    assert written["metadata"]["uid"] == key.uid
    with pytest.raises(WriteConflict):
        await world.objects.patch(key, changes, resource_version=version)


async def test_a_strategic_patch_merges_containers_by_name(world: World) -> None:
    key = await world.put(DEPLOYMENTS, web())
    seen = await world.objects.get(key)
    limits = {"resources": {"limits": {"memory": "160Mi"}}}
    changes: JsonObject = {"spec": {"template": {"spec": {"containers": [{"name": "app", **limits}]}}}}
    version = seen["metadata"]["resourceVersion"]
    written = await world.objects.patch(key, changes, resource_version=version, strategic=True)
    (app,) = written["spec"]["template"]["spec"]["containers"]
    assert app["image"] == "nginx:1.27"
    assert app["resources"]["requests"]["cpu"] == "100m"
    assert app["resources"]["limits"] == {"memory": "160Mi"}
    assert written["metadata"]["generation"] == seen["metadata"]["generation"] + 1


async def test_a_namesake_is_a_conflict_and_what_is_gone_is_gone(world: World) -> None:
    key = await world.put(CONFIG_MAPS, config_map())
    version = (await world.objects.get(key))["metadata"]["resourceVersion"]
    await world.delete(key)
    with pytest.raises(TargetGone):
        await world.objects.get(key)
    with pytest.raises(TargetGone):
        await world.objects.delete(key, resource_version=version)
    with pytest.raises(TargetGone):
        await world.objects.patch(key, {"data": {"a": "b"}}, resource_version=version)
    fresh = await world.put(CONFIG_MAPS, config_map())
    assert fresh.uid != key.uid
    with pytest.raises(WriteConflict):
        await world.objects.get(key)
    with pytest.raises(WriteConflict):
        await world.objects.patch(key, {"data": {"a": "b"}}, resource_version=version)
    with pytest.raises(WriteConflict):
        await world.objects.delete(key)
    assert (await world.objects.get(fresh))["data"]["colour"] == "blue"


async def test_a_deletion_holds_to_the_version_seen(world: World) -> None:
    key = await world.put(CONFIG_MAPS, config_map())
    seen = (await world.objects.get(key))["metadata"]["resourceVersion"]
    await world.merge(key, {"data": {"colour": "green"}})
    for dry_run in (True, False):
        with pytest.raises(WriteConflict):
            await world.objects.delete(key, resource_version=seen, dry_run=dry_run)
    fresh = (await world.objects.get(key))["metadata"]["resourceVersion"]
    await world.objects.delete(key, resource_version=fresh, dry_run=True)
    assert (await world.objects.get(key))["data"]["colour"] == "green"
    await world.objects.delete(key, resource_version=fresh)
    with pytest.raises(TargetGone):
        await world.objects.get(key)


async def test_a_pod_is_evicted_where_nothing_forbids_it(world: World) -> None:
    key = await running(world)
    await world.objects.evict(key, dry_run=True)
    assert (await world.objects.get(key))["metadata"].get("deletionTimestamp") is None
    await world.objects.evict(key)
    assert await _leaving(world, key)
    with pytest.raises((TargetGone, WriteConflict)):
        await world.objects.evict(ObjectKey(WORKSPACE, PODS, "shop", "web-1", "another"))


async def _leaving(world: World, key: ObjectKey) -> bool:
    try:
        return (await world.objects.get(key))["metadata"].get("deletionTimestamp") is not None
    except TargetGone:
        return True


async def test_an_eviction_of_a_namesake_is_a_conflict(world: World) -> None:
    key = await running(world)
    with pytest.raises(WriteConflict):
        await world.objects.evict(ObjectKey(key.workspace_id, PODS, "shop", key.name, "another"))
    assert not await _leaving(world, key)


async def test_a_disruption_budget_blocks_an_eviction(world: World) -> None:
    key = await running(world)
    await budget(world, allowed=0, healthy=1, wanted=1)
    for dry_run in (True, False):
        with pytest.raises(EvictionBlocked):
            await world.objects.evict(key, dry_run=dry_run)
    assert not await _leaving(world, key)


async def test_a_pod_that_is_not_ready_may_go_where_the_budgets_wish_is_met(world: World) -> None:
    key = await running(world, ready=False)
    await budget(world, allowed=0, healthy=2, wanted=2)
    await world.objects.evict(key)
    assert await _leaving(world, key)


async def test_deletion_waits_for_finalizers(world: World) -> None:
    key = await world.put(CONFIG_MAPS, config_map(finalizers=["example.com/hold"]))
    await world.objects.delete(key)
    assert (await world.objects.get(key))["metadata"]["deletionTimestamp"]


async def test_what_the_server_refuses_is_told_with_its_reason(world: World) -> None:
    if isinstance(world.objects, FakeObjects):
        world.objects.refuse["create"] = "Invalid"
    with pytest.raises(WriteRefused) as refused:
        await world.objects.create(WORKSPACE, CONFIG_MAPS, _whole({"metadata": {"name": "A b", "namespace": "shop"}}))
    assert refused.value.reason == "Invalid"


async def test_a_cluster_that_is_away_is_said_to_be(world: World) -> None:
    key = await world.put(CONFIG_MAPS, config_map())
    await world.goes_away()
    with pytest.raises(DependencyUnavailable):
        await world.objects.get(key)
    with pytest.raises(DependencyUnavailable):
        await world.objects.list(WORKSPACE, CONFIG_MAPS)
    with pytest.raises(DependencyUnavailable):
        await world.objects.delete(key)
    with pytest.raises(DependencyUnavailable):
        await world.objects.create(WORKSPACE, CONFIG_MAPS, _whole(config_map("other")))
