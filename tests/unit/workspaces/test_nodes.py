import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.endpoint import NoBody, Reply
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.quantity import parse_quantity
from opsapi.workspaces.endpoints import NodesParams, WorkspaceEndpoints
from opsapi.workspaces.model import Plan
from opsapi.workspaces.nodes import Nodes
from opsapi.workspaces.objects import NODE, POD, Condition, Taint
from opsapi.workspaces.ports import NodeUsage, Sync, UsageSnapshot
from support.callers import call_of
from support.inventory import START, FakeCluster, FakeClusters, make_workspace
from support.objects import container, node, pod
from support.registrations import House

PRESSURE = Condition(type="MemoryPressure", status="True", last_transition_time=START)


async def nodes_of(endpoints: WorkspaceEndpoints, limit: int = 50, cursor: str | None = None) -> Reply[Nodes]:
    params = NodesParams(workspace_id="ws-123", limit=limit, cursor=cursor)
    return await endpoints.get_nodes(call_of("workspace:read@ws-123"), params, NoBody())


def used(cluster: FakeCluster, **nodes: tuple[float, int]) -> None:
    cluster.used = UsageSnapshot(START, {}, {name: NodeUsage(*held, START) for name, held in nodes.items()})


async def test_a_node_is_shown_as_the_specification_writes_it() -> None:
    cluster = FakeCluster()
    taint = Taint(key="dedicated", value="db", effect="NoSchedule")
    cluster.fake.put(NODE, node("a", taints=(taint,), conditions=(PRESSURE,), labels={"zone": "us-west-2a"}))
    for name in ("x", "y"):
        cluster.fake.put(POD, pod(name, node="a", containers=(container(requests={"cpu": "950m", "memory": "1Gi"}),)))
    used(cluster, a=(1900.0, 7 * 2**30))
    reply = await nodes_of(House(FakeClusters(cluster)).workspaces)
    assert reply.data.nodes is not None
    (shown,) = reply.data.nodes
    assert (shown.name, shown.status.value, shown.role, shown.version) == ("a", "pressure", "worker", "1.28.3")
    assert (shown.capacity.cpu, shown.capacity.memory, shown.capacity.storage, shown.capacity.pods) == (
        "4",
        "16Gi",
        "100Gi",
        "110",
    )
    assert (shown.allocatable.cpu, shown.allocatable.memory) == ("3.8", "14.5Gi")
    assert (shown.usage.cpu_percentage, shown.usage.memory_percentage, shown.usage.pod_count) == (50.0, 48.3, 2)
    assert (shown.usage.cpu_requested_percentage, shown.usage.storage_percentage) == (50.0, None)
    assert [(c.type, c.status) for c in shown.conditions] == [("Ready", "True"), ("MemoryPressure", "True")]
    assert [(t.key, t.value, t.effect) for t in shown.taints] == [("dedicated", "db", "NoSchedule")]
    assert shown.labels == {"zone": "us-west-2a"}
    assert reply.encoded is not None
    assert bytes(reply.encoded) == msgspec.json.encode(reply.data)
    assert reply.data.cluster_metrics.health_status == "degraded"


async def test_the_worst_come_first_and_pages_cover_each_node_once() -> None:
    cluster = FakeCluster()
    cluster.fake.put(
        NODE,
        node("idle"),
        node("busy"),
        node("down", ready="Unknown"),
        node("drained", unschedulable=True),
        node("tight", conditions=(PRESSURE,)),
    )
    used(cluster, idle=(100.0, 2**30), busy=(3700.0, 2**30))
    endpoints = House(FakeClusters(cluster)).workspaces
    seen: list[str] = []
    cursor = None
    while True:
        reply = await nodes_of(endpoints, limit=2, cursor=cursor)
        assert reply.data.total_nodes == 5
        assert reply.data.cluster_metrics.total_capacity.cpu == "20"
        seen += [one.name for one in reply.data.nodes or ()]
        cursor = reply.next_cursor
        assert reply.truncated == (cursor is not None)
        if cursor is None:
            break
    assert seen == ["down", "tight", "drained", "busy", "idle"]


async def test_a_cursor_of_another_workspace_is_refused() -> None:
    first, second = FakeCluster(), FakeCluster(make_workspace("ws-2"))
    for cluster in (first, second):
        cluster.fake.put(NODE, node("a"), node("b"))
    endpoints = House(FakeClusters(first, second)).workspaces
    cursor = (await nodes_of(endpoints, limit=1)).next_cursor
    params = NodesParams(workspace_id="ws-2", limit=1, cursor=cursor)
    with pytest.raises(ValidationFailed):
        await endpoints.get_nodes(call_of("workspace:read"), params, NoBody())


async def test_total_usage_is_of_the_nodes_that_were_measured() -> None:
    cluster = FakeCluster()
    cluster.fake.put(NODE, node("a"), node("down", ready="False"))
    used(cluster, a=(1900.0, 29 * 2**28))
    reply = await nodes_of(House(FakeClusters(cluster)).workspaces)
    metrics = reply.data.cluster_metrics
    assert (metrics.total_usage.cpu_percentage, metrics.total_usage.memory_percentage) == (50.0, 50.0)
    assert metrics.total_capacity.memory == "32Gi"
    fields = {partial.field for partial in reply.partial}
    assert "nodes[].usage.cpu_percentage" in fields
    assert "cluster_metrics.total_usage.cpu_percentage" not in fields


async def test_a_shared_workspace_shows_no_node_of_the_platform() -> None:
    cluster = FakeCluster(make_workspace(plan=Plan.SHARED))
    cluster.fake.put(NODE, node("a"))
    reply = await nodes_of(House(FakeClusters(cluster)).workspaces)
    assert reply.data.nodes is None
    assert reply.data.total_nodes is None
    assert reply.data.cluster_metrics.total_capacity.cpu is None
    assert "other tenants" in reply.partial[0].reason


async def test_without_the_right_to_read_nodes_they_are_null_with_the_reason() -> None:
    cluster = FakeCluster(make_workspace(namespaces=("shop",)))
    cluster.fake.set_sync(NODE, Sync.FORBIDDEN)
    reply = await nodes_of(House(FakeClusters(cluster)).workspaces)
    assert reply.data.nodes is None
    assert "may not read nodes" in reply.partial[0].reason


async def test_a_nodes_view_is_made_again_only_when_something_of_it_changed() -> None:
    cluster = FakeCluster()
    cluster.fake.put(NODE, node("a"), node("b"))
    endpoints = House(FakeClusters(cluster)).workspaces
    first = {one.name: one for one in (await nodes_of(endpoints)).data.nodes or ()}
    cluster.fake.put(POD, pod("x", node="a"))
    second = {one.name: one for one in (await nodes_of(endpoints)).data.nodes or ()}
    assert second["a"] is not first["a"]
    assert second["a"].usage.pod_count == 1
    again = await nodes_of(endpoints)
    assert again.encoded is not None
    assert bytes(again.encoded) == msgspec.json.encode(again.data)
    assert second["b"] is first["b"]
    cluster.fake.remove(NODE, "", "b")
    assert [one.name for one in (await nodes_of(endpoints)).data.nodes or ()] == ["a"]


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(1, 512)), min_size=1, max_size=12),
    st.integers(0, 100),
)
async def test_totals_are_the_sums_of_the_nodes(rooms: list[tuple[int, int]], share: int) -> None:
    cluster = FakeCluster()
    for number, (cpu, memory) in enumerate(rooms):
        room = {"cpu": str(cpu), "memory": f"{memory}Gi", "ephemeral-storage": "100Gi", "pods": "110"}
        cluster.fake.put(NODE, node(f"n{number}", capacity=room, allocatable=room))
    used(
        cluster,
        **{f"n{i}": (cpu * 10.0 * share, memory * 2**30 * share // 100) for i, (cpu, memory) in enumerate(rooms)},
    )
    metrics = (await nodes_of(House(FakeClusters(cluster)).workspaces)).data.cluster_metrics
    assert metrics.total_capacity.cpu == str(sum(cpu for cpu, _ in rooms))
    total = float(parse_quantity(metrics.total_capacity.memory or "0")) / 2**30
    assert abs(total - sum(memory for _, memory in rooms)) <= 0.05 * 1024
    assert metrics.total_usage.cpu_percentage == pytest.approx(share, abs=0.05)
    assert metrics.total_usage.memory_percentage == pytest.approx(share, abs=0.06)
