import asyncio
from datetime import timedelta

import msgspec
import pytest

from opsapi.health.board import HealthBoard, overall
from opsapi.health.endpoints import HealthEndpoints
from opsapi.health.model import Health, Status
from opsapi.kit.endpoint import NoBody, NoParams
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.model import Depth
from opsapi.workspaces.objects import DEPLOYMENT, NODE, POD
from opsapi.workspaces.ports import ClusterState, NodeUsage, Sync, UsageSnapshot
from support.callers import call_of
from support.inventory import START, FakeCluster, FakeClusters, make_workspace
from support.objects import deployment, node, owner, pod
from support.registrations import House


class Pool(msgspec.Struct, frozen=True):
    active: int | None = 45
    idle: int | None = 15
    max: int | None = 100


class Reading(msgspec.Struct, frozen=True):
    connections: Pool = Pool()
    avg_query_ms: float | None = 8.5
    slow_queries: int = 0


class FakeDatabase:
    def __init__(self) -> None:
        self.answer: Reading | Exception | None = Reading()

    async def probe(self) -> Reading:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        assert self.answer is not None
        return self.answer


class FakeQueue:
    def __init__(self) -> None:
        self.answer: Depth | Exception = Depth(0, 0, None)

    async def depth(self) -> Depth:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeFigures:
    taken: float | None = 12.0

    def response_time_ms(self) -> float | None:
        return self.taken


class Ward:
    """A health board over fakes."""

    def __init__(self, *clusters: FakeCluster) -> None:
        self.house = House(FakeClusters(*clusters))
        self.database, self.queue, self.figures = FakeDatabase(), FakeQueue(), FakeFigures()
        self.board = HealthBoard(
            self.house.views,
            self.house.clock,
            database=self.database,
            queue=self.queue,
            figures=self.figures,
            timeout=0.01,
        )

    async def look(self) -> Health:
        await self.board.refresh()
        return self.board.reply.data

    def reasons(self) -> dict[str, str]:
        return {partial.field: partial.reason for partial in self.board.reply.partial}


def _nulls(value: object, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {found for key, held in value.items() for found in _nulls(held, f"{path}.{key}" if path else key)}
    return {path} if value is None and not path.endswith("observed_at") else set()


async def test_when_all_is_well_every_figure_is_a_true_one() -> None:
    cluster = FakeCluster()
    cluster.fake.put(NODE, node("a"), node("b", ready="False"))
    cluster.used = UsageSnapshot(START, {}, {"a": NodeUsage(1900.0, 29 * 2**28, START)})
    ward = Ward(cluster)
    ward.queue.answer = Depth(23, 2, START - timedelta(seconds=7))
    ward.house.clock.pass_by(timedelta(days=15, hours=4, minutes=23))
    ward.queue.answer = Depth(23, 2, ward.house.clock.now() - timedelta(seconds=7))
    health = await ward.look()
    parts = health.components
    assert (parts.api_server.response_time_ms, parts.api_server.uptime) == (12.0, "15d 4h 23m")
    assert (parts.database.status, parts.database.connections.active, parts.database.connections.max) == (
        Status.HEALTHY,
        45,
        100,
    )
    assert (parts.kubernetes_api.version, parts.kubernetes_api.status) == ("1.36.0", Status.HEALTHY)
    nodes = parts.kubernetes_api.nodes
    assert (nodes.total, nodes.ready, nodes.not_ready) == (2, 1, 1)
    assert (parts.message_queue.queue_depth, parts.message_queue.consumer_lag) == (23, "7s")
    assert health.status is Status.HEALTHY
    assert (health.workspaces.total, health.workspaces.active, health.workspaces.issues) == (1, 1, 1)
    assert (health.resource_usage.cpu_percentage, health.resource_usage.memory_percentage) == (50.0, 50.0)
    assert set(ward.reasons()) == {"resource_usage.storage_percentage"}


async def test_before_the_first_probe_nothing_is_called_healthy() -> None:
    ward = Ward()
    health = ward.board.reply.data
    assert health.components.database.status is Status.UNKNOWN
    assert health.components.message_queue.status is Status.UNKNOWN
    assert health.components.kubernetes_api.status is Status.UNKNOWN
    assert health.status is Status.UNKNOWN


@pytest.mark.parametrize(
    "failure",
    [DependencyUnavailable("database", "it cannot be reached"), RuntimeError("a bug in the probe"), None],
)
async def test_a_database_that_fails_hangs_or_breaks_its_probe_is_unhealthy(failure: Exception | None) -> None:
    ward = Ward(FakeCluster())
    assert (await ward.look()).components.database.status is Status.HEALTHY
    ward.database.answer = failure
    health = await ward.look()
    assert health.components.database.status is Status.UNHEALTHY
    assert health.components.database.connections.active is None
    assert health.status is Status.UNHEALTHY
    assert health.components.message_queue.status is Status.HEALTHY
    assert ward.reasons()["components.database.connections.active"]
    assert "bug" not in msgspec.json.encode(health).decode()


async def test_a_queue_from_which_nobody_takes_is_degraded() -> None:
    ward = Ward(FakeCluster())
    ward.queue.answer = Depth(3, 0, START - timedelta(minutes=5))
    health = await ward.look()
    assert health.components.message_queue.status is Status.DEGRADED
    assert health.components.message_queue.consumer_lag == "5m"
    assert health.status is Status.DEGRADED


async def test_control_planes_that_do_not_answer_degrade_and_all_of_them_are_unhealthy() -> None:
    up, down = FakeCluster(make_workspace("ws-1")), FakeCluster(make_workspace("ws-2"))
    down.reached = ClusterState(False, None, "timeout", START, None)
    ward = Ward(up, down)
    health = await ward.look()
    assert health.components.kubernetes_api.status is Status.DEGRADED
    assert "ws-2" in str(health.components.kubernetes_api.reason)
    assert (health.workspaces.active, health.workspaces.issues) == (1, 1)
    up.reached = down.reached
    assert (await ward.look()).components.kubernetes_api.status is Status.UNHEALTHY
    up.reached = down.reached = ClusterState(None, None, "", None, None)
    health = await ward.look()
    assert health.components.kubernetes_api.status is Status.UNKNOWN
    assert health.components.kubernetes_api.version is None


async def test_versions_that_differ_are_no_version() -> None:
    first, second = FakeCluster(make_workspace("ws-1")), FakeCluster(make_workspace("ws-2"))
    second.reached = ClusterState(True, "1.28.3", "", START, 1.0)
    ward = Ward(first, second)
    assert (await ward.look()).components.kubernetes_api.version is None
    assert ward.reasons()["components.kubernetes_api.version"] == "the workspaces' versions differ"


async def test_a_node_that_two_workspaces_share_counts_once() -> None:
    clusters = [FakeCluster(make_workspace(name)) for name in ("ws-1", "ws-2")]
    for cluster in clusters:
        cluster.fake.put(NODE, node("a"))
        cluster.used = UsageSnapshot(START, {}, {"a": NodeUsage(3800.0, 2**30, START)})
    health = await Ward(*clusters).look()
    assert health.components.kubernetes_api.nodes.total == 1
    assert health.resource_usage.cpu_percentage == 100.0


async def test_a_workspace_with_a_critical_finding_has_issues() -> None:
    cluster = FakeCluster()
    cluster.fake.put(DEPLOYMENT, deployment("web", ready=0))
    ward = Ward(cluster)
    assert (await ward.look()).workspaces.issues == 1
    cluster.fake.put(DEPLOYMENT, deployment("web"))
    assert (await ward.look()).workspaces.issues == 0
    by = owner("Deployment", "web", "uid-shop-web")
    cluster.fake.put(POD, pod("web-a", controlled_by=by, waiting="CrashLoopBackOff"))
    assert (await ward.look()).workspaces.issues == 1


@pytest.mark.parametrize("away", [True, False])
async def test_every_null_has_a_reason(away: bool) -> None:
    cluster = FakeCluster()
    ward = Ward(cluster)
    ward.figures.taken = None
    if away:
        ward.database.answer = DependencyUnavailable("database", "away")
        ward.queue.answer = DependencyUnavailable("database", "away")
        cluster.reached = ClusterState(False, None, "away", START, None)
        cluster.fake.set_sync(NODE, Sync.PENDING)
    health = await ward.look()
    assert _nulls(msgspec.to_builtins(health)) == set(ward.reasons())


async def test_the_answer_is_ready_before_it_is_asked_for_and_stays_fresh() -> None:
    ward = Ward(FakeCluster())
    endpoints = HealthEndpoints(ward.board)
    async with ward.board.running(interval=0.001):
        assert bytes(ward.board.reply.encoded or b"") == msgspec.json.encode(ward.board.reply.data)
        first = await endpoints.get_system_health(call_of("system:read"), NoParams(), NoBody())
        assert first.data.status is Status.HEALTHY
        assert await endpoints.get_system_health(call_of("system:read"), NoParams(), NoBody()) is ward.board.reply
        async with asyncio.timeout(5):
            while ward.board.reply is first:
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        ("healthy healthy healthy", "healthy"),
        ("unhealthy healthy healthy", "unhealthy"),
        ("healthy unhealthy healthy", "degraded"),
        ("healthy unknown healthy", "degraded"),
        ("unknown unknown unknown", "unknown"),
    ],
)
def test_the_whole_is_healthy_only_when_every_part_is(statuses: str, whole: str) -> None:
    database, kubernetes, queue = (Status(word) for word in statuses.split())
    assert overall((database, kubernetes, queue)) is Status(whole)


async def test_until_every_workspace_has_been_tried_news_come_in_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    cluster.reached = ClusterState(None, None, "", None, None)
    ward = Ward(cluster)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        cluster.reached = ClusterState(True, "1.36.0", "", START, 1.0)
        if len(pauses) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr("opsapi.health.board.asyncio.sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        await ward.board._keep_fresh(5.0)
    assert pauses == [0.5, 5.0]
