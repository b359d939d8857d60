"""What a kubelet remembers of a pod and its containers."""

from dataclasses import dataclass, field
from enum import StrEnum

from opsapi.playground.behaviour.model import CLEAN, ContainerModel, Overlay
from opsapi.playground.behaviour.profile import Exit
from opsapi.playground.registry import Obj

NEVER = float("inf")


class Phase(StrEnum):
    """Where a container is. All but RUNNING, DONE and DEAD show as `waiting`."""

    IDLE = "idle"
    PULLING = "pulling"
    PULL_FAILED = "pull-failed"
    PULL_BACKOFF = "pull-backoff"
    CONFIG_ERROR = "config-error"
    CREATING = "creating"
    RUNNING = "running"
    DEAD = "dead"
    """Ended, and will be restarted."""
    BACKOFF = "backoff"
    DONE = "done"
    """Ended for good."""


@dataclass(slots=True)
class Termination:
    code: int
    reason: str
    started: float
    finished: float
    container_id: str
    message: str = ""
    logs: tuple[str, ...] = ()
    """The last words."""


@dataclass(slots=True)
class Probe:
    """One probe of one running container. `result` None: not decided yet."""

    kind: str
    spec: Obj
    due: float
    successes: int = 0
    failures: int = 0
    result: bool | None = None


@dataclass(slots=True)
class Container:
    spec: Obj
    model: ContainerModel
    init: bool = False
    phase: Phase = Phase.IDLE
    due: float = NEVER
    reason: str = ""
    message: str = ""
    restarts: int = 0
    started: float = 0.0
    """When the present run began; counts in RUNNING only."""
    container_id: str = ""
    end: Termination | None = None
    """How the present or latest run ended."""
    last: Termination | None = None
    """How the one before ended: lastState."""
    exit: Exit | None = None
    backoff: float = 0.0
    pull_backoff: float = 0.0
    pull_error: str = ""
    probes: dict[str, Probe] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    overlay: Overlay = CLEAN
    memory_check: float = NEVER
    ready: bool = False
    is_started: bool = False
    announced: float = NEVER
    """When the next BackOff event is due."""
    allocated: Obj = field(default_factory=dict)
    """The resources that the node has set aside: what the next start gets."""
    resources: Obj = field(default_factory=dict)
    """The resources that the running process is held to."""

    def __post_init__(self) -> None:
        self.allocated = self.allocated or self.spec.get("resources") or {}
        self.resources = self.resources or self.allocated

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def sidecar(self) -> bool:
        return self.init and self.spec.get("restartPolicy") == "Always"

    def next_due(self) -> float:
        """When something happens to this container by itself."""
        due = self.due
        if self.phase is Phase.RUNNING:
            due = min(due, self.memory_check, *(probe.due for probe in self.probes.values()))
        elif self.phase in (Phase.BACKOFF, Phase.PULL_BACKOFF):
            due = min(due, self.announced)
        return due


class Stage(StrEnum):
    """Where a pod is."""

    ADMITTED = "admitted"
    MOUNTING = "mounting"
    SANDBOX = "sandbox"
    UP = "up"
    STOPPING = "stopping"
    ENDED = "ended"
    """Succeeded, Failed or evicted: nothing runs any more."""


@dataclass(slots=True)
class Resize:
    """How far a change of resources in place has come; both parts are (reason, message)."""

    pending: tuple[str, str] | None = None
    progress: tuple[str, str] | None = None
    generation: int = 0
    due: float = NEVER


@dataclass(slots=True)
class PodRun:
    pod: Obj
    containers: list[Container]
    inits: list[Container]
    stage: Stage = Stage.ADMITTED
    due: float = 0.0
    since: float = 0.0
    """When the kubelet first saw the pod: startTime."""
    ip: str = ""
    mount_backoff: float = 0.5
    conditions: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)
    """type -> (status, reason, message, lastTransitionTime)."""
    eviction: tuple[str, str] | None = None
    resize: Resize = field(default_factory=Resize)

    @property
    def policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy", "Always"))

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    def every(self) -> list[Container]:
        return [*self.inits, *self.containers]


def pod_run(pod: Obj, now: float) -> PodRun:
    """A pod as it arrives at its node."""
    spec = pod["spec"]
    containers = [Container(item, ContainerModel.of(pod, item)) for item in spec.get("containers") or []]
    inits = [Container(item, ContainerModel.of(pod, item), init=True) for item in spec.get("initContainers") or []]
    return PodRun(pod, containers, inits, due=now, since=now)
