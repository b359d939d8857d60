"""What the reading endpoints say of a live control plane is what kubectl says of it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.applications.identity import Applications
from opsapi.applications.reads import ApplicationReadEndpoints, ApplicationsParams, DetailsParams
from opsapi.kit.endpoint import NoBody
from opsapi.workspaces.access import Feature, check, manifest
from opsapi.workspaces.endpoints import NodesParams, WorkspaceParams
from opsapi.workspaces.model import ClusterAccess
from opsapi.workspaces.objects import KINDS
from opsapi.workspaces.ports import Sync
from support.callers import call_of
from support.inventory import make_workspace
from support.playground_process import PlaygroundProcess, playground
from support.registrations import House

APPLICATIONS = ("deployments", "statefulsets", "daemonsets", "cronjobs")
FEATURES = tuple(Feature)
CALL = ("workspace:read", "application:read")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaygroundProcess]:
    """The demo's world at a standstill, with a service account that holds the printed Roles in `shop` alone."""
    folder = tmp_path_factory.mktemp("playground")
    rights = folder / "rbac.yaml"
    rights.write_text(manifest(FEATURES, namespaces=("shop",)))
    limited = f"opsapi/opsapi={folder / 'limited'}"
    with playground(
        folder, "--world", "demo", "--speed", "0.001", "--manifest", str(rights), "--service-account", limited
    ) as process:
        yield process


def limited_kubeconfig(cluster: PlaygroundProcess) -> Path:
    return cluster.kubeconfig.with_name("limited")


async def until_read(house: House[KubernetesClusters], workspace_id: str) -> None:
    held = house.clusters.find(workspace_id)
    assert held is not None
    deadline = time.monotonic() + 60
    while any(held.inventory.state(kind).sync is Sync.PENDING for kind in KINDS) or held.usage().taken_at is None:
        assert time.monotonic() < deadline, {str(k): held.inventory.state(k) for k in KINDS}
        await asyncio.sleep(0.05)


@pytest.fixture
async def house(cluster: PlaygroundProcess) -> AsyncIterator[House[KubernetesClusters]]:
    clusters = KubernetesClusters(Tuning())
    made = House(clusters)
    read = ClusterAccess(path=str(cluster.kubeconfig))
    scoped = ClusterAccess(path=str(limited_kubeconfig(cluster)))
    await made.registry.start(
        [make_workspace("ws-123", read=read), make_workspace("ws-shop", read=scoped, namespaces=("shop",))]
    )
    try:
        await until_read(made, "ws-123")
        await until_read(made, "ws-shop")
        yield made
    finally:
        await clusters.close_all()


async def test_the_overview_counts_what_kubectl_counts(
    house: House[KubernetesClusters], cluster: PlaygroundProcess
) -> None:
    reply = await house.workspaces.get_workspace_overview(
        call_of(*CALL), WorkspaceParams(workspace_id="ws-123"), NoBody()
    )
    data = reply.data
    listed = {kind: cluster.objects(kind, "-A") for kind in (*APPLICATIONS, "pods", "namespaces", "nodes")}
    assert data.summary.applications.total == sum(len(listed[kind]) for kind in APPLICATIONS)
    stopped = [one for kind in ("deployments", "statefulsets") for one in listed[kind] if one["spec"]["replicas"] == 0]
    stopped += [one for one in listed["cronjobs"] if one["spec"].get("suspend")]
    assert data.summary.applications.stopped == len(stopped)
    assert data.summary.projects.total == len(listed["namespaces"])
    phases = Counter(one["status"]["phase"] for one in listed["pods"])
    pods = data.resource_usage.pods
    assert pods is not None
    assert (pods.running, pods.pending, pods.failed, pods.succeeded) == (
        phases["Running"],
        phases["Pending"],
        phases["Failed"],
        phases["Succeeded"],
    )
    cores = sum(int(one["status"]["capacity"]["cpu"]) for one in listed["nodes"])
    assert data.resource_usage.cpu.total == str(cores)
    assert data.resource_usage.cpu.used is not None
    crashing = {
        status["name"]
        for one in listed["pods"]
        for status in one["status"].get("containerStatuses", ())
        if status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
    }
    assert bool(crashing) == any(issue.type == "crash_loop" for issue in data.health_metrics.issues)
    assert len(msgspec.json.encode(data)) < 8192


async def test_the_nodes_are_those_of_kubectl(house: House[KubernetesClusters], cluster: PlaygroundProcess) -> None:
    reply = await house.workspaces.get_nodes(call_of(*CALL), NodesParams(workspace_id="ws-123"), NoBody())
    listed = {one["metadata"]["name"]: one for one in cluster.objects("nodes")}
    assert reply.data.nodes is not None
    assert {one.name for one in reply.data.nodes} == set(listed)
    bound = Counter(
        one["spec"].get("nodeName")
        for one in cluster.objects("pods", "-A")
        if one["status"]["phase"] not in ("Succeeded", "Failed")
    )
    for shown in reply.data.nodes:
        node = listed[shown.name]
        assert shown.version == node["status"]["nodeInfo"]["kubeletVersion"].removeprefix("v")
        assert shown.usage.pod_count == bound[shown.name]
        assert (shown.status.value == "cordoned") == bool(node["spec"].get("unschedulable"))
        assert len(shown.conditions) == len(node["status"]["conditions"])
        assert shown.usage.cpu_percentage is not None


async def test_every_listed_application_has_details_that_agree_with_kubectl(
    house: House[KubernetesClusters], cluster: PlaygroundProcess
) -> None:
    endpoints = ApplicationReadEndpoints(Applications(house.views))
    call = call_of(*CALL)
    params = ApplicationsParams(workspace_id="ws-shop", kind=None, limit=500)
    listing = await endpoints.list_applications(call, params, NoBody())
    assert {one.project for one in listing.data.applications} == {"shop"}
    deployments: dict[str, Any] = {one["metadata"]["name"]: one for one in cluster.objects("deployments", "-n", "shop")}
    whole = [one async for one in _details(endpoints, [one.name for one in listing.data.applications], house)]
    shown = {one.application.name: one for one in whole if one.application.kind == "Deployment"}
    assert shown.keys() == deployments.keys()
    for name, one in shown.items():
        replicas = one.deployment.replicas
        assert replicas is not None
        assert replicas.desired == deployments[name]["spec"]["replicas"]
        assert replicas.ready == deployments[name]["status"].get("readyReplicas", 0)
        assert sum(pod.ready for pod in one.pods) == replicas.ready


async def _details(
    endpoints: ApplicationReadEndpoints, names: list[str], house: House[KubernetesClusters]
) -> AsyncIterator[Any]:
    """Asked for as somebody who sees only ws-shop: the same objects stand in ws-123 too."""
    call = call_of("workspace:read@ws-shop", "application:read@ws-shop")
    listing = await endpoints.list_applications(call, ApplicationsParams(workspace_id="ws-shop", limit=500), NoBody())
    assert [one.name for one in listing.data.applications] == names
    for one in listing.data.applications:
        reply = await endpoints.get_application_details(call, DetailsParams(application_id=one.id), NoBody())
        yield reply.data


async def test_the_printed_roles_suffice_for_every_feature_in_one_namespace(
    house: House[KubernetesClusters],
) -> None:
    held = house.clusters.find("ws-shop")
    assert held is not None
    report = await check(held, FEATURES)
    assert report.missing == []
    assert report.works == [feature.value for feature in FEATURES]
    reply = await house.workspaces.get_workspace_overview(
        call_of(*CALL), WorkspaceParams(workspace_id="ws-shop"), NoBody()
    )
    assert (reply.data.summary.projects.total, reply.data.summary.projects.active) == (1, 1)
    assert {issue.namespace for issue in reply.data.health_metrics.issues} <= {"shop"}


async def test_roles_for_reading_alone_break_scaling_by_name(
    house: House[KubernetesClusters], cluster: PlaygroundProcess
) -> None:
    held = house.clusters.find("ws-shop")
    assert held is not None
    cluster.kubectl(
        "patch", "role", "opsapi", "-n", "shop", "--type=json", "-p", '[{"op":"replace","path":"/rules","value":[]}]'
    )
    report = await check(held, [Feature.READ, Feature.SCALE])
    assert report.breaks == ["read", "scale"]
    assert ("scale", "patch", "deployments.apps/scale", "shop") in {
        (right.feature, right.verb, right.resource, right.namespace) for right in report.missing
    }
