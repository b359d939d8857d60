"""The Workloads port: the fake that domains are tested with behaves as the adapter does on a real API server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from opsapi.applications.errors import TargetGone, WriteConflict
from opsapi.applications.ports import AutoscalerBounds, WorkloadRef, Workloads, WrittenEvent
from opsapi.kit.errors import DependencyUnavailable
from opsapi.playground.api.faults import ApiFault, FaultMode
from opsapi.workspaces.objects import DEPLOYMENT
from support.cluster import ApiHandle, running_api
from support.inventory import START
from support.live import Admin, administrating, deployment, inline, living
from support.workloads import FakeWorkloads, make_deployment


class World(Protocol):
    """A namespace `shop` with a deployment `web` of 3 replicas, and others who change it."""

    workloads: Workloads

    async def ref(self) -> WorkloadRef: ...

    async def somebody_scales(self, replicas: int) -> None: ...

    async def somebody_deletes(self) -> None: ...

    async def somebody_creates_it_again(self) -> None: ...

    async def goes_away(self) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self._fake = FakeWorkloads()
        self._fake.put(make_deployment())
        self.workloads: Workloads = self._fake

    async def ref(self) -> WorkloadRef:
        held = self._fake.deployments["shop", "web"]
        return WorkloadRef("ws-live", DEPLOYMENT, "shop", "web", held.metadata.uid)

    async def somebody_scales(self, replicas: int) -> None:
        self._fake.replace(replicas=replicas)

    async def somebody_deletes(self) -> None:
        self._fake.remove()

    async def somebody_creates_it_again(self) -> None:
        self._fake.put(make_deployment(uid="another"))

    async def goes_away(self) -> None:
        self._fake.away = True


_PATH = "/apis/apps/v1/namespaces/shop/deployments"


class RealWorld:
    def __init__(self, workloads: Workloads, admin: Admin, api: ApiHandle) -> None:
        self.workloads = workloads
        self._admin = admin
        self._api = api

    async def ref(self) -> WorkloadRef:
        held = await self._admin.ask("GET", f"{_PATH}/web")
        return WorkloadRef("ws-live", DEPLOYMENT, "shop", "web", held["metadata"]["uid"])

    async def somebody_scales(self, replicas: int) -> None:
        await self._admin.merge(f"{_PATH}/web", {"spec": {"replicas": replicas}})

    async def somebody_deletes(self) -> None:
        await self._admin.delete(f"{_PATH}/web")

    async def somebody_creates_it_again(self) -> None:
        await self._admin.create(_PATH, deployment())

    async def goes_away(self) -> None:
        self._api.faults.add(ApiFault(FaultMode.AWAY))


@asynccontextmanager
async def _real() -> AsyncIterator[RealWorld]:
    async with running_api() as api, administrating(api) as admin:
        await admin.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        await admin.create(_PATH, deployment())
        async with living(inline(api.kubeconfig())) as live:
            yield RealWorld(live.workloads, admin, api)


@pytest.fixture(params=["fake", "kubernetes"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    async with _real() as real:
        yield real


async def test_reads_show_what_there_is(world: World) -> None:
    ref = await world.ref()
    scale = await world.workloads.read_scale(ref)
    workload = await world.workloads.read_workload(ref)
    assert (scale.uid, scale.desired) == (ref.uid, 3)
    assert workload.metadata.resource_version == scale.resource_version
    assert workload.spec.replicas == 3


async def test_a_write_under_the_version_seen_holds_and_shows_its_writer(world: World) -> None:
    ref = await world.ref()
    seen = await world.workloads.read_scale(ref)
    written = await world.workloads.write_scale(ref, 5, resource_version=seen.resource_version)
    assert written.desired == 5
    assert written.uid == ref.uid
    held = await world.workloads.read_workload(ref)
    assert held.spec.replicas == 5
    assert {one.subresource for one in held.metadata.managed_fields if one.manager == "opsapi"} == {"scale"}


async def test_a_write_under_an_older_version_is_a_conflict_and_changes_nothing(world: World) -> None:
    ref = await world.ref()
    seen = await world.workloads.read_scale(ref)
    await world.somebody_scales(4)
    for dry_run in (True, False):
        with pytest.raises(WriteConflict):
            await world.workloads.write_scale(ref, 5, resource_version=seen.resource_version, dry_run=dry_run)
    assert (await world.workloads.read_scale(ref)).desired == 4


async def test_a_dry_run_answers_and_keeps_nothing(world: World) -> None:
    ref = await world.ref()
    seen = await world.workloads.read_scale(ref)
    tried = await world.workloads.write_scale(ref, 5, resource_version=seen.resource_version, dry_run=True)
    assert tried.desired == 5
    assert (await world.workloads.read_scale(ref)).desired == 3


async def test_what_was_deleted_is_gone_and_a_namesake_is_a_conflict(world: World) -> None:
    ref = await world.ref()
    seen = await world.workloads.read_scale(ref)
    await world.somebody_deletes()
    with pytest.raises(TargetGone):
        await world.workloads.read_workload(ref)
    with pytest.raises(TargetGone):
        await world.workloads.read_scale(ref)
    with pytest.raises(TargetGone):
        await world.workloads.write_scale(ref, 5, resource_version=seen.resource_version)
    await world.somebody_creates_it_again()
    with pytest.raises(WriteConflict):
        await world.workloads.read_workload(ref)
    with pytest.raises(WriteConflict):
        await world.workloads.read_scale(ref)
    with pytest.raises(WriteConflict):
        await world.workloads.write_scale(ref, 5, resource_version=seen.resource_version)


async def test_an_autoscaler_is_created_found_and_edited_under_the_version_seen(world: World) -> None:
    ref = await world.ref()
    assert await world.workloads.find_autoscaler(ref) is None
    bounds = AutoscalerBounds(2, 6, 70, 120)
    tried = await world.workloads.write_autoscaler(ref, bounds, existing=None, operation_id="op-1", dry_run=True)
    assert tried.spec.max_replicas == 6
    assert await world.workloads.find_autoscaler(ref) is None
    made = await world.workloads.write_autoscaler(ref, bounds, existing=None, operation_id="op-1")
    assert made.metadata.name == "web"
    with pytest.raises(WriteConflict):
        await world.workloads.write_autoscaler(ref, bounds, existing=None, operation_id="op-2")
    found = await world.workloads.find_autoscaler(ref)
    assert found is not None
    assert found.metadata.uid == made.metadata.uid
    assert found.spec.metrics[0].resource is not None
    assert found.spec.metrics[0].resource.target.average_utilization == 70
    assert found.spec.behavior is not None
    assert found.spec.behavior.scale_down is not None
    assert found.spec.behavior.scale_down.stabilization_window_seconds == 120
    wider = AutoscalerBounds(3, 9)
    edited = await world.workloads.write_autoscaler(ref, wider, existing=found, operation_id="op-3")
    assert (edited.spec.min_replicas, edited.spec.max_replicas) == (3, 9)
    assert edited.spec.metrics == found.spec.metrics
    with pytest.raises(WriteConflict):
        await world.workloads.write_autoscaler(ref, bounds, existing=found, operation_id="op-4")


async def test_an_event_can_be_written_twice_without_harm(world: World) -> None:
    ref = await world.ref()
    event = WrittenEvent("ScaledByOpsapi", "Scaled by agent-1 (operation op-1)", "scale")
    for _ in range(2):
        await world.workloads.write_event(ref, event, operation_id="op-1", at=START)


async def test_a_cluster_that_is_away_is_said_to_be(world: World) -> None:
    ref = await world.ref()
    seen = await world.workloads.read_scale(ref)
    await world.goes_away()
    with pytest.raises(DependencyUnavailable):
        await world.workloads.read_scale(ref)
    with pytest.raises(DependencyUnavailable):
        await world.workloads.find_autoscaler(ref)
    with pytest.raises(DependencyUnavailable):
        await world.workloads.write_scale(ref, 5, resource_version=seen.resource_version)
