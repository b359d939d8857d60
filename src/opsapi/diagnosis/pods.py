"""Why one pod is not well, and whether another in its place would be. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from opsapi.diagnosis.crashes import between_crashes, crashing_since, end_evidence, last_end, oom_killed
from opsapi.diagnosis.model import Cause, Evidence, PodFinding, shown
from opsapi.workspaces.objects import Condition, ContainerStatus, Event, Node, Pod

OOM_MEMORY = timedelta(hours=1)
"""How long an OOM kill counts against a container that runs again."""
TERMINATING_GRACE = timedelta(minutes=2)
"""Beyond its deletion's own grace period, how long a pod may take to go."""
EVENT_MEMORY = timedelta(minutes=10)
"""How old a probe's failure may be to be called present."""
_IMAGE = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CONFIG = frozenset({"CreateContainerConfigError"})
_START = frozenset({"CreateContainerError", "RunContainerError", "PostStartHookError"})
_CRASH = frozenset({"CrashLoopBackOff"})


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What bears on a pod beside itself. `twin_ready`: another pod of the same template is ready."""

    now: datetime
    node: Node | None = None
    events: tuple[Event, ...] = ()
    twin_ready: bool = False


def judge_pod(pod: Pod, around: Surroundings) -> PodFinding | None:
    """None for a pod that is well, has ended, or is on its way out in time."""
    if pod.status.phase in ("Succeeded", "Failed"):
        return None
    if pod.metadata.deletion_timestamp is not None:
        return _stuck(pod, around)
    for judge in (_on_lost_node, _out_of_memory, _waiting, _unscheduled, _unready):
        found = judge(pod, around)
        if found is not None:
            return found
    return None


def condition(pod: Pod, kind: str) -> Condition | None:
    return next((one for one in pod.status.conditions if one.type == kind), None)


def is_ready(pod: Pod) -> bool:
    held = condition(pod, "Ready")
    return held is not None and held.status == "True"


def was_ready(pod: Pod) -> bool:
    """Whether it has been ready since its containers started: the condition turned after they did."""
    held = condition(pod, "Ready")
    if held is None or held.last_transition_time is None or not pod.status.container_statuses:
        return False
    starts = [status.state.running.started_at for status in pod.status.container_statuses if status.state.running]
    if len(starts) != len(pod.status.container_statuses) or any(start is None for start in starts):
        return False
    return held.last_transition_time > max(start for start in starts if start is not None)


def _stuck(pod: Pod, around: Surroundings) -> PodFinding | None:
    since = pod.metadata.deletion_timestamp
    assert since is not None
    if around.now < since + TERMINATING_GRACE:
        return None
    why = "it is being deleted already; only its node or its finalizers can let it go, and it is never deleted by force"
    return _found(pod, Cause.STUCK_TERMINATING, since, False, why, _seen(pod, "metadata.deletionTimestamp", str(since)))


def _on_lost_node(pod: Pod, around: Surroundings) -> PodFinding | None:
    node = around.node
    held = next((one for one in node.status.conditions if one.type == "Ready"), None) if node is not None else None
    if node is None or held is None or held.status == "True" or is_ready(pod):
        return None
    evidence = Evidence(
        object=f"Node//{node.metadata.name}",
        field="status.conditions[Ready]",
        value=f"{held.status}, {held.reason}",
        at=held.last_transition_time,
    )
    why = "its node does not answer: Kubernetes itself moves its pods once their tolerations run out"
    return _found(pod, Cause.NODE_NOT_READY, held.last_transition_time, False, why, evidence)


def _out_of_memory(pod: Pod, around: Surroundings) -> PodFinding | None:
    status = oom_killed(pod.status.container_statuses, around.now, OOM_MEMORY)
    if status is None:
        return None
    limit = next((c.resources.limits.get("memory") for c in pod.spec.containers if c.name == status.name), None)
    field = f"spec.containers[{status.name}].resources.limits.memory"
    evidence = (*end_evidence(pod, status), _seen(pod, field, limit or "none"))
    why = "a restarted container has the same memory limit and is killed again"
    since = crashing_since(pod, status, around.events)
    return _found(pod, Cause.OOM_KILLED, since, False, why, *evidence, container=status.name)


def _waiting(pod: Pod, around: Surroundings) -> PodFinding | None:
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        waiting = status.state.waiting
        if waiting is None:
            if between_crashes(status, around.now):
                started = status.state.running.started_at if status.state.running is not None else None
                seen = _seen(pod, f"status.containerStatuses[{status.name}].state.running.startedAt", str(started))
                return _crash_loop(pod, status, seen, around)
            continue
        reason = waiting.reason
        said = f"{reason}: {shown(waiting.message)}" if waiting.message else reason
        seen = _seen(pod, f"status.containerStatuses[{status.name}].state.waiting", said)
        if reason in _CRASH:
            return _crash_loop(pod, status, seen, around)
        for cause, reasons, why in (
            (Cause.IMAGE_PULL, _IMAGE, "a new pod pulls the same image"),
            (Cause.CONFIG_ERROR, _CONFIG, "a new pod refers to the same ConfigMaps and Secrets"),
            (Cause.START_ERROR, _START, "a new pod starts the same command in the same image"),
        ):
            if reason in reasons:
                return _found(pod, cause, _unready_since(pod), False, why, seen, container=status.name)
    return None


def _crash_loop(pod: Pod, status: ContainerStatus, seen: Evidence, around: Surroundings) -> PodFinding:
    ended = last_end(status)
    code = f" with exit code {ended.exit_code}" if ended is not None else ""
    if around.twin_ready:
        why = f"it ends{code} while another pod of the same template is ready: a new pod may start well"
    else:
        why = f"the kubelet has restarted it {status.restart_count} times and it ends{code} each time"
    since = crashing_since(pod, status, around.events)
    evidence = (seen, *end_evidence(pod, status))
    return _found(pod, Cause.CRASH_LOOP, since, around.twin_ready, why, *evidence, container=status.name)


def _unscheduled(pod: Pod, _around: Surroundings) -> PodFinding | None:
    held = condition(pod, "PodScheduled")
    if held is None or held.status != "False":
        return None
    evidence = Evidence(
        object=_name(pod),
        field="status.conditions[PodScheduled]",
        value=shown(f"{held.reason}: {held.message}"),
        at=held.last_transition_time,
    )
    gated = held.reason == "SchedulingGated"
    cause = Cause.SCHEDULING_GATED if gated else Cause.UNSCHEDULABLE
    why = "whoever set its scheduling gate must lift it" if gated else "a new pod asks for the same place"
    return _found(pod, cause, held.last_transition_time, False, why, evidence)


def _unready(pod: Pod, around: Surroundings) -> PodFinding | None:
    if pod.status.phase != "Running" or is_ready(pod):
        return None
    held = condition(pod, "Ready")
    value = f"{held.status}, {held.reason}" if held is not None else "absent"
    evidence = [_seen(pod, "status.conditions[Ready]", value, held.last_transition_time if held else None)]
    probe = _failing_probe(pod, around)
    if probe is not None:
        evidence.append(probe)
    restarted = max((status.restart_count for status in pod.status.container_statuses), default=0)
    if was_ready(pod):
        cures, why = True, "it was ready and is not any more, while its containers run: a new pod starts afresh"
    elif around.twin_ready:
        cures, why = True, "another pod of the same template is ready: a new pod may become so"
    else:
        cures = False
        times = f", nor after {restarted} restarts" if restarted else ""
        why = f"neither it nor another pod of its template has been ready{times}: a new pod would be no other"
    cause = Cause.PROBE_FAILING if probe is not None else Cause.NOT_READY
    return _found(pod, cause, _unready_since(pod), cures, why, *evidence)


def _failing_probe(pod: Pod, around: Surroundings) -> Evidence | None:
    """The latest event of a failed probe, if it is recent."""
    found = [
        event
        for event in around.events
        if event.reason in ("Unhealthy", "ProbeWarning")
        and event.involved_object.uid == pod.metadata.uid
        and event.seen_at is not None
        and around.now - event.seen_at <= EVENT_MEMORY
    ]
    if not found:
        return None
    latest = max(found, key=lambda event: event.seen_at or around.now)
    where = f"Event/{latest.metadata.namespace}/{latest.metadata.name}"
    return Evidence(object=where, field="message", value=shown(latest.message), at=latest.seen_at)


def _unready_since(pod: Pod) -> datetime | None:
    held = condition(pod, "Ready")
    if held is not None and held.status != "True" and held.last_transition_time is not None:
        return held.last_transition_time
    return pod.status.start_time or pod.metadata.creation_timestamp


def _name(pod: Pod) -> str:
    return f"Pod/{pod.metadata.namespace}/{pod.metadata.name}"


def _seen(pod: Pod, field: str, value: str, at: datetime | None = None) -> Evidence:
    return Evidence(object=_name(pod), field=field, value=value, at=at)


def _found(
    pod: Pod,
    cause: Cause,
    since: datetime | None,
    cures: bool,
    why: str,
    *evidence: Evidence,
    container: str = "",
) -> PodFinding:
    return PodFinding(
        pod=pod.metadata.name,
        uid=pod.metadata.uid,
        cause=cause,
        since=since,
        container=container,
        restart_cures=cures,
        why=why,
        evidence=evidence,
    )


def about(pods: Iterable[Pod], events: Iterable[Event]) -> dict[str, tuple[Event, ...]]:
    """Events by the uid of the pod that they are about."""
    wanted = {pod.metadata.uid for pod in pods}
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.involved_object.uid in wanted:
            found.setdefault(event.involved_object.uid, []).append(event)
    return {uid: tuple(held) for uid, held in found.items()}
