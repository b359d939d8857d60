"""Picks a pod up from its status, as a kubelet does after its own restart: for snapshots and loaded fleets."""

from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.pods import parse_time
from opsapi.playground.kubelet import machine, probes
from opsapi.playground.kubelet.references import MissingReference, environment
from opsapi.playground.kubelet.state import NEVER, Container, Phase, PodRun, Stage, Termination, pod_run
from opsapi.playground.registry import Obj


def adopt(pod: Obj, clock: SimClock, host: machine.Host) -> PodRun:
    """A run that goes on where the status says it stands."""
    now = clock.monotonic()
    status = pod["status"]
    run = pod_run(pod, clock.at(parse_time(status["startTime"])))
    run.ip = status.get("podIP", "")
    run.due = now
    for item in status.get("conditions") or []:
        if item["type"] in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"):
            words = (item["status"], item.get("reason", ""), item.get("message", ""), item["lastTransitionTime"])
            run.conditions[item["type"]] = words
    if status.get("phase") in ("Succeeded", "Failed"):
        run.stage = Stage.ENDED
        if status.get("reason"):
            run.eviction = (status["reason"], status.get("message", ""))
    elif run.ip:
        run.stage = Stage.UP
    seen = {
        item["name"]: item
        for field in ("initContainerStatuses", "containerStatuses")
        for item in status.get(field) or []
    }
    for container in run.every():
        if container.name in seen:
            _restore(run, container, seen[container.name], clock, host)
    return run


def _restore(run: PodRun, container: Container, status: Obj, clock: SimClock, host: machine.Host) -> None:
    now = clock.monotonic()
    state = status.get("state") or {}
    container.restarts = int(status.get("restartCount", 0))
    container.container_id = status.get("containerID", "")
    container.last = _ended(status.get("lastState") or {}, clock)
    if status.get("resources"):
        container.allocated = container.resources = status["resources"]
    if "running" in state:
        container.phase = Phase.RUNNING
        container.started = clock.at(parse_time(state["running"]["startedAt"]))
        try:
            container.env = environment(run.pod, container.spec, host.find)
        except MissingReference:
            container.env = dict.fromkeys(container.model.profile.requires_env, "set")
        container.probes = probes.fresh(container.spec, now)
        container.probes.pop("startup", None)
        container.is_started, container.ready = True, bool(status.get("ready"))
        for kind, probe in container.probes.items():
            probe.result = container.ready if kind == "readiness" else True
            probe.due = now + probes.period(probe)
        machine.refresh(run, container, host, now)
    elif "terminated" in state:
        container.end = _ended(state, clock)
        container.phase, container.due = Phase.DONE, NEVER
        if run.stage is not Stage.ENDED and container.end is not None:
            machine.end(run, container, container.end.code, container.end.reason, container.end.finished)
    elif container.restarts:
        # It waits for its restart; the length of its back-off follows from how often it has been restarted.
        container.end, container.last = container.last, None
        container.backoff = min(10.0 * 2.0 ** min(container.restarts - 1, 10), 300.0)
        container.phase, container.due = Phase.DEAD, now + 1


def _ended(state: Obj, clock: SimClock) -> Termination | None:
    found = state.get("terminated")
    if found is None:
        return None
    finished = clock.at(parse_time(found["finishedAt"])) if found.get("finishedAt") else clock.monotonic()
    started = clock.at(parse_time(found["startedAt"])) if found.get("startedAt") else finished
    reason, identity = found.get("reason", ""), found.get("containerID", "")
    return Termination(int(found["exitCode"]), reason, started, finished, identity, found.get("message", ""))
