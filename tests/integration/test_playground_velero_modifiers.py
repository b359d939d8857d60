"""Velero's resource modifiers, as far as the stand-in knows them."""

import json
from typing import Any

from opsapi.playground.registry import Obj
from opsapi.playground.velero.storage import RESTORES
from opsapi.playground.world import World
from support.playground_world import container, deployment, small_world

NAMESPACE = "velero"


def moved(obj: Obj) -> Obj:
    meta = obj["metadata"]
    return {**obj, "metadata": {**meta, "namespace": "shop", "labels": {"app": meta["name"]}}}


def shop() -> World:
    world = small_world()
    world.install("velero")
    for name in ("shop", "copy"):
        world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    world.apply(moved(deployment("web", container(), replicas=2)))
    world.apply(moved(deployment("other", container(), replicas=2)))
    world.advance(60)
    world.apply(velero("Backup", "one", includedNamespaces=["shop"]))
    world.advance(60)
    return world


def velero(kind: str, name: str, **spec: Any) -> Obj:
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "velero.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def rules(*rules: Obj) -> Obj:
    document = json.dumps({"version": "v1", "resourceModifierRules": list(rules)})
    meta = {"name": "rules", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"rules.yaml": document}}


def restored(world: World) -> Obj:
    reference = {"kind": "ConfigMap", "name": "rules"}
    spec = {
        "backupName": "one",
        "namespaceMapping": {"shop": "copy"},
        "excludedResources": ["pods", "replicasets.apps"],
    }
    world.apply(velero("Restore", "back", **spec, resourceModifier=reference))
    world.advance(120)
    return dict(world.registry.get(RESTORES, NAMESPACE, "back")["status"])


def patch(resource: str, changes: Obj, **conditions: Any) -> Obj:
    patched = [{"patchData": json.dumps(changes)}]
    return {"conditions": {"groupResource": resource} | conditions, "mergePatches": patched}


def test_a_merge_patch_changes_what_its_conditions_meet_and_nothing_else() -> None:
    world = shop()
    world.apply(
        rules(patch("deployments.apps", {"spec": {"replicas": 0}}, labelSelector={"matchLabels": {"app": "web"}}))
    )
    assert restored(world)["phase"] == "Completed"
    replicas = {
        name: world.registry.get("deployments.apps", "copy", name)["spec"]["replicas"] for name in ("web", "other")
    }
    assert replicas == {"web": 0, "other": 2}


def test_every_deployment_can_arrive_with_no_replicas() -> None:
    world = shop()
    world.apply(rules(patch("deployments.apps", {"spec": {"replicas": 0}})))
    assert restored(world)["phase"] == "Completed"
    for name in ("web", "other"):
        assert world.registry.get("deployments.apps", "copy", name)["spec"]["replicas"] == 0
        assert world.registry.get("deployments.apps", "shop", name)["spec"]["replicas"] == 2


def test_rules_that_are_missing_or_not_known_fail_the_restore() -> None:
    world = shop()
    status = restored(world)
    assert status["phase"] == "FailedValidation"
    assert "failed to get resource modifiers configmap velero/rules" in status["validationErrors"][0]
    other = shop()
    unknown = {"conditions": {"groupResource": "services", "resourceNameRegex": "x"}, "patches": []}
    other.apply(rules(unknown))
    assert "resourceNameRegex" in restored(other)["validationErrors"][0]
