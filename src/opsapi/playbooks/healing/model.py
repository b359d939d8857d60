"""What a call for healing says, what is decided, and the order that the steps read. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.diagnosis.model import PodFinding
from opsapi.playbooks.model import Context, PlaybookParameters
from opsapi.workspaces.objects import DAEMON_SET, DEPLOYMENT, STATEFUL_SET
from opsapi.workspaces.writing import ObjectKey, Resource

ACTION = "auto_heal"
IDENTIFY = "identify_unhealthy_pods"
RESTART = "restart_pods"
ROLL_BACK = "rollback_release"
RAISE = "raise_memory_limit"
VERIFY = "verify_health"
WORKLOADS = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)
RESOURCES = {kind.kind: Resource(kind.group, kind.version, kind.resource, kind.kind) for kind in WORKLOADS}
PODS = Resource("", "v1", "pods", "Pod")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
LIMIT_RANGES = Resource("", "v1", "limitranges", "LimitRange")


class HealAction(StrEnum):
    AUTO = "auto"
    RESTART = "restart_unhealthy_pods"
    ROLL_BACK = "rollback_release"
    RAISE = "raise_memory_limit"


class HealParameters(PlaybookParameters, frozen=True, kw_only=True):
    """`target_component` absent: every unhealthy application of the workspace. `condition_held_seconds`: for how long
    something must have been ill; policy bounds it, and has a default."""

    action: HealAction = HealAction.AUTO
    condition_held_seconds: Annotated[float, Meta(ge=0)] | None = None


class HealingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds."""

    verify_seconds: Annotated[float, Meta(gt=0, le=3600)] = 300
    """How long an application may take to become well after it was acted on; then what was written is undone."""
    hold_seconds: Annotated[float, Meta(ge=0, le=600)] = 30
    """How long it must stay ready, without a restart, to count as healed."""
    poll_seconds: Annotated[float, Meta(gt=0, le=60)] = 2
    """How often it is looked at."""
    replacement_seconds: Annotated[float, Meta(gt=0, le=3600)] = 180
    """How long a new pod may take to become ready before the next one is evicted; beyond it none is."""
    max_memory_limit: str = "8Gi"
    """The highest memory limit that a container is raised to."""


class Remedy(StrEnum):
    RESTART = "restart"
    ROLL_BACK = "roll_back"
    RAISE = "raise"


class PodOrder(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    uid: str
    why: str


class RollbackOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The two revisions, by the objects that hold their templates."""

    from_number: int
    from_name: str
    from_uid: str
    to_number: int
    to_name: str
    to_uid: str
    label: str
    """Of pods of the revision that is left, so that those that cannot be replaced by themselves are found."""


class MemoryOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One container's memory, as quantities; requests "" where there is none, or it stays."""

    container: str
    limit_before: str
    limit_after: str
    request_before: str = ""
    request_after: str = ""


class TargetOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One application and its one remedy. `generation`, `desired` and `ready` are as planned; `at_once` how many of its
    pods may be away together."""

    application_id: str
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    desired: int
    ready: int
    pods_before: int
    at_once: int
    remedy: Remedy
    selector: dict[str, str]
    pods: tuple[PodOrder, ...] = ()
    rollback: RollbackOrder | None = None
    memory: tuple[MemoryOrder, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"

    def key(self, workspace_id: str) -> ObjectKey:
        return ObjectKey(workspace_id, RESOURCES[self.kind], self.namespace, self.name, self.uid)

    def pod_key(self, workspace_id: str, pod: PodOrder) -> ObjectKey:
        return ObjectKey(workspace_id, PODS, self.namespace, pod.name, pod.uid)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One application's findings, the first ten of `unhealthy`, and what is done about them: `remedy` null where
    nothing is, and `why` not."""

    application_id: str
    application: str
    desired: int
    ready: int
    unhealthy: int
    remedy: Remedy | None
    why: str
    findings: tuple[PodFinding, ...]


class HealOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`unhealthy` and `waiting` count pods: found ill, and ill for too short a time to be acted on yet."""

    workspace_id: str
    action: HealAction
    held_seconds: float
    target_component: str | None = None
    application_id: str | None = None
    reason: str | None = None
    confirm: bool = False
    context: Context = Context()
    targets: tuple[TargetOrder, ...] = ()
    found: tuple[Found, ...] = ()
    unhealthy: int = 0
    planned_at: datetime | None = None

    def targets_of(self, remedy: Remedy) -> tuple[TargetOrder, ...]:
        return tuple(target for target in self.targets if target.remedy is remedy)
