"""A pod's status as the kubelet reports it. After pkg/kubelet/kubelet_pods.go and status/generate.go."""

from collections.abc import Callable

from opsapi.playground.kubelet.images import image_id, parse_reference
from opsapi.playground.kubelet.state import Container, Phase, PodRun, Stage, Termination
from opsapi.playground.registry import Obj

Stamp = Callable[[float], str]


def qos_class(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort. After pkg/apis/core/v1/helper/qos."""
    requests: dict[str, set[str]] = {"cpu": set(), "memory": set()}
    guaranteed, anything = True, False
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        asked, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in requests:
            request = asked.get(name, limits.get(name))
            anything = anything or request is not None or name in limits
            guaranteed = guaranteed and name in limits and str(request) == str(limits[name])
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def phase_of(run: PodRun) -> str:
    if run.eviction is not None:
        return "Failed"
    if run.stage in (Stage.ADMITTED, Stage.MOUNTING, Stage.SANDBOX):
        return "Pending"
    failed_init = any(c.phase is Phase.DONE and c.end is not None and c.end.code != 0 for c in run.inits)
    if failed_init:
        return "Failed"
    if not _initialized(run):
        return "Pending"
    if all(container.phase is Phase.DONE for container in run.containers):
        good = all(container.end is not None and container.end.code == 0 for container in run.containers)
        return "Succeeded" if good else "Failed"
    fresh = any(c.phase not in (Phase.RUNNING, Phase.DONE) and c.end is None for c in run.containers)
    return "Pending" if fresh else "Running"


def _initialized(run: PodRun) -> bool:
    return all(
        (c.sidecar and c.phase is Phase.RUNNING and c.is_started)
        or (c.phase is Phase.DONE and c.end is not None and c.end.code == 0)
        for c in run.inits
    )


def _terminated(end: Termination, stamp: Stamp) -> Obj:
    state: Obj = {"exitCode": end.code, "reason": end.reason}
    if end.message:
        state["message"] = end.message
    state |= {"startedAt": stamp(end.started), "finishedAt": stamp(end.finished), "containerID": end.container_id}
    return {"terminated": state}


def container_state(run: PodRun, container: Container, stamp: Stamp) -> tuple[Obj, Obj]:
    """(state, lastState)."""
    last = _terminated(container.last, stamp) if container.last is not None else {}
    if container.phase is Phase.RUNNING:
        return {"running": {"startedAt": stamp(container.started)}}, last
    if container.end is not None:
        ended = _terminated(container.end, stamp)
        if container.phase in (Phase.DEAD, Phase.DONE):
            return ended, last
        # Waiting again: what has just ended is the last state.
        last = ended
    waiting = {"reason": container.reason or ("PodInitializing" if run.inits else "ContainerCreating")}
    if container.message:
        waiting["message"] = container.message
    return {"waiting": waiting}, last


def container_status(run: PodRun, container: Container, stamp: Stamp) -> Obj:
    state, last = container_state(run, container, stamp)
    image = str(container.spec.get("image", ""))
    reference = parse_reference(image)
    ran = container.phase is Phase.RUNNING or container.end is not None
    done = container.init and container.phase is Phase.DONE and container.end is not None and container.end.code == 0
    status: Obj = {
        "name": container.name,
        "state": state,
        "lastState": last,
        "ready": done or (container.ready if not container.sidecar else container.is_started),
        "restartCount": container.restarts,
        "image": reference.canonical if reference is not None and ran else image,
        "imageID": image_id(image) if ran else "",
    }
    if container.container_id:
        status["containerID"] = container.container_id
    status["started"] = container.is_started
    if container.allocated.get("requests") and ran:
        status["allocatedResources"] = container.allocated["requests"]
    if ran:
        status["resources"] = container.resources
    return status


def _conditions(run: PodRun) -> list[tuple[str, str, str, str]]:
    """(type, status, reason, message) of what the kubelet owns, in its order."""
    phase = phase_of(run)
    up = run.stage in (Stage.UP, Stage.STOPPING) and run.eviction is None
    completed = phase == "Succeeded"
    unready = [c.name for c in run.containers if not c.ready]
    incomplete = [c.name for c in run.inits if c.phase is not Phase.DONE and not (c.sidecar and c.is_started)]
    initialized: tuple[str, str, str] = ("True", "", "")
    if completed:
        initialized = ("True", "PodCompleted", "")
    elif incomplete:
        words = " ".join(incomplete)
        initialized = ("False", "ContainersNotInitialized", f"containers with incomplete status: [{words}]")
    ready: tuple[str, str, str] = ("True", "", "")
    if completed:
        ready = ("False", "PodCompleted", "")
    elif phase == "Failed":
        ready = ("False", "PodFailed", "")
    elif unready or not up:
        names = " ".join(unready)
        ready = ("False", "ContainersNotReady", f"containers with unready status: [{names}]")
    return [
        ("PodReadyToStartContainers", "True" if up else "False", "", ""),
        ("Initialized", *initialized),
        ("Ready", *ready),
        ("ContainersReady", *ready),
    ]


_RESIZES = ("PodResizePending", "PodResizeInProgress")


def _resize_conditions(run: PodRun, now: str) -> list[Obj]:
    """Only while there is something to say; what is over is taken away."""
    made: list[Obj] = []
    for kind, held in zip(_RESIZES, (run.resize.pending, run.resize.progress), strict=True):
        if held is None:
            run.conditions.pop(kind, None)
            continue
        known = run.conditions.get(kind)
        since = known[3] if known is not None else now
        run.conditions[kind] = ("True", *held, since)
        item: Obj = {"type": kind, "observedGeneration": run.resize.generation, "status": "True", "lastProbeTime": None}
        item["lastTransitionTime"] = since
        item |= {name: text for name, text in zip(("reason", "message"), held, strict=True) if text}
        made.append(item)
    return made


def status_of(run: PodRun, host_ip: str, now: str, stamp: Stamp) -> Obj:
    """The whole .status; conditions that others own (PodScheduled, DisruptionTarget) are kept."""
    generation = run.pod["metadata"].get("generation", 1)
    own: list[Obj] = []
    for kind, value, reason, message in _conditions(run):
        known = run.conditions.get(kind)
        since = known[3] if known is not None and known[0] == value else now
        run.conditions[kind] = (value, reason, message, since)
        item: Obj = {"type": kind, "observedGeneration": generation, "status": value, "lastProbeTime": None}
        item["lastTransitionTime"] = since
        if reason:
            item["reason"] = reason
        if message:
            item["message"] = message
        own.append(item)
    own += _resize_conditions(run, now)
    ours = {*run.conditions, *_RESIZES}
    kept = [c for c in run.pod.get("status", {}).get("conditions") or [] if c["type"] not in ours]
    status: Obj = {"observedGeneration": generation, "phase": phase_of(run), "conditions": own + kept}
    if run.eviction is not None:
        status["reason"], status["message"] = run.eviction
    status["hostIP"] = host_ip
    status["hostIPs"] = [{"ip": host_ip}]
    if run.ip:
        status["podIP"] = run.ip
        status["podIPs"] = [{"ip": run.ip}]
    status["startTime"] = stamp(run.since)
    if run.inits:
        status["initContainerStatuses"] = [container_status(run, item, stamp) for item in run.inits]
    status["containerStatuses"] = [container_status(run, item, stamp) for item in run.containers]
    status["qosClass"] = run.pod.get("status", {}).get("qosClass") or qos_class(run.pod["spec"])
    return status
