"""Evictions, preconditions of deletions, applied scales, and who may do what with the kinds that acting needs."""

import json
from typing import Any

import pytest

from opsapi.playground.api.app import ApiOptions, create_app
from opsapi.playground.api.authentication import service_account
from opsapi.playground.registry import Obj, User
from opsapi.playground.world import World
from support.asgi import Answer, call
from support.playground_world import container, deployment, pods_of, ready_pods, small_world

ADMIN = User("admin", ("system:masters",))
BLOCKED = "Cannot evict pod as it would violate the pod's disruption budget."


class Client:
    """Plain requests to the world's API server; after each of them the controllers have reacted."""

    def __init__(self, world: World) -> None:
        self.world = world
        tokens = {"admin": ADMIN, "bot": service_account("default", "bot")}
        self._app = create_app(world.objects, ApiOptions(tokens, metrics=world.metrics))

    async def __call__(
        self, method: str, path: str, body: Any = None, *, token: str = "admin", media: str = "json"
    ) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": f"application/{media}"}
        raw = b"" if body is None else json.dumps(body).encode()
        answer = await call(self._app, method, path, headers=headers, body=raw)
        self.world.settle()
        return answer

    async def evict(self, pod: Obj, token: str = "admin", query: str = "", **options: Any) -> Answer:
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
        if options:
            body["deleteOptions"] = options
        return await self("POST", f"/api/v1/namespaces/default/pods/{name}/eviction{query}", body, token=token)


def guarded(minimum: int = 2) -> World:
    world = small_world()
    world.apply(deployment("web", replicas=2))
    budget = {"minAvailable": minimum, "selector": {"matchLabels": {"app": "web"}}}
    meta = {"name": "web", "namespace": "default"}
    world.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": budget})
    world.advance(30)
    return world


def allowed(world: World) -> int:
    return int(world.registry.get("poddisruptionbudgets.policy", "default", "web")["status"]["disruptionsAllowed"])


async def test_a_budget_blocks_an_eviction_with_its_name_and_figures() -> None:
    world = guarded()
    answer = await Client(world).evict(pods_of(world, "web")[0])
    assert answer.status == 429
    assert answer.json()["reason"] == "TooManyRequests"
    assert answer.json()["message"] == BLOCKED
    told = "The disruption budget web needs 2 healthy pods and has 2 currently"
    assert answer.json()["details"] == {"causes": [{"reason": "DisruptionBudget", "message": told}]}
    assert len(ready_pods(world, "web")) == 2


async def test_a_budget_pays_for_one_eviction_and_for_the_next_only_once_the_pod_is_replaced() -> None:
    world = guarded(minimum=1)
    client = Client(world)
    first, second = pods_of(world, "web")
    assert (await client.evict(first)).status == 201
    gone = world.registry.find("pods", "default", first["metadata"]["name"])
    assert gone is not None
    target = next(one for one in gone["status"]["conditions"] if one["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")
    assert (await client.evict(second)).status == 429
    world.advance(60)
    assert (await client.evict(second)).status == 201


async def test_a_dry_run_of_an_eviction_tells_the_verdict_and_spends_nothing() -> None:
    world = guarded(minimum=1)
    client = Client(world)
    before = world.objects.store.version
    for pod in pods_of(world, "web"):
        assert (await client.evict(pod, dryRun=["All"])).status == 201
        assert (await client.evict(pod, query="?dryRun=All")).status == 201
    assert world.objects.store.version == before
    assert allowed(world) == 1
    blocked = guarded()
    assert (await Client(blocked).evict(pods_of(blocked, "web")[0], dryRun=["All"])).status == 429


@pytest.mark.parametrize("part", ["uid", "resourceVersion"])
async def test_an_eviction_of_another_pod_of_the_same_name_is_refused_and_costs_no_budget(part: str) -> None:
    world = guarded(minimum=1)
    pod = pods_of(world, "web")[0]
    answer = await Client(world).evict(pod, preconditions={part: "1"})
    assert answer.status == 409
    assert answer.json()["reason"] == "Conflict"
    assert "in the precondition (1) does not match" in answer.json()["message"]
    assert f"in record ({pod['metadata'][part]})" in answer.json()["message"]
    assert allowed(world) == 1
    assert (await Client(world).evict(pod, preconditions={part: pod["metadata"][part]})).status == 201


async def test_pods_that_have_ended_or_wait_go_whatever_the_budget_says() -> None:
    world = guarded()
    client = Client(world)
    ended: Obj = {"metadata": {"name": "ended", "labels": {"app": "web"}}, "spec": {"containers": [container()]}}
    world.registry.create("pods", "default", {**ended, "spec": {**ended["spec"], "nodeName": "node-1"}})
    world.registry.patch_status("pods", "default", "ended", {"phase": "Failed"})
    assert (await client.evict(world.registry.get("pods", "default", "ended"))).status == 201
    assert world.registry.find("pods", "default", "ended") is None
    waiting = {**ended, "metadata": {"name": "waiting", "labels": {"app": "web"}}}
    waiting["spec"] = {**ended["spec"], "nodeSelector": {"disk": "nvme"}}
    world.registry.create("pods", "default", waiting)
    assert (await client.evict(world.registry.get("pods", "default", "waiting"))).status == 201
    assert world.registry.find("pods", "default", "waiting") is None


async def test_two_budgets_on_one_pod_are_an_error_as_they_are_in_life() -> None:
    world = guarded()
    budget = world.registry.get("poddisruptionbudgets.policy", "default", "web")
    world.apply({**budget, "metadata": {"name": "second", "namespace": "default"}})
    world.settle()
    answer = await Client(world).evict(pods_of(world, "web")[0])
    assert answer.status == 500
    assert answer.json()["message"].startswith("This pod has more than one PodDisruptionBudget")


async def test_an_eviction_needs_its_own_right() -> None:
    world = guarded(minimum=1)
    client = Client(world)
    world.registry.create("serviceaccounts", "default", {"metadata": {"name": "bot"}})
    pod = pods_of(world, "web")[0]
    refused = await client.evict(pod, token="bot")
    assert refused.status == 403
    assert 'cannot create resource "pods/eviction" in API group ""' in refused.json()["message"]
    grant(world, [""], ["pods/eviction"], ["create"])
    assert (await client.evict(pod, token="bot")).status == 201


@pytest.mark.parametrize("part", ["uid", "resourceVersion"])
async def test_a_deletion_with_a_precondition_deletes_only_what_was_meant(part: str) -> None:
    world = small_world()
    client = Client(world)
    world.registry.create("configmaps", "default", {"metadata": {"name": "one"}})
    path = "/api/v1/namespaces/default/configmaps/one"
    meta = world.registry.get("configmaps", "default", "one")["metadata"]
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {part: "other"}}
    answer = await client("DELETE", path, body)
    assert (answer.status, answer.json()["reason"]) == (409, "Conflict")
    assert meta[part] in answer.json()["message"]
    assert world.registry.find("configmaps", "default", "one") is not None
    assert (
        await client("DELETE", path, {**body, "preconditions": {part: meta[part]}, "dryRun": ["All"]})
    ).status == 200
    assert world.registry.find("configmaps", "default", "one") is not None
    assert (await client("DELETE", path, {**body, "preconditions": {part: meta[part]}})).status == 200
    assert world.registry.find("configmaps", "default", "one") is None


def grant(world: World, groups: list[str], resources: list[str], verbs: list[str]) -> None:
    rule = {"apiGroups": groups, "resources": resources, "verbs": verbs}
    world.registry.create("clusterroles.rbac.authorization.k8s.io", "", {"metadata": {"name": "r"}, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "bot", "namespace": "default"}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    binding = {"metadata": {"name": "r"}, "subjects": [subject], "roleRef": ref}
    world.registry.create("clusterrolebindings.rbac.authorization.k8s.io", "", binding)


GROUPS = [
    ("velero.io", "backups", "velero"),
    ("velero.io", "restores", "velero"),
    ("velero.io", "deletebackuprequests", "velero"),
    ("snapshot.storage.k8s.io", "volumesnapshots", "default"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents", ""),
]


@pytest.mark.parametrize(("group", "resource", "namespace"), GROUPS)
async def test_the_kinds_of_backups_and_snapshots_are_under_the_same_rights_as_any(
    group: str, resource: str, namespace: str
) -> None:
    world = small_world()
    world.install("snapshots")
    world.install("velero")
    client = Client(world)
    world.registry.create("serviceaccounts", "default", {"metadata": {"name": "bot"}})
    place = f"/namespaces/{namespace}" if namespace else ""
    path = f"/apis/{group}/v1{place}/{resource}"
    asked = {"group": group, "resource": resource, "verb": "list", "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert (await client("POST", reviews, review, token="bot")).json()["status"]["allowed"] is False
    assert (await client("GET", path, token="bot")).status == 403
    grant(world, [group], [resource], ["list"])
    assert (await client("POST", reviews, review, token="bot")).json()["status"]["allowed"] is True
    assert (await client("GET", path, token="bot")).status == 200
    assert (await client("DELETE", f"{path}/one", token="bot")).status == 403


async def test_discovery_and_openapi_list_the_new_groups_once_they_are_installed() -> None:
    world = small_world()
    client = Client(world)
    assert (await client("GET", "/apis/velero.io/v1")).status == 404
    world.install("snapshots")
    world.install("velero")
    served = (await client("GET", "/apis/velero.io/v1")).json()["resources"]
    assert [one["name"] for one in served] == [
        "backups",
        "backupstoragelocations",
        "deletebackuprequests",
        "restores",
        "schedules",
    ]
    snapshots = (await client("GET", "/apis/snapshot.storage.k8s.io/v1")).json()["resources"]
    assert "volumesnapshots/status" in [one["name"] for one in snapshots]
    names = [one["name"] for one in (await client("GET", "/apis")).json()["groups"]]
    assert {"velero.io", "snapshot.storage.k8s.io"} <= set(names)
    index = (await client("GET", "/openapi/v3")).json()["paths"]
    assert "apis/velero.io/v1" in index
    document = (await client("GET", "/openapi/v3/apis/velero.io/v1")).json()
    schema = document["components"]["schemas"]["io.velero.v1.Backup"]
    assert schema["properties"]["spec"]["properties"]["ttl"] == {"type": "string"}
    assert "/apis/velero.io/v1/namespaces/{namespace}/backups/{name}" in document["paths"]


# Server-side apply of scales


async def test_an_applied_scale_owns_the_replicas_through_the_subresource() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=2))
    client = Client(world)
    path = "/apis/apps/v1/namespaces/default/deployments/web/scale"
    wanted = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 3}}
    refused = await client("PATCH", f"{path}?fieldManager=scaler", wanted, media="apply-patch+yaml")
    assert refused.status == 409
    assert [cause["field"] for cause in refused.json()["details"]["causes"]] == [".spec.replicas"]
    assert refused.json()["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    dry = await client("PATCH", f"{path}?fieldManager=scaler&force=true&dryRun=All", wanted, media="apply-patch+yaml")
    assert (dry.status, dry.json()["spec"]) == (200, {"replicas": 3})
    assert world.registry.get("deployments.apps", "default", "web")["spec"]["replicas"] == 2
    taken = await client("PATCH", f"{path}?fieldManager=scaler&force=true", wanted, media="apply-patch+yaml")
    assert taken.status == 200
    assert (taken.json()["kind"], taken.json()["spec"]) == ("Scale", {"replicas": 3})
    found = world.registry.get("deployments.apps", "default", "web")
    assert found["spec"]["replicas"] == 3
    entries = [one for one in found["metadata"]["managedFields"] if one["manager"] == "scaler"]
    assert [(one["operation"], one["subresource"], one["fieldsV1"]) for one in entries] == [
        ("Apply", "scale", {"f:spec": {"f:replicas": {}}})
    ]
    missing = await client("PATCH", path, wanted, media="apply-patch+yaml")
    assert missing.status == 422


async def test_an_applied_object_does_not_come_to_own_its_status() -> None:
    world = small_world()
    client = Client(world)
    wanted = {**deployment("web", replicas=0), "status": {"replicas": 7}}
    path = "/apis/apps/v1/namespaces/default/deployments/web?fieldManager=one"
    answer = await client("PATCH", path, wanted, media="apply-patch+yaml")
    assert answer.status == 201
    entry = next(one for one in answer.json()["metadata"]["managedFields"] if one["manager"] == "one")
    assert "f:status" not in entry["fieldsV1"]
    assert "replicas" not in world.registry.get("deployments.apps", "default", "web")["status"]


async def test_an_applied_status_is_owned_apart_from_the_spec() -> None:
    world = small_world()
    world.apply(deployment("web", replicas=0, paused=True))
    client = Client(world)
    path = "/apis/apps/v1/namespaces/default/deployments/web/status?fieldManager=judge&force=true"
    condition = {"type": "Judged", "status": "True", "reason": "Seen", "message": ""}
    wanted = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 9},
        "status": {"conditions": [condition]},
    }
    answer = await client("PATCH", path, wanted, media="apply-patch+yaml")
    assert answer.status == 200
    assert answer.json()["spec"]["replicas"] == 0
    entry = next(one for one in answer.json()["metadata"]["managedFields"] if one["manager"] == "judge")
    assert entry["subresource"] == "status"
    assert "f:spec" not in entry["fieldsV1"]
