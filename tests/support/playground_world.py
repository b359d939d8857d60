"""A small playground world and the manifests that its tests run in it, on virtual time."""

from datetime import UTC, datetime
from typing import Any

from opsapi.playground.node import NodeSpec
from opsapi.playground.registry import Obj
from opsapi.playground.world import World

EPOCH = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def small_world(nodes: int = 3, *, seed: int = 7, cpu: str = "4", memory: str = "16Gi") -> World:
    world = World(EPOCH, seed)
    for index in range(nodes):
        world.add_node(NodeSpec(f"node-{index + 1}", cpu, memory, zone=f"zone-{'abc'[index % 3]}"))
    world.settle()
    return world


def container(name: str = "app", image: str = "registry.example/shop/app:1.0", **fields: Any) -> Obj:
    return {"name": name, "image": image, **fields}


def resources(cpu: str = "100m", memory: str = "64Mi", limit: str | None = None) -> Obj:
    result: Obj = {"requests": {"cpu": cpu, "memory": memory}}
    if limit is not None:
        result["limits"] = {"memory": limit}
    return result


def template(name: str, *containers: Obj, profile: str = "", **spec: Any) -> Obj:
    meta: Obj = {"labels": {"app": name}}
    if profile:
        meta["annotations"] = {"playground.opsapi.dev/profile": profile}
    return {"metadata": meta, "spec": {"containers": list(containers) or [container()], **spec}}


def deployment(name: str, *containers: Obj, replicas: int = 3, profile: str = "", **spec: Any) -> Obj:
    pod_fields = spec.pop("pod", {})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, *containers, profile=profile, **pod_fields),
            **spec,
        },
    }


def service(name: str, port: int = 80, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]} | spec,
    }


def pods_of(world: World, app: str, namespace: str = "default") -> list[Obj]:
    return [
        pod
        for pod in world.registry.iterate("pods", namespace)
        if (pod["metadata"].get("labels") or {}).get("app") == app
    ]


def ready_pods(world: World, app: str, namespace: str = "default") -> list[Obj]:
    return [pod for pod in pods_of(world, app, namespace) if condition(pod, "Ready").get("status") == "True"]


def condition(obj: Obj, kind: str) -> Obj:
    """The condition of that type, or an empty dict."""
    return next((item for item in obj.get("status", {}).get("conditions") or [] if item["type"] == kind), {})


def events(world: World, reason: str = "", name: str = "") -> list[Obj]:
    return [
        event
        for event in world.registry.iterate("events")
        if reason in ("", event["reason"]) and name in ("", event["involvedObject"]["name"])
    ]


def messages(world: World, reason: str = "", name: str = "") -> list[str]:
    return [event["message"] for event in events(world, reason, name)]


def status_of(pod: Obj, name: str = "app") -> Obj:
    """The named container's status."""
    return next(dict(item) for item in pod["status"]["containerStatuses"] if item["name"] == name)
