"""Startup, readiness and liveness probes. After pkg/kubelet/prober/worker.go.

A probe that has settled and cannot fail by itself sets no more timers: thousands of healthy pods cost nothing.
"""

from typing import Protocol

from opsapi.playground.kubelet.state import NEVER, Container, PodRun, Probe
from opsapi.playground.registry import Obj

_FIELDS = {"startup": "startupProbe", "liveness": "livenessProbe", "readiness": "readinessProbe"}
_TITLES = {"startup": "Startup", "liveness": "Liveness", "readiness": "Readiness"}


class Emitter(Protocol):
    def emit(self, pod: Obj, kind: str, reason: str, message: str, container: str = "", init: bool = False) -> None: ...


def period(probe: Probe) -> float:
    return float(probe.spec.get("periodSeconds") or 10)


def fresh(container: Obj, now: float) -> dict[str, Probe]:
    """The probes of a container that has just started."""
    return {
        kind: Probe(kind, container[name], now + float(container[name].get("initialDelaySeconds") or 0) + 0.5)
        for kind, name in _FIELDS.items()
        if container.get(name)
    }


def hold_back(container: Container) -> None:
    """While the startup probe runs, the others wait."""
    if "startup" in container.probes and not container.is_started:
        for kind, probe in container.probes.items():
            if kind != "startup":
                probe.due = NEVER


def check(run: PodRun, container: Container, probe: Probe, host: Emitter, now: float) -> bool:
    """One probe; False where the container must be killed for it."""
    uptime = now - container.started
    ok, message = container.model.probe(probe.kind, probe.spec, uptime, container.overlay, run.ip)
    probe.due = now + period(probe)
    if ok:
        probe.successes, probe.failures = probe.successes + 1, 0
        if probe.successes >= int(probe.spec.get("successThreshold") or 1):
            _settle(container, probe, now)
        return True
    probe.successes, probe.failures = 0, probe.failures + 1
    text = f"{_TITLES[probe.kind]} probe failed: {message}"
    host.emit(run.pod, "Warning", "Unhealthy", text, container.name, container.init)
    if probe.failures < int(probe.spec.get("failureThreshold") or 3):
        return True
    probe.result = False
    if probe.kind == "readiness":
        container.ready = False
        return True
    return False


def _settle(container: Container, probe: Probe, now: float) -> None:
    probe.result = True
    if probe.kind == "startup":
        container.is_started = True
        probe.due = NEVER
        for kind, other in container.probes.items():
            if kind != "startup":
                other.due = now + 0.1
        if "readiness" not in container.probes:
            container.ready = not container.init
        return
    if probe.kind == "readiness" and container.is_started:
        container.ready = True
    # Sleep until trouble is possible, on the probe's own beat.
    trouble = container.started + container.model.trouble_after(probe.kind, now - container.started)
    if trouble == NEVER:
        probe.due = NEVER
    elif trouble > probe.due:
        beats = -(-(trouble - probe.due) // period(probe))
        probe.due += beats * period(probe)
