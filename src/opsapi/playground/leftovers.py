"""The attic: finished Jobs and Pods, old ReplicaSets, unused configuration and volumes, as old as a manifest says."""

import re
from datetime import timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from opsapi.kit.clock import rfc3339
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.world import World

NAMESPACE = "attic"
RELEASES = 5
TAKES = 30.0 * RELEASES
"""Virtual seconds that `build` takes."""

_AGE = re.compile(r"@-(\d+)([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def build(world: "World") -> None:
    """Loads manifests/leftovers.yaml and rolls its Deployment out RELEASES times."""
    text = files("opsapi.playground").joinpath("manifests/leftovers.yaml").read_text()
    load_aged(world, text)
    world.settle()
    for release in range(1, RELEASES + 1):
        found = world.registry.get("deployments.apps", NAMESPACE, "much-released")
        template = found["spec"]["template"]
        image = f"registry.lantern.example/attic/much-released:1.{release - 1}"
        containers = [{**template["spec"]["containers"][0], "image": image}]
        spec = {**found["spec"], "template": {**template, "spec": {**template["spec"], "containers": containers}}}
        world.registry.update("deployments.apps", NAMESPACE, "much-released", {**found, "spec": spec})
        world.advance(TAKES / RELEASES)


def load_aged(world: "World", text: str) -> list[Obj]:
    """Stores objects as they are, status and creationTimestamp included, which no client of an API server can.

    Every string `@-9d` (or h, m) becomes the moment so long before the present, `@node` the first node's name. What has
    no creationTimestamp is created as usual.
    """
    made = []
    for document in yaml.safe_load_all(text):
        if document is None:
            continue
        obj = _dated(world, document)
        meta = obj["metadata"]
        if "creationTimestamp" not in meta:
            made.append(world.apply(obj, "leftovers"))
            continue
        kind = world.objects.kinds.by_kind(obj["apiVersion"], obj["kind"])
        if kind is None:
            raise ValueError(f"no kind {obj['kind']} in {obj['apiVersion']}")
        made.append(world.objects.load(kind.resource, meta.get("namespace", ""), obj))
    return made


def _dated(world: "World", value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dated(world, one) for key, one in value.items()}
    if isinstance(value, list):
        return [_dated(world, one) for one in value]
    if value == "@node":
        return next((node["metadata"]["name"] for node in world.registry.iterate("nodes")), "")
    found = _AGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    return rfc3339(world.clock.now() - timedelta(**{_UNITS[found[2]]: int(found[1])}))
