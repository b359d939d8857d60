"""The clinic: each patient is cured by the one kind of action that it is there for, and by no other. And the attic."""

from typing import Any

import pytest

from opsapi.playground.controllers.pods import parse_time
from opsapi.playground.faults.world import FaultSpec
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from support.playground_world import (
    condition,
    container,
    deployment,
    messages,
    pods_of,
    ready_pods,
    small_world,
    status_of,
)

DEPLOYMENTS = "deployments.apps"


@pytest.fixture
def clinic() -> World:
    world = small_world()
    world.install("sick")
    return world


def ready(world: World, name: str) -> int:
    return len(ready_pods(world, name, "clinic"))


def restart_pods(world: World, name: str) -> None:
    """What an eviction of each of its pods comes to."""
    for pod in pods_of(world, name, "clinic"):
        world.registry.delete("pods", "clinic", pod["metadata"]["name"])
    world.advance(120)


def change(world: World, name: str, **fields: Any) -> None:
    """Fields of the first container of the Deployment's template."""
    found = world.registry.get(DEPLOYMENTS, "clinic", name)
    template = found["spec"]["template"]
    containers = [{**template["spec"]["containers"][0], **fields}]
    changed = {**template, "spec": {**template["spec"], "containers": containers}}
    world.registry.update(DEPLOYMENTS, "clinic", name, {**found, "spec": {**found["spec"], "template": changed}})
    world.advance(120)


def roll_back(world: World, name: str) -> None:
    """To the template of the ReplicaSet before, as `kubectl rollout undo` does."""
    found = world.registry.get(DEPLOYMENTS, "clinic", name)
    sets = world.registry.by_owner(found["metadata"]["uid"], "replicasets.apps")
    by_revision = {int(one["metadata"]["annotations"]["deployment.kubernetes.io/revision"]): one for one in sets}
    before = by_revision[sorted(by_revision)[-2]]["spec"]["template"]
    labels = {key: one for key, one in before["metadata"]["labels"].items() if key != "pod-template-hash"}
    template = {**before, "metadata": {**before["metadata"], "labels": labels}}
    world.registry.update(DEPLOYMENTS, "clinic", name, {**found, "spec": {**found["spec"], "template": template}})
    world.advance(120)


def test_all_patients_are_ill_and_the_guarded_one_is_well(clinic: World) -> None:
    names = ("bad-release", "oom-killed", "hung", "bad-config", "bad-image", "guarded")
    assert {name: ready(clinic, name) for name in names} == {**dict.fromkeys(names, 0), "guarded": 2}


def test_a_bad_release_is_cured_by_the_revision_before_it_and_not_by_a_restart(clinic: World) -> None:
    restart_pods(clinic, "bad-release")
    assert ready(clinic, "bad-release") == 0
    roll_back(clinic, "bad-release")
    assert ready(clinic, "bad-release") == 2
    annotations = clinic.registry.get(DEPLOYMENTS, "clinic", "bad-release")["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/revision"] == "3"


def test_what_is_out_of_memory_is_cured_by_a_higher_limit_and_not_by_a_restart(clinic: World) -> None:
    pod = pods_of(clinic, "oom-killed", "clinic")[0]
    status = status_of(pod)
    last = status["lastState"].get("terminated") or status["state"]["terminated"]
    assert last["reason"] == "OOMKilled"
    restart_pods(clinic, "oom-killed")
    assert all(status_of(one)["restartCount"] > 0 for one in pods_of(clinic, "oom-killed", "clinic"))
    change(clinic, "oom-killed", resources={"limits": {"memory": "320Mi"}, "requests": {"memory": "96Mi"}})
    clinic.advance(600)
    assert ready(clinic, "oom-killed") == 2
    assert {status_of(one)["restartCount"] for one in pods_of(clinic, "oom-killed", "clinic")} == {0}


def test_what_hangs_is_cured_by_a_restart_for_good(clinic: World) -> None:
    clinic.advance(3600)
    assert ready(clinic, "hung") == 0
    assert {status_of(one)["restartCount"] for one in pods_of(clinic, "hung", "clinic")} == {0}
    patient = pods_of(clinic, "hung", "clinic")[0]["metadata"]["name"]
    assert "context deadline exceeded" in messages(clinic, "Unhealthy", patient)[0]
    first = pods_of(clinic, "hung", "clinic")[0]
    clinic.registry.delete("pods", "clinic", first["metadata"]["name"])
    clinic.advance(60)
    assert ready(clinic, "hung") == 1
    restart_pods(clinic, "hung")
    clinic.advance(3600)
    assert ready(clinic, "hung") == 2


def test_a_container_that_is_restarted_in_its_pod_hangs_no_more() -> None:
    world = small_world()
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5}
    world.apply(deployment("web", container(readinessProbe=probe), replicas=1))
    world.advance(60)
    world.faults.inject(FaultSpec("hang", namespace="default", workload="web"))
    world.advance(60)
    assert len(ready_pods(world, "web")) == 0
    world.kubelets.kill(pods_of(world, "web")[0], "app", 137, "Error")
    world.advance(60)
    assert len(ready_pods(world, "web")) == 1
    assert status_of(pods_of(world, "web")[0])["restartCount"] == 1


def test_missing_configuration_is_cured_by_setting_it_alone(clinic: World) -> None:
    restart_pods(clinic, "bad-config")
    assert ready(clinic, "bad-config") == 0
    change(clinic, "bad-config", env=[{"name": "QUEUE_URL", "value": "amqp://queue"}])
    assert ready(clinic, "bad-config") == 1


def test_an_image_that_crashes_is_cured_by_neither_restart_nor_rollback(clinic: World) -> None:
    restart_pods(clinic, "bad-image")
    assert ready(clinic, "bad-image") == 0
    found = clinic.registry.get(DEPLOYMENTS, "clinic", "bad-image")
    assert len(clinic.registry.by_owner(found["metadata"]["uid"], "replicasets.apps")) == 1


def test_a_node_that_is_down_is_not_ready_and_its_pods_move_after_their_toleration(clinic: World) -> None:
    node = pods_of(clinic, "guarded", "clinic")[0]["spec"]["nodeName"]
    fault = clinic.faults.inject(FaultSpec("node-down", node=node))
    clinic.advance(60)
    assert condition(clinic.registry.get("nodes", "", node), "Ready")["status"] == "Unknown"
    clinic.advance(400)
    assert all(pod["spec"]["nodeName"] != node for pod in ready_pods(clinic, "guarded", "clinic"))
    assert ready(clinic, "guarded") == 2
    clinic.faults.clear(fault.id)
    clinic.advance(60)
    assert condition(clinic.registry.get("nodes", "", node), "Ready")["status"] == "True"


# The attic


def age_days(world: World, obj: Obj) -> float:
    return (world.clock.now() - parse_time(obj["metadata"]["creationTimestamp"])).total_seconds() / 86400


def attic() -> World:
    world = small_world()
    world.install("leftovers")
    return world


def test_the_attics_objects_are_as_old_as_they_say_and_stay() -> None:
    world = attic()
    jobs = {one["metadata"]["name"]: one for one in world.registry.iterate("jobs.batch", "attic")}
    ages = {name: round(age_days(world, one), 1) for name, one in jobs.items()}
    assert ages == {"import-2019": 9.0, "import-failed": 8.0, "import-today": 0.0}
    assert condition(jobs["import-2019"], "Complete")["status"] == "True"
    assert condition(jobs["import-failed"], "Failed")["reason"] == "BackoffLimitExceeded"
    over = {one["metadata"]["name"]: one["status"] for one in world.registry.iterate("pods", "attic")}
    assert (over["one-off"]["phase"], over["evicted"]["reason"]) == ("Succeeded", "Evicted")
    before = {(one["kind"], one["metadata"]["name"]) for one in _everything(world)}
    world.advance(6 * 3600)
    assert {(one["kind"], one["metadata"]["name"]) for one in _everything(world)} == before


def _everything(world: World) -> list[Obj]:
    resources = ("jobs.batch", "pods", "replicasets.apps", "configmaps", "secrets", "persistentvolumeclaims")
    found = [one for resource in resources for one in world.registry.iterate(resource, "attic")]
    return [*found, *world.registry.iterate("persistentvolumes")]


def test_the_attic_holds_old_replica_sets_used_and_unused_configuration_and_what_has_expired() -> None:
    world = attic()
    sets = list(world.registry.iterate("replicasets.apps", "attic"))
    assert sorted(one["spec"]["replicas"] for one in sets) == [0, 0, 0, 0, 1]
    annotations = {
        one["metadata"]["name"]: one["metadata"]["annotations"]
        for one in world.registry.iterate("configmaps", "attic")
        if one["metadata"]["name"] in ("ttl-over", "ttl-left", "expired")
    }
    assert annotations["ttl-over"] == {"janitor/ttl": "24h"}
    assert annotations["ttl-left"] == {"janitor/ttl": "30d"}
    assert parse_time(annotations["expired"]["janitor/expires"]) < world.clock.now()
    volumes = {one["metadata"]["name"]: one["status"]["phase"] for one in world.registry.iterate("persistentvolumes")}
    assert volumes == {"released-volume": "Released", "free-volume": "Available"}
    (running,) = ready_pods(world, "much-released", "attic")
    names = [
        (source.get("configMapRef") or source["secretRef"])["name"]
        for source in running["spec"]["containers"][0]["envFrom"]
    ]
    assert names == ["used-settings", "used-secret"]
