"""The adapter against the playground's API server: what real kubectl talks to, the service follows and writes to."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from opsapi.adapters.kubernetes import KubernetesClusters, Tuning
from opsapi.applications.errors import OutcomeUnknown, TargetGone, WriteConflict, WriteRefused
from opsapi.applications.ports import OPERATION_ANNOTATION, AutoscalerBounds, WorkloadRef, WrittenEvent
from opsapi.kit.errors import DependencyUnavailable
from opsapi.playground.api.faults import ApiFault, FaultMode
from opsapi.playground.registry import User
from opsapi.workspaces.errors import UnusableKubeconfig
from opsapi.workspaces.model import Plan
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    EVENT,
    NAMESPACE,
    NODE,
    POD,
    TEKTON_PIPELINE,
    Event,
    KubernetesObject,
    Workload,
)
from opsapi.workspaces.ports import AccessRule, Sync
from support.cluster import ApiHandle, running_api
from support.inventory import START
from support.leaping import until
from support.live import LOOPBACK, Admin, Live, administrating, deployment, inline, living

DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"


@pytest.fixture
async def api() -> AsyncIterator[ApiHandle]:
    tokens = {"limited": User("limited"), "nobody": User("nobody")}
    async with running_api(tokens=tokens) as handle:
        yield handle


@pytest.fixture
async def admin(api: ApiHandle) -> AsyncIterator[Admin]:
    async with administrating(api) as one:
        await one.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        await one.create(DEPLOYMENTS, deployment())
        yield one


@pytest.fixture
async def live(api: ApiHandle, admin: Admin) -> AsyncIterator[Live]:
    async with living(inline(api.kubeconfig())) as one:
        yield one


async def ref(admin: Admin, name: str = "web") -> WorkloadRef:
    held = await admin.ask("GET", f"{DEPLOYMENTS}/{name}")
    return WorkloadRef("ws-live", DEPLOYMENT, "shop", name, held["metadata"]["uid"])


# following


async def test_every_kind_is_followed_and_what_is_not_served_is_said(live: Live, admin: Admin) -> None:
    await live.until_synced()
    held = live.cluster.cache.get(DEPLOYMENT, Workload, "shop", "web")
    assert held is not None
    assert held.spec.replicas == 3
    await until(lambda: live.cluster.cache.state(TEKTON_PIPELINE).sync is Sync.UNSERVED)
    await until(lambda: live.cluster.state().reachable, "the probe")
    assert live.cluster.state().version
    usage = live.cluster.usage()
    assert usage.pods is None
    assert "metrics" in usage.reason


async def test_each_difference_reaches_subscribers_with_old_and_new(live: Live, admin: Admin, api: ApiHandle) -> None:
    """Also those that happened unseen, while the API server was away and its history was lost."""
    await live.until_synced()
    seen: list[tuple[int | None, int | None, str, str]] = []

    def told(kind: object, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        if isinstance(old, Workload) and isinstance(new, Workload) and kind == DEPLOYMENT:
            images = [one.spec.template.spec.containers[0].image for one in (old, new)]
            seen.append((old.spec.replicas, new.spec.replicas, *images))  # type: ignore[arg-type]

    live.cluster.cache.subscribe(told)
    await admin.merge(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 5}})
    await until(lambda: (3, 5, "nginx:1.27", "nginx:1.27") in seen)
    away = api.faults.add(ApiFault(FaultMode.AWAY, path="/apis/apps/v1/deployments"))
    cut = api.faults.add(ApiFault(FaultMode.WATCH_CUT, resource="deployments"))
    await admin.merge(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 6}})  # ends the watch
    body = deployment(image="nginx:2.0")["spec"] | {"replicas": 7}
    await admin.merge(f"{DEPLOYMENTS}/web", {"spec": body})
    api.faults.remove(cut)
    api.faults.remove(away)
    api.faults.add(ApiFault(FaultMode.GONE, count=1, resource="deployments"))
    await until(lambda: seen and seen[-1][1::2] == (7, "nginx:2.0"))
    for before, after in pairwise(seen):
        assert before[1::2] == after[0::2], "each old is the new of before"


@pytest.mark.parametrize(
    "fault",
    [
        ApiFault(FaultMode.AWAY, count=8),
        ApiFault(FaultMode.THROTTLED, count=5, retry_after=0),
        ApiFault(FaultMode.ERROR, count=8),
        ApiFault(FaultMode.WATCH_CUT, count=8, after_events=1),
        ApiFault(FaultMode.WATCH_CUT, count=8, mid_line=True),
        ApiFault(FaultMode.GONE, count=8),
        ApiFault(FaultMode.GONE_IN_STREAM, count=8),
        ApiFault(FaultMode.SLOW, count=8, delay_ms=50),
    ],
    ids=lambda fault: f"{fault.mode}{' mid-line' if fault.mid_line else ''}",
)
async def test_the_cache_gets_over_every_fault_of_the_api_server(api: ApiHandle, admin: Admin, fault: ApiFault) -> None:
    held = api.faults.add(fault)
    held.path = "/apis/apps/v1/deployments"
    async with living(inline(api.kubeconfig())) as live:
        for number in range(6):
            await admin.create(DEPLOYMENTS, deployment(f"more-{number}", number))
            await asyncio.sleep(0)
        await admin.delete(f"{DEPLOYMENTS}/more-3")
        await until(lambda: api.faults.hits.get(fault.mode, 0) > 0, "the fault hits")
        await until(lambda: _names(live) == {"web", *(f"more-{n}" for n in (0, 1, 2, 4, 5))}, "equal again", seconds=20)


def _names(live: Live) -> set[str]:
    return {one.metadata.name for one in live.cluster.cache.all(DEPLOYMENT, Workload, "shop")}


async def test_403_on_one_kind_lets_the_others_go_on(api: ApiHandle, admin: Admin) -> None:
    api.faults.add(ApiFault(FaultMode.FORBIDDEN, resource="events"))
    async with living(inline(api.kubeconfig())) as live:
        await live.until_synced(POD, DEPLOYMENT, NODE)
        await until(lambda: live.cluster.cache.state(EVENT).sync is Sync.FORBIDDEN)
        assert live.cluster.cache.require(EVENT, DEPLOYMENT)


async def test_before_the_first_sync_reading_is_refused_with_the_reason(api: ApiHandle, admin: Admin) -> None:
    api.faults.add(ApiFault(FaultMode.ERROR, resource="pods"))
    async with living(inline(api.kubeconfig())) as live:
        await live.until_synced(DEPLOYMENT)
        await until(lambda: "read yet" not in live.cluster.cache.state(POD).reason)
        with pytest.raises(DependencyUnavailable) as caught:
            live.cluster.cache.require(DEPLOYMENT, POD)
        assert "pods" in caught.value.message
        assert caught.value.retry_after


LIMITED_ROLE: dict[str, Any] = {
    "metadata": {"name": "reader"},
    "rules": [
        {"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    ],
}


async def _grant(admin: Admin, namespace: str) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    await admin.create(f"{rbac}/roles", LIMITED_ROLE)
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "limited"}],
    }
    await admin.create(f"{rbac}/rolebindings", binding)


async def test_a_workspace_of_some_namespaces_lives_on_roles_alone(api: ApiHandle, admin: Admin) -> None:
    await admin.create("/api/v1/namespaces", {"metadata": {"name": "bank"}})
    await admin.create("/apis/apps/v1/namespaces/bank/deployments", deployment("secret"))
    await _grant(admin, "shop")
    access = inline(api.kubeconfig("limited"))
    async with living(access, namespaces=("shop",), plan=Plan.SHARED) as live:
        await live.until_synced(POD, DEPLOYMENT, NAMESPACE)
        cache = live.cluster.cache
        assert [one.metadata.name for one in cache.all(DEPLOYMENT, Workload)] == ["web"]
        assert cache.state(NODE).sync is Sync.FORBIDDEN
        assert "shared" in cache.state(NODE).reason
        await until(lambda: cache.state(EVENT).sync is Sync.FORBIDDEN)
        await admin.merge(f"{DEPLOYMENTS}/web", {"spec": {"replicas": 9}})
        await until(lambda: [one.spec.replicas for one in cache.all(DEPLOYMENT, Workload)] == [9])


async def test_one_namespace_without_rights_makes_the_kind_forbidden(api: ApiHandle, admin: Admin) -> None:
    await admin.create("/api/v1/namespaces", {"metadata": {"name": "bank"}})
    await _grant(admin, "shop")
    async with living(inline(api.kubeconfig("limited")), namespaces=("shop", "bank")) as live:
        await until(lambda: live.cluster.cache.state(POD).sync is Sync.FORBIDDEN)
        assert "bank" in live.cluster.cache.state(POD).reason


async def test_reviews_ask_the_cluster_verb_by_verb(api: ApiHandle, admin: Admin) -> None:
    await _grant(admin, "shop")
    rules = [
        AccessRule("apps", "deployments", ("get", "list"), True, "read"),
        AccessRule("apps", "deployments/scale", ("patch",), True, "scale"),
        AccessRule("", "nodes", ("list",), False, "read"),
    ]
    async with living(inline(api.kubeconfig("limited")), namespaces=("shop",)) as live:
        verdicts = await live.cluster.review(rules, acting=False)
        assert [(one.rule.resource, one.verb, one.namespace, one.allowed) for one in verdicts] == [
            ("deployments", "get", "shop", True),
            ("deployments", "list", "shop", True),
            ("deployments/scale", "patch", "shop", False),
            ("nodes", "list", "", False),
        ]
        api.faults.add(ApiFault(FaultMode.AWAY))
        with pytest.raises(DependencyUnavailable):
            await live.cluster.review(rules, acting=True)


async def test_an_uploaded_kubeconfig_is_checked_and_then_followed_over_tls() -> None:
    async with running_api(tls=True) as api:
        refusing = KubernetesClusters()
        kubeconfig = msgspec.yaml.encode(api.kubeconfig()).decode()
        with pytest.raises(UnusableKubeconfig):
            await refusing.check_upload(kubeconfig, "")
        access = await KubernetesClusters(LOOPBACK).check_upload(kubeconfig, "")
        async with living(access) as live:
            await live.until_synced()
            await until(lambda: live.cluster.state().reachable)
        async with living(access, tuning=Tuning()) as guarded:
            await until(lambda: guarded.cluster.state().reachable is False)
            assert "public address" in guarded.cluster.state().reason


async def test_closing_ends_every_task_and_opening_is_idempotent(api: ApiHandle, admin: Admin) -> None:
    before = asyncio.all_tasks()
    async with living(inline(api.kubeconfig())) as live:
        await live.until_synced()
        assert await live.clusters.open(live.cluster.workspace) is live.cluster
        assert live.clusters.find("ws-live") is live.cluster
        ours = asyncio.all_tasks() - before
        assert len(ours) >= 20
        await live.clusters.close("ws-live")
        assert live.clusters.find("ws-live") is None
        await until(lambda: not {task for task in ours if not task.done()})


# writing


async def test_scale_writes_what_was_asked_under_the_version_seen(live: Live, admin: Admin) -> None:
    target = await ref(admin)
    seen = await live.workloads.read_scale(target)
    assert (seen.desired, seen.uid) == (3, target.uid)
    written = await live.workloads.write_scale(target, 5, resource_version=seen.resource_version)
    assert written.desired == 5
    held = await live.workloads.read_workload(target)
    assert held.spec.replicas == 5
    assert any(one.manager == "opsapi" and one.subresource == "scale" for one in held.metadata.managed_fields)
    with pytest.raises(WriteConflict):
        await live.workloads.write_scale(target, 6, resource_version=seen.resource_version)


async def test_a_dry_run_is_checked_and_forgotten(live: Live, admin: Admin) -> None:
    target = await ref(admin)
    seen = await live.workloads.read_scale(target)
    tried = await live.workloads.write_scale(target, 9, resource_version=seen.resource_version, dry_run=True)
    assert tried.desired == 9
    assert await live.workloads.read_scale(target) == seen
    with pytest.raises(WriteRefused) as caught:
        await live.workloads.write_scale(target, -1, resource_version=seen.resource_version, dry_run=True)
    assert caught.value.reason == "Invalid"


async def test_a_namesake_is_never_written_to(live: Live, admin: Admin) -> None:
    old = await ref(admin)
    await admin.delete(f"{DEPLOYMENTS}/web")
    with pytest.raises(TargetGone):
        await live.workloads.read_scale(old)
    await admin.create(DEPLOYMENTS, deployment())
    new = await ref(admin)
    current = await live.workloads.read_scale(new)
    with pytest.raises(WriteConflict):
        await live.workloads.read_workload(old)
    with pytest.raises(WriteConflict):
        await live.workloads.write_scale(old, 9, resource_version=current.resource_version)
    assert (await live.workloads.read_scale(new)).desired == 3


async def test_without_the_right_a_write_is_refused_in_the_clusters_words(api: ApiHandle, admin: Admin) -> None:
    target = await ref(admin)
    act = inline(api.kubeconfig("nobody"))
    async with living(inline(api.kubeconfig()), act=act) as live:
        with pytest.raises(WriteRefused) as caught:
            await live.workloads.read_scale(target)
        assert caught.value.reason == "Forbidden"
        assert "nobody" in caught.value.message


async def test_an_autoscaler_is_created_once_and_edited_with_care(live: Live, admin: Admin) -> None:
    target = await ref(admin)
    bounds = AutoscalerBounds(2, 6, 70, 120)
    assert await live.workloads.find_autoscaler(target) is None
    dry = await live.workloads.write_autoscaler(target, bounds, existing=None, operation_id="op-1", dry_run=True)
    assert dry.spec.max_replicas == 6
    assert await live.workloads.find_autoscaler(target) is None
    made = await live.workloads.write_autoscaler(target, bounds, existing=None, operation_id="op-1")
    assert made.metadata.name == "web"
    assert made.metadata.annotations[OPERATION_ANNOTATION] == "op-1"
    again = await live.workloads.write_autoscaler(target, bounds, existing=None, operation_id="op-1")
    assert again.metadata.uid == made.metadata.uid
    with pytest.raises(WriteConflict):
        await live.workloads.write_autoscaler(target, bounds, existing=None, operation_id="op-2")

    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    }
    raw = await admin.ask("GET", f"{AUTOSCALERS}/web")
    await admin.merge(f"{AUTOSCALERS}/web", {"spec": {"metrics": [*raw["spec"]["metrics"], memory]}})
    with pytest.raises(WriteConflict):
        await live.workloads.write_autoscaler(target, bounds, existing=made, operation_id="op-3")
    found = await live.workloads.find_autoscaler(target)
    assert found is not None
    edited = await live.workloads.write_autoscaler(
        target, AutoscalerBounds(3, 9, 55), existing=found, operation_id="op-3"
    )
    assert (edited.spec.min_replicas, edited.spec.max_replicas) == (3, 9)
    raw = await admin.ask("GET", f"{AUTOSCALERS}/web")
    targets = {one["resource"]["name"]: one["resource"]["target"] for one in raw["spec"]["metrics"]}
    assert targets["cpu"]["averageUtilization"] == 55
    assert targets["memory"]["averageValue"] == "1Gi"
    assert raw["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 120


async def test_an_autoscaler_of_another_group_is_not_ours(live: Live, admin: Admin) -> None:
    spec = {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "example.com/v1", "kind": "Deployment", "name": "web"}}
    await admin.create(AUTOSCALERS, {"metadata": {"name": "theirs"}, "spec": spec})
    assert await live.workloads.find_autoscaler(await ref(admin)) is None


async def test_an_event_names_operation_and_account_and_is_written_once(live: Live, admin: Admin) -> None:
    target = await ref(admin)
    event = WrittenEvent("ScaledByOpsapi", "Scaled from 3 to 5 by agent-1 (operation op-1)", "scale")
    await live.workloads.write_event(target, event, operation_id="op-1", at=START)
    await live.workloads.write_event(target, event, operation_id="op-1", at=START)
    await live.until_synced(EVENT)
    await until(lambda: _events(live))
    (one,) = _events(live)
    assert (one.involved_object.uid, one.message) == (target.uid, event.message)
    assert one.seen_at == START


def _events(live: Live) -> list[Event]:
    return [one for one in live.cluster.cache.all(EVENT, Event, "shop") if one.reason == "ScaledByOpsapi"]


async def test_a_write_without_an_answer_is_neither_repeated_nor_guessed(
    live: Live, admin: Admin, api: ApiHandle
) -> None:
    target = await ref(admin)
    seen = await live.workloads.read_scale(target)
    api.faults.add(ApiFault(FaultMode.AWAY, count=1, verb="patch"))
    with pytest.raises(OutcomeUnknown):
        await live.workloads.write_scale(target, 5, resource_version=seen.resource_version)
    assert api.faults.hits[FaultMode.AWAY] == 1
    api.faults.add(ApiFault(FaultMode.AWAY, count=1, verb="patch"))
    with pytest.raises(DependencyUnavailable) as caught:
        await live.workloads.write_scale(target, 5, resource_version=seen.resource_version, dry_run=True)
    assert not isinstance(caught.value, OutcomeUnknown)
    api.faults.add(ApiFault(FaultMode.THROTTLED, count=1, verb="patch", retry_after=7))
    with pytest.raises(DependencyUnavailable) as caught:
        await live.workloads.write_scale(target, 5, resource_version=seen.resource_version)
    assert caught.value.retry_after == 7
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_a_server_that_cannot_be_reached_changed_nothing(live: Live, admin: Admin, api: ApiHandle) -> None:
    target = await ref(admin)
    await live.workloads.read_scale(target)
    api.faults.add(ApiFault(FaultMode.AWAY))
    with pytest.raises(DependencyUnavailable) as caught:
        await live.workloads.read_scale(target)
    assert not isinstance(caught.value, OutcomeUnknown)
    with pytest.raises(DependencyUnavailable):
        await live.workloads.read_workload(WorkloadRef("ws-unknown", DEPLOYMENT, "shop", "web", "u"))
