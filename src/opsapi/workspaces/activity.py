"""What happened lately: Kubernetes' events, and what other parts of the service add (operations, changes)."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from opsapi.workspaces.objects import EVENT, Event, Kind, KubernetesObject, ObjectReference

MAX_DETAILS = 100
"""Characters of an activity's details that an overview shows."""
_SCAN = 400
"""How many of the newest events are looked through for distinct ones."""


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    timestamp: datetime
    type: str
    """`alert` for a Warning event, else what it concerns: `deployment`, `node`, `operation`, …"""
    resource: str
    action: str
    details: str | None
    namespace: str | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET


class Entry(msgspec.Struct, frozen=True):
    """`untrusted`: the details are text that a workload or a caller wrote."""

    activity: Activity
    untrusted: bool


class ActivitySource(Protocol):
    """What another part of the service knows to have happened in a workspace; answers from memory, newest first."""

    def recent(self, workspace_id: str, limit: int) -> Sequence[Entry]: ...


Naming = Callable[[ObjectReference], str]
"""From an event's object to the name of the application that it belongs to (or its own name)."""

_ACTIONS = {
    "ScalingReplicaSet": "scaled",
    "SuccessfulRescale": "rescaled",
    "DeploymentRollback": "rolled_back",
    "SawCompletedJob": "completed",
    "Completed": "completed",
    "NodeReady": "became_ready",
    "NodeNotReady": "became_not_ready",
    "NodeSchedulable": "uncordoned",
    "NodeNotSchedulable": "cordoned",
    "RegisteredNode": "joined",
    "RemovingNode": "left",
    "Preempted": "preempted",
}
"""The Normal events worth an operator's attention; the others (Pulled, Created, Started, …) are routine."""
_LIVENESS = "Liveness probe"


class EventLog:
    """The notable events of one workspace in the order of time, and each pod's last liveness failure."""

    def __init__(self) -> None:
        self.version = 0
        self._order: list[tuple[datetime, str]] = []
        self._events: dict[str, Event] = {}
        self._liveness: dict[str, dict[str, datetime]] = {}

    def observe(self, kind: Kind, old: KubernetesObject | None, new: KubernetesObject | None) -> None:
        """One difference of the cache: an Inventory's listener."""
        if kind != EVENT:
            return
        if isinstance(old, Event):
            self._forget(old)
        if isinstance(new, Event):
            self._keep(new)

    def _keep(self, event: Event) -> None:
        seen = event.seen_at
        if seen is None:
            return
        if event.reason == "Unhealthy" and event.message.startswith(_LIVENESS):
            self._liveness.setdefault(event.involved_object.uid, {})[event.metadata.uid] = seen
        if event.type == "Warning" or event.reason in _ACTIONS:
            self.version += 1
            self._events[event.metadata.uid] = event
            insort(self._order, (seen, event.metadata.uid))

    def _forget(self, event: Event) -> None:
        failures = self._liveness.get(event.involved_object.uid)
        if failures is not None:
            failures.pop(event.metadata.uid, None)
            if not failures:
                del self._liveness[event.involved_object.uid]
        seen = event.seen_at
        if seen is None or self._events.pop(event.metadata.uid, None) is None:
            return
        self.version += 1
        position = bisect_left(self._order, (seen, event.metadata.uid))
        if position < len(self._order) and self._order[position][1] == event.metadata.uid:
            del self._order[position]

    def liveness_failed_at(self, pod_uid: str) -> datetime | None:
        """When the kubelet last reported a failed liveness probe of the pod, as long as its event is kept."""
        failures = self._liveness.get(pod_uid)
        return max(failures.values()) if failures else None

    def newest(self, limit: int, naming: Naming) -> list[Entry]:
        """Newest first; of the same kind of event about the same application only the newest."""
        seen: set[tuple[str, str, str, str]] = set()
        entries: list[Entry] = []
        for event in self._newest_events():
            resource = naming(event.involved_object)
            key = event.involved_object.kind, event.involved_object.namespace, resource, event.reason
            if key in seen:
                continue
            seen.add(key)
            entries.append(_entry(event, resource))
            if len(entries) == limit:
                break
        return entries

    def _newest_events(self) -> Iterator[Event]:
        for _, uid in reversed(self._order[-_SCAN:]):
            yield self._events[uid]


def _entry(event: Event, resource: str) -> Entry:
    seen = event.seen_at
    assert seen is not None
    alert = event.type == "Warning"
    text = f"{event.reason}: {event.message}" if alert else event.message
    return Entry(
        Activity(
            timestamp=seen.replace(microsecond=0),
            type="alert" if alert else (event.involved_object.kind or "object").lower(),
            resource=resource,
            action="triggered" if alert else _ACTIONS[event.reason],
            details=shortened(text, MAX_DETAILS),
            namespace=event.involved_object.namespace or UNSET,
        ),
        untrusted=True,
    )


def shortened(text: str, length: int) -> str:
    """On one line and at most `length` characters, with an ellipsis where cut."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
