"""Storage, registry and housekeeping, below HTTP."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.machinery.housekeeping import Housekeeping
from opsapi.playground.machinery.normal import DecodeError, canonical_quantity
from opsapi.playground.machinery.registry import ObjectRegistry, WriteOptions
from opsapi.playground.registry import ApiError, Change, User
from opsapi.playground.storage.store import TooOldError
from support.recordings import bodies


class StoppedClock:
    def __init__(self) -> None:
        self.moment = datetime(2024, 1, 20, 15, 30, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def registry() -> ObjectRegistry:
    made = ObjectRegistry(StoppedClock())
    made.create("namespaces", "", {"metadata": {"name": "shop"}})
    return made


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def pod_spec(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "nginx"}], **fields}


def test_every_recorded_object_passes_the_normalizer_unchanged(registry: ObjectRegistry) -> None:
    checked = 0
    for seen in bodies().seen:
        kind = registry.kinds.by_kind(seen.obj["apiVersion"], seen.obj["kind"])
        if kind is None:
            continue
        decoded = registry.normalizer.decode(kind, seen.obj)
        expected = dict(seen.obj)
        if isinstance(expected.get("spec"), dict) and expected["spec"].get("volumes") == []:
            expected["spec"] = {key: value for key, value in expected["spec"].items() if key != "volumes"}
        assert decoded.obj == expected
        assert decoded.unknown == []
        checked += 1
    assert checked > 250


@given(st.integers(-(10**6), 10**6), st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3"]))
def test_a_quantity_keeps_its_value_in_canonical_form(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    canonical = canonical_quantity(text)
    assert parse_quantity(canonical) == parse_quantity(text)
    assert canonical_quantity(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1000m", "1"),
        ("1.5Gi", "1536Mi"),
        ("0", "0"),
        ("100Ki", "100Ki"),
        ("1e3", "1e3"),
        ("0.1Ki", "102400m"),
    ],
)
def test_quantities_are_written_as_the_api_server_writes_them(text: str, canonical: str) -> None:
    assert canonical_quantity(text) == canonical


@pytest.mark.parametrize("text", ["x", "1x", "", "1 Gi", "--1"])
def test_what_is_no_quantity_is_refused_in_the_servers_words(text: str) -> None:
    with pytest.raises(DecodeError, match="quantities must match the regular expression"):
        canonical_quantity(text)


def test_resource_versions_grow_and_a_write_without_change_takes_none(registry: ObjectRegistry) -> None:
    first = registry.create("configmaps", "shop", config_map("a", x="1"))
    second = registry.create("configmaps", "shop", config_map("b", x="1"))
    assert int(second["metadata"]["resourceVersion"]) == int(first["metadata"]["resourceVersion"]) + 1
    assert registry.update("configmaps", "shop", "a", first) is first
    assert registry.store.version == int(second["metadata"]["resourceVersion"])


def test_a_stale_write_conflicts_and_changes_nothing(registry: ObjectRegistry) -> None:
    first = registry.create("configmaps", "shop", config_map("a", x="1"))
    second = registry.update("configmaps", "shop", "a", {**first, "data": {"x": "2"}})
    with pytest.raises(ApiError) as raised:
        registry.update("configmaps", "shop", "a", {**first, "data": {"x": "3"}})
    assert (raised.value.code, raised.value.reason) == (409, "Conflict")
    assert registry.get("configmaps", "shop", "a") is second


def test_a_page_shows_the_collection_as_it_was(registry: ObjectRegistry) -> None:
    for name in "abcd":
        registry.create("configmaps", "shop", config_map(name, x="1"))
    version = registry.store.version
    registry.delete("configmaps", "shop", "c")
    registry.create("configmaps", "shop", config_map("bb"))
    registry.update("configmaps", "shop", "d", config_map("d", x="2"))
    then = list(registry.store.page("configmaps", "shop", version, ("shop", "a")))
    assert [entry.key[1] for entry in then] == ["b", "c", "d"]
    assert then[2].obj["data"] == {"x": "1"}
    assert registry.store.remaining("configmaps", "shop", version, ("shop", "a")) == 3


def test_history_beyond_the_ring_is_too_old(registry: ObjectRegistry) -> None:
    registry.store.set_history(2)
    start = registry.store.version
    for name in "abc":
        registry.create("configmaps", "shop", config_map(name))
    assert len(registry.store.events_since("configmaps", start + 1)) == 2
    with pytest.raises(TooOldError):
        registry.store.events_since("configmaps", start)
    registry.store.compact()
    with pytest.raises(TooOldError):
        registry.store.events_since("secrets", start)


def test_indexes_follow_owners_and_nodes(registry: ObjectRegistry) -> None:
    owner = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u"}]
    pod = registry.create("pods", "shop", {"metadata": {"name": "p", "ownerReferences": owner}, "spec": pod_spec()})
    assert registry.by_owner("u", "pods") == [pod]
    bound = registry.update("pods", "shop", "p", {**pod, "spec": {**pod["spec"], "nodeName": "n1"}})
    assert registry.pods_on_node("n1") == [bound]
    registry.delete("pods", "shop", "p", grace_seconds=0)
    assert registry.pods_on_node("n1") == []
    assert registry.by_owner("u", "pods") == []


def test_pods_of_one_template_share_their_containers(registry: ObjectRegistry) -> None:
    template = pod_spec()
    made = [registry.create("pods", "shop", {"metadata": {"generateName": "p-"}, "spec": template}) for _ in range(3)]
    assert made[0]["spec"]["containers"] is made[1]["spec"]["containers"] is made[2]["spec"]["containers"]
    running = registry.patch_status("pods", "shop", made[0]["metadata"]["name"], {"phase": "Running"})
    assert running["spec"] is made[0]["spec"]


def test_a_bound_pod_waits_for_its_kubelet_and_an_unbound_one_goes_at_once(registry: ObjectRegistry) -> None:
    registry.create("pods", "shop", {"metadata": {"name": "free"}, "spec": pod_spec()})
    registry.delete("pods", "shop", "free")
    assert registry.find("pods", "shop", "free") is None
    registry.create("pods", "shop", {"metadata": {"name": "bound"}, "spec": pod_spec(nodeName="n1")})
    dying = registry.delete("pods", "shop", "bound")
    assert dying["metadata"]["deletionTimestamp"] == "2024-01-20T15:30:30Z"
    assert dying["metadata"]["deletionGracePeriodSeconds"] == 30
    registry.delete("pods", "shop", "bound", grace_seconds=0)
    assert registry.find("pods", "shop", "bound") is None


def test_dry_runs_are_checked_and_change_nothing(registry: ObjectRegistry) -> None:
    seen: list[Change] = []
    registry.subscribe("*", seen.append)
    made = registry.create("configmaps", "shop", config_map("a"), options=WriteOptions(dry_run=True))
    assert "resourceVersion" not in made["metadata"]
    with pytest.raises(ApiError):
        registry.create("configmaps", "shop", config_map("Bad_Name"), options=WriteOptions(dry_run=True))
    assert seen == []


def test_quotas_count_what_is_there_and_refuse_what_is_too_much(registry: ObjectRegistry) -> None:
    hard = {"pods": "2", "requests.cpu": "1"}
    registry.create("resourcequotas", "shop", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    asks = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "600m"}}}]}
    registry.create("pods", "shop", {"metadata": {"name": "a"}, "spec": asks})
    with pytest.raises(ApiError) as raised:
        registry.create("pods", "shop", {"metadata": {"name": "b"}, "spec": asks})
    told = "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"
    assert str(raised.value) == f'pods "b" is forbidden: {told}'
    with pytest.raises(ApiError, match=r"failed quota: q: must specify requests\.cpu for: c"):
        registry.create("pods", "shop", {"metadata": {"name": "c"}, "spec": pod_spec()})
    registry.delete("pods", "shop", "a")
    registry.create("pods", "shop", {"metadata": {"name": "b"}, "spec": asks})


def test_limit_ranges_fill_in_and_forbid(registry: ObjectRegistry) -> None:
    item = {"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}
    registry.create("limitranges", "shop", {"metadata": {"name": "l"}, "spec": {"limits": [item]}})
    made = registry.create("pods", "shop", {"metadata": {"name": "a"}, "spec": pod_spec()})
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    assert made["status"]["qosClass"] == "Burstable"
    big = {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]}
    with pytest.raises(ApiError, match="maximum cpu usage per Container is 1, but limit is 2"):
        registry.create("pods", "shop", {"metadata": {"name": "b"}, "spec": big})


def test_what_a_pod_names_has_to_exist(registry: ObjectRegistry) -> None:
    told = r'error looking up service account shop/nosuch: serviceaccount "nosuch" not found'
    with pytest.raises(ApiError, match=told):
        registry.create("pods", "shop", {"metadata": {"name": "a"}, "spec": pod_spec(serviceAccountName="nosuch")})
    with pytest.raises(ApiError, match="no PriorityClass with name nosuch was found"):
        registry.create("pods", "shop", {"metadata": {"name": "a"}, "spec": pod_spec(priorityClassName="nosuch")})


def test_the_namespaces_a_cluster_needs_cannot_be_deleted(registry: ObjectRegistry) -> None:
    registry.create("namespaces", "", {"metadata": {"name": "kube-system"}})
    with pytest.raises(ApiError, match="this namespace may not be deleted"):
        registry.delete("namespaces", "", "kube-system")


def test_who_scaled_is_kept_apart_from_who_applied(registry: ObjectRegistry) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec()}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    made = registry.create("deployments.apps", "shop", {"metadata": {"name": "d"}, "spec": spec}, user=User("ann"))
    scaled = {**made, "spec": {**made["spec"], "replicas": 3}}
    after = registry.update("deployments.apps", "shop", "d", scaled, subresource="scale", user=User("bob"))
    owners = {
        entry["manager"]: "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        for entry in after["metadata"]["managedFields"]
    }
    assert owners == {"ann": False, "bob": True}
    assert after["metadata"]["generation"] == 2


@pytest.fixture
def keeper(registry: ObjectRegistry) -> Housekeeping:
    made = Housekeeping(registry)
    made.drain()
    return made


def dependent(registry: ObjectRegistry, owner: dict[str, Any], name: str, *, blocks: bool = True) -> None:
    ref = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }
    registry.create("configmaps", "shop", {"metadata": {"name": name, "ownerReferences": [ref]}})


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_dependents_go_with_their_owner(registry: ObjectRegistry, keeper: Housekeeping, propagation: str) -> None:
    owner = registry.create("configmaps", "shop", config_map("owner"))
    dependent(registry, owner, "first")
    dependent(registry, registry.get("configmaps", "shop", "first"), "second")
    registry.delete("configmaps", "shop", "owner", propagation=propagation)
    if propagation == "Foreground":
        assert "deletionTimestamp" in registry.get("configmaps", "shop", "owner")["metadata"]
    keeper.drain()
    left = {one["metadata"]["name"] for one in registry.iterate("configmaps", "shop")}
    assert left == {"kube-root-ca.crt"} or left == set()


def test_a_foreground_deletion_waits_for_a_dependent_that_is_held(
    registry: ObjectRegistry, keeper: Housekeeping
) -> None:
    owner = registry.create("configmaps", "shop", config_map("owner"))
    dependent(registry, owner, "held")
    held = registry.get("configmaps", "shop", "held")
    registry.update(
        "configmaps", "shop", "held", {**held, "metadata": {**held["metadata"], "finalizers": ["example.com/hold"]}}
    )
    registry.delete("configmaps", "shop", "owner", propagation="Foreground")
    keeper.drain()
    assert registry.find("configmaps", "shop", "owner") is not None
    held = registry.get("configmaps", "shop", "held")
    meta = {key: value for key, value in held["metadata"].items() if key != "finalizers"}
    keeper.drain()
    kept = [one for one in held["metadata"]["finalizers"] if one != "example.com/hold"]
    registry.update("configmaps", "shop", "held", {**held, "metadata": {**meta, "finalizers": kept}})
    keeper.drain()
    assert registry.find("configmaps", "shop", "held") is None
    assert registry.find("configmaps", "shop", "owner") is None


def test_orphans_stay_and_forget_their_owner(registry: ObjectRegistry, keeper: Housekeeping) -> None:
    owner = registry.create("configmaps", "shop", config_map("owner"))
    dependent(registry, owner, "child")
    registry.delete("configmaps", "shop", "owner", propagation="Orphan")
    keeper.drain()
    assert registry.find("configmaps", "shop", "owner") is None
    assert "ownerReferences" not in registry.get("configmaps", "shop", "child")["metadata"]


def test_an_object_whose_owner_never_was_is_collected(registry: ObjectRegistry, keeper: Housekeeping) -> None:
    dependent(registry, {"metadata": {"name": "nobody", "uid": "none"}}, "lost")
    keeper.drain()
    assert registry.find("configmaps", "shop", "lost") is None


def test_a_namespace_gets_its_account_and_takes_its_content_along(
    registry: ObjectRegistry, keeper: Housekeeping
) -> None:
    registry.create("namespaces", "", {"metadata": {"name": "new"}})
    keeper.drain()
    assert registry.find("serviceaccounts", "new", "default") is not None
    registry.create("configmaps", "new", {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}})
    registry.delete("namespaces", "", "new")
    keeper.drain()
    conditions = registry.get("namespaces", "", "new")["status"]["conditions"]
    assert any(one["type"] == "NamespaceContentRemaining" and one["status"] == "True" for one in conditions)
    held = registry.get("configmaps", "new", "held")
    meta = {key: value for key, value in held["metadata"].items() if key != "finalizers"}
    registry.update("configmaps", "new", "held", {**held, "metadata": meta})
    keeper.drain()
    assert registry.find("namespaces", "", "new") is None


def test_a_claim_in_use_waits_for_its_pod(registry: ObjectRegistry, keeper: Housekeeping) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    registry.create("persistentvolumeclaims", "shop", {"metadata": {"name": "data"}, "spec": spec})
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    registry.create("pods", "shop", {"metadata": {"name": "p"}, "spec": pod_spec(volumes=[volume])})
    registry.delete("persistentvolumeclaims", "shop", "data")
    keeper.drain()
    assert registry.find("persistentvolumeclaims", "shop", "data") is not None
    registry.delete("pods", "shop", "p")
    keeper.drain()
    assert registry.find("persistentvolumeclaims", "shop", "data") is None


def test_the_same_seed_hands_out_the_same_names() -> None:
    def made(seed: int) -> list[str]:
        registry = ObjectRegistry(StoppedClock(), seed=seed)
        registry.create("namespaces", "", {"metadata": {"name": "shop"}})
        objs = [registry.create("configmaps", "shop", {"metadata": {"generateName": "g-"}}) for _ in range(3)]
        return [one["metadata"]["name"] + one["metadata"]["uid"] for one in objs]

    assert made(1) == made(1)
    assert made(1) != made(2)
