"""Who gets how many requests: a workload's traffic reaches its ready pods through the Services that select them.

A pod behind no Service, or not ready, gets none; so a Service whose selector matches nothing starves its workload.
"""

from opsapi.playground.behaviour.profile import Profile
from opsapi.playground.behaviour.usage import arriving
from opsapi.playground.registry import Change, ChangeType, Obj, Registry

_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE = "kubernetes.io/service-name"


class Traffic:
    """An index over the EndpointSlices, kept by the registry's changes."""

    def __init__(self, registry: Registry) -> None:
        self._slices: dict[tuple[str, str], tuple[str, frozenset[str]]] = {}
        self._ready: dict[str, int] = {}
        self._services: dict[str, dict[str, int]] = {}
        for found in registry.iterate(_SLICES):
            self._put(found)
        registry.subscribe(_SLICES, self._changed)

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
        self._drop(key)
        name = f"{meta['namespace']}/{service}"
        self._slices[key] = (name, ready)
        self._ready[name] = self._ready.get(name, 0) + len(ready)
        for uid in ready:
            services = self._services.setdefault(uid, {})
            services[name] = services.get(name, 0) + 1

    def _drop(self, key: tuple[str, str]) -> None:
        known = self._slices.pop(key, None)
        if known is None:
            return
        name, ready = known
        self._ready[name] -= len(ready)
        for uid in ready:
            services = self._services[uid]
            services[name] -= 1
            if not services[name]:
                del services[name]
            if not services:
                del self._services[uid]

    def ready_count(self, namespace: str, service: str) -> int:
        """Ready pods behind a Service (`name`, or `name.namespace` from elsewhere)."""
        name, _, other = service.partition(".")
        return self._ready.get(f"{other.partition('.')[0] or namespace}/{name}", 0)

    def share(self, uid: str, profile: Profile, epoch_seconds: float, key: int) -> float:
        """Requests a second that this pod serves at that moment."""
        services = self._services.get(uid)
        if not services or profile.traffic.rps <= 0:
            return 0.0
        # The first Service by name carries the workload's traffic; others are further names for it.
        return arriving(profile, epoch_seconds, key) / max(1, self._ready[min(services)])
