"""One cluster's objects in memory, as etcd and the API server's watch cache hold them together.

Every write takes the next resourceVersion from one counter. Each resource keeps a ring of its latest events, from
which watches catch up and lists are rebuilt as of an earlier version. Objects are immutable once stored.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from opsapi.playground.registry import ChangeType, Obj

Key = tuple[str, str]
"""(namespace, name); the namespace of cluster-scoped objects is ""."""

_encode = msgspec.json.Encoder().encode


class TooOldError(Exception):
    """A version whose history is compacted. `requested` and `oldest` are resourceVersions."""

    def __init__(self, requested: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {requested} ({oldest})")
        self.requested = requested
        self.oldest = oldest


class Entry:
    """One stored version of an object and, once somebody asked for it, its JSON."""

    __slots__ = ("_encoded", "key", "obj", "version", "views")

    def __init__(self, key: Key, obj: Obj, version: int) -> None:
        self.key = key
        self.obj = obj
        self.version = version
        self._encoded: bytes | None = None
        self.views: dict[str, Any] | None = None
        """Renderings of this version (Table rows, other API versions) that watchers share."""

    def encoded(self, cache: "EncodedCache") -> bytes:
        if self._encoded is None:
            self._encoded = _encode(self.obj)
            cache.note(self, len(self._encoded))
        return self._encoded

    def forget_encoded(self) -> None:
        self._encoded = None


class EncodedCache:
    """Bounds the bytes that entries keep of their JSON: first in, first out."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._total = 0
        self._held: deque[tuple[Entry, int]] = deque()

    def note(self, entry: Entry, size: int) -> None:
        self._held.append((entry, size))
        self._total += size
        while self._total > self._limit and len(self._held) > 1:
            oldest, freed = self._held.popleft()
            oldest.forget_encoded()
            self._total -= freed


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """`new` is the entry after the write; on DELETED it holds the last state with the deletion's version."""

    version: int
    type: ChangeType
    resource: str
    new: Entry
    old: Entry | None


class _Table:
    """One resource's objects, its event ring and its sorted keys."""

    __slots__ = ("_sorted", "entries", "floor", "ring", "spaces")

    def __init__(self, history: int) -> None:
        self.entries: dict[Key, Entry] = {}
        self.spaces: dict[str, dict[str, Entry]] = {}
        self.ring: deque[StoredEvent] = deque(maxlen=history)
        self.floor = 0
        self._sorted: list[Key] | None = []

    def remember(self, event: StoredEvent) -> None:
        if self.ring.maxlen is not None and len(self.ring) == self.ring.maxlen and self.ring:
            self.floor = self.ring[0].version
        elif self.ring.maxlen == 0:
            self.floor = event.version
        self.ring.append(event)

    def put(self, entry: Entry) -> None:
        if entry.key not in self.entries:
            self._sorted = None
        self.entries[entry.key] = entry
        self.spaces.setdefault(entry.key[0], {})[entry.key[1]] = entry

    def drop(self, key: Key) -> None:
        del self.entries[key]
        space = self.spaces[key[0]]
        del space[key[1]]
        if not space:
            del self.spaces[key[0]]
        self._sorted = None

    def sorted_keys(self) -> list[Key]:
        if self._sorted is None:
            self._sorted = sorted(self.entries)
        return self._sorted


class Store:
    """`history` is how many events each resource keeps; `encoded_bytes` bounds the cached JSON."""

    def __init__(self, *, history: int = 4096, encoded_bytes: int = 256 << 20) -> None:
        self._version = 0
        self._history = history
        self._floor = 0
        self._tables: dict[str, _Table] = {}
        self._listeners: dict[str, list[Callable[[StoredEvent], None]]] = defaultdict(list)
        self._owned: dict[tuple[str, str], dict[Key, None]] = {}
        self._on_node: dict[str, dict[Key, None]] = {}
        self.cache = EncodedCache(encoded_bytes)

    @property
    def version(self) -> int:
        """The resourceVersion of the last write."""
        return self._version

    def advance_version(self) -> int:
        """Takes a version without a write, as leases and the like do in a real cluster."""
        self._version += 1
        return self._version

    def resources(self) -> list[str]:
        return list(self._tables)

    def get(self, resource: str, key: Key) -> Entry | None:
        table = self._tables.get(resource)
        return None if table is None else table.entries.get(key)

    def entries(self, resource: str, namespace: str = "") -> list[Entry]:
        """The current entries, ordered by (namespace, name)."""
        table = self._tables.get(resource)
        if table is None:
            return []
        if namespace:
            space = table.spaces.get(namespace)
            return [] if space is None else [space[name] for name in sorted(space)]
        return [table.entries[key] for key in table.sorted_keys()]

    def unordered(self, resource: str, namespace: str = "") -> list[Entry]:
        table = self._tables.get(resource)
        if table is None:
            return []
        return list(table.spaces.get(namespace, {}).values() if namespace else table.entries.values())

    def count(self, resource: str, namespace: str = "") -> int:
        table = self._tables.get(resource)
        if table is None:
            return 0
        return len(table.spaces.get(namespace, {})) if namespace else len(table.entries)

    def page(self, resource: str, namespace: str, version: int, after: Key | None) -> Iterator[Entry]:
        """Entries as they stood at `version`, those after the key `after`, in order. Raises TooOldError."""
        table = self._table(resource)
        overlay = self._undone_since(table, version)
        keys = table.sorted_keys()
        if overlay:
            keys = sorted({*keys, *overlay})
        first, last = _span(keys, namespace, after)
        for position in range(first, last):
            key = keys[position]
            entry = overlay[key] if key in overlay else table.entries.get(key)
            if entry is not None:
                yield entry

    def remaining(self, resource: str, namespace: str, version: int, after: Key) -> int:
        """How many entries `page` would give. Raises TooOldError."""
        table = self._table(resource)
        overlay = self._undone_since(table, version)
        keys = table.sorted_keys()
        first, last = _span(keys, namespace, after)
        count = last - first
        for key, entry in overlay.items():
            if key > after and (not namespace or key[0] == namespace):
                count += int(entry is not None) - int(key in table.entries)
        return count

    def _undone_since(self, table: _Table, version: int) -> dict[Key, Entry | None]:
        if version < table.floor:
            raise TooOldError(version, table.floor)
        overlay: dict[Key, Entry | None] = {}
        for event in reversed(table.ring):
            if event.version <= version:
                break
            overlay[event.new.key] = event.old
        return overlay

    def events_since(self, resource: str, version: int) -> list[StoredEvent]:
        """The events after `version`, oldest first. Raises TooOldError when some of them are compacted."""
        table = self._table(resource)
        if version < table.floor:
            raise TooOldError(version, table.floor)
        found: list[StoredEvent] = []
        for event in reversed(table.ring):
            if event.version <= version:
                break
            found.append(event)
        found.reverse()
        return found

    def compact(self, version: int | None = None) -> None:
        """Forgets history up to `version` (None: all of it): watches and continues from before get 410."""
        floor = self._floor = self._version if version is None else version
        for table in self._tables.values():
            while table.ring and table.ring[0].version <= floor:
                table.ring.popleft()
            table.floor = max(table.floor, floor)

    def set_history(self, events: int) -> None:
        """How many events each resource keeps from now on."""
        self._history = events
        for table in self._tables.values():
            dropped = len(table.ring) - events
            if dropped > 0:
                table.floor = table.ring[dropped - 1].version
            table.ring = deque(table.ring, maxlen=events)

    def put(self, resource: str, key: Key, build: Callable[[str], Obj]) -> Entry:
        """Stores what `build` makes of the next resourceVersion, tells the listeners, returns the entry."""
        table = self._table(resource)
        self._version += 1
        entry = Entry(key, build(str(self._version)), self._version)
        old = table.entries.get(key)
        table.put(entry)
        self._index(resource, key, None if old is None else old.obj, entry.obj)
        change = ChangeType.ADDED if old is None else ChangeType.MODIFIED
        self._publish(table, StoredEvent(self._version, change, resource, entry, old))
        return entry

    def remove(self, resource: str, key: Key, build: Callable[[str], Obj]) -> Entry:
        """Deletes; `build` makes the last state, stamped with the deletion's version. KeyError where there is none."""
        table = self._table(resource)
        old = table.entries[key]
        self._version += 1
        last = Entry(key, build(str(self._version)), self._version)
        table.drop(key)
        self._index(resource, key, old.obj, None)
        self._publish(table, StoredEvent(self._version, ChangeType.DELETED, resource, last, old))
        return last

    def listen(self, resource: str, callback: Callable[[StoredEvent], None]) -> Callable[[], None]:
        """Calls back after each write of `resource` ("*" = all), in order; returns what ends it."""
        listeners = self._listeners[resource]
        listeners.append(callback)

        def stop() -> None:
            if callback in listeners:
                listeners.remove(callback)

        return stop

    def owned(self, owner_uid: str, resource: str) -> list[Entry]:
        table = self._tables.get(resource)
        keys = self._owned.get((owner_uid, resource))
        return [] if table is None or keys is None else [table.entries[key] for key in keys]

    def owned_resources(self, owner_uid: str) -> list[str]:
        return [resource for resource in self._tables if (owner_uid, resource) in self._owned]

    def pods_on_node(self, node: str) -> list[Entry]:
        table = self._tables.get("pods")
        keys = self._on_node.get(node)
        return [] if table is None or keys is None else [table.entries[key] for key in keys]

    def forget_resource(self, resource: str) -> None:
        """Drops a resource's table with its history, once its last object is deleted (a CRD that went)."""
        self._tables.pop(resource, None)

    def _table(self, resource: str) -> _Table:
        table = self._tables.get(resource)
        if table is None:
            table = self._tables[resource] = _Table(self._history)
            table.floor = self._floor
        return table

    def _publish(self, table: _Table, event: StoredEvent) -> None:
        table.remember(event)
        for callback in [*self._listeners[event.resource], *self._listeners["*"]]:
            callback(event)

    def _index(self, resource: str, key: Key, old: Obj | None, new: Obj | None) -> None:
        before = _owner_uids(old)
        after = _owner_uids(new)
        if before != after:
            for uid in before:
                _unlink(self._owned, (uid, resource), key)
            for uid in after:
                self._owned.setdefault((uid, resource), {})[key] = None
        if resource == "pods":
            was, now = _node_of(old), _node_of(new)
            if was != now:
                if was:
                    _unlink(self._on_node, was, key)
                if now:
                    self._on_node.setdefault(now, {})[key] = None


def _span(keys: list[Key], namespace: str, after: Key | None) -> tuple[int, int]:
    """The positions of a namespace's keys ("" = all) behind `after`."""
    first = bisect_left(keys, (namespace, "")) if namespace else 0
    last = bisect_left(keys, (namespace + "\0", "")) if namespace else len(keys)
    if after is not None:
        first = max(first, bisect_right(keys, after))
    return first, last


def _owner_uids(obj: Obj | None) -> list[str]:
    if obj is None:
        return []
    return [owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()]


def _node_of(obj: Obj | None) -> str:
    return "" if obj is None else (obj.get("spec") or {}).get("nodeName") or ""


def _unlink(index: dict[Any, dict[Key, None]], at: Any, key: Key) -> None:
    held = index.get(at)
    if held is not None:
        held.pop(key, None)
        if not held:
            del index[at]
