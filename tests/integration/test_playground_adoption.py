"""Orphans: pods, ReplicaSets and revisions that lose their controller are adopted by the next that selects them."""

from opsapi.playground.controllers.pods import controller_of
from opsapi.playground.machinery.registry import DeleteOptions
from opsapi.playground.registry import Obj
from opsapi.playground.world import World
from support.playground_world import container, deployment, pods_of, ready_pods, small_world, template


def orphan(world: World, resource: str, name: str) -> None:
    """As `kubectl delete --cascade=orphan` deletes."""
    world.objects.delete_with(resource, "default", name, DeleteOptions(propagation="Orphan"))
    world.advance(5)


def uids(world: World, app: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods_of(world, app)}


def stateful(name: str) -> Obj:
    spec = {
        "replicas": 2,
        "serviceName": name,
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, container()),
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


def test_a_deployment_made_again_takes_over_its_replica_set_and_pods() -> None:
    world = small_world()
    world.apply(deployment("web"))
    world.advance(30)
    before = uids(world, "web")
    orphan(world, "deployments.apps", "web")
    (left,) = world.registry.iterate("replicasets.apps")
    assert controller_of(left) is None
    world.apply(deployment("web"))
    world.advance(60)
    (found,) = world.registry.iterate("replicasets.apps")
    owner = controller_of(found)
    assert owner is not None
    assert owner["uid"] == world.registry.get("deployments.apps", "default", "web")["metadata"]["uid"]
    assert uids(world, "web") == before
    assert len(ready_pods(world, "web")) == 3


def test_a_stateful_set_takes_back_the_pods_of_its_name_and_its_revision() -> None:
    world = small_world()
    world.apply(stateful("db"))
    world.advance(60)
    before = uids(world, "db")
    orphan(world, "statefulsets.apps", "db")
    world.apply(stateful("db"))
    world.advance(60)
    assert uids(world, "db") == before
    revisions = list(world.registry.iterate("controllerrevisions.apps"))
    assert [one["revision"] for one in revisions] == [1]
    assert controller_of(revisions[0]) is not None


def test_a_bare_pod_that_a_replica_set_selects_counts_as_its_own() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=2))
    world.advance(30)
    labels = pods_of(world, "web")[0]["metadata"]["labels"]
    bare = {"metadata": {"name": "stray", "labels": labels}, "spec": {"containers": [container()]}}
    world.registry.create("pods", "default", bare)
    world.advance(60)
    assert len(ready_pods(world, "web")) == 2


def test_what_nobody_selects_stays_alone() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=1))
    bare = {"metadata": {"name": "alone", "labels": {"app": "web"}}, "spec": {"containers": [container()]}}
    world.registry.create("pods", "default", bare)
    world.advance(60)
    found = world.registry.get("pods", "default", "alone")
    assert controller_of(found) is None
    assert found["status"]["phase"] == "Running"
