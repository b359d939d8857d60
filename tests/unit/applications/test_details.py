from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.applications.details_model import Details
from opsapi.applications.identity import Applications
from opsapi.applications.reads import ApplicationReadEndpoints, DetailsParams
from opsapi.kit.endpoint import NoBody, Reply
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.application_ids import APPLICATION_ID_LABEL
from opsapi.workspaces.objects import (
    CRON_JOB,
    DEPLOYMENT,
    EVENT,
    JOB,
    POD,
    REPLICA_SET,
    SERVICE,
    Container,
    ObjectReference,
    Terminated,
)
from opsapi.workspaces.ports import ContainerUsage, PodUsage, Sync, UsageSnapshot
from opsapi.workspaces.views import Views
from support.callers import call_of
from support.inventory import START, FakeCluster, FakeClusters
from support.objects import container, cron_job, deployment, event, job, owner, pod, replica_set, service

APP = "app-123"
MAIN = container(
    "web-app", requests={"cpu": "100m", "memory": "128Mi"}, limits={"cpu": "500m", "memory": "512Mi"}, probes=True
)
SIDECAR = container("proxy", "envoy:1")
RS = owner("ReplicaSet", "web-app-1", "uid-shop-web-app-1")
TWO_DAYS = START - timedelta(days=2, hours=5)


def a_cluster(*containers: Container, replicas: int = 3, ready: int | None = None) -> FakeCluster:
    cluster = FakeCluster()
    made = deployment(
        "web-app", replicas=replicas, ready=ready, containers=containers or (MAIN,), labels={APPLICATION_ID_LABEL: APP}
    )
    cluster.fake.put(DEPLOYMENT, made)
    cluster.fake.put(
        REPLICA_SET, replica_set("web-app-1", controlled_by=owner("Deployment", "web-app", "uid-shop-web-app"))
    )
    return cluster


def measure(cluster: FakeCluster, **pods: dict[str, tuple[float, int]]) -> None:
    cluster.used = UsageSnapshot(
        START,
        {
            ("shop", name.replace("_", "-")): PodUsage({c: ContainerUsage(*used) for c, used in held.items()}, START)
            for name, held in pods.items()
        },
        {},
    )


async def details_of(cluster: FakeCluster, limit: int = 50, application: str = APP) -> Reply[Details]:
    endpoints = ApplicationReadEndpoints(Applications(Views(FakeClusters(cluster))))
    params = DetailsParams(application_id=application, limit=limit)
    return await endpoints.get_application_details(call_of("application:read@ws-123"), params, NoBody())


async def test_an_application_is_shown_as_the_specification_writes_it() -> None:
    cluster = a_cluster()
    for name in ("a", "b", "c"):
        cluster.fake.put(POD, pod(f"web-app-1-{name}", controlled_by=RS, containers=(MAIN,), created=TWO_DAYS))
    cluster.fake.put(SERVICE, service("web-app-service", {"app": "web-app"}), service("other", {"app": "other"}))
    cluster.fake.put(SERVICE, service("headless", {}), service("elsewhere", {"app": "web-app"}, "pay"))
    usage = {"web-app": (45.2, 187 * 2**20)}
    measure(cluster, web_app_1_a=usage, web_app_1_b=usage, web_app_1_c=usage)
    reply = await details_of(cluster)
    shown = msgspec.to_builtins(reply.data)
    assert shown["application"] == {
        "id": APP,
        "name": "web-app",
        "workspace_id": "ws-123",
        "status": "running",
        "created_at": "2024-01-01T00:00:00Z",
        "kind": "Deployment",
        "project": "shop",
    }
    assert shown["deployment"]["replicas"] == {"desired": 3, "ready": 3, "available": 3, "updated": 3}
    assert (shown["deployment"]["strategy"], shown["deployment"]["image"]) == ("RollingUpdate", "nginx:1.21.6")
    assert shown["deployment"]["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}
    assert shown["pods"][0] == {
        "name": "web-app-1-a",
        "status": "running",
        "ready": True,
        "node": "worker-1",
        "cpu_usage": 45.2,
        "memory_usage": 187,
        "restarts": 0,
        "age": "2d5h",
    }
    (service_shown,) = shown["services"]
    assert (service_shown["name"], service_shown["cluster_ip"]) == ("web-app-service", "10.96.45.123")
    assert service_shown["ports"] == [{"port": 80, "target_port": 8080, "protocol": "TCP"}]
    assert shown["health"]["overall_status"] == "healthy"
    assert shown["health"]["readiness_checks"] == {"passing": 3, "failing": 0}
    assert shown["health"]["liveness_checks"] == {"passing": 3, "failing": 0}
    metrics = shown["metrics"]
    assert (metrics["cpu_usage_percentage"], metrics["memory_usage_percentage"]) == (45.2, 36.5)
    assert (metrics["cpu_usage_percentage_of_limit"], metrics["memory_usage_percentage_of_request"]) == (9.0, 146.1)
    assert {p.field for p in reply.partial} == {
        "metrics.request_rate",
        "metrics.error_rate",
        "metrics.response_time_p95",
    }


def _nulls(value: object, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {found for key, held in value.items() for found in _nulls(held, f"{path}.{key}" if path else key)}
    if isinstance(value, list):
        return {found for held in value for found in _nulls(held, f"{path}[]")}
    return {path} if value is None else set()


async def test_every_null_of_a_bare_application_has_a_reason() -> None:
    bare = container("web-app")
    cluster = a_cluster(bare, replicas=1)
    cluster.fake.put(POD, pod("web-app-1-a", controlled_by=RS, containers=(bare,)))
    reply = await details_of(cluster)
    explained = {partial.field for partial in reply.partial}
    assert _nulls(msgspec.to_builtins(reply.data)) == explained
    assert next(p.reason for p in reply.partial if p.field == "pods[].cpu_usage") == "metrics.k8s.io is not served"


async def test_a_cron_job_has_no_replicas_and_shows_its_jobs_pods() -> None:
    cluster = FakeCluster()
    made = cron_job("report")
    cluster.fake.put(CRON_JOB, made)
    cluster.fake.put(JOB, job("report-1", controlled_by=owner("CronJob", "report", made.metadata.uid)))
    cluster.fake.put(
        POD, pod("report-1-x", phase="Succeeded", controlled_by=owner("Job", "report-1", "uid-shop-report-1"))
    )
    applications = Applications(Views(FakeClusters(cluster)))
    (ref,) = applications.index("ws-123", call_of("workspace:read").caller.grants).after(None)
    reply = await details_of(cluster, application=ref.id)
    assert reply.data.deployment.replicas is None
    assert reply.data.deployment.schedule == "0 * * * *"
    assert [(one.name, one.status) for one in reply.data.pods] == [("report-1-x", "succeeded")]
    assert {"deployment.replicas", "deployment.strategy"} <= {p.field for p in reply.partial}


async def test_the_worst_pods_come_first_and_the_rest_is_counted() -> None:
    cluster = a_cluster(ready=2)
    put = cluster.fake.put
    put(POD, pod("web-app-1-a", controlled_by=RS), pod("web-app-1-b", controlled_by=RS, restarts=4))
    put(POD, pod("web-app-1-c", controlled_by=RS, ready=False))
    last = Terminated(exit_code=1, reason="Error")
    put(POD, pod("web-app-1-d", controlled_by=RS, waiting="CrashLoopBackOff", last=last))
    reply = await details_of(cluster, limit=3)
    assert [one.name[-1] for one in reply.data.pods] == ["d", "c", "b"]
    assert reply.data.pods[0].reason == "CrashLoopBackOff, last exit 1 (Error)"
    assert reply.truncated
    assert reply.data.pods_total == 4
    assert reply.data.health.overall_status == "degraded"


async def test_a_failed_liveness_probe_fails_the_check_for_five_minutes() -> None:
    cluster = a_cluster(replicas=1)
    cluster.fake.put(POD, pod("web-app-1-a", controlled_by=RS, containers=(MAIN,)))
    about = ObjectReference(kind="Pod", namespace="shop", name="web-app-1-a", uid="uid-shop-web-app-1-a")
    cluster.fake.put(EVENT, event("e", about, "Unhealthy", "Liveness probe failed: HTTP 500", START, "Warning"))
    checks = (await details_of(cluster)).data.health.liveness_checks
    assert checks is not None
    assert (checks.passing, checks.failing) == (0, 1)
    cluster.fake.at = START + timedelta(minutes=5)
    checks = (await details_of(cluster)).data.health.liveness_checks
    assert checks is not None
    assert (checks.passing, checks.failing) == (1, 0)


async def test_without_events_liveness_is_not_claimed() -> None:
    cluster = a_cluster(replicas=1)
    cluster.fake.put(POD, pod("web-app-1-a", controlled_by=RS, containers=(MAIN,)))
    cluster.fake.set_sync(EVENT, Sync.FORBIDDEN)
    reply = await details_of(cluster)
    assert reply.data.health.liveness_checks is None
    assert "may not read events" in next(p.reason for p in reply.partial if p.field == "health.liveness_checks")


async def test_until_its_pods_have_been_read_an_application_is_unavailable() -> None:
    cluster = a_cluster()
    cluster.fake.set_sync(POD, Sync.PENDING)
    with pytest.raises(DependencyUnavailable):
        await details_of(cluster)


async def test_a_container_without_a_limit_counts_on_neither_side() -> None:
    cluster = a_cluster(MAIN, SIDECAR, replicas=1)
    cluster.fake.put(POD, pod("web-app-1-a", controlled_by=RS, containers=(MAIN, SIDECAR)))
    measure(cluster, web_app_1_a={"web-app": (50.0, 256 * 2**20), "proxy": (400.0, 2**30)})
    metrics = (await details_of(cluster)).data.metrics
    assert (metrics.cpu_usage_percentage, metrics.memory_usage_percentage) == (50.0, 50.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2**31)), min_size=1, max_size=8))
async def test_the_percentages_come_from_the_pods_shown(loads: list[tuple[int, int]]) -> None:
    cluster = a_cluster(replicas=len(loads))
    usages = {}
    for number, (cpu, memory) in enumerate(loads):
        cluster.fake.put(POD, pod(f"web-app-1-{number}", controlled_by=RS, containers=(MAIN,)))
        usages[f"web_app_1_{number}"] = {"web-app": (float(cpu), memory)}
    measure(cluster, **usages)
    data = (await details_of(cluster)).data
    shown = sum(one.cpu_usage or 0 for one in data.pods)
    assert data.metrics.cpu_usage_percentage == pytest.approx(shown / (100 * len(loads)) * 100, abs=0.06)
    mebibytes = sum(one.memory_usage or 0 for one in data.pods)
    assert data.metrics.memory_usage_percentage == pytest.approx(mebibytes / (512 * len(loads)) * 100, abs=0.2)
