"""The cache's indexes, replay and bounds."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsapi.adapters.kubernetes.cache import Cache, Feed
from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.objects import (
    DEPLOYMENT,
    EVENT,
    NODE,
    POD,
    Event,
    Kind,
    KubernetesObject,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    Workload,
)
from opsapi.workspaces.ports import Sync
from support.leaping import START, LeapingTime


class Rig:
    def __init__(self, tuning: Tuning | None = None) -> None:
        self.time = LeapingTime()
        self.cache = Cache("ws-1", tuning or Tuning(), self.time, ClusterClock(self.time))
        self.version = 0

    def pod(self, name: str, *, node: str = "", owner: str = "", uid: str = "") -> Pod:
        self.version += 1
        owners = (OwnerReference(kind="ReplicaSet", name="rs", uid=owner, controller=True),) if owner else ()
        meta = ObjectMeta(
            name=name,
            namespace="shop",
            uid=uid or f"uid-{name}",
            resource_version=str(self.version),
            owner_references=owners,
        )
        return Pod(metadata=meta, spec=PodSpec(node_name=node))


STEP = st.tuples(
    st.sampled_from(["replace", "apply", "remove"]),
    st.sampled_from("abcd"),
    st.sampled_from(["", "n1", "n2"]),
    st.sampled_from(["", "o1", "o2"]),
    st.booleans(),
)


@settings(deadline=None)
@given(steps=st.lists(STEP, max_size=40))
def test_the_indexes_are_what_a_scan_would_find(steps: list[tuple[str, str, str, str, bool]]) -> None:
    rig = Rig()
    feed = rig.cache.feed(POD)
    for number, (verb, name, node, owner, reborn) in enumerate(steps):
        one = rig.pod(name, node=node, owner=owner, uid=f"uid-{name}-{number}" if reborn else "")
        getattr(feed, verb)(one)
    held = list(rig.cache.all(POD, Pod))
    assert rig.cache.state(POD).objects == len(held)
    for node in ("n1", "n2"):
        assert _names(rig.cache.pods_on(node)) == _names([one for one in held if one.spec.node_name == node])
    for owner in ("o1", "o2"):
        owned = [one for one in held if one.metadata.controller and one.metadata.controller.uid == owner]
        assert _names(rig.cache.owned_by(owner, POD, Pod)) == _names(owned)
    assert _names(list(rig.cache.all(POD, Pod, "shop"))) == _names(held)


def _names(pods: object) -> list[str]:
    return sorted(one.metadata.name for one in pods)  # type: ignore[attr-defined]


def test_a_subscriber_first_hears_of_what_is_there_and_can_leave() -> None:
    rig = Rig()
    feed = rig.cache.feed(POD)
    feed.replace(rig.pod("a"))
    told: list[tuple[Kind, object, object]] = []
    leave = rig.cache.subscribe(lambda *change: told.append(change))
    assert [(kind, old) for kind, old, _ in told] == [(POD, None)]
    feed.apply(rig.pod("b"))
    leave()
    feed.apply(rig.pod("c"))
    assert len(told) == 2


def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    feed = rig.cache.feed(POD)
    told: list[object] = []

    def fails(kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        raise RuntimeError("listener")

    rig.cache.subscribe(fails)
    rig.cache.subscribe(lambda *change: told.append(change))
    feed.apply(rig.pod("a"))
    assert len(told) == 1
    assert "A listener failed" in caplog.text


def test_only_the_newest_events_are_kept_and_old_ones_do_not_return() -> None:
    rig = Rig(Tuning(events_kept=100))
    feed = rig.cache.feed(EVENT)

    def event(number: int) -> Event:
        at = START + timedelta(seconds=number)
        meta = ObjectMeta(name=f"e-{number}", namespace="shop", uid=f"e-{number}", resource_version=str(number + 1))
        return Event(metadata=meta, last_timestamp=at)

    for number in range(1000):
        feed.replace(event(number))
        assert rig.cache.state(EVENT).objects <= 125
    held = {one.metadata.name for one in rig.cache.all(EVENT, Event)}
    assert held >= {f"e-{number}" for number in range(900, 1000)}
    feed.replace(event(0))
    assert rig.cache.get(EVENT, Event, "shop", "e-0") is None


def test_states_tell_how_far_a_kind_can_be_believed() -> None:
    rig = Rig()
    feed = rig.cache.feed(POD)
    assert rig.cache.state(POD).sync is Sync.PENDING
    feed.trouble("no route to host")
    assert rig.cache.state(POD).reason == "no route to host"
    with pytest.raises(DependencyUnavailable, match="no route to host"):
        rig.cache.require(POD)
    feed.confirm()
    assert rig.cache.state(POD).sync is Sync.SYNCED
    assert rig.cache.require(POD) == START
    rig.time.seconds += 61
    assert rig.cache.state(POD).sync is Sync.STALE
    assert rig.cache.require(POD) == START
    feed.confirm()
    assert rig.cache.require(POD) == START + timedelta(seconds=61)
    feed.forbid("pods is forbidden")
    feed.trouble("500")
    assert (rig.cache.state(POD).sync, rig.cache.state(POD).reason) == (Sync.FORBIDDEN, "pods is forbidden")
    assert rig.cache.state(POD).observed_at is None
    assert rig.cache.state(NODE).sync is Sync.UNSERVED


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (["confirm", "confirm"], Sync.SYNCED),
        (["confirm", "pending"], Sync.PENDING),
        (["confirm", "forbid"], Sync.FORBIDDEN),
        (["forbid", "pending"], Sync.PENDING),
        (["stale", "confirm"], Sync.STALE),
    ],
)
def test_of_several_namespaces_the_worst_counts(states: list[str], worst: Sync) -> None:
    rig = Rig()
    feeds = [rig.cache.feed(DEPLOYMENT, f"ns-{number}") for number in range(len(states))]
    for state, feed in zip(states, feeds, strict=True):
        _set(rig, feed, state)
    assert rig.cache.state(DEPLOYMENT).sync is worst
    assert list(rig.cache.all(DEPLOYMENT, Workload)) == []


def _set(rig: Rig, feed: Feed, state: str) -> None:
    match state:
        case "stale":
            feed.confirm()
            rig.time.seconds += 61
        case "forbid":
            feed.forbid("no")
        case "confirm":
            feed.confirm()
