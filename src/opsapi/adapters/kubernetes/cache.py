"""The in-memory cache of one workspace: what its reflectors have seen, indexed for the readers."""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import cast

from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.kit.clock import Clock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.objects import EVENT, POD, Event, Kind, KubernetesObject, ObjectMeta, ObjectT, Pod
from opsapi.workspaces.ports import KindState, Listener, Sync

logger = logging.getLogger(__name__)

_TOMBSTONES = 256
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_GRAVITY = (Sync.PENDING, Sync.FORBIDDEN, Sync.UNSERVED, Sync.STALE, Sync.SYNCED)
"""Where several feeds make up a kind, the first of these that any of them is in counts."""


def _meta(one: KubernetesObject) -> ObjectMeta:
    return cast("ObjectMeta", one.metadata)  # type: ignore[attr-defined]


def _older(version: str, than: str) -> bool:
    """Whether a resourceVersion precedes another of the same object; what is no number is never older."""
    try:
        return int(version) < int(than)
    except ValueError:
        return False


class Feed:
    """What one reflector (a kind, or a kind in one namespace) writes to the cache, and how far it is to be believed."""

    def __init__(self, cache: "Cache", shelf: "_Shelf", namespace: str) -> None:
        self.kind = shelf.kind
        self.namespace = namespace
        self.restarts = 0
        self._cache = cache
        self._shelf = shelf
        self._sync = Sync.PENDING
        self._reason = "not read yet"
        self._confirmed = float("-inf")
        self._observed: datetime | None = None
        self._buried: dict[str, None] = {}

    @property
    def synced(self) -> bool:
        return self._sync is Sync.SYNCED

    def confirm(self, note: str = "") -> None:
        """The cache equals the cluster now; `note` says what it still lacks."""
        self._sync, self._reason = Sync.SYNCED, note
        self._confirmed = self._cache.clock.monotonic()
        self._observed = self._cache.now()

    def trouble(self, reason: str) -> None:
        """A try failed; what was known before stays so."""
        if self._sync in (Sync.PENDING, Sync.SYNCED):
            self._reason = reason

    def forbid(self, reason: str) -> None:
        """The credentials may not read it. What was read stays for the diff to come, but is not to be believed."""
        self._sync, self._reason = Sync.FORBIDDEN, reason

    def unserve(self, reason: str) -> None:
        """The cluster does not have such a kind (any more)."""
        self._sync, self._reason = Sync.UNSERVED, reason
        self.retain(set())

    def state(self, objects: int) -> KindState:
        sync = self._sync
        if sync is Sync.SYNCED and self._cache.clock.monotonic() - self._confirmed > self._cache.tuning.stale_after:
            sync = Sync.STALE
        observed = self._observed if sync in (Sync.SYNCED, Sync.STALE) else None
        return KindState(sync, observed, self._reason, objects, self.restarts)

    def replace(self, one: KubernetesObject) -> tuple[str, str]:
        """An object as a list shows it: a list is the truth, whatever was held before. Returns its key."""
        self._cache.put(self._shelf, one)
        meta = _meta(one)
        return meta.namespace, meta.name

    def apply(self, one: KubernetesObject) -> str:
        """An object as a watch event shows it; one that is older than what is held, or long gone, is passed over.
        Returns its resourceVersion."""
        meta = _meta(one)
        if meta.uid in self._buried:
            return meta.resource_version
        held = self._shelf.held(meta.namespace, meta.name)
        if held is not None:
            known = _meta(held)
            if _older(meta.resource_version, known.resource_version):
                return meta.resource_version
        self._cache.put(self._shelf, one)
        return meta.resource_version

    def remove(self, one: KubernetesObject) -> str:
        """A DELETED event; a namesake created since stays. Returns its resourceVersion."""
        meta = _meta(one)
        if meta.uid:
            self._buried[meta.uid] = None
        if len(self._buried) > _TOMBSTONES:
            del self._buried[next(iter(self._buried))]
        held = self._shelf.held(meta.namespace, meta.name)
        if held is not None and (_meta(held).uid == meta.uid or not meta.uid):
            self._cache.drop(self._shelf, meta.namespace, meta.name)
        return meta.resource_version

    def discard(self, namespace: str, name: str) -> None:
        """Forgets one object that can no longer be read."""
        self._cache.drop(self._shelf, namespace, name)

    def retain(self, seen: set[tuple[str, str]]) -> None:
        """Drops what a complete list did not show (by namespace and name)."""
        for key in self._shelf.keys(self.namespace):
            if key not in seen:
                self._cache.drop(self._shelf, *key)


class _Shelf:
    """The objects of one kind by namespace and name, and by their controller's uid."""

    __slots__ = ("count", "holds_events", "holds_pods", "kind", "namespaces", "owned")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.holds_pods = kind == POD
        self.holds_events = kind == EVENT
        self.namespaces: dict[str, dict[str, KubernetesObject]] = {}
        self.owned: dict[str, dict[str, KubernetesObject]] = {}
        self.count = 0

    def held(self, namespace: str, name: str) -> KubernetesObject | None:
        names = self.namespaces.get(namespace)
        return names.get(name) if names is not None else None

    def keys(self, namespace: str) -> list[tuple[str, str]]:
        if namespace:
            return [(namespace, name) for name in self.namespaces.get(namespace, ())]
        return [(space, name) for space, names in self.namespaces.items() for name in names]


class Cache:
    """Implements the Inventory port. Everything happens on the event loop, so nothing is locked; iterables that it
    hands out are views and are to be read before the next await."""

    def __init__(self, workspace_id: str, tuning: Tuning, clock: Clock, cluster_clock: ClusterClock) -> None:
        self.tuning = tuning
        self.clock = clock
        self._workspace_id = workspace_id
        self._cluster_clock = cluster_clock
        self._feeds: dict[Kind, list[Feed]] = {}
        self._shelves: dict[Kind, _Shelf] = {}
        self._on_node: dict[str, dict[str, Pod]] = {}
        self._listeners: tuple[Listener, ...] = ()
        self._oldest_event = _EARLIEST

    @property
    def workspace_id(self) -> str:
        return self._workspace_id

    def feed(self, kind: Kind, namespace: str = "") -> Feed:
        """A new writer; the kind's state is the worst of its feeds'."""
        shelf = self._shelves.get(kind)
        if shelf is None:
            shelf = self._shelves[kind] = _Shelf(kind)
        feed = Feed(self, shelf, namespace)
        self._feeds.setdefault(kind, []).append(feed)
        return feed

    # what readers ask

    def state(self, kind: Kind) -> KindState:
        feeds = self._feeds.get(kind, ())
        shelf = self._shelves.get(kind)
        objects = shelf.count if shelf is not None else 0
        if len(feeds) == 1:
            return feeds[0].state(objects)
        states = [feed.state(objects) for feed in feeds]
        if not states:
            return KindState(Sync.UNSERVED, None, "this kind is not followed")
        worst = min(states, key=lambda state: _GRAVITY.index(state.sync))
        observed = min((state.observed_at for state in states if state.observed_at), default=None)
        whole = worst.sync in (Sync.SYNCED, Sync.STALE)
        restarts = sum(state.restarts for state in states)
        return KindState(worst.sync, observed if whole else None, worst.reason, objects, restarts)

    def require(self, *kinds: Kind) -> datetime:
        observed = self.now()
        for kind in kinds:
            state = self.state(kind)
            if state.sync is Sync.PENDING:
                raise DependencyUnavailable(
                    "kubernetes_api", f"{kind} have not been read yet ({state.reason})", workspace_id=self._workspace_id
                )
            if state.observed_at is not None:
                observed = min(observed, state.observed_at)
        return observed

    def get(self, kind: Kind, struct: type[ObjectT], namespace: str, name: str) -> ObjectT | None:
        shelf = self._shelves.get(kind)
        held = shelf.held(namespace, name) if shelf is not None else None
        return held if isinstance(held, struct) else None

    def all(self, kind: Kind, struct: type[ObjectT], namespace: str = "") -> Iterable[ObjectT]:
        shelf = self._shelves.get(kind)
        if shelf is None or not issubclass(kind.struct, struct):
            return ()
        if namespace:
            return cast("Iterable[ObjectT]", shelf.namespaces.get(namespace, {}).values())
        return cast("Iterable[ObjectT]", chain.from_iterable(names.values() for names in shelf.namespaces.values()))

    def owned_by(self, uid: str, kind: Kind, struct: type[ObjectT]) -> Sequence[ObjectT]:
        shelf = self._shelves.get(kind)
        if shelf is None or not issubclass(kind.struct, struct):
            return ()
        return cast("Sequence[ObjectT]", tuple(shelf.owned.get(uid, {}).values()))

    def pods_on(self, node: str) -> Sequence[Pod]:
        return tuple(self._on_node.get(node, {}).values())

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        for kind, shelf in self._shelves.items():
            for names in shelf.namespaces.values():
                for one in names.values():
                    listener(kind, None, one)
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

        return unsubscribe

    def now(self) -> datetime:
        return self._cluster_clock.now()

    # what feeds write

    def put(self, shelf: _Shelf, one: KubernetesObject) -> None:
        meta = _meta(one)
        names = shelf.namespaces.get(meta.namespace)
        if names is None:
            names = shelf.namespaces[meta.namespace] = {}
        old = names.get(meta.name)
        if old is not None:
            known = _meta(old)
            if known.uid != meta.uid:
                self.drop(shelf, meta.namespace, meta.name)
                self.put(shelf, one)
                return
            if known.resource_version == meta.resource_version and meta.resource_version:
                return
        elif shelf.holds_events and self._too_old(one):
            return
        names[meta.name] = one
        self._index(shelf, old, one)
        if old is None:
            shelf.count += 1
        self._tell(shelf.kind, old, one)
        if shelf.holds_events and shelf.count > self.tuning.events_kept * 5 // 4:
            self._trim_events(shelf)

    def drop(self, shelf: _Shelf, namespace: str, name: str) -> None:
        names = shelf.namespaces.get(namespace)
        old = names.pop(name, None) if names is not None else None
        if old is None:
            return
        if not names:
            del shelf.namespaces[namespace]
        shelf.count -= 1
        self._index(shelf, old, None)
        self._tell(shelf.kind, old, None)

    def _index(self, shelf: _Shelf, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        if old is not None:
            meta = _meta(old)
            if meta.owner_references and (owner := meta.controller) is not None:
                _take_out(shelf.owned, owner.uid, meta.uid)
            if shelf.holds_pods and (node := cast("Pod", old).spec.node_name):
                _take_out(self._on_node, node, meta.uid)
        if new is not None:
            meta = _meta(new)
            if meta.owner_references and (owner := meta.controller) is not None:
                owned = shelf.owned.get(owner.uid)
                if owned is None:
                    owned = shelf.owned[owner.uid] = {}
                owned[meta.uid] = new
            if shelf.holds_pods and (node := cast("Pod", new).spec.node_name):
                pods = self._on_node.get(node)
                if pods is None:
                    pods = self._on_node[node] = {}
                pods[meta.uid] = cast("Pod", new)

    def _tell(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        for listener in self._listeners:
            try:
                listener(kind, old, new)
            except Exception:
                logger.exception("A listener failed on a change of %s in workspace %s", kind, self._workspace_id)

    def _too_old(self, one: KubernetesObject) -> bool:
        return (cast("Event", one).seen_at or _EARLIEST) < self._oldest_event

    def _trim_events(self, shelf: _Shelf) -> None:
        """Keeps the newest; a fifth of slack makes the sorting rare."""
        events = [cast("Event", one) for names in shelf.namespaces.values() for one in names.values()]
        events.sort(key=lambda event: event.seen_at or _EARLIEST)
        surplus = events[: len(events) - self.tuning.events_kept]
        self._oldest_event = events[len(surplus)].seen_at or _EARLIEST
        for event in surplus:
            self.drop(shelf, event.metadata.namespace, event.metadata.name)


def _take_out(index: dict[str, dict[str, ObjectT]], key: str, uid: str) -> None:
    entries = index.get(key)
    if entries is not None:
        entries.pop(uid, None)
        if not entries:
            del index[key]
