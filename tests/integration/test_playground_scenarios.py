"""Failures of the real world, as they look from outside: status, events, logs and figures tell the same story."""

import json

from opsapi.playground.api.providers import LogOptions
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from support.playground_world import (
    condition,
    container,
    deployment,
    messages,
    pods_of,
    ready_pods,
    resources,
    service,
    small_world,
    status_of,
)


def serving(**traffic: float) -> str:
    return json.dumps({"traffic": {"rps": 20, "swing": 0, "noise": 0, **traffic}, "error_rate": 0})


def measured_p99(world: World, app: str) -> float:
    one = world.observation.running(ready_pods(world, app)[0])[0]
    return world.observation.measure(one).p99


def replicas_of(world: World, name: str) -> Obj:
    return dict(world.registry.get("deployments.apps", "default", name)["status"])


def test_a_node_selector_that_no_node_has_keeps_pods_pending() -> None:
    world = small_world()
    world.apply(deployment("web", pod={"nodeSelector": {"disk": "nvme"}}))
    world.advance(30)
    assert {pod["status"]["phase"] for pod in pods_of(world, "web")} == {"Pending"}
    text = condition(pods_of(world, "web")[0], "PodScheduled")["message"]
    assert text.startswith("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.")
    node = world.registry.get("nodes", "", "node-2")
    labels = {**node["metadata"]["labels"], "disk": "nvme"}
    world.registry.update("nodes", "", "node-2", {**node, "metadata": {**node["metadata"], "labels": labels}})
    world.advance(30)
    assert {pod["spec"]["nodeName"] for pod in ready_pods(world, "web")} == {"node-2"}


def test_a_service_whose_selector_matches_nothing_starves_both_sides() -> None:
    world = small_world()
    world.apply(service("backend", selector={"app": "backend", "version": "v2"}))
    world.apply(deployment("backend", profile=serving()))
    world.apply(service("frontend"))
    world.apply(deployment("frontend", profile=json.dumps({"traffic": {"rps": 9}, "depends_on": ["backend"]})))
    world.advance(60)
    piece = next(
        item
        for item in world.registry.iterate("endpointslices.discovery.k8s.io")
        if item["metadata"]["labels"]["kubernetes.io/service-name"] == "backend"
    )
    assert not piece["endpoints"]
    assert len(ready_pods(world, "backend")) == 3
    idle = world.observation.running(pods_of(world, "backend")[0])[0]
    assert world.observation.measure(idle).rps == 0
    caller = world.observation.running(pods_of(world, "frontend")[0])[0]
    assert world.observation.measure(caller).error_rate == 1


async def test_a_dependency_that_is_gone_shows_in_the_callers_log() -> None:
    world = small_world()
    world.apply(service("api"))
    profile = {"traffic": {"rps": 9}, "depends_on": ["db"], "logs": {"format": "json", "per_request": 1}}
    world.apply(deployment("api", profile=json.dumps(profile)))
    world.advance(60)
    stream = world.logs(pods_of(world, "api")[0], "app", LogOptions(tail_lines=5))
    lines = [json.loads(chunk) async for chunk in stream]
    assert {line["level"] for line in lines} == {"error"}
    assert {line["msg"] for line in lines} == {"call to db failed: dial tcp: connect: connection refused"}


def test_a_leak_is_seen_growing_before_it_is_killed_and_a_restart_starts_it_over() -> None:
    world = small_world()
    leaking = json.dumps({"memory": {"base": "100Mi", "leak_per_hour": "400Mi"}})
    world.apply(deployment("leaky", container(resources=resources(limit="512Mi")), replicas=1, profile=leaking))
    sizes = []
    for _ in range(4):
        world.advance(600)
        usage = world.metrics.usage(pods_of(world, "leaky")[0])
        assert usage is not None
        sizes.append(usage["app"]["memory"] / (1 << 20))
    assert sizes == sorted(sizes)
    assert sizes[-1] - sizes[0] > 150
    world.advance(3600)
    status = status_of(pods_of(world, "leaky")[0])
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["reason"] == "OOMKilled"
    usage = world.metrics.usage(pods_of(world, "leaky")[0])
    assert usage is not None
    assert usage["app"]["memory"] / (1 << 20) < 400


def test_a_slow_release_shows_in_latency_and_going_back_heals_it() -> None:
    world = small_world()
    fast = {"traffic": {"rps": 20}, "latency": {"p50_ms": 20, "p99_ms": 50}}
    slow = {"traffic": {"rps": 20}, "latency": {"p50_ms": 900, "p99_ms": 2000}}
    world.apply(service("web"))
    for profile, low, high in ((fast, 30, 80), (slow, 1500, 2500), (fast, 30, 80)):
        world.apply(deployment("web", profile=json.dumps(profile)))
        world.advance(120)
        assert low < measured_p99(world, "web") < high
    annotations = world.registry.get("deployments.apps", "default", "web")["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/revision"] == "3"


def test_a_cpu_limit_that_is_too_low_throttles_and_slows() -> None:
    world = small_world()
    busy = {"traffic": {"rps": 60, "swing": 0, "noise": 0}, "cpu": {"per_request_ms": 20}}
    limited = {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}
    world.apply(service("web"))
    world.apply(deployment("web", container(resources=limited), profile=json.dumps(busy)))
    world.advance(120)
    figures = world.observation.measure(world.observation.running(pods_of(world, "web")[0])[0])
    assert figures.cpu == 200
    assert 0.4 < figures.throttled < 0.6
    assert figures.p99 > 1.7 * 140


def test_a_workload_scaled_to_zero_counts_as_available_and_no_event_tells_why() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=0))
    world.advance(30)
    status = replicas_of(world, "web")
    assert "replicas" not in status
    assert condition({"status": status}, "Available")["status"] == "True"
    assert messages(world, name="web") == []


def test_a_probe_of_the_wrong_port_never_succeeds() -> None:
    world = small_world()
    probe = {"httpGet": {"path": "/", "port": 9090}, "periodSeconds": 5}
    world.apply(deployment("web", container(ports=[{"containerPort": 8080}], readinessProbe=probe)))
    world.advance(60)
    assert not ready_pods(world, "web")
    text = messages(world, "Unhealthy")[0]
    assert ":9090/" in text
    assert text.endswith("connect: connection refused")


def test_a_wrong_probe_path_is_answered_with_404() -> None:
    world = small_world()
    probe = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 5}
    world.apply(deployment("web", container(readinessProbe=probe), profile='{"readiness": {"path": "/healthz"}}'))
    world.advance(60)
    assert messages(world, "Unhealthy")[0] == "Readiness probe failed: HTTP probe failed with statuscode: 404"


def test_an_invalid_image_name_is_told_apart_from_a_missing_image() -> None:
    world = small_world()
    world.apply(deployment("web", container(image="Registry.Example/Web:1"), replicas=1))
    world.advance(10)
    assert status_of(pods_of(world, "web")[0])["state"]["waiting"]["reason"] == "InvalidImageName"


def test_a_failing_init_container_holds_the_pod_back() -> None:
    world = small_world()
    init = {"name": "migrate", "image": "busybox:1.36", "command": ["sh", "-c", "echo no schema; exit 2"]}
    world.apply(deployment("web", replicas=1, pod={"initContainers": [init]}))
    world.advance(60)
    pod = pods_of(world, "web")[0]
    assert pod["status"]["phase"] == "Pending"
    assert pod["status"]["initContainerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status_of(pod)["state"]["waiting"]["reason"] == "PodInitializing"
    assert condition(pod, "Initialized")["message"] == "containers with incomplete status: [migrate]"


def test_a_healthy_workload_leaves_no_warning() -> None:
    world = small_world()
    probe = {"httpGet": {"path": "/", "port": 80}, "initialDelaySeconds": 2}
    world.apply(service("web"))
    world.apply(deployment("web", container(readinessProbe=probe, resources=resources()), profile=serving()))
    world.advance(3000)
    assert [event for event in world.registry.iterate("events") if event["type"] == "Warning"] == []
    assert {status_of(pod)["restartCount"] for pod in pods_of(world, "web")} == {0}
    assert replicas_of(world, "web")["availableReplicas"] == 3
