"""What applications needs to act on a cluster. Every write says which object (uid) and which version it saw."""

from datetime import datetime
from typing import Protocol

import msgspec

from opsapi.workspaces.objects import HorizontalPodAutoscaler, Kind, Workload

FIELD_MANAGER = "opsapi"
"""The field manager of every write of ours: by it a change is known as our own."""
OPERATION_ANNOTATION = "opsapi.dev/operation-id"
"""On what we created or edited: the operation that did so last."""


class WorkloadRef(msgspec.Struct, frozen=True):
    """A workload as a write addresses it. `uid` guards against acting on a namesake created since."""

    workspace_id: str
    kind: Kind
    namespace: str
    name: str
    uid: str


class ScaleState(msgspec.Struct, frozen=True):
    """The scale subresource, freshly read. `desired` is spec.replicas, `current` status.replicas."""

    uid: str
    resource_version: str
    desired: int
    current: int


class AutoscalerBounds(msgspec.Struct, frozen=True):
    """What an HPA is to be set to; None leaves a field as it is (or to Kubernetes' default on creation)."""

    min_replicas: int
    max_replicas: int
    target_cpu_percentage: int | None = None
    scale_down_stabilization_seconds: int | None = None


class WrittenEvent(msgspec.Struct, frozen=True):
    """A Kubernetes Event about one of our own writes: names the operation and the account."""

    reason: str
    message: str
    action: str


class Workloads(Protocol):
    """Writes to one or many clusters, with the acting credentials, always fresh from the API server, never the cache.

    Raises: WriteConflict where uid or resourceVersion no longer fit, WriteRefused where the cluster says no (RBAC,
    admission, quota, validation; carries the cluster's reason), TargetGone where the object is no more,
    DependencyUnavailable where nothing was changed because the cluster cannot be reached, OutcomeUnknown where a write
    was sent and its answer is missing (no write is ever repeated on its own; the caller re-reads). With `dry_run` the
    server checks everything and keeps nothing.
    """

    async def read_workload(self, ref: WorkloadRef) -> Workload: ...

    async def read_scale(self, ref: WorkloadRef) -> ScaleState: ...

    async def write_scale(
        self, ref: WorkloadRef, replicas: int, *, resource_version: str, dry_run: bool = False
    ) -> ScaleState:
        """Sets spec.replicas through `/scale`."""
        ...

    async def find_autoscaler(self, ref: WorkloadRef) -> HorizontalPodAutoscaler | None:
        """The HPA that targets the workload, read fresh."""
        ...

    async def write_autoscaler(
        self,
        ref: WorkloadRef,
        bounds: AutoscalerBounds,
        *,
        existing: HorizontalPodAutoscaler | None,
        operation_id: str,
        dry_run: bool = False,
    ) -> HorizontalPodAutoscaler:
        """Creates the HPA under a deterministic name (the workload's) or edits the existing one's bounds."""
        ...

    async def write_event(self, ref: WorkloadRef, event: WrittenEvent, *, operation_id: str, at: datetime) -> None:
        """Best effort: a refusal is raised as WriteRefused and the caller decides; the name is deterministic."""
        ...
