"""The clinic: workloads that are ill for a few minutes already, each of an illness that one kind of action cures."""

from importlib.resources import files
from typing import TYPE_CHECKING

from opsapi.playground.faults.world import FaultSpec

if TYPE_CHECKING:
    from opsapi.playground.world import World

NAMESPACE = "clinic"
WELL = 60.0
ILL = 240.0
"""Virtual seconds for which all was well, and for which it has been ill when `build` returns."""

_BAD = '{"exit": {"after_seconds": 3, "code": 1, "logs": ["panic: unknown column orders.gift_note"]}}'


def build(world: "World") -> None:
    """Applies manifests/sick.yaml, lets it run, then breaks it; takes WELL + ILL virtual seconds."""
    world.apply_text(files("opsapi.playground").joinpath("manifests/sick.yaml").read_text(), "sick.yaml")
    world.advance(WELL)
    _release(world, "bad-release", "registry.lantern.example/clinic/bad-release:1.5.0", _BAD)
    world.faults.inject(FaultSpec("hang", namespace=NAMESPACE, workload="hung"))
    world.advance(ILL)


def _release(world: "World", name: str, image: str, profile: str) -> None:
    found = world.registry.get("deployments.apps", NAMESPACE, name)
    template = found["spec"]["template"]
    meta = {**template["metadata"], "annotations": {"playground.opsapi.dev/profile": profile}}
    containers = [{**template["spec"]["containers"][0], "image": image}]
    changed = {**template, "metadata": meta, "spec": {**template["spec"], "containers": containers}}
    spec = {**found["spec"], "template": changed}
    world.registry.update("deployments.apps", NAMESPACE, name, {**found, "spec": spec})
