"""Events as client-go records them: counted when they repeat, combined when they are many, dropped when they flood.

The rules are those of client-go's EventCorrelator (tools/record/events_cache.go).
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from opsapi.kit.clock import rfc3339
from opsapi.playground.clock import SimClock
from opsapi.playground.registry import ApiError, Obj, Registry

_COMBINE_AFTER = 10
_COMBINE_WINDOW = 600.0
_SPAM_BURST = 25
_SPAM_REFILL = 1 / 300
_TTL = 3600.0
"""kube-apiserver's --event-ttl."""

_stamp_of = lru_cache(maxsize=8192)(rfc3339)
_COMBINED = "(combined from similar events): "


def micro_time(moment: datetime) -> str:
    """metav1.MicroTime: RFC 3339 with six decimals."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def reference(obj: Obj, resource_version: bool = True) -> Obj:
    """An ObjectReference to a stored object."""
    meta = obj["metadata"]
    ref: Obj = {"kind": obj["kind"]}
    if meta.get("namespace"):
        ref["namespace"] = meta["namespace"]
    ref |= {"name": meta["name"], "uid": meta["uid"], "apiVersion": obj["apiVersion"]}
    if resource_version and meta.get("resourceVersion"):
        ref["resourceVersion"] = meta["resourceVersion"]
    return ref


@dataclass(slots=True)
class _Series:
    """What is known of one event that may repeat."""

    name: str
    count: int
    last: float


@dataclass(slots=True)
class _Similar:
    messages: dict[str, None]
    last: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """Writes Events through the registry. Failures to write (a namespace that goes away) are dropped, as in life."""

    def __init__(self, registry: Registry, clock: SimClock) -> None:
        self._registry = registry
        self._clock = clock
        self._series: dict[tuple[str, ...], _Series] = {}
        self._similar: dict[tuple[str, ...], _Similar] = {}
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._expiry: deque[tuple[float, str, str]] = deque()
        self._serial = 0

    def normal(self, obj: Obj, component: str, reason: str, message: str, **extra: str) -> None:
        self.record(reference(obj), component, "Normal", reason, message, **extra)

    def warning(self, obj: Obj, component: str, reason: str, message: str, **extra: str) -> None:
        self.record(reference(obj), component, "Warning", reason, message, **extra)

    def record(
        self, ref: Obj, component: str, kind: str, reason: str, message: str, *, host: str = "", field_path: str = ""
    ) -> None:
        """One event of the old API (count, firstTimestamp): what controllers and kubelets write."""
        if field_path:
            ref = {**ref, "fieldPath": field_path}
        now = self._clock.monotonic()
        about = (component, host, ref["kind"], ref.get("namespace", ""), ref["name"], ref.get("uid", ""), field_path)
        message, combined = self._combine((*about, kind, reason), message, now)
        if not self._may_write((component, ref.get("uid") or ref["name"]), now):
            return
        key = (*about, kind, reason, "" if combined else message)
        namespace = ref.get("namespace") or "default"
        if not self._repeat(key, namespace, message, now):
            self._write(key, namespace, ref, (component, host), (kind, reason, message), now, combined)

    def action(self, obj: Obj, component: str, kind: str, reason: str, message: str, action: str) -> None:
        """One event of events.k8s.io (eventTime, series): what the scheduler writes."""
        now = self._clock.monotonic()
        ref = reference(obj)
        namespace = ref.get("namespace") or "default"
        key = (component, ref["uid"], kind, reason, message)
        moment = micro_time(self._clock.now())
        known = self._series.get(key)
        if known is not None and now - known.last < 360:
            known.count, known.last = known.count + 1, now
            if self._amend(namespace, known, {"series": {"count": known.count, "lastObservedTime": moment}}):
                return
        event = self._skeleton(namespace, ref, (kind, reason, message))
        event |= {
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "eventTime": moment,
            "action": action,
            "reportingComponent": component,
            "reportingInstance": f"{component}-playground",
        }
        self._create(key, namespace, event, now)

    def sweep(self) -> None:
        """Deletes events older than an hour, as etcd's lease does; call it every minute or so."""
        now = self._clock.monotonic()
        while self._expiry and self._expiry[0][0] <= now:
            due, namespace, name = self._expiry.popleft()
            event = self._registry.find("events", namespace, name)
            if event is None:
                continue
            stamp = event.get("lastTimestamp") or (event.get("series") or {}).get("lastObservedTime")
            fresh = self._clock.at(datetime.fromisoformat(stamp)) + _TTL if stamp else due
            if fresh > now:
                self._expiry.append((fresh, namespace, name))
                continue
            self._registry.delete("events", namespace, name)
        stale = [key for key, series in self._series.items() if series.last + _TTL <= now]
        for key in stale:
            del self._series[key]
        for similar in [key for key, known in self._similar.items() if known.last + _COMBINE_WINDOW <= now]:
            del self._similar[similar]
        for full in [key for key, bucket in self._buckets.items() if now - bucket.at > _SPAM_BURST / _SPAM_REFILL]:
            del self._buckets[full]

    def _combine(self, key: tuple[str, ...], message: str, now: float) -> tuple[str, bool]:
        known = self._similar.get(key)
        if known is None or now - known.last > _COMBINE_WINDOW:
            self._similar[key] = _Similar({message: None}, now)
            return message, False
        known.last = now
        known.messages[message] = None
        if len(known.messages) < _COMBINE_AFTER:
            return message, False
        while len(known.messages) > _COMBINE_AFTER:
            del known.messages[next(iter(known.messages))]
        return _COMBINED + message, True

    def _may_write(self, source: tuple[str, str], now: float) -> bool:
        bucket = self._buckets.get(source)
        if bucket is None:
            self._buckets[source] = _Bucket(_SPAM_BURST - 1, now)
            return True
        bucket.tokens = min(_SPAM_BURST, bucket.tokens + (now - bucket.at) * _SPAM_REFILL)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _repeat(self, key: tuple[str, ...], namespace: str, message: str, now: float) -> bool:
        known = self._series.get(key)
        if known is None:
            return False
        known.count, known.last = known.count + 1, now
        change = {"count": known.count, "lastTimestamp": _stamp_of(self._clock.now()), "message": message}
        return self._amend(namespace, known, change)

    def _amend(self, namespace: str, known: _Series, change: dict[str, Any]) -> bool:
        event = self._registry.find("events", namespace, known.name)
        if event is None:
            return False
        meta = {name: value for name, value in event["metadata"].items() if name != "resourceVersion"}
        try:
            self._registry.update("events", namespace, known.name, {**event, "metadata": meta, **change})
        except ApiError:
            return False
        return True

    def _write(
        self,
        key: tuple[str, ...],
        namespace: str,
        ref: Obj,
        source: tuple[str, str],
        what: tuple[str, str, str],
        now: float,
        combined: bool,
    ) -> None:
        component, host = source
        stamp = _stamp_of(self._clock.now())
        event = self._skeleton(namespace, ref, what)
        event |= {
            "source": {"component": component, "host": host} if host else {"component": component},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "eventTime": None,
            "reportingComponent": "" if combined else component,
            "reportingInstance": "" if combined else host,
        }
        self._create(key, namespace, event, now)

    def _skeleton(self, namespace: str, ref: Obj, what: tuple[str, str, str]) -> Obj:
        kind, reason, message = what
        self._serial += 1
        stamp = int(self._clock.now().timestamp() * 1_000_000) * 1000 + self._serial % 1000
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{ref['name']}.{stamp:x}", "namespace": namespace},
            "involvedObject": ref,
            "reason": reason,
            "message": message[:1024],
            "type": kind,
        }

    def _create(self, key: tuple[str, ...], namespace: str, event: Obj, now: float) -> None:
        try:
            self._registry.create("events", namespace, event)
        except ApiError:
            return
        name = event["metadata"]["name"]
        self._series[key] = _Series(name, 1, now)
        self._expiry.append((now + _TTL, namespace, name))
