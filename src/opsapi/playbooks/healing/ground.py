"""What every healing step stands on: the order, the locks of its applications, what may not be touched, our events."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from opsapi.applications.ports import WorkloadRef, Workloads, WrittenEvent
from opsapi.diagnosis.workloads import desired_of
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import OperationInProgress, StepFailed
from opsapi.operations.model import Failure, lock_key
from opsapi.operations.work import StepWork
from opsapi.playbooks.healing.facts import decoded
from opsapi.playbooks.healing.model import WORKLOADS, HealingSettings, HealOrder, TargetOrder
from opsapi.policy.book import PolicyBook
from opsapi.workspaces.objects import AUTOSCALER, HorizontalPodAutoscaler, Kind, Workload
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import Objects, OutcomeUnknown, TargetGone, WriteConflict, WriteRefused

_EVENT_REASON = "HealedByOpsapi"
_log = logging.getLogger(__name__)


class TargetFailed(Exception):
    """One application cannot be healed by this step; the others go on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code=code, message=message)


class Ground:
    def __init__(
        self,
        clusters: Clusters,
        objects: Objects,
        workloads: Workloads,
        policy: PolicyBook,
        settings: HealingSettings,
    ) -> None:
        self._clusters = clusters
        self.objects = objects
        self._workloads = workloads
        self._policy = policy
        self.settings = settings

    def cluster(self, order: HealOrder) -> Cluster:
        """Raises StepFailed."""
        found = self._clusters.find(order.workspace_id)
        if found is None:
            raise StepFailed("DEPENDENCY_UNAVAILABLE", f"workspace {order.workspace_id} is not served any more")
        return found

    def allow(self, order: HealOrder, target: TargetOrder) -> None:
        """Raises TargetFailed where nothing may be written by now; mode, account and pauses are the gate's."""
        workspace = self.cluster(order).workspace
        if self._policy.settings.protects(target.namespace) or not workspace.in_scope(target.namespace):
            told = f"namespace {target.namespace} is protected or out of the workspace's scope by now"
            raise TargetFailed("POLICY_DENIED", told)

    @asynccontextmanager
    async def locked(self, work: StepWork, order: HealOrder, target: TargetOrder) -> AsyncIterator[None]:
        """An operation on one application holds its lock from the begin; one on the workspace takes each as it comes.

        Raises TargetFailed where another operation works on it.
        """
        if order.application_id is not None:
            yield
            return
        key = lock_key(order.workspace_id, target.application_id)
        try:
            await work.lock(key)
        except OperationInProgress as error:
            raise TargetFailed(error.code, f"another operation works on {target.place}") from error
        try:
            yield
        finally:
            await work.unlock(key)

    async def workload(self, order: HealOrder, target: TargetOrder) -> Workload:
        """Fresh. Raises TargetFailed where it was deleted, replaced or scaled down since it was planned: less of it
        would look healed."""
        try:
            held = decoded(await self.objects.get(target.key(order.workspace_id)), Workload)
        except (TargetGone, WriteConflict) as error:
            raise TargetFailed("TARGET_GONE", f"{target.place} was deleted or replaced meanwhile") from error
        except WriteRefused as error:
            raise TargetFailed("WRITE_REFUSED", f"the cluster refused: {error}") from error
        if held.metadata.deletion_timestamp is not None:
            raise TargetFailed("TARGET_GONE", f"{target.place} is being deleted")
        desired = desired_of(kind_of(target), held)
        if desired < target.desired and not (desired > 0 and self._autoscaled(order, target, desired)):
            told = f"{target.place} was scaled from {target.desired} to {desired} meanwhile: that heals nothing"
            raise TargetFailed("SCALED_DOWN", told)
        return held

    def _autoscaled(self, order: HealOrder, target: TargetOrder, desired: int) -> bool:
        """An autoscaler may move replicas within its bounds."""
        for held in self.cluster(order).inventory.all(AUTOSCALER, HorizontalPodAutoscaler, target.namespace):
            aimed = held.spec.scale_target_ref
            if (aimed.kind, aimed.name) == (target.kind, target.name):
                return held.spec.min_replicas <= desired <= held.spec.max_replicas
        return False

    async def tell(self, work: StepWork, target: TargetOrder, what: str) -> str:
        """The Kubernetes Event: best effort, since the write itself has happened."""
        operation = work.operation
        told = f": {operation.reason}" if operation.reason else ""
        message = f"{what} by {operation.requested_by} (operation {operation.id}){told}"
        ref = WorkloadRef(operation.workspace_id, kind_of(target), target.namespace, target.name, target.uid)
        event = WrittenEvent(_EVENT_REASON, message[:1000], "auto_heal")
        try:
            await self._workloads.write_event(ref, event, operation_id=operation.id, at=work.clock.now())
        except (WriteRefused, WriteConflict, TargetGone, DependencyUnavailable) as error:
            _log.warning("no event could be written for operation %s: %s", operation.id, error)
            return "not written"
        return "written"


def kind_of(target: TargetOrder) -> Kind:
    return next(kind for kind in WORKLOADS if kind.kind == target.kind)


def order_of(work: StepWork) -> HealOrder:
    return msgspec.convert(work.operation.parameters, HealOrder)


def never_left(error: DependencyUnavailable) -> bool:
    """Whether a write is certain not to have happened; of one that was sent, the next try looks for the effect."""
    return not isinstance(error, OutcomeUnknown)
