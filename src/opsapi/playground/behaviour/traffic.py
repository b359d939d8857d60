"""Who gets how many requests: a workload's traffic reaches its ready pods through the Services that select them.

A pod behind no Service, or not ready, gets none; so a Service whose selector matches nothing starves its workload.
"""

from bisect import bisect_right

from opsapi.playground.behaviour.profile import Profile
from opsapi.playground.behaviour.usage import arriving
from opsapi.playground.clock import SimClock
from opsapi.playground.registry import Change, ChangeType, Obj, Registry

_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE = "kubernetes.io/service-name"


_MOST_CHANGES = 2000

Series = list[tuple[float, int]]
"""(epoch seconds, value from then on), ascending."""


def _at(series: Series | None, epoch_seconds: float) -> int:
    if not series:
        return 0
    index = bisect_right(series, (epoch_seconds, 1 << 60)) - 1
    # Before the first change that is remembered, its value is the best guess.
    return series[max(0, index)][1]


def _note(series: Series, epoch_seconds: float, value: int) -> None:
    if series and series[-1][0] == epoch_seconds:
        series[-1] = (epoch_seconds, value)
    else:
        series.append((epoch_seconds, value))
    if len(series) > _MOST_CHANGES:
        del series[: _MOST_CHANGES // 2]


class Traffic:
    """An index over the EndpointSlices, kept by the registry's changes.

    It has its own past: what a pod served an hour ago does not change when another pod joins now.
    """

    def __init__(self, registry: Registry, clock: SimClock) -> None:
        self._clock = clock
        self._counts: dict[str, Series] = {}
        self._members: dict[str, Series] = {}
        self._slices: dict[tuple[str, str], tuple[str, frozenset[str]]] = {}
        self._ready: dict[str, int] = {}
        self._services: dict[str, dict[str, int]] = {}
        for found in registry.iterate(_SLICES):
            self._put(found)
        registry.subscribe(_SLICES, self._changed)
        registry.subscribe("pods", self._pod_changed)

    def _pod_changed(self, change: Change) -> None:
        if change.type is ChangeType.DELETED:
            self.forget(change.new["metadata"]["uid"])

    def _changed(self, change: Change) -> None:
        if change.type is ChangeType.DELETED:
            self._drop((change.new["metadata"]["namespace"], change.new["metadata"]["name"]))
        else:
            self._put(change.new)

    def _put(self, piece: Obj) -> None:
        meta = piece["metadata"]
        service = (meta.get("labels") or {}).get(_SERVICE)
        if service is None:
            return
        ready = frozenset(
            endpoint["targetRef"]["uid"]
            for endpoint in piece.get("endpoints") or []
            if endpoint.get("conditions", {}).get("ready") and "targetRef" in endpoint
        )
        key = (meta["namespace"], meta["name"])
        known = self._slices.get(key)
        if known is not None and known[1] == ready:
            return
        name = f"{meta['namespace']}/{service}"
        before = known[1] if known is not None else frozenset[str]()
        self._slices[key] = (name, ready)
        self._move(name, before, ready)

    def _drop(self, key: tuple[str, str]) -> None:
        known = self._slices.pop(key, None)
        if known is not None:
            self._move(known[0], known[1], frozenset())

    def _move(self, service: str, before: frozenset[str], after: frozenset[str]) -> None:
        now = self._clock.now().timestamp()
        self._ready[service] = self._ready.get(service, 0) + len(after) - len(before)
        _note(self._counts.setdefault(service, []), now, self._ready[service])
        for uid in after - before:
            services = self._services.setdefault(uid, {})
            services[service] = services.get(service, 0) + 1
            _note(self._members.setdefault(uid, []), now, 1)
        for uid in before - after:
            services = self._services.get(uid, {})
            services[service] = services.get(service, 1) - 1
            if not any(services.values()) and uid in self._members:
                _note(self._members[uid], now, 0)

    def forget(self, uid: str) -> None:
        """The pod is gone for good, and so is its past."""
        self._services.pop(uid, None)
        self._members.pop(uid, None)

    def ready_count(self, namespace: str, service: str, epoch_seconds: float | None = None) -> int:
        """Ready pods behind a Service (`name`, or `name.namespace` from elsewhere), now or at that moment."""
        name, _, other = service.partition(".")
        key = f"{other.partition('.')[0] or namespace}/{name}"
        return self._ready.get(key, 0) if epoch_seconds is None else _at(self._counts.get(key), epoch_seconds)

    def share(self, uid: str, profile: Profile, epoch_seconds: float, key: int) -> float:
        """Requests a second that this pod serves at that moment."""
        services = self._services.get(uid)
        if not services or profile.traffic.rps <= 0 or not _at(self._members.get(uid), epoch_seconds):
            return 0.0
        # The first Service by name carries the workload's traffic; others are further names for it.
        ready = _at(self._counts.get(min(services)), epoch_seconds)
        return arriving(profile, epoch_seconds, key) / max(1, ready)
