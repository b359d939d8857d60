"""Sets an autoscaler's bounds as a step of scaling: a HorizontalPodAutoscaler's here, a ScaledObject's in
`scaling_keda.py`; and takes them back."""

import msgspec

from opsapi.applications.effects import Permitted, failed, settle
from opsapi.applications.errors import TargetGone, WriteConflict, WriteRefused
from opsapi.applications.ports import Workloads
from opsapi.applications.scaling import bounds_of, fulfils
from opsapi.applications.scaling_keda import ScaledObjectSteps
from opsapi.applications.scaling_model import AutoscalerOrder, ScaleOrder
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed, StepPostponed
from opsapi.operations.model import Outcome, Undo, UndoState
from opsapi.operations.procedures import StepDone
from opsapi.operations.work import StepWork
from opsapi.workspaces.objects import SCALED_OBJECT, HorizontalPodAutoscaler


class AutoscalerSteps:
    def __init__(self, workloads: Workloads, scaled_objects: ScaledObjectSteps, permitted: Permitted) -> None:
        self._workloads = workloads
        self._scaled_objects = scaled_objects
        self._permitted = permitted

    async def set(self, work: StepWork) -> StepDone:
        """Edits the bounds of the autoscaler that was planned on, or creates an HPA."""
        order, wanted = autoscaler_order(work)
        self._permitted.require(work, order.namespace)
        if work.step.effect is not None:
            return _done(wanted)
        if wanted.kind == SCALED_OBJECT.kind:
            ours = await self._scaled_objects.set(work, order, wanted)
            return _done(wanted) if ours else StepDone(f"ScaledObject {wanted.name} is as wanted", skipped=True)
        existing = await self._autoscaler(order)
        if existing is not None and fulfils(bounds_of(existing), wanted.wanted):
            if work.interrupted is None:
                return StepDone(f"HorizontalPodAutoscaler {existing.metadata.name} is as wanted", skipped=True)
            await work.record(_effect(existing, wanted) | {"found": True}, found=True)
            message = f"Effect found: HorizontalPodAutoscaler {existing.metadata.name} was written before"
            return StepDone(message, outcome=Outcome.CHANGED)
        _same_autoscaler(existing, wanted)
        await work.intend({"autoscaler": wanted.name, "wanted": msgspec.to_builtins(wanted.wanted)})
        try:
            written = await self._workloads.write_autoscaler(
                order.ref, wanted.wanted, existing=existing, operation_id=work.operation.id
            )
        except WriteConflict as error:
            await work.withdraw()
            raise StepPostponed("CONFLICT", f"HorizontalPodAutoscaler {wanted.name} just changed") from error
        except (WriteRefused, TargetGone) as error:
            await work.withdraw()
            raise failed(error, f"{order.kind} {order.name}") from error
        except DependencyUnavailable as error:
            await settle(work, error)
            raise
        await work.record(_effect(written, wanted))
        if not fulfils(bounds_of(written), wanted.wanted):
            raise StepFailed("NOT_AS_WRITTEN", f"HorizontalPodAutoscaler {wanted.name} was changed on admission")
        return _done(wanted)

    async def undo(self, work: StepWork) -> Undo:
        order, wanted = autoscaler_order(work)
        if wanted.kind == SCALED_OBJECT.kind:
            return await self._scaled_objects.undo(work, order, wanted)
        before = wanted.before
        if before is None:
            return Undo(state=UndoState.SKIPPED, reason="a created autoscaler is left to its owners")
        existing = await self._autoscaler(order)
        if existing is None or existing.metadata.uid != wanted.uid:
            return Undo(state=UndoState.SKIPPED, reason="the autoscaler was replaced or deleted since")
        held = bounds_of(existing)
        if held == before:
            return Undo(state=UndoState.UNDONE if work.step.undo is not None else UndoState.NEEDLESS)
        if not fulfils(held, wanted.wanted):
            return Undo(state=UndoState.SKIPPED, reason="the autoscaler was changed since")
        refused = self._permitted.refusal(work, order.namespace)
        if refused:
            return Undo(state=UndoState.SKIPPED, reason=refused)
        await work.intend_undo()
        try:
            written = await self._workloads.write_autoscaler(
                order.ref, before, existing=existing, operation_id=work.operation.id
            )
        except WriteConflict as error:
            raise StepPostponed("CONFLICT", f"HorizontalPodAutoscaler {wanted.name} just changed") from error
        except (WriteRefused, TargetGone) as error:
            return Undo(state=UndoState.SKIPPED, reason=str(error))
        if bounds_of(written) != before:
            return Undo(state=UndoState.SKIPPED, reason="fields that had no value before keep the one written")
        return Undo(state=UndoState.UNDONE)

    async def _autoscaler(self, order: ScaleOrder) -> HorizontalPodAutoscaler | None:
        try:
            return await self._workloads.find_autoscaler(order.ref)
        except (TargetGone, WriteConflict, WriteRefused) as error:
            raise failed(error, f"{order.kind} {order.name}") from error


def autoscaler_order(work: StepWork) -> tuple[ScaleOrder, AutoscalerOrder]:
    """Raises StepFailed where the operation has none."""
    order = msgspec.convert(work.operation.parameters, ScaleOrder)
    if order.autoscaler is None:
        raise StepFailed("INVALID_ORDER", "The operation has no autoscaler to set")
    return order, order.autoscaler


def _same_autoscaler(existing: HorizontalPodAutoscaler | None, wanted: AutoscalerOrder) -> None:
    """Raises StepFailed where the autoscaler is not the one that was planned on, or was changed since."""
    if wanted.uid:
        if existing is None or existing.metadata.uid != wanted.uid:
            raise StepFailed("CHANGED_MEANWHILE", f"HorizontalPodAutoscaler {wanted.name} was deleted or replaced")
        if bounds_of(existing) != wanted.before:
            raise StepFailed("CHANGED_MEANWHILE", f"Somebody else changed HorizontalPodAutoscaler {wanted.name}")
    elif existing is not None:
        name = existing.metadata.name
        raise StepFailed("CHANGED_MEANWHILE", f"Somebody else created HorizontalPodAutoscaler {name} meanwhile")


def _effect(written: HorizontalPodAutoscaler, wanted: AutoscalerOrder) -> dict[str, object]:
    return {"autoscaler": written.metadata.name, "uid": written.metadata.uid, "created": not wanted.uid}


def _done(wanted: AutoscalerOrder) -> StepDone:
    verb, bounds = "Edited" if wanted.uid else "Created", wanted.wanted
    message = f"{verb} {wanted.kind} {wanted.name}: {bounds.min_replicas} to {bounds.max_replicas} replicas"
    return StepDone(message, outcome=Outcome.CHANGED)
