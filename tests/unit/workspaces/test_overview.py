from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from opsapi.kit.endpoint import NoBody, Reply
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.activity import Activity, Entry
from opsapi.workspaces.endpoints import NodesParams, WorkspaceEndpoints, WorkspaceParams
from opsapi.workspaces.errors import WorkspaceNotFound
from opsapi.workspaces.model import Plan
from opsapi.workspaces.objects import (
    CRON_JOB,
    DEPLOYMENT,
    EVENT,
    FISSION_FUNCTION,
    KNATIVE_SERVICE,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    TEKTON_PIPELINE,
    TEKTON_PIPELINE_RUN,
    CustomObject,
    ObjectMeta,
    ObjectReference,
    ResourceQuota,
    ResourceQuotaSpec,
)
from opsapi.workspaces.overview_model import Overview
from opsapi.workspaces.ports import ClusterState, ContainerUsage, NodeUsage, PodUsage, Sync, UsageSnapshot
from support.callers import call_of
from support.inventory import START, FakeCluster, FakeClusters, make_workspace
from support.objects import (
    container,
    cron_job,
    deployment,
    event,
    namespace,
    node,
    owner,
    pod,
    replica_set,
    workload_meta,
)
from support.registrations import House

ADDONS = (KNATIVE_SERVICE, FISSION_FUNCTION, TEKTON_PIPELINE, TEKTON_PIPELINE_RUN)


def without_addons(cluster: FakeCluster) -> FakeCluster:
    for kind in ADDONS:
        cluster.fake.set_sync(kind, Sync.UNSERVED)
    return cluster


def endpoints_of(cluster: FakeCluster, *sources: "Recorded") -> WorkspaceEndpoints:
    return House(FakeClusters(cluster), *sources).workspaces


async def overview_of(endpoints: WorkspaceEndpoints) -> Reply[Overview]:
    call = call_of("workspace:read@ws-123")
    return await endpoints.get_workspace_overview(call, WorkspaceParams(workspace_id="ws-123"), NoBody())


class Recorded:
    def __init__(self, *entries: Entry) -> None:
        self.entries = entries

    def recent(self, workspace_id: str, limit: int) -> Sequence[Entry]:
        return self.entries[:limit]


def measured(pods: dict[tuple[str, str], tuple[float, int]], nodes: dict[str, tuple[float, int]]) -> UsageSnapshot:
    return UsageSnapshot(
        START,
        {key: PodUsage({"main": ContainerUsage(*used)}, START) for key, used in pods.items()},
        {name: NodeUsage(*used, START) for name, used in nodes.items()},
    )


def populate(cluster: FakeCluster) -> None:
    fake = cluster.fake
    fake.put(NAMESPACE, namespace("shop"), namespace("pay"), namespace("old", "Terminating"))
    fake.put(NODE, *(node(f"n{i}") for i in range(4)))
    fake.put(DEPLOYMENT, deployment("web"), deployment("idle", replicas=0), deployment("sick", ready=0))
    fake.put(CRON_JOB, cron_job("report"))
    fake.put(REPLICA_SET, replica_set("sick-1", controlled_by=owner("Deployment", "sick", "uid-shop-sick")))
    by = owner("ReplicaSet", "sick-1", "uid-shop-sick-1")
    fake.put(POD, pod("web-a"), pod("sick-1-a", controlled_by=by, waiting="CrashLoopBackOff"))
    fake.put(POD, pod("new", phase="Pending", node="", ready=False))


async def test_totals_reconcile_and_what_is_unknown_says_why() -> None:
    cluster = without_addons(FakeCluster())
    populate(cluster)
    gib = 2**30
    cluster.used = measured({("shop", "web-a"): (100.0, gib)}, {f"n{i}": (2125.0, 6 * gib) for i in range(4)})
    reply = await overview_of(endpoints_of(cluster))
    data = reply.data
    counts = data.summary.applications
    assert (counts.total, counts.running, counts.stopped, counts.failed, counts.pending, counts.unknown) == (
        4,
        2,
        1,
        1,
        0,
        0,
    )
    assert (data.summary.projects.total, data.summary.projects.active) == (3, 2)
    cpu, memory = data.resource_usage.cpu, data.resource_usage.memory
    assert (cpu.used, cpu.total, cpu.percentage) == ("8.5", "16", 53.1)
    assert (memory.used, memory.total, memory.percentage) == ("24Gi", "64Gi", 37.5)
    assert data.resource_usage.storage.used is None
    assert data.resource_usage.storage.total == "400Gi"
    pods = data.resource_usage.pods
    assert pods is not None
    assert (pods.running, pods.pending, pods.failed) == (2, 1, 0)
    assert data.health_metrics.overall_score == 92
    assert data.health_metrics.performance_score == 100
    (issue,) = data.health_metrics.issues
    assert (issue.severity, issue.type, issue.component) == ("critical", "crash_loop", "sick")
    assert {partial.field for partial in reply.partial} == {
        "summary.functions",
        "summary.pipelines",
        "resource_usage.storage.used",
        "resource_usage.storage.percentage",
        "health_metrics.availability",
    }
    assert reply.observed_at == START


def _nulls(value: object, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {found for key, held in value.items() for found in _nulls(held, f"{path}.{key}" if path else key)}
    return {path} if value is None else set()


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("plan", list(Plan))
async def test_every_null_has_a_reason(plan: Plan, metrics: bool) -> None:
    cluster = without_addons(FakeCluster(make_workspace(plan=plan)))
    populate(cluster)
    if metrics:
        cluster.used = measured({("shop", "web-a"): (100.0, 2**30)}, {"n0": (100.0, 2**30)})
    cluster.fake.set_sync(NAMESPACE, Sync.FORBIDDEN)
    reply = await overview_of(endpoints_of(cluster))
    nulls = _nulls(msgspec.to_builtins(reply.data))
    assert nulls == {partial.field for partial in reply.partial}
    assert all(partial.reason for partial in reply.partial)


async def test_a_shared_workspace_counts_its_own_pods_against_its_quotas() -> None:
    cluster = without_addons(FakeCluster(make_workspace(plan=Plan.SHARED)))
    populate(cluster)
    for space, cpu in (("shop", "4"), ("pay", "2")):
        quota = ResourceQuota(
            metadata=ObjectMeta(name="q", namespace=space, uid=f"q-{space}"),
            spec=ResourceQuotaSpec(hard={"limits.cpu": cpu, "limits.memory": "8Gi"}),
        )
        cluster.fake.put(RESOURCE_QUOTA, quota)
    used = {("shop", "web-a"): (1500.0, 2**30), ("other", "x"): (9000.0, 2**33)}
    cluster.used = measured(used, {"n0": (4000.0, 2**34)})
    reply = await overview_of(endpoints_of(cluster))
    cpu_figure = reply.data.resource_usage.cpu
    assert (cpu_figure.used, cpu_figure.total, cpu_figure.percentage) == ("1.5", "6", 25.0)
    assert reply.data.resource_usage.memory.total == "16Gi"


async def test_until_pods_have_been_read_the_answer_is_unavailable_and_not_zero() -> None:
    cluster = FakeCluster()
    cluster.fake.set_sync(POD, Sync.PENDING)
    with pytest.raises(DependencyUnavailable) as caught:
        await overview_of(endpoints_of(cluster))
    assert caught.value.retry_after


async def test_a_workspace_that_does_not_answer_is_unreachable_and_its_age_is_told() -> None:
    cluster = without_addons(FakeCluster())
    cluster.reached = ClusterState(False, None, "connection refused", START, None)
    cluster.fake.set_sync(POD, Sync.STALE, "connection refused")
    reply = await overview_of(endpoints_of(cluster))
    assert reply.data.workspace.status == "unreachable"
    assert any(warning.startswith("pods were last confirmed at 2024-01-20T15:30:00Z") for warning in reply.warnings)


async def test_functions_and_pipelines_are_counted_where_served() -> None:
    cluster = FakeCluster()
    fake = cluster.fake
    fake.set_sync(FISSION_FUNCTION, Sync.UNSERVED)

    def function(name: str, ready: str) -> CustomObject:
        return CustomObject(metadata=workload_meta(name), status={"conditions": [{"type": "Ready", "status": ready}]})

    fake.put(KNATIVE_SERVICE, function("hot", "True"), function("cold", "True"), function("broken", "False"))
    fake.put(POD, pod("hot-1", labels={"serving.knative.dev/service": "hot"}))
    fake.put(
        TEKTON_PIPELINE, CustomObject(metadata=workload_meta("build")), CustomObject(metadata=workload_meta("idle"))
    )
    fake.put(
        TEKTON_PIPELINE_RUN,
        CustomObject(
            metadata=workload_meta("build-1"),
            spec={"pipelineRef": {"name": "build"}},
            status={"startTime": "2024-01-20T14:30:00Z", "conditions": [{"type": "Succeeded", "status": "Unknown"}]},
        ),
    )
    summary = (await overview_of(endpoints_of(cluster))).data.summary
    assert summary.functions is not None
    assert (summary.functions.total, summary.functions.active, summary.functions.cold, summary.functions.failed) == (
        3,
        1,
        1,
        1,
    )
    assert summary.pipelines is not None
    assert (summary.pipelines.total, summary.pipelines.active) == (2, 1)
    assert summary.pipelines.last_run == START - timedelta(hours=1)


async def test_activity_names_the_application_and_marks_what_others_wrote() -> None:
    cluster = without_addons(FakeCluster())
    populate(cluster)
    about = ObjectReference(kind="Pod", namespace="shop", name="sick-1-a", uid="uid-shop-sick-1-a")
    scaled = ObjectReference(kind="Deployment", namespace="shop", name="web", uid="uid-shop-web")
    cluster.fake.put(
        EVENT,
        event("e1", scaled, "ScalingReplicaSet", "Scaled up replica set web-1 from 3 to 5", START),
        event("e2", about, "BackOff", "Back-off restarting failed container", START + timedelta(minutes=2), "Warning"),
        event("e3", about, "BackOff", "Back-off restarting failed container", START + timedelta(minutes=1), "Warning"),
        event("e4", about, "Pulled", "Container image already present", START + timedelta(minutes=3)),
    )
    own = Activity(
        timestamp=START + timedelta(seconds=30), type="operation", resource="web", action="scaled", details="by sa-1"
    )
    reply = await overview_of(endpoints_of(cluster, Recorded(Entry(own, untrusted=False))))
    shown = [(a.type, a.resource, a.action) for a in reply.data.recent_activity]
    assert shown == [("alert", "sick", "triggered"), ("operation", "web", "scaled"), ("deployment", "web", "scaled")]
    assert reply.untrusted == ["/recent_activity/0/details", "/recent_activity/2/details"]


async def test_the_overview_of_500_sick_applications_with_long_names_stays_under_8_kib() -> None:
    cluster = FakeCluster(make_workspace(name="w" * 200))
    fake = cluster.fake
    for number in range(500):
        name = f"application-with-a-very-long-name-{'x' * 180}-{number}"
        fake.put(DEPLOYMENT, deployment(name, "n" * 60, ready=0))
        fake.put(
            POD,
            pod(
                f"{name}-pod",
                "n" * 60,
                controlled_by=owner("Deployment", name, f"uid-{'n' * 60}-{name}"),
                waiting="CrashLoopBackOff",
            ),
        )
        about = ObjectReference(kind="Pod", namespace="n" * 60, name=name, uid=name)
        fake.put(
            EVENT, event(f"e{number}", about, "BackOff", '"\u00e9' * 400, START + timedelta(seconds=number), "Warning")
        )
    for kind in ADDONS:
        fake.set_sync(kind, Sync.FORBIDDEN)
    reply = await overview_of(endpoints_of(cluster))
    meta = {"request_id": "r" * 64, "observed_at": reply.observed_at, "partial": reply.partial, "truncated": True}
    whole = {
        "data": reply.data,
        "meta": {**meta, "untrusted": ["/data" + p for p in reply.untrusted], "warnings": reply.warnings},
    }
    assert len(msgspec.json.encode(whole)) < 8192
    assert reply.truncated
    assert reply.data.health_metrics.issues
    assert reply.data.health_metrics.issues_total == 500
    assert reply.data.summary.applications.failed == 500


async def test_the_overview_is_built_again_only_when_something_changed() -> None:
    cluster = without_addons(FakeCluster())
    populate(cluster)
    endpoints = endpoints_of(cluster)
    first = (await overview_of(endpoints)).data
    assert (await overview_of(endpoints)).data is first
    cluster.fake.put(POD, pod("another"))
    again = (await overview_of(endpoints)).data
    assert again is not first
    encoded = (await overview_of(endpoints)).encoded
    assert encoded is not None
    assert bytes(encoded) == msgspec.json.encode(again)
    assert again.resource_usage.pods is not None
    assert first.resource_usage.pods is not None
    assert again.resource_usage.pods.running == first.resource_usage.pods.running + 1


async def test_high_memory_usage_becomes_an_issue_and_says_for_how_long() -> None:
    cluster = without_addons(FakeCluster())
    limited = deployment("database")
    cluster.fake.put(DEPLOYMENT, limited)
    held = pod(
        "database-a",
        controlled_by=owner("Deployment", "database", "uid-shop-database"),
        containers=(container(limits={"memory": "512Mi"}),),
    )
    cluster.fake.put(POD, held)
    endpoints = endpoints_of(cluster)
    for minutes in (0, 10):
        taken = START + timedelta(minutes=minutes)
        usage = PodUsage({"main": ContainerUsage(10.0, 480 * 2**20)}, taken)
        cluster.used = UsageSnapshot(taken, {("shop", "database-a"): usage}, {})
        reply = await overview_of(endpoints)
    (issue,) = reply.data.health_metrics.issues
    assert (issue.severity, issue.type, issue.component) == ("warning", "high_memory_usage", "database")
    assert issue.message == "Memory usage above 90% of the limit in 1 pod for 10 minutes, at most 93.8%"
    assert reply.data.health_metrics.performance_score == 97


async def test_what_the_caller_may_not_see_is_not_found() -> None:
    endpoints = endpoints_of(FakeCluster())
    call = call_of("workspace:read@ws-other")
    with pytest.raises(WorkspaceNotFound):
        await endpoints.get_nodes(call, NodesParams(workspace_id="ws-123"), NoBody())
