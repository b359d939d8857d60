"""A pod's life on its node as a state machine over virtual time. After pkg/kubelet/kuberuntime and pkg/kubelet/prober.

`step(run, now)` does everything that is due and leaves in the run when to come back (`next_due`).
"""

import hashlib
from typing import Protocol

from opsapi.kit.quantity import whole
from opsapi.playground.behaviour.model import Overlay
from opsapi.playground.behaviour.profile import Exit
from opsapi.playground.behaviour.usage import most_memory
from opsapi.playground.kubelet import probes, resizing
from opsapi.playground.kubelet.images import invalid_name, parse_reference
from opsapi.playground.kubelet.images import pull as pull_image
from opsapi.playground.kubelet.references import (
    MissingReference,
    environment,
    mount_problem,
    unbound_claim,
)
from opsapi.playground.kubelet.state import NEVER, Container, Phase, PodRun, Stage, Termination
from opsapi.playground.registry import Obj

_SYNC = 1.0
"""Seconds until the kubelet notices that a container has ended."""
_RESYNC = 12.0
"""Seconds between tries of what failed for want of configuration; the kubelet's own is 10 to 15."""
_NOTICE = 3.0
"""Seconds for which a failed pull shows as ErrImagePull before its back-off does."""
_FIRST_BACKOFF = 10.0
_MAX_BACKOFF = 300.0
_BACKOFF_RESET = 600.0
"""A container that ran this long starts over with its back-off."""
_MAX_MOUNT_BACKOFF = 122.0
_SANDBOX_SECONDS = 0.6
_START_SECONDS = 0.15
_MEMORY_CHECK = 5.0


class Host(Protocol):
    """What the machine needs of its node."""

    def find(self, resource: str, namespace: str, name: str) -> Obj | None: ...

    def emit(self, pod: Obj, kind: str, reason: str, message: str, container: str = "", init: bool = False) -> None: ...

    def overlay(self, pod: Obj, container: str) -> Overlay: ...

    def has_image(self, node: str, image: str) -> bool: ...

    def keep_image(self, node: str, image: str) -> None: ...

    def image_missing(self, pod: Obj, image: str) -> bool:
        """Whether a fault says that the registry does not know the image."""
        ...

    def new_ip(self, pod: Obj) -> str: ...

    def memory(self, run: PodRun, container: Container, now: float) -> float:
        """Bytes of working set."""
        ...

    def oom_killed(self, run: PodRun, container: Container) -> None: ...

    def room(self, run: PodRun) -> tuple[Obj, list[Obj]]:
        """(the node's allocatable, the specs of all other pods on it as they are allocated)."""
        ...


def next_due(run: PodRun) -> float:
    if run.stage is Stage.ENDED:
        return NEVER
    if run.stage is Stage.UP:
        return min(run.resize.due, *(container.next_due() for container in run.every()))
    return run.due


def step(run: PodRun, host: Host, now: float) -> None:
    """Raises nothing; afterwards next_due(run) lies after `now`."""
    for _ in range(200):
        if next_due(run) > now:
            break
        if run.stage is Stage.UP:
            if run.resize.due <= now:
                _resize(run, host, now)
            for container in run.every():
                if container.next_due() <= now:
                    _advance(run, container, host, now)
        else:
            _advance_pod(run, host, now)
        if run.stage is Stage.UP:
            _start_what_may(run, host, now)
            _end_when_over(run)


def _resize(run: PodRun, host: Host, now: float) -> None:
    restarting = resizing.go_on(run, host, now)
    for container in run.every():
        if container in restarting:
            text = f"Container {container.name} resize requires restart"
            host.emit(run.pod, "Normal", "Killing", text, container.name, container.init)
            end(run, container, 137, "Error", now)
            container.phase, container.due, container.backoff = Phase.DEAD, now, 0.0
        elif container.phase is Phase.RUNNING:
            refresh(run, container, host, now)


def _advance_pod(run: PodRun, host: Host, now: float) -> None:
    if run.stage in (Stage.ADMITTED, Stage.MOUNTING):
        problem = _not_mountable(run, host)
        if problem:
            host.emit(run.pod, "Warning", "FailedMount", problem)
            run.stage, run.due = Stage.MOUNTING, now + run.mount_backoff
            run.mount_backoff = min(run.mount_backoff * 2, _MAX_MOUNT_BACKOFF)
            return
        run.stage, run.due = Stage.SANDBOX, now + _SANDBOX_SECONDS
    elif run.stage is Stage.SANDBOX:
        run.stage = Stage.UP
        run.ip = run.ip or host.new_ip(run.pod)


def _not_mountable(run: PodRun, host: Host) -> str:
    claim = unbound_claim(run.pod, host.find)
    if claim is not None:
        return f'Unable to attach or mount volumes: unmounted volumes=[{claim}]: error processing PVC "{claim}"'
    return mount_problem(run.pod, host.find) or ""


def _start_what_may(run: PodRun, host: Host, now: float) -> None:
    """Init containers one after the other (a sidecar counts once it has started), then all others at once."""
    for container in run.inits:
        if container.phase is Phase.IDLE:
            _begin(run, container, host, now)
        if container.sidecar and container.phase is Phase.RUNNING and container.is_started:
            continue
        if not (container.phase is Phase.DONE and container.end is not None and container.end.code == 0):
            return
    for container in run.containers:
        if container.phase is Phase.IDLE:
            _begin(run, container, host, now)


def _end_when_over(run: PodRun) -> None:
    failed_init = any(c.phase is Phase.DONE and c.end is not None and c.end.code != 0 for c in run.inits)
    if failed_init or all(container.phase is Phase.DONE for container in run.containers):
        run.stage = Stage.ENDED


def _begin(run: PodRun, container: Container, host: Host, now: float) -> None:
    """Looks for the image, pulls it where it must."""
    image = str(container.spec.get("image", ""))
    if parse_reference(image) is None:
        container.phase, container.due = Phase.PULL_FAILED, now + _RESYNC
        container.reason, container.message = "InvalidImageName", invalid_name(image)
        host.emit(run.pod, "Warning", "InspectFailed", container.message, container.name, container.init)
        host.emit(run.pod, "Warning", "Failed", "Error: InvalidImageName", container.name, container.init)
        return
    node = run.pod["spec"]["nodeName"]
    policy = container.spec.get("imagePullPolicy", "IfNotPresent")
    present = host.has_image(node, image) and not host.image_missing(run.pod, image)
    if present and policy != "Always":
        text = f'Container image "{image}" already present on machine and can be accessed by the pod'
        host.emit(run.pod, "Normal", "Pulled", text, container.name, container.init)
        _create(run, container, host, now)
        return
    if policy == "Never":
        container.phase, container.due = Phase.PULL_FAILED, now + _RESYNC
        container.reason = "ErrImageNeverPull"
        container.message = f'Container image "{image}" is not present with pull policy of Never'
        host.emit(run.pod, "Warning", "ErrImageNeverPull", container.message, container.name, container.init)
        host.emit(run.pod, "Warning", "Failed", "Error: ErrImageNeverPull", container.name, container.init)
        return
    host.emit(run.pod, "Normal", "Pulling", f'Pulling image "{image}"', container.name, container.init)
    seconds = 0.35 if present else pull_image(image).seconds
    container.phase, container.due = Phase.PULLING, now + seconds
    if not container.pull_error:
        container.reason = container.message = ""


def _pulled(run: PodRun, container: Container, host: Host, now: float) -> None:
    image = str(container.spec["image"])
    outcome = pull_image(image)
    error = outcome.error
    if not error and host.image_missing(run.pod, image):
        reference = parse_reference(image)
        name = reference.canonical if reference else image
        error = f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {name}: not found'
    if error:
        head = f'Failed to pull image "{image}": '
        host.emit(run.pod, "Warning", "Failed", head + error, container.name, container.init)
        host.emit(run.pod, "Warning", "Failed", "Error: ErrImagePull", container.name, container.init)
        container.pull_backoff = min(container.pull_backoff * 2 or _FIRST_BACKOFF, _MAX_BACKOFF)
        container.pull_error = error
        container.reason, container.message = "ErrImagePull", error
        container.phase, container.due = Phase.PULL_FAILED, now + _NOTICE
        return
    host.keep_image(run.pod["spec"]["nodeName"], image)
    container.pull_backoff, container.pull_error = 0.0, ""
    took = f"{outcome.seconds:.3f}s"
    text = (
        f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: {outcome.size} bytes.'
    )
    host.emit(run.pod, "Normal", "Pulled", text, container.name, container.init)
    _create(run, container, host, now)


def _pull_failed(run: PodRun, container: Container, host: Host, now: float) -> None:
    """After a failed pull: the kubelet's next sync finds the image in back-off."""
    if container.reason in ("InvalidImageName", "ErrImageNeverPull"):
        _begin(run, container, host, now)
        return
    image = container.spec["image"]
    container.phase, container.reason = Phase.PULL_BACKOFF, "ImagePullBackOff"
    container.message = f'Back-off pulling image "{image}": ErrImagePull: {container.pull_error}'
    container.due = now + container.pull_backoff - _NOTICE
    container.announced = now


def _create(run: PodRun, container: Container, host: Host, now: float) -> None:
    try:
        container.env = environment(run.pod, container.spec, host.find)
    except MissingReference as missing:
        container.phase, container.due = Phase.CONFIG_ERROR, now + _RESYNC
        container.reason, container.message = "CreateContainerConfigError", str(missing)
        host.emit(run.pod, "Warning", "Failed", f"Error: {missing}", container.name, container.init)
        return
    container.phase, container.due = Phase.CREATING, now + _START_SECONDS
    container.reason, container.message = "", ""
    host.emit(run.pod, "Normal", "Created", "Container created", container.name, container.init)


def _run(run: PodRun, container: Container, host: Host, now: float) -> None:
    host.emit(run.pod, "Normal", "Started", "Container started", container.name, container.init)
    if container.end is not None:
        container.last, container.end = container.end, None
    text = f"{run.uid}/{container.name}/{container.restarts}"
    container.container_id = "containerd://" + hashlib.sha256(text.encode()).hexdigest()
    container.phase, container.started = Phase.RUNNING, now
    container.resources = container.allocated
    refresh(run, container, host, now)
    container.probes = probes.fresh(container.spec, now)
    container.is_started = "startup" not in container.probes
    container.ready = "readiness" not in container.probes and container.is_started and not container.init
    probes.hold_back(container)


def refresh(run: PodRun, container: Container, host: Host, now: float) -> None:
    """Asks anew how a running container will behave: at its start and when faults change."""
    container.overlay = host.overlay(run.pod, container.name)
    container.exit = container.model.exit(container.env, container.overlay)
    container.due = NEVER
    if container.exit is not None:
        container.due = max(now, container.started + container.exit.after_seconds)
    container.memory_check = now + _MEMORY_CHECK if _may_run_out(container) else NEVER
    for probe in container.probes.values():
        # A settled probe looks again; its period stays.
        if probe.due == NEVER or probe.due > now + probes.period(probe):
            probe.due = now + probes.period(probe)


def memory_limit(container: Container) -> int | None:
    limit = (container.resources.get("limits") or {}).get("memory")
    return whole(str(limit)) if limit is not None else None


def _may_run_out(container: Container) -> bool:
    limit = memory_limit(container)
    return limit is not None and most_memory(container.model.profile, container.overlay.modifiers) > limit


def _advance(run: PodRun, container: Container, host: Host, now: float) -> None:
    match container.phase:
        case Phase.PULLING:
            _pulled(run, container, host, now)
        case Phase.PULL_FAILED:
            _pull_failed(run, container, host, now)
        case Phase.PULL_BACKOFF:
            if container.due <= now:
                _begin(run, container, host, now)
            else:
                _announce_pull(run, container, host, now)
        case Phase.CONFIG_ERROR:
            _begin(run, container, host, now)
        case Phase.CREATING:
            _run(run, container, host, now)
        case Phase.RUNNING:
            _while_running(run, container, host, now)
        case Phase.DEAD:
            _restart(run, container, host, now)
        case Phase.BACKOFF:
            if container.due <= now:
                _begin_again(run, container, host, now)
            else:
                _announce(run, container, host, now)
        case _:
            container.due = NEVER


def _announce_pull(run: PodRun, container: Container, host: Host, now: float) -> None:
    image = container.spec["image"]
    host.emit(run.pod, "Normal", "BackOff", f'Back-off pulling image "{image}"', container.name, container.init)
    host.emit(run.pod, "Warning", "Failed", "Error: ImagePullBackOff", container.name, container.init)
    container.announced = now + _RESYNC


def _announce(run: PodRun, container: Container, host: Host, now: float) -> None:
    meta = run.pod["metadata"]
    where = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
    text = f"Back-off restarting failed container {container.name} in pod {where}"
    host.emit(run.pod, "Warning", "BackOff", text, container.name, container.init)
    container.announced = now + _RESYNC


def _while_running(run: PodRun, container: Container, host: Host, now: float) -> None:
    if container.due <= now and container.exit is not None:
        ended: Exit = container.exit
        reason = ended.reason or ("Completed" if ended.code == 0 else "Error")
        end(run, container, ended.code, reason, now)
        if container.end is not None:
            container.end.logs = ended.logs
        return
    if container.memory_check <= now:
        container.memory_check = now + _MEMORY_CHECK
        limit = memory_limit(container)
        if limit is not None and host.memory(run, container, now) > limit:
            host.oom_killed(run, container)
            end(run, container, 137, "OOMKilled", now)
            return
    for probe in list(container.probes.values()):
        if probe.due <= now and not probes.check(run, container, probe, host, now):
            text = f"Container {container.name} failed {probe.kind} probe, will be restarted"
            host.emit(run.pod, "Normal", "Killing", text, container.name, container.init)
            end(run, container, 137, "Error", now)
            return


def end(run: PodRun, container: Container, code: int, reason: str, now: float) -> None:
    """The process is gone; whether it comes back is the restart policy's."""
    container.end = Termination(code, reason, container.started, now, container.container_id)
    container.ready = container.is_started = False
    container.probes = {}
    container.memory_check = NEVER
    if _comes_back(run, container, code):
        container.phase, container.due = Phase.DEAD, now + _SYNC
    else:
        container.phase, container.due = Phase.DONE, NEVER


def _comes_back(run: PodRun, container: Container, code: int) -> bool:
    if container.sidecar:
        return any(item.phase is not Phase.DONE for item in run.containers)
    if container.init:
        return code != 0 and run.policy != "Never"
    return run.policy == "Always" or (run.policy == "OnFailure" and code != 0)


def _restart(run: PodRun, container: Container, host: Host, now: float) -> None:
    """The first restart is immediate; the next ones wait 10 s, 20 s, … five minutes."""
    ended = container.end
    if ended is not None and ended.finished - ended.started >= _BACKOFF_RESET:
        container.backoff = 0.0
    if container.backoff == 0.0:
        container.backoff = _FIRST_BACKOFF
        _begin_again(run, container, host, now)
        return
    meta = run.pod["metadata"]
    where = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
    container.phase, container.reason = Phase.BACKOFF, "CrashLoopBackOff"
    span = f"{int(container.backoff // 60)}m{int(container.backoff % 60)}s" if container.backoff >= 60 else ""
    span = span or f"{int(container.backoff)}s"
    container.message = f"back-off {span} restarting failed container={container.name} pod={where}"
    container.due = now + container.backoff
    container.announced = now
    container.backoff = min(container.backoff * 2, _MAX_BACKOFF)


def _begin_again(run: PodRun, container: Container, host: Host, now: float) -> None:
    container.restarts += 1
    _begin(run, container, host, now)


def stop(run: PodRun, host: Host, now: float) -> None:
    """The pod has been deleted: SIGTERM to all; it is over once the slowest has ended or the grace is used up."""
    grace = float(run.pod["metadata"].get("deletionGracePeriodSeconds", 30))
    slowest = 0.0
    for container in run.every():
        if container.phase is Phase.RUNNING:
            text = f"Stopping container {container.name}"
            host.emit(run.pod, "Normal", "Killing", text, container.name, container.init)
            slowest = max(slowest, container.model.profile.stop_seconds)
    run.stage, run.due = Stage.STOPPING, now + min(slowest, grace)
