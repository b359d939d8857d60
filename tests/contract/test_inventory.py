"""The Inventory port: the fake that domains are tested with behaves as the cache does."""

from typing import Any, Protocol

import pytest

from opsapi.adapters.kubernetes.cache import Cache, Feed
from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    NODE,
    POD,
    Kind,
    KubernetesObject,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    Workload,
    WorkloadMeta,
)
from opsapi.workspaces.ports import Inventory, Sync
from support.inventory import FakeInventory
from support.leaping import LeapingTime

KINDS = (POD, NODE, DEPLOYMENT)


class World(Protocol):
    inventory: Inventory

    def put(self, kind: Kind, one: KubernetesObject) -> None: ...

    def remove(self, kind: Kind, one: KubernetesObject) -> None: ...

    def set_sync(self, kind: Kind, sync: Sync) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self._fake = FakeInventory()
        self.inventory: Inventory = self._fake

    def put(self, kind: Kind, one: KubernetesObject) -> None:
        self._fake.put(kind, one)

    def remove(self, kind: Kind, one: KubernetesObject) -> None:
        meta: ObjectMeta = one.metadata  # type: ignore[attr-defined]
        self._fake.remove(kind, meta.namespace, meta.name)

    def set_sync(self, kind: Kind, sync: Sync) -> None:
        self._fake.set_sync(kind, sync)


class RealWorld:
    def __init__(self) -> None:
        self._time = LeapingTime()
        cache = Cache("ws-123", Tuning(), self._time, ClusterClock(self._time))
        self.inventory: Inventory = cache
        self._feeds: dict[Kind, Feed] = {kind: cache.feed(kind) for kind in KINDS}
        for feed in self._feeds.values():
            feed.confirm()
        self._cache = cache

    def put(self, kind: Kind, one: KubernetesObject) -> None:
        self._feeds[kind].apply(one)

    def remove(self, kind: Kind, one: KubernetesObject) -> None:
        self._feeds[kind].remove(one)

    def set_sync(self, kind: Kind, sync: Sync) -> None:
        feed = self._feeds[kind]
        match sync:
            case Sync.PENDING:
                self._feeds[kind] = self._cache.feed(kind)  # one more that has not been read: the worst counts
            case Sync.FORBIDDEN:
                feed.forbid("forbidden")
            case Sync.UNSERVED:
                feed.unserve("unserved")
            case Sync.STALE:
                self._time.seconds += 1000
                for other in self._feeds.values():
                    if other is not feed:
                        other.confirm()
            case Sync.SYNCED:
                feed.confirm()


@pytest.fixture(params=[FakeWorld, RealWorld])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param()
    return made


def pod(name: str, version: int = 1, *, namespace: str = "shop", uid: str = "", node: str = "", owner: str = "") -> Pod:
    owners = (OwnerReference(kind="ReplicaSet", name="rs", uid=owner, controller=True),) if owner else ()
    meta = ObjectMeta(
        name=name,
        namespace=namespace,
        uid=uid or f"uid-{name}",
        resource_version=str(version),
        owner_references=owners,
    )
    return Pod(metadata=meta, spec=PodSpec(node_name=node))


def test_objects_are_found_by_name_namespace_owner_and_node(world: World) -> None:
    one, two = pod("a", node="n1", owner="o1"), pod("b", namespace="bank", node="n2", owner="o1")
    world.put(POD, one)
    world.put(POD, two)
    inventory = world.inventory
    assert inventory.get(POD, Pod, "shop", "a") is one
    assert inventory.get(POD, Pod, "shop", "b") is None
    assert list(inventory.all(POD, Pod, "bank")) == [two]
    assert sorted(held.metadata.name for held in inventory.all(POD, Pod)) == ["a", "b"]
    assert sorted(held.metadata.name for held in inventory.owned_by("o1", POD, Pod)) == ["a", "b"]
    assert list(inventory.owned_by("o2", POD, Pod)) == []
    assert list(inventory.pods_on("n1")) == [one]
    moved = pod("a", 2, node="n2")
    world.put(POD, moved)
    assert list(inventory.pods_on("n1")) == []
    assert [held.metadata.name for held in inventory.owned_by("o1", POD, Pod)] == ["b"]
    world.remove(POD, moved)
    assert inventory.get(POD, Pod, "shop", "a") is None
    assert [held.metadata.name for held in inventory.pods_on("n2")] == ["b"]


def test_listeners_hear_of_what_is_there_and_then_of_each_difference(world: World) -> None:
    told: list[tuple[Any, ...]] = []
    first, second = pod("a"), pod("a", 2)
    reborn = pod("a", 3, uid="another")
    web = Workload(metadata=WorkloadMeta(name="web", namespace="shop", uid="w", resource_version="1"))
    world.put(POD, first)
    leave = world.inventory.subscribe(lambda *change: told.append(change))
    world.put(POD, second)
    world.put(POD, reborn)
    world.put(DEPLOYMENT, web)
    world.remove(POD, reborn)
    leave()
    world.put(POD, pod("late"))
    assert told == [
        (POD, None, first),
        (POD, first, second),
        (POD, second, None),
        (POD, None, reborn),
        (DEPLOYMENT, None, web),
        (POD, reborn, None),
    ]


def test_what_was_never_read_is_refused_and_what_cannot_be_read_is_passed_over(world: World) -> None:
    assert world.inventory.require(POD, NODE) <= world.inventory.now()
    for sync in (Sync.FORBIDDEN, Sync.UNSERVED):
        world.set_sync(NODE, sync)
        assert world.inventory.state(NODE).sync is sync
        assert world.inventory.state(NODE).observed_at is None
        assert world.inventory.require(POD, NODE) == world.inventory.require(POD)
    world.set_sync(NODE, Sync.PENDING)
    with pytest.raises(DependencyUnavailable) as caught:
        world.inventory.require(POD, NODE)
    assert caught.value.code == "DEPENDENCY_UNAVAILABLE"
    assert caught.value.retry_after


def test_the_oldest_confirmation_counts_and_a_stale_kind_still_answers(world: World) -> None:
    world.put(POD, pod("a"))
    world.set_sync(POD, Sync.STALE)
    state = world.inventory.state(POD)
    assert state.sync is Sync.STALE
    assert state.observed_at is not None
    assert world.inventory.require(NODE, POD) == state.observed_at
    assert world.inventory.get(POD, Pod, "shop", "a") is not None


def test_states_count_objects(world: World) -> None:
    for name in "abc":
        world.put(POD, pod(name))
    assert world.inventory.state(POD).objects == 3
