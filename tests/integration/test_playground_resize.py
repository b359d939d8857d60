"""Resizing pods in place: what the API takes, and how the node goes about it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from opsapi.playground.api.app import ApiOptions, create_app
from opsapi.playground.registry import Obj, User
from opsapi.playground.world import World
from support.asgi import Answer, call
from support.playground_world import (
    condition,
    container,
    deployment,
    messages,
    pods_of,
    resources,
    small_world,
    status_of,
)

STEADY = '{"memory": {"base": "200Mi"}, "cpu": {"base_millicores": 50}}'


def pod_of(world: World, app: str = "web") -> Obj:
    (found,) = pods_of(world, app)
    return found


def world_with(*, limit: str = "300Mi", **fields: Any) -> World:
    world = small_world(1)
    world.apply(deployment("web", container(resources=resources(limit=limit), **fields), replicas=1, profile=STEADY))
    world.advance(60)
    return world


async def resize(world: World, wanted: Obj, part: str = "containers", **extra: Any) -> Answer:
    """A strategic merge patch of the resize subresource, as `kubectl patch --subresource resize` sends it."""
    app = create_app(world.objects, ApiOptions({"t": User("admin", ("system:masters",))}))
    name = pod_of(world)["metadata"]["name"]
    body = {"spec": {part: [{"name": "app", "resources": wanted}]}, **extra}
    headers = {"Authorization": "Bearer t", "Content-Type": "application/strategic-merge-patch+json"}
    path = f"/api/v1/namespaces/default/pods/{name}/resize"
    answer = await call(app, "PATCH", path, headers=headers, body=json.dumps(body).encode())
    world.settle()
    return answer


def words(pod: Obj) -> tuple[str, str]:
    """(reason of PodResizePending, reason of PodResizeInProgress); "-" where there is no such condition."""
    pending, progress = condition(pod, "PodResizePending"), condition(pod, "PodResizeInProgress")
    return pending.get("reason", "") if pending else "-", progress.get("reason", "") if progress else "-"


async def test_a_resize_is_allocated_at_once_and_in_force_a_moment_later_without_a_restart() -> None:
    world = world_with()
    answer = await resize(world, {"requests": {"cpu": "200m"}, "limits": {"memory": "400Mi"}})
    assert answer.status == 200
    pod = pod_of(world)
    wanted = {"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"memory": "400Mi"}}
    assert pod["spec"]["containers"][0]["resources"] == wanted
    assert pod["metadata"]["generation"] == 2
    assert words(pod) == ("-", "")
    assert condition(pod, "PodResizeInProgress")["status"] == "True"
    assert condition(pod, "PodResizeInProgress")["observedGeneration"] == 2
    assert status_of(pod)["allocatedResources"] == wanted["requests"]
    assert status_of(pod)["resources"]["limits"] == {"memory": "300Mi"}
    world.advance(3)
    pod = pod_of(world)
    assert words(pod) == ("-", "-")
    assert status_of(pod)["resources"] == wanted
    assert status_of(pod)["restartCount"] == 0
    assert len(messages(world, "ResizeStarted")) == len(messages(world, "ResizeCompleted")) == 1
    managers = [one for one in pod["metadata"]["managedFields"] if one.get("subresource") == "resize"]
    assert len(managers) == 1


async def test_what_can_never_fit_is_infeasible_and_changes_nothing() -> None:
    world = world_with()
    assert (await resize(world, {"requests": {"cpu": "80"}})).status == 200
    pod = pod_of(world)
    assert words(pod) == ("Infeasible", "-")
    told = "Node didn't have enough capacity: cpu, requested: 80000, capacity: 3800"
    assert condition(pod, "PodResizePending")["message"] == told
    assert status_of(pod)["resources"]["requests"]["cpu"] == "100m"
    world.advance(300)
    assert words(pod_of(world)) == ("Infeasible", "-")
    assert (await resize(world, {"requests": {"cpu": "100m"}})).status == 200
    assert words(pod_of(world)) == ("-", "-")


async def test_what_does_not_fit_now_is_deferred_until_there_is_room() -> None:
    world = world_with()
    world.apply(deployment("big", container(resources=resources(cpu="2500m")), replicas=1))
    world.advance(30)
    await resize(world, {"requests": {"cpu": "2"}})
    told = "Node didn't have enough resource: cpu, requested: 2000, used: 2500, capacity: 3800"
    assert condition(pod_of(world), "PodResizePending")["message"] == told
    assert words(pod_of(world)) == ("Deferred", "-")
    world.registry.delete("deployments.apps", "default", "big")
    world.advance(60)
    assert words(pod_of(world)) == ("-", "-")
    assert status_of(pod_of(world))["resources"]["requests"]["cpu"] == "2"


async def test_memory_is_not_taken_from_a_process_that_uses_it() -> None:
    world = world_with()
    await resize(world, {"limits": {"memory": "100Mi"}})
    world.advance(10)
    pod = pod_of(world)
    assert words(pod) == ("-", "Error")
    told = 'attempting to set container "app" memory limit (104857600) below current usage ('
    assert condition(pod, "PodResizeInProgress")["message"].startswith(f"cannot decrease memory limits: {told}")
    assert status_of(pod)["resources"]["limits"] == {"memory": "300Mi"}
    assert status_of(pod)["restartCount"] == 0
    await resize(world, {"limits": {"memory": "250Mi"}})
    world.advance(3)
    assert status_of(pod_of(world))["resources"]["limits"] == {"memory": "250Mi"}
    assert words(pod_of(world)) == ("-", "-")


async def test_a_policy_of_restart_restarts_the_container_and_only_for_its_resource() -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    world = world_with(resizePolicy=policy)
    await resize(world, {"requests": {"cpu": "200m"}})
    world.advance(10)
    assert status_of(pod_of(world))["restartCount"] == 0
    await resize(world, {"limits": {"memory": "400Mi"}})
    world.advance(10)
    status = status_of(pod_of(world))
    assert (status["restartCount"], status["resources"]["limits"]) == (1, {"memory": "400Mi"})
    assert condition(pod_of(world), "Ready")["status"] == "True"


async def test_a_higher_limit_ends_the_oom_kills_of_a_pod() -> None:
    world = world_with(limit="150Mi")
    world.advance(120)
    before = status_of(pod_of(world))
    assert before["lastState"]["terminated"]["reason"] == "OOMKilled"
    await resize(world, {"limits": {"memory": "300Mi"}})
    world.advance(400)
    after = status_of(pod_of(world))
    assert after["ready"] is True
    assert after["resources"]["limits"] == {"memory": "300Mi"}
    world.advance(1200)
    assert status_of(pod_of(world))["restartCount"] == after["restartCount"]


async def test_a_lower_limit_that_usage_outgrows_kills() -> None:
    growing = '{"memory": {"base": "100Mi", "leak_per_hour": "600Mi"}}'
    world = small_world(1)
    world.apply(deployment("web", container(resources=resources(limit="2Gi")), replicas=1, profile=growing))
    world.advance(600)
    assert status_of(pod_of(world))["restartCount"] == 0
    await resize(world, {"limits": {"memory": "300Mi"}})
    world.advance(900)
    assert status_of(pod_of(world))["lastState"]["terminated"]["reason"] == "OOMKilled"


@pytest.mark.parametrize(
    ("wanted", "field", "told"),
    [
        (
            {"limits": {"memory": None}},
            "spec.containers[0].resources.limits",
            "Forbidden: resource limits cannot be removed",
        ),
        (
            {"requests": {"cpu": None}},
            "spec.containers[0].resources.requests",
            "Forbidden: resource requests cannot be removed",
        ),
        (
            {"requests": {"cpu": "100m", "memory": "300Mi"}, "limits": {"cpu": "100m"}},
            "spec",
            'Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing',
        ),
        (
            {"limits": {"ephemeral-storage": "1Gi"}},
            "spec",
            "Forbidden: only cpu and memory resources are mutable",
        ),
        (
            {"requests": {"memory": "400Mi"}},
            "spec.containers[0].resources.requests",
            'Invalid value: "400Mi": must be less than or equal to memory limit of 300Mi',
        ),
    ],
    ids=["limit removed", "request removed", "QoS class", "other resource", "request above limit"],
)
async def test_what_a_resize_may_not_do_is_refused_with_the_field(wanted: Obj, field: str, told: str) -> None:
    world = world_with()
    answer = await resize(world, wanted)
    assert answer.status == 422
    causes = {(cause["field"], cause["message"]) for cause in answer.json()["details"]["causes"]}
    assert (field, told) in causes
    assert pod_of(world)["metadata"]["generation"] == 1


async def test_only_resources_pass_through_the_subresource() -> None:
    world = world_with()
    answer = await resize(world, {"requests": {"cpu": "200m"}}, metadata={"labels": {"sneaked": "in"}})
    assert answer.status == 200
    assert "sneaked" not in pod_of(world)["metadata"]["labels"]
    name = pod_of(world)["metadata"]["name"]
    pod = pod_of(world)
    changed = [{**pod["spec"]["containers"][0], "resources": {"requests": {"cpu": "300m"}}}]
    with pytest.raises(Exception, match="pod updates may not change fields other than"):
        world.registry.update("pods", "default", name, {**pod, "spec": {**pod["spec"], "containers": changed}})


def _stale(body: Obj) -> Obj:
    return {**body, "metadata": {"resourceVersion": "1"}}


def _uid(body: Obj) -> Obj:
    return {**body, "metadata": {"uid": "another"}}


@pytest.mark.parametrize("change", [_stale, _uid])
async def test_a_resize_of_what_has_changed_since_is_a_conflict(change: Callable[[Obj], Obj]) -> None:
    world = world_with()
    answer = await resize(world, {"requests": {"cpu": "200m"}}, **change({}))
    assert answer.status == 409
    assert status_of(pod_of(world))["resources"]["requests"]["cpu"] == "100m"
