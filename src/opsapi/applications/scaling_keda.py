"""Sets the bounds of a KEDA ScaledObject as a step of scaling, and takes them back."""

import msgspec

from opsapi.applications.effects import Permitted, failed, settle
from opsapi.applications.ports import OPERATION_ANNOTATION, AutoscalerBounds
from opsapi.applications.scaled_objects import SCALED_OBJECTS, bounds_patch, scaled_bounds
from opsapi.applications.scaling_model import AutoscalerOrder, ScaledBounds, ScaleOrder
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed, StepPostponed
from opsapi.operations.model import Undo, UndoState
from opsapi.operations.work import StepWork
from opsapi.workspaces.writing import JsonObject, ObjectKey, Objects, TargetGone, WriteConflict, WriteRefused


class ScaledObjectSteps:
    """What the autoscaler's step does where KEDA owns the replicas."""

    def __init__(self, objects: Objects, permitted: Permitted) -> None:
        self._objects = objects
        self._permitted = permitted

    async def set(self, work: StepWork, order: ScaleOrder, wanted: AutoscalerOrder) -> bool:
        """Whether it was we who set the bounds. Raises StepFailed where somebody else changed or replaced the
        ScaledObject meanwhile."""
        held = await self._get(order, wanted)
        found = scaled_bounds(held["spec"])
        if _fulfils(found, wanted.wanted):
            return await self._already(work, wanted, held)
        if found != wanted.scaled_before:
            raise StepFailed("CHANGED_MEANWHILE", f"Somebody else changed ScaledObject {wanted.name}")
        asked = wanted.wanted
        new = ScaledBounds(asked.min_replicas, asked.max_replicas, asked.scale_down_stabilization_seconds)
        await work.intend({"autoscaler": wanted.name, "wanted": msgspec.to_builtins(asked)})
        try:
            written = await self._patch(work, order, wanted, new, held)
        except WriteConflict as error:
            await work.withdraw()
            raise StepPostponed("CONFLICT", f"ScaledObject {wanted.name} just changed") from error
        except (WriteRefused, TargetGone) as error:
            await work.withdraw()
            raise failed(error, f"ScaledObject {wanted.name}") from error
        except DependencyUnavailable as error:
            await settle(work, error)
            raise
        await work.record(_effect(wanted))
        if not _fulfils(scaled_bounds(written["spec"]), asked):
            raise StepFailed("NOT_AS_WRITTEN", f"ScaledObject {wanted.name} was changed on admission")
        return True

    async def _already(self, work: StepWork, wanted: AutoscalerOrder, held: JsonObject) -> bool:
        """By our own earlier try, whose end nobody saw, or by somebody else."""
        if work.interrupted is None:
            return False
        annotations = held["metadata"].get("annotations") or {}
        if annotations.get(OPERATION_ANNOTATION) != work.operation.id:
            await work.withdraw()
            return False
        await work.record(_effect(wanted) | {"found": True}, found=True)
        return True

    async def undo(self, work: StepWork, order: ScaleOrder, wanted: AutoscalerOrder) -> Undo:
        """Back to what it stated, only where it still is what we wrote."""
        try:
            held = await self._get(order, wanted)
        except StepFailed as error:
            return Undo(state=UndoState.SKIPPED, reason=error.message)
        found, before = scaled_bounds(held["spec"]), wanted.scaled_before or ScaledBounds(None, None, None)
        if found == before:
            return Undo(state=UndoState.UNDONE if work.step.undo is not None else UndoState.NEEDLESS)
        if not _fulfils(found, wanted.wanted):
            return Undo(state=UndoState.SKIPPED, reason="the ScaledObject was changed since")
        refused = self._permitted.refusal(work, order.namespace)
        if refused:
            return Undo(state=UndoState.SKIPPED, reason=refused)
        await work.intend_undo()
        try:
            await self._patch(work, order, wanted, before, held)
        except WriteConflict as error:
            raise StepPostponed("CONFLICT", f"ScaledObject {wanted.name} just changed") from error
        except (WriteRefused, TargetGone) as error:
            return Undo(state=UndoState.SKIPPED, reason=str(error))
        return Undo(state=UndoState.UNDONE)

    async def dry_run(self, order: ScaleOrder, wanted: AutoscalerOrder) -> None:
        """Raises as a write would."""
        held = await self._objects.get(_key(order, wanted))
        asked = wanted.wanted
        new = ScaledBounds(asked.min_replicas, asked.max_replicas, asked.scale_down_stabilization_seconds)
        await self._objects.patch(
            _key(order, wanted),
            {"spec": bounds_patch(new, window=new.stabilization_seconds is not None)},
            resource_version=held["metadata"]["resourceVersion"],
            dry_run=True,
        )

    async def _get(self, order: ScaleOrder, wanted: AutoscalerOrder) -> JsonObject:
        try:
            held = await self._objects.get(_key(order, wanted))
        except (TargetGone, WriteConflict) as error:
            raise StepFailed("CHANGED_MEANWHILE", f"ScaledObject {wanted.name} was deleted or replaced") from error
        except WriteRefused as error:
            raise failed(error, f"ScaledObject {wanted.name}") from error
        return held if isinstance(held.get("spec"), dict) else held | {"spec": {}}

    async def _patch(
        self, work: StepWork, order: ScaleOrder, wanted: AutoscalerOrder, bounds: ScaledBounds, held: JsonObject
    ) -> JsonObject:
        window = wanted.wanted.scale_down_stabilization_seconds is not None
        changes = {
            "metadata": {"annotations": {OPERATION_ANNOTATION: work.operation.id}},
            "spec": bounds_patch(bounds, window=window),
        }
        version = held["metadata"]["resourceVersion"]
        return await self._objects.patch(_key(order, wanted), changes, resource_version=version)


def _key(order: ScaleOrder, wanted: AutoscalerOrder) -> ObjectKey:
    return ObjectKey(order.workspace_id, SCALED_OBJECTS, order.namespace, wanted.name, wanted.uid)


def _fulfils(held: ScaledBounds, wanted: AutoscalerBounds) -> bool:
    window = wanted.scale_down_stabilization_seconds
    return (held.min_replicas, held.max_replicas) == (wanted.min_replicas, wanted.max_replicas) and (
        window is None or held.stabilization_seconds == window
    )


def _effect(wanted: AutoscalerOrder) -> dict[str, object]:
    return {"autoscaler": wanted.name, "uid": wanted.uid, "created": False}
