"""Over random clusters: what an overview says adds up."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.kit.endpoint import NoBody
from opsapi.kit.quantity import parse_quantity
from opsapi.workspaces.endpoints import WorkspaceParams
from opsapi.workspaces.findings import DEDUCTIONS, FindingType
from opsapi.workspaces.model import Plan
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    NAMESPACE,
    NODE,
    POD,
    RESOURCE_QUOTA,
    ResourceQuota,
    ResourceQuotaSpec,
)
from opsapi.workspaces.overview_model import Overview, ResourceFigure
from opsapi.workspaces.ports import ContainerUsage, NodeUsage, PodUsage, UsageSnapshot
from support.callers import call_of
from support.inventory import START, FakeCluster, FakeClusters, make_workspace
from support.objects import container, deployment, meta, namespace, node, owner, pod
from support.registrations import House

_cpu = st.integers(0, 64_000)
_memory = st.integers(0, 2**38)
_spaces = st.sampled_from(("shop", "pay", "ops"))


@st.composite
def clusters(draw: st.DrawFn) -> FakeCluster:
    plan = draw(st.sampled_from(list(Plan)))
    scope = draw(st.sampled_from(((), ("shop",), ("shop", "pay"))))
    cluster = FakeCluster(make_workspace(plan=plan, namespaces=scope))
    fake, within = cluster.fake, scope or ("shop", "pay", "ops")
    for name in within:
        fake.put(NAMESPACE, namespace(name, draw(st.sampled_from(("Active", "Terminating")))))
        if draw(st.booleans()):
            hard = {
                "limits.cpu": f"{draw(st.integers(1, 64_000))}m",
                "requests.memory": str(draw(st.integers(1, 2**40))),
            }
            fake.put(RESOURCE_QUOTA, ResourceQuota(metadata=meta("quota", name), spec=ResourceQuotaSpec(hard=hard)))
    nodes = {}
    for number in range(draw(st.integers(0, 4))):
        room = {"cpu": f"{draw(st.integers(1, 64_000))}m", "memory": str(draw(st.integers(1, 2**40)))}
        ready = draw(st.sampled_from(("True", "True", "False")))
        fake.put(NODE, node(f"n{number}", ready=ready, capacity=room, allocatable=room))
        nodes[f"n{number}"] = NodeUsage(float(draw(_cpu)), draw(_memory), START)
    pods = {}
    for number in range(draw(st.integers(0, 8))):
        space = draw(st.sampled_from(within))
        wanted, ready_pods = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        fake.put(DEPLOYMENT, deployment(f"d{number}", space, replicas=wanted, ready=min(wanted, ready_pods)))
        made = pod(
            f"d{number}-x",
            space,
            controlled_by=owner("Deployment", f"d{number}", f"uid-{space}-d{number}"),
            phase=draw(st.sampled_from(("Running", "Pending", "Failed", "Succeeded"))),
            waiting=draw(st.sampled_from(("", "CrashLoopBackOff", "ImagePullBackOff"))),
            containers=(container(requests={"cpu": "250m", "memory": "1Gi"}, limits={"memory": "2Gi"}),),
        )
        fake.put(POD, made)
        pods[(space, f"d{number}-x")] = PodUsage({"main": ContainerUsage(float(draw(_cpu)), draw(_memory))}, START)
    if draw(st.booleans()):
        cluster.used = UsageSnapshot(START, pods, nodes)
    return cluster


async def overview_of(cluster: FakeCluster) -> Overview:
    endpoints = House(FakeClusters(cluster)).workspaces
    call = call_of("workspace:read")
    reply = await endpoints.get_workspace_overview(call, WorkspaceParams(workspace_id="ws-123"), NoBody())
    assert {partial.field for partial in reply.partial} >= nulls(msgspec.to_builtins(reply.data))
    return reply.data


def nulls(value: object, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {found for key, held in value.items() for found in nulls(held, f"{path}.{key}" if path else key)}
    return {path} if value is None else set()


def reconciles(figure: ResourceFigure) -> None:
    """The percentage is that of the quantities shown, as far as their one decimal tells."""
    if figure.used is None or figure.total is None or figure.percentage is None:
        assert figure.percentage is None or (figure.used is not None and figure.total is not None)
        return
    used, total = float(parse_quantity(figure.used)), float(parse_quantity(figure.total))
    if total:
        expected = used / total * 100
        assert figure.percentage == pytest.approx(expected, rel=0.11, abs=0.06)


@settings(deadline=None, max_examples=150)
@given(clusters())
async def test_an_overview_adds_up(cluster: FakeCluster) -> None:
    data = await overview_of(cluster)
    counts = data.summary.applications
    states = msgspec.to_builtins(counts)
    assert states.pop("total") == sum(states.values())
    assert counts.total == len(cluster.fake.objects.get(DEPLOYMENT, {}))
    pods = data.resource_usage.pods
    assert pods is not None
    assert sum(msgspec.to_builtins(pods).values()) == len(cluster.fake.objects.get(POD, {}))
    projects = data.summary.projects
    assert projects.total is not None
    assert projects.active is not None
    assert 0 <= projects.active <= projects.total
    for figure in (data.resource_usage.cpu, data.resource_usage.memory, data.resource_usage.storage):
        reconciles(figure)


@settings(deadline=None, max_examples=100)
@given(clusters())
async def test_the_score_is_what_the_issues_cost(cluster: FakeCluster) -> None:
    health = (await overview_of(cluster)).health_metrics
    assert health.issues_total is not msgspec.UNSET
    if health.issues_total > len(health.issues):
        return
    lost: dict[FindingType, int] = {}
    for issue in health.issues:
        kind = FindingType(issue.type)
        lost[kind] = min(lost.get(kind, 0) + DEDUCTIONS[kind].points, DEDUCTIONS[kind].cap)
        assert issue.severity == DEDUCTIONS[kind].severity
    assert health.overall_score == max(0, 100 - sum(lost.values()))
    ranks = [["critical", "warning", "info"].index(issue.severity) for issue in health.issues]
    assert ranks == sorted(ranks)
