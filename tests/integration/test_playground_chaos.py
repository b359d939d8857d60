"""Random changes, faults and time: no controller breaks, none undoes another for ever, and the books balance."""

import random
from collections.abc import Callable

import pytest

from opsapi.playground.faults.world import NODE_FAULTS, POD_FAULTS, FaultError, FaultSpec
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.world import ManifestError, World
from support.playground_world import container, deployment, resources, service, small_world

NAMES = ("a", "b", "c")
PROFILES = (
    "",
    "web",
    "crash",
    "leaky",
    '{"readiness": {"every_seconds": 60, "for_seconds": 30}}',
    '{"requires_env": ["X"]}',
)

pytestmark = pytest.mark.slow
DELETABLE = ("deployments.apps", "statefulsets.apps", "daemonsets.apps", "replicasets.apps", "pods", "jobs.batch")


class Chaos:
    """One random step after another, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.world: World = small_world(4, seed=seed)
        self.random = random.Random(seed)
        self.steps: tuple[Callable[[], object], ...] = (
            self.workload,
            self.workload,
            self.delete,
            self.fault,
            self.cron_job,
            self.network,
            self.quota,
            self.world.faults.clear_all,
        )

    def step(self) -> None:
        try:
            self.random.choice(self.steps)()
        except (ApiError, FaultError, ManifestError):
            return

    def workload(self) -> None:
        pick = self.random.choice
        probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5}
        sized = resources(pick(("100m", "900m", "9")), limit=pick((None, "100Mi", "1Gi")))
        image = pick(("nginx:1.27", "nosuch/x:1", "app:v1", "app:v2"))
        kind = pick(("Deployment", "Deployment", "StatefulSet", "DaemonSet"))
        name = pick(NAMES)
        body = deployment(
            name,
            container(image=image, resources=sized, readinessProbe=probe, livenessProbe=probe),
            replicas=self.random.randint(0, 5),
            profile=pick(PROFILES),
        )
        body["kind"], body["metadata"]["name"] = kind, f"{name}-{kind.lower()}"
        if kind == "StatefulSet":
            body["spec"]["serviceName"] = name
        if kind == "DaemonSet":
            del body["spec"]["replicas"]
        self.world.apply(body)

    def delete(self) -> None:
        resource = self.random.choice(DELETABLE)
        found = list(self.world.registry.iterate(resource, "default"))
        if found:
            name = self.random.choice(found)["metadata"]["name"]
            how = self.random.choice(("Background", "Foreground", "Orphan"))
            self.world.registry.delete(resource, "default", name, propagation=how)

    def fault(self) -> None:
        kind = self.random.choice((*POD_FAULTS, *NODE_FAULTS))
        lasting = self.random.choice((60.0, 600.0))
        if kind in NODE_FAULTS:
            node = f"node-{self.random.randint(1, 4)}"
            self.world.faults.inject(FaultSpec(kind, node=node, duration_seconds=lasting))
        else:
            name = f"{self.random.choice(NAMES)}-deployment"
            self.world.faults.inject(FaultSpec(kind, namespace="default", workload=name, duration_seconds=lasting))

    def cron_job(self) -> None:
        command = ["sh", "-c", self.random.choice(("sleep 20", "exit 1", "sleep 500"))]
        pod = {"restartPolicy": "Never", "containers": [container(image="busybox:1", command=command)]}
        job = {"backoffLimit": 1, "parallelism": 2, "completions": 3, "template": {"spec": pod}}
        policy = self.random.choice(("Allow", "Forbid", "Replace"))
        spec: Obj = {"schedule": "*/2 * * * *", "concurrencyPolicy": policy, "jobTemplate": {"spec": job}}
        meta = {"name": self.random.choice(NAMES), "namespace": "default"}
        self.world.apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec})

    def network(self) -> None:
        name = self.random.choice(NAMES)
        self.world.apply(service(name))
        spec = {
            self.random.choice(("minAvailable", "maxUnavailable")): "50%",
            "selector": {"matchLabels": {"app": name}},
        }
        meta = {"name": name, "namespace": "default"}
        self.world.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec})

    def quota(self) -> None:
        spec = {"hard": {"pods": str(self.random.randint(4, 40))}}
        meta = {"name": "quota", "namespace": "default"}
        self.world.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": spec})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_world_in_turmoil_keeps_its_books(seed: int) -> None:
    chaos = Chaos(seed)
    world = chaos.world
    for _ in range(40):
        chaos.step()
        world.advance(chaos.random.choice((0.0, 1.0, 5.0, 30.0, 120.0, 400.0)))
    world.faults.clear_all()
    world.advance(1200)
    for state in world.scheduler.nodes.values():
        bound = world.registry.pods_on_node(state.node["metadata"]["name"])
        alive = [pod for pod in bound if pod["status"].get("phase") not in ("Succeeded", "Failed")]
        assert state.pods == len(alive)
        assert state.cpu <= 3800
    for found in world.registry.iterate("deployments.apps"):
        status = found["status"]
        assert status.get("availableReplicas", 0) <= status.get("readyReplicas", 0) <= status.get("replicas", 0)
    stuck = [pod for pod in world.registry.iterate("pods") if "deletionTimestamp" in pod["metadata"]]
    assert stuck == []
