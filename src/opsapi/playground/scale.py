"""Synthetic fleets for benchmarks: nodes and pods loaded in Running state, sharing all sub-trees that they can."""

import hashlib
import re
from dataclasses import dataclass

from opsapi.kit.clock import rfc3339
from opsapi.playground.controllers.deployment_status import status_of
from opsapi.playground.controllers.pods import owner_reference, template_hash
from opsapi.playground.node import NodeSpec, internal_ip
from opsapi.playground.registry import Obj
from opsapi.playground.world import World

_PODS_PER_DEPLOYMENT = 10
_DEPLOYMENTS_PER_NAMESPACE = 20
_IMAGE = "registry.lantern.example/fleet/app:1.0.0"


@dataclass(frozen=True, slots=True)
class Fleet:
    nodes: int
    pods: int


def parse_fleet(text: str) -> Fleet:
    """`1000x20000` -> 1,000 nodes and 20,000 pods. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,6})", text)
    if match is None or int(match[1]) < 1:
        raise ValueError(f"not a fleet: {text!r} (write it like 1000x20000: nodes, then pods)")
    return Fleet(int(match[1]), int(match[2]))


def build(world: World, fleet: Fleet) -> None:
    """Fills the world. Pods are spread round the nodes; each ten make a Deployment, each 200 a namespace."""
    per_node = max(110, -(-fleet.pods // fleet.nodes) + 10)
    for index in range(fleet.nodes):
        zone = f"zone-{'abc'[index % 3]}"
        world.add_node(NodeSpec(f"node-{index + 1:05d}", "32", "128Gi", pods=per_node, zone=zone))
    done = 0
    while done < fleet.pods:
        number = done // _PODS_PER_DEPLOYMENT
        namespace = f"team-{number // _DEPLOYMENTS_PER_NAMESPACE + 1:04d}"
        if number % _DEPLOYMENTS_PER_NAMESPACE == 0:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            world.registry.create("namespaces", "", body)
        count = min(_PODS_PER_DEPLOYMENT, fleet.pods - done)
        _Workload(world, namespace, f"app-{number % _DEPLOYMENTS_PER_NAMESPACE + 1:02d}", count).load(done, fleet.nodes)
        done += count
    world.settle()


class _Workload:
    """One Deployment with its ReplicaSet and pods, all complete and settled."""

    def __init__(self, world: World, namespace: str, name: str, count: int) -> None:
        self._world = world
        self._namespace = namespace
        self._name = name
        self._count = count
        self._stamp = rfc3339(world.clock.now())

    def load(self, offset: int, nodes: int) -> None:
        deployment = self._deployment()
        replica_set = self._replica_set(deployment)
        status = status_of(deployment, replica_set, [replica_set], self._world.clock.now(), self._stamp)
        self._world.registry.patch_status("deployments.apps", self._namespace, self._name, status)
        template = replica_set["spec"]["template"]
        shared = _Shared(
            labels=template["metadata"]["labels"],
            owner=[owner_reference(replica_set)],
            conditions=self._conditions(),
            running={"running": {"startedAt": self._stamp}},
        )
        for index in range(self._count):
            self._pod(replica_set["metadata"]["name"], template["spec"], shared, offset + index, nodes)

    def _deployment(self) -> Obj:
        labels = {"app": self._name}
        container = {
            "name": "app",
            "image": _IMAGE,
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        }
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": labels,
                "annotations": {"deployment.kubernetes.io/revision": "1"},
            },
            "spec": {
                "replicas": self._count,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }
        return self._world.registry.create("deployments.apps", self._namespace, body)

    def _replica_set(self, deployment: Obj) -> Obj:
        digest = template_hash(deployment["spec"]["template"])
        labels = {"app": self._name, "pod-template-hash": digest}
        body: Obj = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{self._name}-{digest}",
                "namespace": self._namespace,
                "generation": 1,
                "labels": labels,
                "annotations": {
                    "deployment.kubernetes.io/desired-replicas": str(self._count),
                    "deployment.kubernetes.io/max-replicas": str(self._count + -(-self._count // 4)),
                    "deployment.kubernetes.io/revision": "1",
                },
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": {
                "replicas": self._count,
                "selector": {"matchLabels": labels},
                "template": {**deployment["spec"]["template"], "metadata": {"labels": labels}},
            },
            "status": {
                "replicas": self._count,
                "fullyLabeledReplicas": self._count,
                "readyReplicas": self._count,
                "availableReplicas": self._count,
                "terminatingReplicas": 0,
                "observedGeneration": 1,
            },
        }
        return self._world.objects.load("replicasets.apps", self._namespace, body)

    def _conditions(self) -> list[Obj]:
        kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        since = {"status": "True", "lastProbeTime": None, "lastTransitionTime": self._stamp}
        return [{"type": kind, **since} for kind in kinds]

    def _pod(self, owner: str, template: Obj, shared: "_Shared", index: int, nodes: int) -> None:
        node = f"node-{index % nodes + 1:05d}"
        letters = hashlib.sha256(f"{self._world.seed}/{index}".encode()).hexdigest()
        name = f"{owner}-{letters[:5]}"
        address = self._world.kubelets.new_ip({"spec": {"nodeName": node}})
        status = {
            "name": "app",
            "state": shared.running,
            "lastState": {},
            "ready": True,
            "restartCount": 0,
            "image": _IMAGE,
            "imageID": "registry.lantern.example/fleet/app@sha256:" + "0" * 64,
            "containerID": f"containerd://{letters}",
            "started": True,
        }
        body: Obj = {
            "metadata": {
                "name": name,
                "generateName": f"{owner}-",
                "generation": 1,
                "labels": shared.labels,
                "ownerReferences": shared.owner,
            },
            "spec": {**template, "nodeName": node, "serviceAccountName": "default", "serviceAccount": "default"},
            "status": {
                "phase": "Running",
                "conditions": shared.conditions,
                "hostIP": internal_ip(index % nodes),
                "podIP": address,
                "podIPs": [{"ip": address}],
                "startTime": self._stamp,
                "containerStatuses": [status],
                "qosClass": "Burstable",
            },
        }
        self._world.objects.load("pods", self._namespace, body)


@dataclass(frozen=True, slots=True)
class _Shared:
    """Sub-trees that all pods of a workload point to."""

    labels: Obj
    owner: list[Obj]
    conditions: list[Obj]
    running: Obj
