"""The catalogue of injected faults: which are active, on what, and what they change.

Container faults are overlays on the behaviour of the pods that match; they hold for pods that come later too.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import msgspec

from opsapi.kit.quantity import whole
from opsapi.playground.behaviour.model import CLEAN, Overlay
from opsapi.playground.behaviour.profile import Exit
from opsapi.playground.behaviour.usage import Modifiers
from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.pods import controller_of, is_terminating
from opsapi.playground.kubelet.heartbeat import Heartbeats
from opsapi.playground.kubelet.kubelet import Kubelets
from opsapi.playground.kubelet.pressure import PressureEviction
from opsapi.playground.registry import Obj, Registry

PodFault = Literal[
    "crash-loop", "oom", "bad-image", "unready", "unlive", "memory-leak", "cpu-throttle", "slow", "errors", "hang"
]
NodeFault = Literal["node-down", "memory-pressure", "disk-pressure", "pid-pressure"]
StorageFault = Literal["snapshot-fails", "backup-storage-away", "restore-fails", "velero-down"]
POD_FAULTS: tuple[str, ...] = PodFault.__args__  # type: ignore[attr-defined]
NODE_FAULTS: tuple[str, ...] = NodeFault.__args__  # type: ignore[attr-defined]
STORAGE_FAULTS: tuple[str, ...] = StorageFault.__args__  # type: ignore[attr-defined]

_PRESSURES = {
    "memory-pressure": ("MemoryPressure", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    "disk-pressure": ("DiskPressure", "KubeletHasDiskPressure", "kubelet has disk pressure"),
    "pid-pressure": ("PIDPressure", "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
}


class FaultError(ValueError):
    """The request for a fault makes no sense; `field` names what is wrong."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


class FaultSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to inject. Pod faults need a namespace and a workload (a Deployment's, StatefulSet's name) or a pod."""

    type: str
    namespace: str = ""
    workload: str = ""
    pod: str = ""
    container: str = ""
    """Empty: the first container."""
    node: str = ""
    claim: str = ""
    """snapshot-fails: the PersistentVolumeClaim; empty: all of the namespace."""
    location: str = "default"
    """backup-storage-away: the BackupStorageLocation."""
    after_seconds: float = 2.0
    """crash-loop: how long each run lasts."""
    exit_code: int = 1
    logs: tuple[str, ...] = ()
    """crash-loop: the last words."""
    per_hour: str = "512Mi"
    """memory-leak."""
    factor: float = 4.0
    """cpu-throttle: times the CPU wanted; slow: times the latency."""
    error_rate: float = 0.5
    duration_seconds: float = 0.0
    """Ends by itself after so long; 0: when cleared."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """An active fault."""

    id: str
    since: str
    spec: FaultSpec


class Faults:
    def __init__(
        self,
        registry: Registry,
        clock: SimClock,
        kubelets: Kubelets,
        heartbeats: Heartbeats,
        eviction: PressureEviction,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._eviction = eviction
        self._kubelets = kubelets
        self._heartbeats = heartbeats
        self._active: dict[str, Fault] = {}
        self._numbers = itertools.count(1)
        self._past: list[tuple[Fault, float, float]] = []
        self._started: dict[str, float] = {}
        self._hung: dict[str, frozenset[str]] = {}
        """hang -> the container IDs that it holds: what is started anew is free of it."""
        kubelets.overlays = self.overlay
        kubelets.missing_images = self._image_missing

    def active(self) -> list[Fault]:
        return list(self._active.values())

    def inject(self, spec: FaultSpec) -> Fault:
        """Raises FaultError."""
        self._check(spec)
        number = f"fault-{next(self._numbers)}"
        fault = Fault(number, self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"), spec)
        self._active[number] = fault
        self._started[number] = self._clock.monotonic()
        if spec.type == "hang":
            self._hung[number] = self._running(spec)
        self._effect(spec, on=True)
        if spec.duration_seconds > 0:
            self._clock.call_later(spec.duration_seconds, lambda: self._expire(number))
        self._clock.wake()
        return fault

    def clear(self, number: str) -> Fault:
        """Raises KeyError where there is no such fault."""
        fault = self._active.pop(number)
        self._past.append((fault, self._started.pop(number), self._clock.monotonic()))
        self._hung.pop(number, None)
        self._effect(fault.spec, on=False)
        self._clock.wake()
        return fault

    def _expire(self, number: str) -> None:
        if number in self._active:
            self.clear(number)

    def clear_all(self) -> int:
        numbers = list(self._active)
        for number in numbers:
            self.clear(number)
        return len(numbers)

    def _check(self, spec: FaultSpec) -> None:
        if spec.type in NODE_FAULTS:
            if not spec.node:
                raise FaultError("node", f"{spec.type} needs the name of a node")
            if self._registry.find("nodes", "", spec.node) is None:
                raise FaultError("node", f"there is no node {spec.node!r}")
            return
        if spec.type in STORAGE_FAULTS:
            if spec.type in ("snapshot-fails", "restore-fails") and not spec.namespace:
                raise FaultError("namespace", f"{spec.type} needs a namespace")
            return
        if spec.type not in POD_FAULTS:
            known = ", ".join((*POD_FAULTS, *NODE_FAULTS, *STORAGE_FAULTS))
            raise FaultError("type", f"{spec.type!r} is not one of {known}")
        if not spec.namespace:
            raise FaultError("namespace", f"{spec.type} needs a namespace")
        if bool(spec.workload) == bool(spec.pod):
            raise FaultError("workload", "name either a workload or a pod")
        self._check_numbers(spec)
        if not any(True for _ in self._pods(spec)):
            raise FaultError("workload" if spec.workload else "pod", f"no pod in {spec.namespace} matches")

    @staticmethod
    def _check_numbers(spec: FaultSpec) -> None:
        if spec.after_seconds < 0:
            raise FaultError("after_seconds", "must not be negative")
        if not 0 <= spec.error_rate <= 1:
            raise FaultError("error_rate", "is a share between 0 and 1")
        if spec.factor <= 0:
            raise FaultError("factor", "must be above 0")
        try:
            whole(spec.per_hour)
        except ValueError as error:
            raise FaultError("per_hour", str(error)) from error

    def _pods(self, spec: FaultSpec) -> list[Obj]:
        return [pod for pod in self._registry.iterate("pods", spec.namespace) if self._concerns(spec, pod)]

    def _concerns(self, spec: FaultSpec, pod: Obj) -> bool:
        meta = pod["metadata"]
        if meta["namespace"] != spec.namespace:
            return False
        if spec.pod:
            return bool(meta["name"] == spec.pod)
        owner = controller_of(pod)
        if owner is None:
            return False
        if owner["name"] == spec.workload:
            return True
        if owner["kind"] == "ReplicaSet":
            digest = (meta.get("labels") or {}).get("pod-template-hash", "")
            return bool(owner["name"] == f"{spec.workload}-{digest}")
        return bool(owner["kind"] == "Job" and owner["name"].rpartition("-")[0] == spec.workload)

    def _running(self, spec: FaultSpec) -> frozenset[str]:
        """The IDs of the containers that the fault is about as they run now."""
        return frozenset(
            status.get("containerID", "")
            for pod in self._pods(spec)
            for status in (pod.get("status") or {}).get("containerStatuses") or []
            if status["name"] == self._container(spec, pod)
        )

    def _is_hung(self, fault: Fault, pod: Obj, container: str) -> bool:
        return self._kubelets.container_id(pod, container) in self._hung.get(fault.id, frozenset())

    def _effect(self, spec: FaultSpec, *, on: bool) -> None:
        """Makes the change felt at once; who asks about storage finds out when it next looks."""
        if spec.type in STORAGE_FAULTS:
            return
        if spec.type == "node-down":
            self._heartbeats.set_power(spec.node, not on)
        elif spec.type in _PRESSURES:
            kind, reason, message = _PRESSURES[spec.type]
            self._heartbeats.set_pressure(spec.node, kind, reason if on else "", message)
            if spec.type == "memory-pressure":
                (self._eviction.begin if on else self._eviction.end)(spec.node)
        else:
            for pod in self._pods(spec):
                if spec.type == "bad-image" and on and not is_terminating(pod):
                    # The image matters at the next start only, so there is one.
                    self._kubelets.kill(pod, self._container(spec, pod), 137, "Error")
                self._kubelets.refresh(pod)

    def _holding(self, kind: StorageFault) -> list[FaultSpec]:
        return [fault.spec for fault in self._active.values() if fault.spec.type == kind]

    def refuses_snapshot(self, namespace: str, claim: str) -> bool:
        """Whether the storage system cannot take a snapshot of a claim's volume."""
        held = self._holding("snapshot-fails")
        return any(spec.namespace == namespace and spec.claim in ("", claim) for spec in held)

    def backup_storage_away(self, location: str) -> bool:
        return any(spec.location == location for spec in self._holding("backup-storage-away"))

    def refuses_restore(self, namespace: str) -> bool:
        """Whether nothing can be restored into a namespace."""
        return any(spec.namespace == namespace for spec in self._holding("restore-fails"))

    def velero_down(self) -> bool:
        return bool(self._holding("velero-down"))

    @staticmethod
    def _container(spec: FaultSpec, pod: Obj) -> str:
        return spec.container or str(pod["spec"]["containers"][0]["name"])

    def _at(self, reading: float | None) -> list[tuple[Fault, float]]:
        """(fault, since) of those that hold now, or held at that reading."""
        if reading is None:
            return [(fault, self._started[number]) for number, fault in self._active.items()]
        held = [(fault, since) for fault, since, until in self._past if since <= reading < until]
        running = [(fault, self._started[number]) for number, fault in self._active.items()]
        return held + [(fault, since) for fault, since in running if since <= reading]

    def _on(self, pod: Obj, container: str, reading: float | None = None) -> list[tuple[Fault, float]]:
        return [
            (fault, since)
            for fault, since in self._at(reading)
            if fault.spec.type in POD_FAULTS
            and self._concerns(fault.spec, pod)
            and self._container(fault.spec, pod) == container
        ]

    def overlay(self, pod: Obj, container: str, reading: float | None = None) -> Overlay:
        """What all faults of the moment together change in one container."""
        overlay = CLEAN
        if self._active or (reading is not None and self._past):
            for fault, since in self._on(pod, container, reading):
                if fault.spec.type == "hang" and not self._is_hung(fault, pod, container):
                    continue
                moment = self._clock.wall(since).timestamp()
                overlay = _APPLY.get(fault.spec.type, _unchanged)(overlay, fault.spec, moment)
        return overlay

    def _image_missing(self, pod: Obj, image: str) -> bool:
        return any(
            fault.spec.type == "bad-image"
            for container in pod["spec"].get("containers") or []
            if container.get("image") == image
            for fault, _ in self._on(pod, container["name"])
        )


def _changed(overlay: Overlay, **modifiers: float) -> Overlay:
    made = {name: getattr(overlay.modifiers, name) for name in Modifiers.__slots__} | modifiers
    return Overlay(Modifiers(**made), overlay.exit, overlay.unready, overlay.unlive)


def _unchanged(overlay: Overlay, _spec: FaultSpec, _since: float) -> Overlay:
    return overlay


def _crash(overlay: Overlay, spec: FaultSpec, _since: float) -> Overlay:
    logs = spec.logs or ("fatal: unexpected state, giving up",)
    ended = Exit(spec.after_seconds, spec.exit_code, logs)
    return Overlay(overlay.modifiers, ended, overlay.unready, overlay.unlive)


def _unready(overlay: Overlay, _spec: FaultSpec, _since: float) -> Overlay:
    return Overlay(overlay.modifiers, overlay.exit, "HTTP probe failed with statuscode: 503", overlay.unlive)


def _hang(overlay: Overlay, _spec: FaultSpec, _since: float) -> Overlay:
    why = 'Get "http://probe/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    return Overlay(overlay.modifiers, overlay.exit, why, overlay.unlive)


def _unlive(overlay: Overlay, _spec: FaultSpec, _since: float) -> Overlay:
    return Overlay(overlay.modifiers, overlay.exit, overlay.unready, "HTTP probe failed with statuscode: 500")


def _oom(overlay: Overlay, _spec: FaultSpec, _since: float) -> Overlay:
    return _changed(overlay, extra_memory=float(1 << 40))


def _leak(overlay: Overlay, spec: FaultSpec, since: float) -> Overlay:
    return _changed(overlay, leak_per_hour=float(whole(spec.per_hour)), leak_since=since)


def _throttle(overlay: Overlay, spec: FaultSpec, _since: float) -> Overlay:
    return _changed(overlay, cpu_factor=spec.factor)


def _slow(overlay: Overlay, spec: FaultSpec, _since: float) -> Overlay:
    return _changed(overlay, latency_factor=spec.factor)


def _errors(overlay: Overlay, spec: FaultSpec, _since: float) -> Overlay:
    return _changed(overlay, error_rate=spec.error_rate)


_APPLY: dict[str, Callable[[Overlay, FaultSpec, float], Overlay]] = {
    "crash-loop": _crash,
    "unready": _unready,
    "hang": _hang,
    "unlive": _unlive,
    "oom": _oom,
    "memory-leak": _leak,
    "cpu-throttle": _throttle,
    "slow": _slow,
    "errors": _errors,
}
