from datetime import datetime

import msgspec
import pytest

from opsapi.kit.endpoint import NoBody, NoParams
from opsapi.kit.errors import ValidationFailed
from opsapi.operations.errors import OperationInProgress
from opsapi.workspaces.endpoints import RegisterBody, WorkspaceParams, WorkspacesParams
from opsapi.workspaces.errors import RegisteredInConfig, UnusableKubeconfig, WorkspaceExists, WorkspaceNotFound
from opsapi.workspaces.model import ClusterAccess, Mode, Source
from opsapi.workspaces.objects import POD
from opsapi.workspaces.ports import Sync, UnreadableWorkspace
from opsapi.workspaces.registration import Registry
from support.callers import call_of
from support.inventory import START, FakeCluster, FakeClusters, make_workspace
from support.registrations import House

SECRET = "token: very-secret"
ADMIN = "workspaces:admin"


async def started(*configured: str) -> House[FakeClusters]:
    clusters = FakeClusters()
    house = House(clusters)
    await house.registry.start([make_workspace(name) for name in configured])
    return house


def body(**changes: object) -> RegisterBody:
    held: dict[str, object] = {"id": "ws-new", "name": "New", "kubeconfig": SECRET}
    return RegisterBody(**(held | changes))  # type: ignore[arg-type]


async def test_a_registered_workspace_is_stored_opened_and_never_shows_its_credentials() -> None:
    house = await started()
    call = call_of(ADMIN)
    asked = body(acting_kubeconfig=SECRET + "-acting", namespaces=["shop"])
    reply = await house.workspaces.register_workspace(call, NoParams(), asked)
    assert reply.status == 201
    assert call.audit.committed
    stored = house.store.held["ws-new"]
    assert stored.read.inline == SECRET
    assert stored.act is not None
    assert stored.mode is Mode.OBSERVE
    assert house.clusters.find("ws-new") is not None
    detail = await house.workspaces.get_workspace(call, WorkspaceParams(workspace_id="ws-new"), NoBody())
    shown = await house.workspaces.list_workspaces(call, WorkspacesParams(), NoBody())
    for answer in (reply.data, detail.data, shown.data):
        assert b"secret" not in msgspec.json.encode(answer)
    assert "secret" not in repr(stored)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "Bad_Id"}, "id"),
        ({"id": "-x"}, "id"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"organization": "x" * 201}, "organization"),
        ({"namespaces": ["ok", "../x"]}, "namespaces[1]"),
        ({"namespaces": ["a", "a"]}, "namespaces"),
        ({"acting_context": "x"}, "acting_context"),
    ],
)
async def test_a_malformed_registration_names_the_field_and_stores_nothing(
    changes: dict[str, object], field: str
) -> None:
    house = await started()
    with pytest.raises(ValidationFailed) as caught:
        await house.workspaces.register_workspace(call_of(ADMIN), NoParams(), body(**changes))
    assert list(msgspec.to_builtins(caught.value.details)["fields"]) == [field]
    assert not house.store.held


async def test_a_dangerous_kubeconfig_is_refused_below_the_field_that_brought_it() -> None:
    house = await started()
    with pytest.raises(UnusableKubeconfig) as caught:
        await house.workspaces.register_workspace(
            call_of(ADMIN), NoParams(), body(acting_kubeconfig="users: [{user: {exec: {}}}]")
        )
    assert list(caught.value.fields) == ["acting_kubeconfig.users[].user.exec"]
    assert not house.store.held


async def test_an_id_of_the_configuration_cannot_be_taken_or_removed() -> None:
    house = await started("ws-1")
    with pytest.raises(WorkspaceExists):
        await house.workspaces.register_workspace(call_of(ADMIN), NoParams(), body(id="ws-1"))
    with pytest.raises(RegisteredInConfig, match="configuration file"):
        await house.workspaces.remove_workspace(call_of(ADMIN), WorkspaceParams(workspace_id="ws-1"), NoBody())
    assert house.clusters.find("ws-1") is not None


async def test_a_removed_workspace_is_closed_and_gone() -> None:
    house = await started()
    await house.workspaces.register_workspace(call_of(ADMIN), NoParams(), body())
    params = WorkspaceParams(workspace_id="ws-new")
    await house.workspaces.remove_workspace(call_of(ADMIN), params, NoBody())
    assert house.clusters.find("ws-new") is None
    with pytest.raises(WorkspaceNotFound):
        await house.workspaces.get_workspace(call_of(ADMIN), params, NoBody())
    with pytest.raises(WorkspaceNotFound):
        await house.workspaces.remove_workspace(call_of(ADMIN), params, NoBody())


async def test_a_list_holds_only_what_the_caller_may_see_page_by_page() -> None:
    house = await started("ws-1", "ws-2", "ws-3", "ws-4")
    call = call_of("application:read@ws-1", "workspace:read@ws-3", "incident:read@ws-4")
    first = await house.workspaces.list_workspaces(call, WorkspacesParams(limit=2), NoBody())
    assert [one.id for one in first.data.workspaces] == ["ws-1", "ws-3"]
    second = await house.workspaces.list_workspaces(call, WorkspacesParams(limit=2, cursor=first.next_cursor), NoBody())
    assert [one.id for one in second.data.workspaces] == ["ws-4"]
    assert second.next_cursor is None


async def test_what_another_process_registers_and_removes_is_followed() -> None:
    house = await started("ws-1")
    other = make_workspace("ws-other", source=Source.API, read=ClusterAccess(inline=SECRET))
    house.store.held["ws-other"] = other
    house.store.unreadable = [UnreadableWorkspace("ws-lost", "Lost")]
    await house.registry.synchronize()
    assert house.clusters.find("ws-other") is not None
    assert house.registry.unreadable == (UnreadableWorkspace("ws-lost", "Lost"),)
    del house.store.held["ws-other"]
    await house.registry.synchronize()
    assert house.clusters.find("ws-other") is None
    assert house.clusters.find("ws-1") is not None


async def test_a_workspace_registered_anew_elsewhere_is_opened_with_its_new_credentials() -> None:
    house = await started()
    for secret in ("one", "two"):
        house.store.held["ws-1"] = make_workspace("ws-1", source=Source.API, read=ClusterAccess(inline=secret))
        await house.registry.synchronize()
        cluster = house.clusters.find("ws-1")
        assert cluster is not None
        assert cluster.workspace.read.inline == secret


class BusyLedger:
    """A ledger in which one operation runs in ws-new."""

    async def find(self, wanted: object) -> list[object]:
        class Running:
            id = "op-1"
            action = "auto_heal"
            estimated_completion: datetime | None = START

        assert wanted.workspaces == {"ws-new"}  # type: ignore[attr-defined]
        return [Running()]


async def test_a_workspace_in_which_an_operation_runs_is_not_removed() -> None:
    house = await started()
    await house.workspaces.register_workspace(call_of(ADMIN), NoParams(), body())
    busy = Registry(house.clusters, house.views, house.store, BusyLedger(), house.clock)  # type: ignore[arg-type]
    with pytest.raises(OperationInProgress) as caught:
        await busy.remove("ws-new", call_of(ADMIN))
    assert msgspec.to_builtins(caught.value.details)["current_operation_id"] == "op-1"
    assert "ws-new" in house.store.held


async def test_a_workspaces_detail_says_how_far_each_kind_can_be_believed() -> None:
    cluster = FakeCluster(make_workspace("ws-1"))
    cluster.fake.set_sync(POD, Sync.FORBIDDEN, "pods is forbidden")
    house = House(FakeClusters(cluster))
    await house.registry.start([cluster.workspace])
    reply = await house.workspaces.get_workspace(
        call_of("workspace:read@ws-1"), WorkspaceParams(workspace_id="ws-1"), NoBody()
    )
    assert reply.data.workspace.status == "active"
    assert reply.data.kubernetes_version == "1.36.0"
    kinds = {kind.kind: kind for kind in reply.data.kinds}
    assert (kinds["pods"].sync, kinds["pods"].reason) == (Sync.FORBIDDEN, "pods is forbidden")
    assert kinds["deployments.apps"].sync is Sync.SYNCED
