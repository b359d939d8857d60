"""Changes of applications, recorded on SQLite and PostgreSQL."""

from datetime import timedelta

import msgspec
import pytest

from opsapi.adapters.sql.changes import SqlChangeStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.changes import ChangeRecorder
from opsapi.applications.changes_endpoint import ChangesEndpoints, ChangesParams
from opsapi.applications.changes_model import Change, Snapshot
from opsapi.applications.ports import OPERATION_ANNOTATION
from opsapi.applications.recent import RecentActivity
from opsapi.kit.endpoint import NoBody
from opsapi.operations.model import Item, State
from opsapi.operations.signals import Signals
from opsapi.workspaces.application_ids import application_id
from opsapi.workspaces.objects import AUTOSCALER, DEPLOYMENT, Container, ManagedField, Resources, Workload
from support.acting import SetClock, make_call, make_caller, make_new_operation
from support.inventory import START, FakeInventory
from support.workloads import FakeWorkloads, make_autoscaler, make_deployment

APPLICATION = application_id("ws-123", DEPLOYMENT, make_deployment().metadata)
MINUTE = timedelta(minutes=1)


def template_written(manager: str) -> ManagedField:
    fields = b'{"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\\"name\\":\\"app\\"}":{"f:resources":{}}}}}}}'
    return ManagedField(manager=manager, operation="Update", time=START, fields_v1=msgspec.Raw(fields))


class Watched:
    """A cluster, its inventory, and a recorder that follows it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.inventory = FakeInventory()
        self.workloads = FakeWorkloads(self.inventory)
        self.ledger = SqlLedger(database, SetClock(), Signals())
        self.store = SqlChangeStore(database)
        self.recorder = self.follow()

    def follow(self) -> ChangeRecorder:
        recorder = ChangeRecorder(self.inventory, self.store, self.ledger)
        self.stop = recorder.start()
        return recorder

    async def changes(self) -> list[Change]:
        await self.recorder.flush()
        return await self.store.page("ws-123", APPLICATION, before=None, limit=100)

    def edit(self, *, manager: str = "", **container: object) -> None:
        """Somebody edits the pod template."""
        held = self.workloads.deployments[("shop", "web")]
        (first,) = held.spec.template.spec.containers
        pod = msgspec.structs.replace(
            held.spec.template.spec, containers=(msgspec.structs.replace(first, **container),)
        )
        template = msgspec.structs.replace(held.spec.template, spec=pod)
        meta = msgspec.structs.replace(
            held.metadata,
            generation=held.metadata.generation + 1,
            resource_version=str(int(held.metadata.resource_version) + 1000),
            managed_fields=(*held.metadata.managed_fields, *([template_written(manager)] if manager else [])),
        )
        spec = msgspec.structs.replace(held.spec, template=template)
        self.workloads.put(msgspec.structs.replace(held, metadata=meta, spec=spec))


@pytest.fixture
async def watched(database: Database) -> Watched:
    made = Watched(database)
    made.workloads.put(make_deployment())
    await made.recorder.flush()
    return made


async def test_the_first_look_is_no_change(watched: Watched) -> None:
    assert await watched.changes() == []
    assert [snapshot.fields["replicas"] for snapshot in (await watched.store.snapshots("ws-123")).values()] == [3]


async def test_somebody_elses_change_names_its_field_manager_and_no_account(watched: Watched) -> None:
    watched.workloads.replace(replicas=4, manager="kubectl-edit")
    (change,) = await watched.changes()
    assert (change.field, change.before, change.after, change.manager) == ("replicas", 3, 4, "kubectl-edit")
    assert (change.actor, change.operation_id, change.reason) == (None, None, None)
    assert change.changed_at is not None
    assert change.observed_at == START


async def test_status_alone_is_no_change(watched: Watched) -> None:
    watched.workloads.set_status(ready=1)
    assert watched.recorder.waiting == 0
    assert await watched.changes() == []


async def test_images_and_resources_are_told_by_container(watched: Watched) -> None:
    watched.edit(image="nginx:1.28", resources=Resources(requests={"cpu": "200m"}, limits={"memory": "1Gi"}))
    image, resources = sorted(await watched.changes(), key=lambda change: change.field)
    assert (image.field, image.before, image.after) == ("containers[app].image", "nginx:1.27", "nginx:1.28")
    assert resources.field == "containers[app].resources"
    assert resources.before == {"requests": {"cpu": "100m"}, "limits": {}}
    assert resources.after == {"requests": {"cpu": "200m"}, "limits": {"memory": "1Gi"}}


async def test_a_container_that_comes_or_goes_is_told(watched: Watched) -> None:
    held = watched.workloads.deployments[("shop", "web")]
    spec = held.spec.template.spec
    more = msgspec.structs.replace(spec, containers=(*spec.containers, Container(name="proxy", image="envoy:1.30")))
    template = msgspec.structs.replace(held.spec.template, spec=more)
    meta = msgspec.structs.replace(held.metadata, generation=2, resource_version="500")
    watched.workloads.put(
        Workload(metadata=meta, spec=msgspec.structs.replace(held.spec, template=template), status=held.status)
    )
    found = {change.field: (change.before, change.after) for change in await watched.changes()}
    assert found["containers[proxy].image"] == (None, "envoy:1.30")


async def test_our_own_change_carries_account_operation_and_reason(watched: Watched) -> None:
    call = make_call(make_caller(account_id="sa-scaler"))
    new = make_new_operation(APPLICATION, steps=("set_replicas",))
    await watched.ledger.begin(new, call, locks={"app"})
    claim = await watched.ledger.claim("worker", MINUTE, {("scale", 1)})
    assert claim is not None
    await watched.ledger.intend(claim, 0, {"replicas": 5, "previous": 3})
    watched.workloads.replace(replicas=5, manager="opsapi")
    (change,) = await watched.changes()
    assert (change.actor, change.actor_kind, change.operation_id, change.reason) == (
        "sa-scaler",
        "agent",
        new.id,
        "more traffic",
    )


@pytest.mark.parametrize("whole_workspace", [False, True])
async def test_our_own_change_of_a_template_is_known_by_the_item_that_touched_it(
    watched: Watched, whole_workspace: bool
) -> None:
    """An operation on the whole workspace is found by the name that it left, and believed for what it touched."""
    application = None if whole_workspace else APPLICATION
    new = make_new_operation(APPLICATION, "optimize_resources", steps=("apply",), application_id=application)
    await watched.ledger.begin(new, make_call(make_caller(account_id="sa-sizer")), locks={"app"})
    claim = await watched.ledger.claim("worker", MINUTE, {("optimize_resources", 1)})
    assert claim is not None
    item = Item(intent={"application": "shop/Deployment/web"})
    await watched.ledger.put_item(claim, 0, "uid-shop-web", item, intends=True)
    held = watched.workloads.deployments[("shop", "web")]
    meta = msgspec.structs.replace(held.metadata, annotations={OPERATION_ANNOTATION: new.id})
    watched.workloads.put(msgspec.structs.replace(held, metadata=meta))
    watched.edit(resources=Resources(requests={"cpu": "200m"}), manager="opsapi")
    (change,) = await watched.changes()
    assert (change.field, change.actor, change.operation_id) == ("containers[app].resources", "sa-sizer", new.id)


async def test_an_annotation_alone_names_nobody(watched: Watched) -> None:
    new = make_new_operation("app-2", "optimize_resources", steps=("apply",))
    await watched.ledger.begin(new, make_call(), locks={"app"})
    held = watched.workloads.deployments[("shop", "web")]
    meta = msgspec.structs.replace(held.metadata, annotations={OPERATION_ANNOTATION: new.id})
    watched.workloads.put(msgspec.structs.replace(held, metadata=meta))
    watched.edit(resources=Resources(requests={"cpu": "200m"}), manager="opsapi")
    (change,) = await watched.changes()
    assert (change.actor, change.operation_id) == (None, None)


async def test_an_autoscalers_change_names_the_autoscaler(watched: Watched) -> None:
    watched.workloads.put(make_autoscaler(name="web-hpa"))
    await watched.recorder.flush()
    watched.workloads.replace(replicas=4, manager="kube-controller-manager")
    (change,) = [one for one in await watched.changes() if one.field == "replicas"]
    assert (change.actor, change.actor_kind, change.operation_id) == ("web-hpa", "autoscaler", None)


async def test_what_a_controller_writes_without_an_autoscaler_has_no_actor(watched: Watched) -> None:
    watched.workloads.put(make_autoscaler("other"))
    await watched.recorder.flush()
    watched.workloads.replace(replicas=4, manager="kube-controller-manager")
    (change,) = [one for one in await watched.changes() if one.field == "replicas"]
    assert (change.actor, change.actor_kind) == (None, None)


async def test_another_manager_is_never_taken_for_our_operation(watched: Watched) -> None:
    await watched.ledger.begin(make_new_operation(APPLICATION, steps=("set_replicas",)), make_call(), locks={"app"})
    claim = await watched.ledger.claim("worker", MINUTE, {("scale", 1)})
    assert claim is not None
    await watched.ledger.intend(claim, 0, {"replicas": 5, "previous": 3})
    watched.workloads.replace(replicas=5, manager="kubectl")
    (change,) = await watched.changes()
    assert (change.actor, change.manager) == (None, "kubectl")


async def test_what_changed_while_the_service_was_down_is_found_at_the_next_start(watched: Watched) -> None:
    watched.stop()
    watched.workloads.replace(replicas=6, manager="kubectl")
    assert await watched.changes() == []
    watched.recorder = watched.follow()
    (change,) = await watched.changes()
    assert (change.before, change.after, change.manager) == (3, 6, "kubectl")
    watched.stop()
    watched.recorder = watched.follow()
    assert len(await watched.changes()) == 1


async def test_two_replicas_that_see_the_same_change_record_it_once(watched: Watched) -> None:
    twin = ChangeRecorder(watched.inventory, SqlChangeStore(watched.database), watched.ledger)
    twin.start()
    await twin.flush()
    watched.workloads.replace(replicas=4)
    watched.workloads.replace(replicas=5)
    await twin.flush()
    changes = await watched.changes()
    assert sorted((change.before, change.after) for change in changes) == [(3, 4), (4, 5)]


async def test_a_replica_that_lags_behind_does_not_turn_the_snapshot_back(watched: Watched) -> None:
    store = watched.store
    await store.record("ws-1", [], [Snapshot("u", "12", {"replicas": 5})], [], observed_at=START)
    await store.record("ws-1", [], [Snapshot("u", "9", {"replicas": 3})], [], observed_at=START)
    assert (await store.snapshots("ws-1"))["u"] == Snapshot("u", "12", {"replicas": 5})


async def test_a_recreated_application_starts_afresh(watched: Watched) -> None:
    watched.workloads.remove()
    watched.workloads.put(make_deployment(replicas=9, uid="uid-new"))
    assert await watched.changes() == []
    assert list(await watched.store.snapshots("ws-123")) == ["uid-new"]


async def test_an_autoscalers_bounds_are_changes_of_its_target(watched: Watched) -> None:
    watched.workloads.put(make_autoscaler(low=2, high=4))
    assert await watched.changes() == []
    wider = make_autoscaler(low=2, high=6)
    meta = msgspec.structs.replace(wider.metadata, resource_version="21")
    watched.workloads.put(msgspec.structs.replace(wider, metadata=meta))
    (change,) = await watched.changes()
    assert (change.field, change.before, change.after, change.kind, change.name) == (
        "autoscaler.maxReplicas",
        4,
        6,
        "Deployment",
        "web",
    )


async def test_an_autoscaler_that_is_made_or_deleted_while_we_watch_is_a_change(watched: Watched) -> None:
    made = make_autoscaler(low=2, high=4)
    meta = msgspec.structs.replace(made.metadata, creation_timestamp=START + MINUTE)
    watched.workloads.put(msgspec.structs.replace(made, metadata=meta))
    found = {change.field: (change.before, change.after) for change in await watched.changes()}
    assert found["autoscaler.maxReplicas"] == (None, 4)
    watched.inventory.remove(AUTOSCALER, "shop", "web")
    gone = [change for change in await watched.changes() if change.after is None]
    assert {change.field: change.before for change in gone}["autoscaler.maxReplicas"] == 4


async def test_pages_are_newest_first_and_continue_without_loss(watched: Watched) -> None:
    for replicas in (4, 5, 6, 7):
        watched.inventory.at += MINUTE
        watched.workloads.replace(replicas=replicas)
    await watched.recorder.flush()
    endpoints = ChangesEndpoints(watched.store)
    call = make_call()
    call.audit.workspace_id = "ws-123"
    params = ChangesParams(application_id=APPLICATION, limit=3)
    first = await endpoints.list_application_changes(call, params, NoBody())
    assert [change.after for change in first.data.changes] == [7, 6, 5]
    assert first.truncated
    params = ChangesParams(application_id=APPLICATION, limit=3, cursor=first.next_cursor)
    rest = await endpoints.list_application_changes(call, params, NoBody())
    assert [(change.before, change.after) for change in rest.data.changes] == [(3, 4)]
    assert (rest.next_cursor, rest.data.changes[0].actor) == (None, "unknown")


async def test_another_workspaces_changes_are_not_shown(watched: Watched) -> None:
    watched.workloads.replace(replicas=4)
    await watched.recorder.flush()
    assert await watched.store.page("ws-other", APPLICATION, before=None, limit=10) == []


async def test_recent_activity_tells_operations_and_foreign_changes(watched: Watched) -> None:
    watched.workloads.replace(replicas=4, manager="kubectl")
    await watched.recorder.flush()
    new = make_new_operation(APPLICATION, parameters={"name": "web", "namespace": "shop", "previous": 4, "replicas": 5})
    await watched.ledger.begin(new, make_call(), locks={"app"})
    claim = await watched.ledger.claim("worker", MINUTE, {("scale", 1)})
    assert claim is not None
    await watched.ledger.finish(claim, State.COMPLETED)
    recent = RecentActivity(watched.ledger, watched.store)
    assert recent.recent("ws-123", 5) == []
    await recent.refresh()
    told = {(e.activity.resource, e.activity.action, e.activity.details) for e in recent.recent("ws-123", 5)}
    assert told == {
        ("web", "scaled", "Scaled from 4 to 5 replicas by sa-agent"),
        ("web", "changed", "replicas: 3 -> 4 by kubectl"),
    }
    assert recent.recent("ws-other", 5) == []
