"""Each refusal of scaling: named, with what may be done instead, and nothing begun or written."""

from collections.abc import Callable

import msgspec
import pytest

from opsapi.applications.errors import AutoscalerConflict, ManagedExternally, ProtectedNamespace, QuotaExceeded
from opsapi.applications.scaling_model import AutoScaleConfig
from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import (
    AmbiguousResource,
    DependencyUnavailable,
    InvalidState,
    OpsError,
    PolicyDenied,
    PolicyRule,
    ResourceNotFound,
    ValidationFailed,
)
from opsapi.policy.model import CapacityRule, PolicySettings, Waiver
from opsapi.workspaces.model import Mode, Plan
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    NAMESPACE,
    RESOURCE_QUOTA,
    SCALED_OBJECT,
    CustomObject,
    Namespace,
    NodeSpec,
    ObjectMeta,
    OwnerReference,
    ResourceQuota,
    ResourceQuotaSpec,
    ResourceQuotaStatus,
    Taint,
    WorkloadMeta,
)
from opsapi.workspaces.ports import ClusterState, Sync
from support.acting import make_call, make_caller
from support.scaling import Stage, make_node
from support.workloads import make_autoscaler, make_deployment


async def refused(stage: Stage, kind: type[OpsError], replicas: int = 5, **more: object) -> OpsError:
    """The error, after making sure that nothing came of the call."""
    with pytest.raises(kind) as raised:
        await stage.scale(replicas, **more)  # type: ignore[arg-type]
    assert await stage.untouched()
    return raised.value


def rule_of(error: OpsError) -> str:
    assert isinstance(error, PolicyDenied)
    details = msgspec.to_builtins(error.details)
    assert details["alternatives"]
    return str(details["rule"])


@pytest.mark.parametrize(
    ("mode", "rule"),
    [(Mode.OBSERVE, PolicyRule.WORKSPACE_OBSERVES), (Mode.PROPOSE, PolicyRule.WORKSPACE_PROPOSES)],
)
async def test_only_a_workspace_in_act_mode_is_changed(stage: Stage, mode: Mode, rule: PolicyRule) -> None:
    stage.arrange(mode=mode)
    assert rule_of(await refused(stage, PolicyDenied)) == rule


async def test_a_proposing_workspace_still_plans_with_the_servers_word(stage: Stage) -> None:
    stage.arrange(mode=Mode.PROPOSE)
    reply = await stage.scale(5, dry_run=True)
    assert reply.data.plan is not msgspec.UNSET
    assert not reply.data.plan.allowed
    assert [r.details["rule"] for r in reply.data.plan.refusals] == ["workspace_mode_propose"]
    assert [o.accepted for o in reply.data.plan.objects] == [True]


async def test_an_observing_workspace_plans_without_sending_a_write_verb(stage: Stage) -> None:
    stage.arrange(mode=Mode.OBSERVE)
    reply = await stage.scale(5, dry_run=True)
    assert reply.data.plan is not msgspec.UNSET
    assert [(o.accepted, o.reason is not None) for o in reply.data.plan.objects] == [(None, True)]
    assert stage.workloads.dry_runs == 0


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "platform-dns"])
async def test_system_and_configured_namespaces_are_never_operated_on(stage: Stage, namespace: str) -> None:
    stage.policy = PolicySettings(protected_namespaces=("platform-*",))
    stage.arrange()
    stage.workloads.put(make_deployment("coredns", namespace))
    await refused(stage, ProtectedNamespace, name="coredns")
    await refused(stage, ProtectedNamespace, name="coredns", project=namespace)
    await refused(stage, ProtectedNamespace, name="coredns", project=namespace, dry_run=True)


async def test_a_name_in_two_namespaces_must_be_chosen_by_project(stage: Stage) -> None:
    stage.workloads.put(make_deployment("web", "blog"))
    error = await refused(stage, AmbiguousResource)
    assert msgspec.to_builtins(error.details)["candidates"] == ["blog", "shop"]
    assert msgspec.to_builtins(error.details)["choose_by"] == "project"
    assert (await stage.scale(5, project="blog")).data.project == "blog"


async def test_a_namesake_in_a_system_namespace_makes_nothing_ambiguous(stage: Stage) -> None:
    stage.workloads.put(make_deployment("web", "kube-system"))
    assert (await stage.scale(5)).data.project == "shop"


async def test_what_is_not_there_is_not_found(stage: Stage) -> None:
    await refused(stage, ResourceNotFound, name="absent")
    await refused(stage, ResourceNotFound, project="blog")


async def test_an_unknown_workspace_is_not_found(stage: Stage) -> None:
    await stage.clusters.close("ws-123")
    await refused(stage, ResourceNotFound)


async def test_a_namespace_outside_the_workspaces_scope_is_not_found(stage: Stage) -> None:
    stage.arrange(mode=Mode.ACT, namespaces=("blog",))
    await refused(stage, ResourceNotFound)


async def test_what_was_deleted_since_the_cache_saw_it_is_not_found(stage: Stage) -> None:
    del stage.workloads.deployments[("shop", "web")]
    await refused(stage, ResourceNotFound)


async def test_what_was_replaced_since_the_cache_saw_it_must_be_looked_at_again(stage: Stage) -> None:
    stage.workloads.deployments[("shop", "web")] = make_deployment(uid="uid-other")
    assert (await refused(stage, DependencyUnavailable)).retry_after == 1


@pytest.mark.parametrize("name", ["../kube-system", "a/b", "Web", "web_1", "-web", "w" * 254, "web\x00", "web..x"])
async def test_names_that_no_object_can_have_are_refused(stage: Stage, name: str) -> None:
    error = await refused(stage, ValidationFailed, name=name)
    assert list(msgspec.to_builtins(error.details)["fields"]) == ["deployment_name"]


async def test_a_project_that_no_namespace_can_be_is_refused(stage: Stage) -> None:
    await refused(stage, ValidationFailed, project="shop.x")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (AutoScaleConfig(min_replicas=5, max_replicas=4), "auto_scale_config.min_replicas"),
        (
            AutoScaleConfig(min_replicas=1, max_replicas=4, scale_down_delay="soon"),
            "auto_scale_config.scale_down_delay",
        ),
        (AutoScaleConfig(min_replicas=1, max_replicas=4, scale_down_delay="2h"), "auto_scale_config.scale_down_delay"),
    ],
)
async def test_bounds_that_do_not_go_together_are_refused(stage: Stage, config: AutoScaleConfig, field: str) -> None:
    error = await refused(stage, ValidationFailed, auto_scale_config=config)
    assert list(msgspec.to_builtins(error.details)["fields"]) == [field]


async def test_a_deployment_of_an_autoscaler_is_left_to_it(stage: Stage) -> None:
    stage.workloads.put(make_autoscaler(low=2, high=4, name="web-hpa"))
    details = msgspec.to_builtins((await refused(stage, AutoscalerConflict)).details)
    assert (details["autoscaler_kind"], details["autoscaler"]) == ("HorizontalPodAutoscaler", "web-hpa")
    assert (details["min_replicas"], details["max_replicas"]) == (2, 4)
    assert "auto_scale_config" in details["alternatives"][0]
    await refused(stage, AutoscalerConflict, dry_run=True)


def scaled_object(target: dict[str, str]) -> CustomObject:
    meta = WorkloadMeta(name="web-keda", namespace="shop", uid="uid-keda")
    return CustomObject(metadata=meta, spec={"scaleTargetRef": target, "minReplicaCount": 1, "maxReplicaCount": 9})


@pytest.mark.parametrize("target", [{"name": "web"}, {"name": "web", "kind": "Deployment"}])
async def test_kedas_deployment_is_left_to_its_scaled_object_even_with_bounds(
    stage: Stage, target: dict[str, str]
) -> None:
    stage.inventory.put(SCALED_OBJECT, scaled_object(target))
    stage.workloads.put(make_autoscaler(name="keda-hpa-web"))
    config = AutoScaleConfig(min_replicas=1, max_replicas=4)
    details = msgspec.to_builtins((await refused(stage, AutoscalerConflict, 3, auto_scale_config=config)).details)
    assert (details["autoscaler_kind"], details["autoscaler"], details["max_replicas"]) == (
        "ScaledObject",
        "web-keda",
        9,
    )


async def test_a_scaled_object_of_another_kind_says_nothing_about_the_deployment(stage: Stage) -> None:
    stage.inventory.put(SCALED_OBJECT, scaled_object({"name": "web", "kind": "StatefulSet"}))
    assert (await stage.scale(5)).status == 202


async def test_keda_is_known_by_its_autoscaler_where_scaled_objects_cannot_be_read(stage: Stage) -> None:
    stage.inventory.set_sync(SCALED_OBJECT, Sync.FORBIDDEN)
    owner = OwnerReference(kind="ScaledObject", name="web-keda", uid="uid-keda", controller=True)
    meta = WorkloadMeta(name="keda-hpa-web", namespace="shop", uid="uid-h", owner_references=(owner,))
    stage.workloads.put(make_autoscaler(meta=meta))
    config = AutoScaleConfig(min_replicas=1, max_replicas=4)
    error = await refused(stage, AutoscalerConflict, 3, auto_scale_config=config)
    assert msgspec.to_builtins(error.details)["autoscaler"] == "web-keda"


@pytest.mark.parametrize(
    ("labels", "annotations", "manager", "source"),
    [
        ({"argocd.argoproj.io/instance": "shop"}, {}, "Argo CD", "Application shop"),
        ({}, {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/web"}, "Argo CD", "Application shop"),
        ({"kustomize.toolkit.fluxcd.io/name": "apps"}, {}, "Flux", "Kustomization apps"),
        ({"helm.toolkit.fluxcd.io/name": "web"}, {}, "Flux", "HelmRelease web"),
    ],
)
async def test_what_git_owns_is_changed_in_git(
    stage: Stage, labels: dict[str, str], annotations: dict[str, str], manager: str, source: str
) -> None:
    stage.workloads.put(make_deployment(labels=labels, annotations=annotations))
    details = msgspec.to_builtins((await refused(stage, ManagedExternally)).details)
    assert (details["manager"], details["source"]) == (manager, source)
    assert details["patch"] == (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  replicas: 5\n"
    )


async def test_an_autoscaler_that_git_owns_is_changed_in_git(stage: Stage) -> None:
    labels = {"kustomize.toolkit.fluxcd.io/name": "apps"}
    stage.workloads.put(make_autoscaler(meta=WorkloadMeta(name="web", namespace="shop", uid="u", labels=labels)))
    config = AutoScaleConfig(min_replicas=3, max_replicas=6)
    error = await refused(stage, ManagedExternally, 3, auto_scale_config=config)
    assert "maxReplicas: 6" in msgspec.to_builtins(error.details)["patch"]


async def test_an_account_may_be_allowed_to_change_what_git_owns(stage: Stage) -> None:
    waiver = Waiver(account="sa-agent", rules=(PolicyRule.MANAGED_EXTERNALLY,))
    stage.policy = PolicySettings(waivers=(waiver,))
    stage.arrange()
    stage.workloads.put(make_deployment(labels={"argocd.argoproj.io/instance": "shop"}))
    assert (await stage.scale(5)).status == 202


def quota(hard: dict[str, str], used: dict[str, str], scopes: tuple[str, ...] = ()) -> ResourceQuota:
    return ResourceQuota(
        metadata=ObjectMeta(name="team", namespace="shop", uid="uid-quota"),
        spec=ResourceQuotaSpec(hard=hard, scopes=scopes),
        status=ResourceQuotaStatus(hard=hard, used=used),
    )


@pytest.mark.parametrize(
    ("hard", "used", "resource", "needed"),
    [
        ({"pods": "4"}, {"pods": "3"}, "pods", "2"),
        ({"requests.cpu": "500m"}, {"requests.cpu": "301m"}, "requests.cpu", "200m"),
        ({"cpu": "0.5"}, {"cpu": "301m"}, "cpu", "200m"),
    ],
)
async def test_a_quota_without_room_refuses_with_its_figures(
    stage: Stage, hard: dict[str, str], used: dict[str, str], resource: str, needed: str
) -> None:
    stage.inventory.put(RESOURCE_QUOTA, quota(hard, used))
    error = await refused(stage, QuotaExceeded)
    details = msgspec.to_builtins(error.details)
    assert (details["rule"], details["quota"], details["resource"]) == ("resource_quota", "team", resource)
    assert (details["used"], details["needed"]) == (used[resource], needed)


async def test_a_dry_run_shows_the_quota_that_would_be_hit(stage: Stage) -> None:
    stage.inventory.put(RESOURCE_QUOTA, quota({"pods": "4"}, {"pods": "3"}))
    reply = await stage.scale(5, dry_run=True)
    assert reply.data.plan is not msgspec.UNSET
    assert reply.data.plan.quotas is not None
    assert [(hit.resource, hit.fits) for hit in reply.data.plan.quotas] == [("pods", False)]
    assert not reply.data.plan.allowed


@pytest.mark.parametrize(
    "held",
    [
        quota({"pods": "5"}, {"pods": "3"}),
        quota({"limits.memory": "1Gi"}, {"limits.memory": "1Gi"}),
        quota({"pods": "3"}, {"pods": "3"}, scopes=("BestEffort",)),
        quota({"services": "1"}, {"services": "1"}),
    ],
    ids=["just enough", "not stated by the template", "counts only some pods", "another resource"],
)
async def test_a_quota_that_may_have_room_does_not_refuse(stage: Stage, held: ResourceQuota) -> None:
    stage.inventory.put(RESOURCE_QUOTA, held)
    assert (await stage.scale(5)).status == 202


async def test_a_full_quota_does_not_keep_anyone_from_scaling_down(stage: Stage) -> None:
    stage.inventory.put(RESOURCE_QUOTA, quota({"pods": "2"}, {"pods": "3"}))
    assert (await stage.scale(2)).status == 202


async def test_nodes_without_room_are_a_warning_by_default_and_a_refusal_by_policy(stage: Stage) -> None:
    stage.workloads.put(make_deployment(requests={"cpu": "3"}))
    reply = await stage.scale(5, dry_run=True)
    assert "hold 1 of 2 more pods" in reply.warnings[0]
    stage.policy = PolicySettings(capacity=CapacityRule.REFUSE)
    stage.arrange()
    error = await refused(stage, PolicyDenied)
    assert rule_of(error) == PolicyRule.CAPACITY
    assert msgspec.to_builtins(error.details)["limit"] == 4


@pytest.mark.parametrize(
    "spec", [NodeSpec(unschedulable=True), NodeSpec(taints=(Taint(key="dedicated", effect="NoSchedule"),))]
)
async def test_nodes_that_take_no_pods_have_no_room(stage: Stage, spec: NodeSpec) -> None:
    from opsapi.workspaces.objects import NODE

    stage.inventory.put(NODE, make_node(spec=spec))
    stage.policy = PolicySettings(capacity=CapacityRule.REFUSE)
    stage.arrange()
    assert rule_of(await refused(stage, PolicyDenied)) == PolicyRule.CAPACITY


async def test_capacity_is_unknown_where_nodes_are_shared_with_others(stage: Stage) -> None:
    stage.policy = PolicySettings(capacity=CapacityRule.REFUSE)
    stage.arrange(mode=Mode.ACT, plan=Plan.SHARED)
    reply = await stage.scale(5, dry_run=True)
    assert reply.data.plan is not msgspec.UNSET
    assert reply.data.plan.capacity.fits is None
    assert "plan.capacity.fits" in {part.field for part in reply.partial}


async def test_nobody_asks_for_more_than_the_maximum(stage: Stage) -> None:
    error = await refused(stage, PolicyDenied, 101)
    assert rule_of(error) == PolicyRule.MAX_REPLICAS
    details = msgspec.to_builtins(error.details)
    assert (details["limit"], details["asked"]) == (100, 101)


@pytest.mark.parametrize(
    ("replicas", "rule"), [(7, PolicyRule.GROWTH), (1, PolicyRule.SHRINK), (0, PolicyRule.SCALE_TO_ZERO)]
)
async def test_beyond_its_guardrails_an_agents_wish_waits_for_a_person(
    stage: Stage, replicas: int, rule: PolicyRule
) -> None:
    assert await put_before_a_person(stage, replicas) == (rule,)
    await stage.work()
    assert stage.workloads.writes == []


async def put_before_a_person(stage: Stage, replicas: int, **more: object) -> tuple[str, ...]:
    """The rules that ask for the decision."""
    reply = await stage.scale(replicas, **more)  # type: ignore[arg-type]
    assert (reply.status, reply.data.status) == (202, "pending_approval")
    assert reply.operation_id is not None
    operation = await stage.ledger.get(reply.operation_id)
    assert operation is not None
    assert operation.approval is not None
    return operation.approval.rules


async def test_an_autoscalers_upper_bound_counts_as_replicas(stage: Stage) -> None:
    config = AutoScaleConfig(min_replicas=2, max_replicas=101)
    assert rule_of(await refused(stage, PolicyDenied, 5, auto_scale_config=config)) == PolicyRule.MAX_REPLICAS
    config = AutoScaleConfig(min_replicas=2, max_replicas=11)
    assert await put_before_a_person(stage, 5, auto_scale_config=config) == (PolicyRule.GROWTH,)


async def test_an_autoscalers_lower_bound_counts_as_replicas(stage: Stage) -> None:
    config = AutoScaleConfig(min_replicas=8, max_replicas=8)
    assert PolicyRule.GROWTH in await put_before_a_person(stage, 3, auto_scale_config=config)


async def test_a_person_may_do_what_an_agent_may_not_up_to_the_maximum(stage: Stage) -> None:
    person = make_call(make_caller(kind=AccountKind.PERSON))
    error = await refused(stage, PolicyDenied, 101, call=person)
    assert rule_of(error) == PolicyRule.MAX_REPLICAS
    assert (await stage.scale(0, call=person)).status == 202


async def test_a_waiver_frees_one_account_of_one_rule(stage: Stage) -> None:
    stage.policy = PolicySettings(waivers=(Waiver(account="sa-agent", rules=(PolicyRule.GROWTH,)),))
    stage.arrange()
    assert await put_before_a_person(stage, 0) == (PolicyRule.SCALE_TO_ZERO,)
    other = make_call(make_caller(account_id="sa-other"))
    assert await put_before_a_person(stage, 9, call=other) == (PolicyRule.GROWTH,)
    assert (await stage.scale(9)).data.status == "scaling"


async def test_a_dry_run_says_which_guardrail_stands_against_it(stage: Stage) -> None:
    reply = await stage.scale(0, dry_run=True)
    assert reply.data.plan is not msgspec.UNSET
    assert (reply.data.plan.needs_approval, reply.data.plan.refusals) == (["scale_to_zero"], [])
    assert reply.data.plan.allowed
    reply = await stage.scale(101, dry_run=True)
    assert reply.data.plan is not msgspec.UNSET
    assert [r.details["rule"] for r in reply.data.plan.refusals] == ["max_replicas"]
    assert not reply.data.plan.allowed


async def test_the_protecting_label_holds_on_workload_and_namespace(stage: Stage) -> None:
    stage.workloads.put(make_deployment(labels={"opsapi.dev/protected": "true"}))
    assert rule_of(await refused(stage, PolicyDenied)) == PolicyRule.PROTECTED_LABEL
    stage.workloads.put(make_deployment())
    meta = ObjectMeta(name="shop", labels={"opsapi.dev/protected": "true"})
    stage.inventory.put(NAMESPACE, Namespace(metadata=meta))
    assert rule_of(await refused(stage, PolicyDenied)) == PolicyRule.PROTECTED_LABEL


async def test_what_is_being_deleted_is_not_scaled(stage: Stage) -> None:
    from support.acting import NOON

    held = make_deployment()
    stage.workloads.put(
        msgspec.structs.replace(held, metadata=msgspec.structs.replace(held.metadata, deletion_timestamp=NOON))
    )
    await refused(stage, InvalidState)


def unreachable(stage: Stage) -> None:
    stage.cluster.reached = ClusterState(False, None, "connection refused", None, None)


def away_when_read(stage: Stage) -> None:
    stage.workloads.away = True


def never_read(stage: Stage) -> None:
    stage.inventory.set_sync(DEPLOYMENT, Sync.PENDING)


def forbidden(stage: Stage) -> None:
    stage.inventory.set_sync(DEPLOYMENT, Sync.FORBIDDEN, "deployments.apps is forbidden")


@pytest.mark.parametrize("break_it", [unreachable, away_when_read, never_read, forbidden])
@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_cluster_that_cannot_be_asked_is_named(
    stage: Stage, break_it: Callable[[Stage], None], dry_run: bool
) -> None:
    break_it(stage)
    details = msgspec.to_builtins((await refused(stage, DependencyUnavailable, dry_run=dry_run)).details)
    assert (details["component"], details["workspace_id"]) == ("kubernetes_api", "ws-123")


async def test_a_stale_cache_is_confirmed_by_the_cluster_itself(stage: Stage) -> None:
    stage.inventory.set_sync(DEPLOYMENT, Sync.STALE)
    stage.workloads.deployments[("shop", "web")] = make_deployment(replicas=4)
    reply = await stage.scale(5)
    assert (reply.data.previous_replicas, reply.data.new_replicas) == (4, 5)


async def test_what_a_stale_cache_does_not_know_may_exist(stage: Stage) -> None:
    stage.inventory.set_sync(DEPLOYMENT, Sync.STALE)
    await refused(stage, DependencyUnavailable, name="new")
