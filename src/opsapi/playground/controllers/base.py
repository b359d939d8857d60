"""What the workload controllers share: the registry, the clock, the recorder and their subscriptions."""

import random
from dataclasses import dataclass
from functools import lru_cache

from opsapi.kit.clock import rfc3339
from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.events import EventRecorder
from opsapi.playground.controllers.pods import controller_of
from opsapi.playground.controllers.queue import Controller, key_of
from opsapi.playground.registry import Change, Obj, Registry

stamp_of = lru_cache(maxsize=8192)(rfc3339)
"""rfc3339, remembered: one instant stamps many objects."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One playground's parts, as every controller gets them."""

    registry: Registry
    clock: SimClock
    events: EventRecorder

    @property
    def rng(self) -> random.Random:
        return self.clock.rng

    def stamp(self) -> str:
        return stamp_of(self.clock.now())


class ObjectController(Controller):
    """A controller of one resource; `watch` names it, `owned` the resources whose changes queue their owner."""

    resource = ""
    kind = ""
    component = ""
    owned: tuple[str, ...] = ()

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.clock)
        self.cluster = cluster
        self.registry = cluster.registry
        self.events = cluster.events
        self.registry.subscribe(self.resource, self._changed)
        for resource in self.owned:
            self.registry.subscribe(resource, self._dependent)

    def _changed(self, change: Change) -> None:
        self.enqueue(change.new)

    def _dependent(self, change: Change) -> None:
        owner = controller_of(change.new)
        if owner is not None and owner["kind"] == self.kind:
            self.queue.add(key_of(change.new["metadata"].get("namespace", ""), owner["name"]))

    def enqueue(self, obj: Obj) -> None:
        meta = obj["metadata"]
        self.queue.add(key_of(meta.get("namespace", ""), meta["name"]))

    def normal(self, obj: Obj, reason: str, message: str) -> None:
        self.events.normal(obj, self.component, reason, message)

    def warning(self, obj: Obj, reason: str, message: str) -> None:
        self.events.warning(obj, self.component, reason, message)


def set_condition(conditions: list[Obj], new: Obj, *, update_time: bool = False, stamp: str) -> list[Obj]:
    """Replaces or adds the condition of new's type; lastTransitionTime moves only when its status does.

    With `update_time`, lastUpdateTime is kept as Deployments keep it, and what changes moves to the end as theirs does.
    """
    old = next((item for item in conditions if item["type"] == new["type"]), None)
    if old is None:
        times = {"lastUpdateTime": stamp} if update_time else {}
        fresh = {"type": new["type"], "status": new["status"], **times, "lastTransitionTime": stamp, **_why(new)}
        return [*conditions, fresh]
    merged = _merged(old, new, update_time, stamp)
    if update_time and merged is not old:
        return [*(item for item in conditions if item is not old), merged]
    return [merged if item is old else item for item in conditions]


def _why(condition: Obj) -> Obj:
    return {key: value for key, value in condition.items() if key not in ("type", "status")}


def _merged(old: Obj, new: Obj, update_time: bool, stamp: str) -> Obj:
    same_status = old["status"] == new["status"]
    if same_status and _why(new).items() <= old.items():
        return old
    times = {"lastUpdateTime": stamp} if update_time else {}
    return {
        "type": new["type"],
        "status": new["status"],
        **times,
        "lastTransitionTime": old["lastTransitionTime"] if same_status else stamp,
        **_why(new),
    }
