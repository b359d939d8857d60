"""The Workloads port: the fake that tests use and the real adapter over the playground's API server answer alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import pytest

from opsapi.applications.errors import TargetGone, WriteConflict
from opsapi.applications.field_managers import REPLICAS, writer_of
from opsapi.applications.ports import FIELD_MANAGER, AutoscalerBounds, WorkloadRef, Workloads, WrittenEvent
from opsapi.applications.scaling import bounds_of
from opsapi.workspaces.objects import DEPLOYMENT
from support.acting import NOON
from support.cluster import running_api
from support.live import Admin, administrating, deployment, inline, living
from support.workloads import FakeWorkloads, make_deployment

_DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
BOUNDS = AutoscalerBounds(2, 6, 70, 300)


class Stand(Protocol):
    """A cluster with the deployment `web` of 3 replicas in `shop`; `meddle` is somebody else's write to it."""

    @property
    def workloads(self) -> Workloads: ...

    @property
    def ref(self) -> WorkloadRef: ...

    async def replicas(self) -> int: ...

    async def meddle(self, replicas: int) -> None: ...


@dataclass
class FakeStand:
    workloads: FakeWorkloads
    ref: WorkloadRef

    async def replicas(self) -> int:
        return self.workloads.replicas() or 0

    async def meddle(self, replicas: int) -> None:
        self.workloads.replace(replicas=replicas)


@dataclass
class LiveStand:
    workloads: Workloads
    ref: WorkloadRef
    admin: Admin

    async def replicas(self) -> int:
        held: dict[str, Any] = await self.admin.ask("GET", f"{_DEPLOYMENTS}/web")
        count: int = held["spec"]["replicas"]
        return count

    async def meddle(self, replicas: int) -> None:
        await self.admin.merge(f"{_DEPLOYMENTS}/web", {"spec": {"replicas": replicas}})


@asynccontextmanager
async def fake_stand() -> AsyncIterator[Stand]:
    workloads = FakeWorkloads()
    workloads.put(make_deployment())
    uid = workloads.deployments[("shop", "web")].metadata.uid
    yield FakeStand(workloads, WorkloadRef("ws-live", DEPLOYMENT, "shop", "web", uid))


@asynccontextmanager
async def live_stand() -> AsyncIterator[Stand]:
    async with running_api() as api, administrating(api) as admin:
        await admin.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        held = await admin.create(_DEPLOYMENTS, deployment())
        async with living(inline(api.kubeconfig())) as live:
            ref = WorkloadRef("ws-live", DEPLOYMENT, "shop", "web", held["metadata"]["uid"])
            yield LiveStand(live.workloads, ref, admin)


@pytest.fixture(params=[fake_stand, live_stand], ids=["fake", "kubernetes"])
async def stand(request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    async with request.param() as made:
        yield made


def strange(ref: WorkloadRef, **changes: str) -> WorkloadRef:
    return msgspec.structs.replace(ref, **changes)


async def test_what_is_there_is_read_fresh(stand: Stand) -> None:
    state = await stand.workloads.read_scale(stand.ref)
    assert (state.uid, state.desired) == (stand.ref.uid, 3)
    await stand.meddle(4)
    assert (await stand.workloads.read_scale(stand.ref)).desired == 4
    workload = await stand.workloads.read_workload(stand.ref)
    assert (workload.metadata.uid, workload.spec.replicas) == (stand.ref.uid, 4)


async def test_a_scale_is_written_under_the_version_just_read_and_carries_our_mark(stand: Stand) -> None:
    state = await stand.workloads.read_scale(stand.ref)
    written = await stand.workloads.write_scale(stand.ref, 5, resource_version=state.resource_version)
    assert (written.uid, written.desired) == (stand.ref.uid, 5)
    assert written.resource_version != state.resource_version
    assert await stand.replicas() == 5
    workload = await stand.workloads.read_workload(stand.ref)
    writer = writer_of(workload.metadata.managed_fields, REPLICAS)
    assert writer is not None
    assert writer.manager == FIELD_MANAGER


async def test_somebody_elses_write_takes_the_mark_away(stand: Stand) -> None:
    state = await stand.workloads.read_scale(stand.ref)
    await stand.workloads.write_scale(stand.ref, 5, resource_version=state.resource_version)
    await stand.meddle(6)
    writer = writer_of((await stand.workloads.read_workload(stand.ref)).metadata.managed_fields, REPLICAS)
    assert writer is None or writer.manager != FIELD_MANAGER


async def test_a_write_under_an_old_version_changes_nothing(stand: Stand) -> None:
    state = await stand.workloads.read_scale(stand.ref)
    await stand.meddle(4)
    with pytest.raises(WriteConflict):
        await stand.workloads.write_scale(stand.ref, 5, resource_version=state.resource_version)
    assert await stand.replicas() == 4


async def test_a_namesake_is_neither_read_nor_written(stand: Stand) -> None:
    state = await stand.workloads.read_scale(stand.ref)
    other = strange(stand.ref, uid="00000000-0000-0000-0000-000000000000")
    for call in (
        stand.workloads.read_workload(other),
        stand.workloads.read_scale(other),
        stand.workloads.write_scale(other, 5, resource_version=state.resource_version),
    ):
        with pytest.raises(WriteConflict):
            await call
    assert await stand.replicas() == 3


async def test_what_is_not_there_is_gone(stand: Stand) -> None:
    absent = strange(stand.ref, name="absent")
    for call in (
        stand.workloads.read_workload(absent),
        stand.workloads.read_scale(absent),
        stand.workloads.write_scale(absent, 5, resource_version="1"),
    ):
        with pytest.raises(TargetGone):
            await call


async def test_a_dry_run_answers_and_keeps_nothing(stand: Stand) -> None:
    state = await stand.workloads.read_scale(stand.ref)
    answer = await stand.workloads.write_scale(stand.ref, 5, resource_version=state.resource_version, dry_run=True)
    assert answer.desired == 5
    assert await stand.replicas() == 3
    made = await stand.workloads.write_autoscaler(stand.ref, BOUNDS, existing=None, operation_id="op-1", dry_run=True)
    assert bounds_of(made) == BOUNDS
    assert await stand.workloads.find_autoscaler(stand.ref) is None


async def test_an_autoscaler_is_made_under_the_workloads_name_once(stand: Stand) -> None:
    assert await stand.workloads.find_autoscaler(stand.ref) is None
    made = await stand.workloads.write_autoscaler(stand.ref, BOUNDS, existing=None, operation_id="op-1")
    assert (made.metadata.name, bounds_of(made)) == ("web", BOUNDS)
    found = await stand.workloads.find_autoscaler(stand.ref)
    assert found is not None
    assert found.metadata.uid == made.metadata.uid
    again = await stand.workloads.write_autoscaler(stand.ref, BOUNDS, existing=None, operation_id="op-1")
    assert again.metadata.uid == made.metadata.uid
    with pytest.raises(WriteConflict):
        await stand.workloads.write_autoscaler(stand.ref, BOUNDS, existing=None, operation_id="op-2")


async def test_an_autoscalers_stated_bounds_are_edited_and_the_others_stay(stand: Stand) -> None:
    made = await stand.workloads.write_autoscaler(stand.ref, BOUNDS, existing=None, operation_id="op-1")
    wider = AutoscalerBounds(3, 8)
    edited = await stand.workloads.write_autoscaler(stand.ref, wider, existing=made, operation_id="op-2")
    assert bounds_of(edited) == AutoscalerBounds(3, 8, 70, 300)
    with pytest.raises(WriteConflict):
        await stand.workloads.write_autoscaler(stand.ref, BOUNDS, existing=made, operation_id="op-3")
    found = await stand.workloads.find_autoscaler(stand.ref)
    assert found is not None
    assert bounds_of(found) == AutoscalerBounds(3, 8, 70, 300)


async def test_an_event_may_be_written_twice(stand: Stand) -> None:
    event = WrittenEvent("ScaledByOpsapi", "Scaled from 3 to 5 replicas by sa-agent (operation op-1)", "scale")
    for _ in range(2):
        await stand.workloads.write_event(stand.ref, event, operation_id="op-1", at=NOON)
    if isinstance(stand, LiveStand):
        events = await stand.admin.ask("GET", "/api/v1/namespaces/shop/events")
        assert [held["message"] for held in events["items"]] == [event.message]
    else:
        assert isinstance(stand.workloads, FakeWorkloads)
        assert list(stand.workloads.events.values()) == [event]
