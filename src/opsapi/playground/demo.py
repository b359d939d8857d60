"""The demo world: a bookshop on four nodes, in two workspaces, with services that are well and some that are not."""

from importlib.resources import files

from opsapi.playground.node import NodeSpec
from opsapi.playground.world import World

WORKSPACES: dict[str, tuple[str, ...]] = {"ws-demo": ("shop", "platform"), "ws-staging": ("staging",)}
"""Workspace -> the namespaces that make it up."""

AGE = 45 * 60.0
"""Virtual seconds that the demo has lived when it is ready: every fault has stood for far more than five minutes."""

_BAD_ROLLOUT = 8 * 60.0
_BAD_IMAGE = "registry.lantern.example/shop/gift-cards:2.4.0-does-not-exist"
_NODES = (
    NodeSpec("worker-1", "8", "32Gi", zone="zone-a"),
    NodeSpec("worker-2", "8", "32Gi", zone="zone-b"),
    NodeSpec("worker-3", "8", "32Gi", zone="zone-c"),
    NodeSpec("worker-4", "4", "16Gi", zone="zone-a", unschedulable=True),
)


def build(world: World) -> None:
    """Fills the world and lets it live for AGE."""
    for node in _NODES:
        world.add_node(node)
    world.settle()
    world.install("snapshots")
    world.install("velero")
    text = files("opsapi.playground").joinpath("manifests/demo.yaml").read_text()
    world.apply_text(text, "demo.yaml")
    world.advance(_BAD_ROLLOUT)
    roll_out(world, "shop", "gift-cards", _BAD_IMAGE)
    world.advance(AGE - _BAD_ROLLOUT)


def roll_out(world: World, namespace: str, name: str, image: str) -> None:
    """Gives the first container of a Deployment another image."""
    found = world.registry.get("deployments.apps", namespace, name)
    template = found["spec"]["template"]
    containers = template["spec"]["containers"]
    pod_spec = {**template["spec"], "containers": [{**containers[0], "image": image}, *containers[1:]]}
    spec = {**found["spec"], "template": {**template, "spec": pod_spec}}
    world.registry.update("deployments.apps", namespace, name, {**found, "spec": spec})
