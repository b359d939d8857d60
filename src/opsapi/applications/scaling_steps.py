"""Carries scaling out: each step writes its intent, looks before it repeats, and states what it saw."""

import logging
from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.applications.effects import Permitted, failed, settle
from opsapi.applications.errors import TargetGone, WriteConflict, WriteRefused
from opsapi.applications.field_managers import REPLICAS, writer_of
from opsapi.applications.ports import FIELD_MANAGER, AutoscalerBounds, ScaleState, WorkloadRef, Workloads, WrittenEvent
from opsapi.applications.scaling import ACTION, CREATE_AUTOSCALER, SET_AUTOSCALER, SET_REPLICAS, VERIFY
from opsapi.applications.scaling_bounds import AutoscalerSteps
from opsapi.applications.scaling_keda import ScaledObjectSteps
from opsapi.applications.scaling_model import ScaleOrder
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed, StepPostponed
from opsapi.operations.model import Outcome, Undo, UndoState
from opsapi.operations.procedures import Procedure, Replanner, StepDone, StepProcedure
from opsapi.operations.work import StepWork
from opsapi.policy.book import PolicyBook
from opsapi.workspaces.objects import Workload
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import Objects

_CONFLICT_TRIES = 5
_EVENT_REASON = "ScaledByOpsapi"
_log = logging.getLogger(__name__)


class ScalingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in seconds."""

    verify_seconds: Annotated[float, Meta(gt=0, le=3600)] = 300
    """How long an application may take to become ready at its new size; then the change is undone."""
    hold_seconds: Annotated[float, Meta(ge=0, le=600)] = 5
    """How long it must stay ready to count as verified."""
    poll_seconds: Annotated[float, Meta(gt=0, le=60)] = 1
    """How often readiness is looked at."""
    stabilization_seconds: Annotated[float, Meta(ge=60, le=3600)] = 300
    """How far autoscaling looks back before it takes replicas away: to the most that were needed in that time."""


class ScalingSteps:
    """`procedure()` is what wiring registers with the engine."""

    def __init__(
        self,
        clusters: Clusters,
        workloads: Workloads,
        objects: Objects,
        policy: PolicyBook,
        settings: ScalingSettings,
    ) -> None:
        self._workloads = workloads
        self._permitted = Permitted(clusters, policy)
        self.scaled_objects = ScaledObjectSteps(objects, self._permitted)
        self._autoscalers = AutoscalerSteps(workloads, self.scaled_objects, self._permitted)
        self._settings = settings

    def procedure(self, replan: Replanner | None = None) -> Procedure:
        """The published estimates add up to the two minutes that a small application takes at most."""
        autoscalers = self._autoscalers
        steps = (
            StepProcedure(SET_AUTOSCALER, autoscalers.set, timedelta(seconds=5), autoscalers.undo),
            *self.replica_steps(),
            StepProcedure(CREATE_AUTOSCALER, autoscalers.set, timedelta(seconds=5)),
        )
        return Procedure(ACTION, steps, self.deadline, replan=replan)

    def replica_steps(self) -> tuple[StepProcedure, ...]:
        """What any action consists of that sets replicas."""
        return (
            StepProcedure(SET_REPLICAS, self.set_replicas, timedelta(seconds=5), self.undo_replicas),
            StepProcedure(VERIFY, self.verify, timedelta(seconds=115)),
        )

    @property
    def deadline(self) -> timedelta:
        return timedelta(seconds=self._settings.verify_seconds + 60)

    async def set_replicas(self, work: StepWork) -> StepDone:
        """Writes `/scale` under the uid and the version just read.

        Raises StepFailed where somebody else changed or replaced the deployment meanwhile.
        """
        order = _order(work)
        ref = order.ref
        if work.step.effect is not None:
            previous = work.step.effect.get("previous", order.previous)
            return _scaled(order, f"Set from {previous} to {order.replicas} replicas")
        self._permitted.require(work, order.namespace)
        for _ in range(_CONFLICT_TRIES):
            state = await self._scale(ref)
            if state.desired == order.replicas:
                return await self._already(work, order, ref, state)
            if state.desired != order.previous and not _moved_by_autoscaler(order, state):
                raise StepFailed(
                    "CHANGED_MEANWHILE",
                    f"The replicas are {state.desired} by now: somebody else changed them from {order.previous}",
                    found=state.desired,
                    planned_from=order.previous,
                )
            await work.intend(
                {"replicas": order.replicas, "previous": state.desired, "resource_version": state.resource_version}
            )
            try:
                written = await self._workloads.write_scale(
                    ref, order.replicas, resource_version=state.resource_version
                )
            except WriteConflict:
                await work.withdraw()
                continue
            except (WriteRefused, TargetGone) as error:
                await work.withdraw()
                raise failed(error, f"{order.kind} {order.name}") from error
            except DependencyUnavailable as error:
                await settle(work, error)
                raise
            event = await self._announce(work, order, ref)
            await work.record(_effect(order, state.desired, written) | {"event": event})
            return _scaled(order, f"Set from {state.desired} to {order.replicas} replicas")
        raise StepPostponed("CONFLICT", f"{order.name} keeps changing while it is being scaled")

    async def _already(self, work: StepWork, order: ScaleOrder, ref: WorkloadRef, state: ScaleState) -> StepDone:
        """The replicas are as wanted: by our own earlier try, whose end nobody saw, or by somebody else."""
        if work.interrupted is None and order.replicas == order.previous:
            return StepDone(f"Stays at {order.replicas} replicas", skipped=True)
        if work.interrupted is None or not await self._is_ours(ref, order):
            if work.interrupted is not None:
                await work.withdraw()
            return _scaled(order, f"Somebody else has set {order.replicas} replicas meanwhile", skipped=True)
        event = await self._announce(work, order, ref)
        previous = work.interrupted.get("previous", order.previous)
        await work.record(_effect(order, previous, state) | {"event": event, "found": True}, found=True)
        return _scaled(order, f"Effect found: {order.replicas} replicas were set before the worker died")

    async def _is_ours(self, ref: WorkloadRef, order: ScaleOrder) -> bool:
        """Whether the replicas carry our mark; without managedFields they count as another's, and stay untouched."""
        try:
            workload = await self._workloads.read_workload(ref)
        except (TargetGone, WriteConflict, WriteRefused) as error:
            raise failed(error, f"{order.kind} {order.name}") from error
        writer = writer_of(workload.metadata.managed_fields, REPLICAS)
        return writer is not None and writer.manager == FIELD_MANAGER

    async def verify(self, work: StepWork) -> StepDone:
        """Sees all desired replicas ready, and ready throughout `hold_seconds`; what is not seen is never verified."""
        order = _order(work)
        ref = order.ref
        until = work.clock.monotonic() + min(self._settings.verify_seconds, work.remaining - 1)
        since: float | None = None
        seen = "the cluster was never seen to answer"
        while True:
            now = work.clock.monotonic()
            workload = await self._look(ref, order)
            if workload is None:
                since = None
            else:
                settled, seen = _settled(order, workload)
                since = (since if since is not None else now) if settled else None
            if since is not None and now - since >= self._settings.hold_seconds:
                return StepDone(f"Verified: {seen}, held for {self._settings.hold_seconds:g} s")
            if now >= until:
                raise StepFailed("NOT_READY", f"Not ready after {self._settings.verify_seconds:g} s: {seen}")
            await work.sleep(self._settings.poll_seconds)

    async def _look(self, ref: WorkloadRef, order: ScaleOrder) -> Workload | None:
        """None where the cluster does not answer. Raises StepFailed where what we scaled is no more."""
        try:
            return await self._workloads.read_workload(ref)
        except DependencyUnavailable as error:
            _log.info("scaling of %s cannot be verified yet: %s", order.name, error.message)
            return None
        except (TargetGone, WriteConflict, WriteRefused) as error:
            raise failed(error, f"{order.kind} {order.name}") from error

    async def undo_replicas(self, work: StepWork) -> Undo:
        """Back to the previous count, only where it still is what we wrote."""
        order = _order(work)
        ref = order.ref
        written = work.step.effect or work.step.intent or {}
        previous = written.get("previous", order.previous)
        for _ in range(_CONFLICT_TRIES):
            try:
                state = await self._scale(ref)
            except StepFailed as error:
                return Undo(state=UndoState.SKIPPED, reason=error.message)
            if state.desired == previous:
                ours = work.step.undo is not None
                return Undo(state=UndoState.UNDONE if ours else UndoState.NEEDLESS)
            if state.desired != order.replicas:
                reason = f"the replicas are {state.desired} by now, not the {order.replicas} that were written"
                return Undo(state=UndoState.SKIPPED, reason=reason)
            refused = self._permitted.refusal(work, order.namespace)
            if refused:
                return Undo(state=UndoState.SKIPPED, reason=refused)
            await work.intend_undo()
            try:
                await self._workloads.write_scale(ref, previous, resource_version=state.resource_version)
            except WriteConflict:
                continue
            except (WriteRefused, TargetGone) as error:
                return Undo(state=UndoState.SKIPPED, reason=str(error))
            return Undo(state=UndoState.UNDONE)
        raise StepPostponed("CONFLICT", f"{order.name} keeps changing while it is being scaled back")

    async def _scale(self, ref: WorkloadRef) -> ScaleState:
        try:
            return await self._workloads.read_scale(ref)
        except (TargetGone, WriteConflict) as error:
            raise StepFailed("TARGET_GONE", f"{ref.kind.kind} {ref.name} was deleted or replaced meanwhile") from error
        except WriteRefused as error:
            raise StepFailed("WRITE_REFUSED", f"The cluster refused: {error}", reason=error.reason) from error

    async def _announce(self, work: StepWork, order: ScaleOrder, ref: WorkloadRef) -> str:
        """The Kubernetes Event: best effort, since the write itself has happened."""
        operation = work.operation
        told = f": {order.reason}" if order.reason else ""
        message = (
            f"Scaled from {order.previous} to {order.replicas} replicas by {operation.requested_by} "
            f"(operation {operation.id}){told}"
        )
        event = WrittenEvent(_EVENT_REASON, message[:1000], operation.action)
        try:
            await self._workloads.write_event(ref, event, operation_id=operation.id, at=work.clock.now())
        except (WriteRefused, WriteConflict, TargetGone, DependencyUnavailable) as error:
            _log.warning("no event could be written for operation %s: %s", operation.id, error)
            return "not written"
        return "written"


def _order(work: StepWork) -> ScaleOrder:
    return msgspec.convert(work.operation.parameters, ScaleOrder)


def _effect(order: ScaleOrder, previous: int, written: ScaleState) -> dict[str, object]:
    return {"replicas": order.replicas, "previous": previous, "resource_version": written.resource_version}


def _scaled(order: ScaleOrder, message: str, *, skipped: bool = False) -> StepDone:
    result = {"previous_replicas": order.previous, "new_replicas": order.replicas}
    outcome: Outcome | None = Outcome.CHANGED
    if skipped:
        outcome = Outcome.NOTHING_TO_DO if order.autoscaler is None else None
    return StepDone(message, result=result, outcome=outcome, skipped=skipped)


def _moved_by_autoscaler(order: ScaleOrder, state: ScaleState) -> bool:
    """An HPA moves replicas while it is being edited; that is its right, and no one else's change."""
    bounds = order.autoscaler.wanted if order.autoscaler is not None and order.autoscaler.uid else None
    return bounds is not None and bounds.min_replicas <= state.desired <= bounds.max_replicas


def _settled(order: ScaleOrder, workload: Workload) -> tuple[bool, str]:
    """Whether the deployment runs as ordered, and in words what was seen.

    Scaling down leaves at least as many ready as were, up to the new count: what was sick before is no failure of it.
    """
    status = workload.status
    desired = 1 if workload.spec.replicas is None else workload.spec.replicas
    if desired != order.replicas:
        if order.autoscaler is None:
            raise StepFailed(
                "CHANGED_MEANWHILE", f"Somebody else set {desired} replicas while {order.replicas} were being verified"
            )
        bounds: AutoscalerBounds = order.autoscaler.wanted
        if not bounds.min_replicas <= desired <= bounds.max_replicas:
            return False, f"{desired} replicas are wanted, outside the autoscaler's bounds"
    needed = desired if desired > order.previous else min(desired, order.ready_before)
    observed = status.observed_generation >= workload.metadata.generation
    seen = f"{status.ready_replicas} of {desired} replicas are ready"
    return observed and status.replicas == desired and status.ready_replicas >= needed, seen
