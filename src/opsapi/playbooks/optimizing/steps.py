"""Changes templates to the recommended sizes, one application after the other: patched, rolled out, verified, and
rolled back where it does not stand it. The first that does not ends the operation; those before it keep their new size.

Running pods are not resized in place: what is written into a pod alone is lost with the next rollout. As a first aid,
`kubectl patch pod … --subresource resize` helps until the template is changed.
"""

import logging
from datetime import timedelta
from typing import Any

import msgspec

from opsapi.applications.effects import Permitted, failed, settle_item
from opsapi.applications.ownership import manager_of
from opsapi.applications.ports import OPERATION_ANNOTATION, Workloads, WrittenEvent
from opsapi.kit.errors import DependencyUnavailable, PolicyRule
from opsapi.operations.errors import OperationInProgress, StepFailed, StepPostponed
from opsapi.operations.model import Failure, ItemState, Outcome, Undo, UndoState, lock_key
from opsapi.operations.procedures import Procedure, Replanner, StepDone, StepProcedure
from opsapi.operations.work import ItemWork, StepWork
from opsapi.playbooks.optimizing.gathering import Gatherer
from opsapi.playbooks.optimizing.model import ACTION, ANALYZE, APPLY, AppOrder, OptimizeOrder, table
from opsapi.playbooks.optimizing.patches import backward, forward, stands
from opsapi.playbooks.optimizing.verifying import NotStood, Verifier, unobserved
from opsapi.policy.book import PolicyBook
from opsapi.workspaces.objects import Workload
from opsapi.workspaces.writing import EvictionBlocked, Objects, TargetGone, WriteConflict, WriteRefused

_CONFLICT_TRIES = 5
_DEADLINE = timedelta(hours=3)
_EVENT_REASON = "ResizedByOpsapi"
_log = logging.getLogger(__name__)


class OptimizeSteps:
    def __init__(
        self,
        objects: Objects,
        workloads: Workloads,
        gatherer: Gatherer,
        verifier: Verifier,
        permitted: Permitted,
        policy: PolicyBook,
    ) -> None:
        self._objects = objects
        self._workloads = workloads
        self._gatherer = gatherer
        self._verifier = verifier
        self._permitted = permitted
        self._policy = policy

    def procedure(self, replan: Replanner) -> Procedure:
        steps = (
            StepProcedure(ANALYZE, self.analyze, timedelta(seconds=1)),
            StepProcedure(APPLY, self.apply, timedelta(minutes=5), self.undo),
        )
        return Procedure(ACTION, steps, _DEADLINE, replan=replan)

    async def analyze(self, work: StepWork) -> StepDone:
        """What was found when it was planned: the figures that were shown, and perhaps approved."""
        order = _order(work)
        held = table(order)
        result = {"recommendations": msgspec.to_builtins(held)}
        if not order.applications:
            proposed = any(one.patch is not None for one in order.found)
            outcome = Outcome.PROPOSED if proposed else Outcome.NOTHING_TO_DO
            told = f"Looked at {order.looked_at} applications: nothing to change here"
            return StepDone(told, result=result, outcome=outcome)
        money = f"{abs(held.savings):.2f} {held.currency} a month {'saved' if held.savings >= 0 else 'more'}"
        return StepDone(f"{held.changed} of {order.looked_at} applications get other sizes: {money}", result=result)

    async def apply(self, work: StepWork) -> StepDone:
        order = _order(work)
        ended: Failure | None = None
        for app in order.applications:
            item = work.item(app.uid)
            if ended is not None and not item.settled:
                await item.skip(
                    f"{app.place}: left as it is, since an application before it did not stand its new size"
                )
                continue
            if not _finished(item):
                await self._in_turn(work, order, app, item)
            ended = ended or item.held.error
        return _told(work, order, ended)

    async def _in_turn(self, work: StepWork, order: OptimizeOrder, app: AppOrder, item: ItemWork) -> None:
        """Under the application's lock."""
        key = lock_key(order.workspace_id, app.application_id)
        if not order.alone:
            try:
                await work.lock(key)
            except OperationInProgress:
                await item.skip(f"{app.place}: another operation works on it")
                return
        if item.held.state is not ItemState.FAILED:
            await self._resize(work, app, item)
        if not _finished(item):
            await item.note_undo(await self._take_back(work, app, item))
        if not order.alone:
            await work.unlock(key)

    async def _resize(self, work: StepWork, app: AppOrder, item: ItemWork) -> None:
        """Patched and verified, or failed, with the reason written down."""
        try:
            if item.held.effect is None:
                await self._write(work, app, item)
            held = item.held.effect
            if held is None:
                return
            verified = await self._verifier.verify(work, app, held.get("baseline") or {})
        except (NotStood, StepFailed) as error:
            await item.fail(Failure(code=error.code, message=error.message))
            return
        missing = unobserved(verified["after"])
        told = f"{app.place}: {verified['readiness']}" + (f"; {missing}" if missing else "")
        await item.record(held | {"verified": verified}, told)

    async def _write(self, work: StepWork, app: AppOrder, item: ItemWork) -> None:
        """Raises StepFailed where it may not be written any more, or is not what was planned on."""
        before = {one.name: one.before for one in app.containers}
        after = {one.name: one.after for one in app.containers}
        baseline: dict[str, Any] = {}
        for _ in range(_CONFLICT_TRIES):
            held = await self._fresh(work, app)
            if stands(held, after):
                await self._already(work, app, item, held)
                return
            self._permitted.require(work, app.namespace)
            self._guard(work, app, held)
            if not stands(held, before):
                raise StepFailed("CHANGED_MEANWHILE", f"Somebody else changed the resources of {app.place}")
            baseline = baseline or await self._verifier.observe(work, app)
            if item.interrupted is not None:
                await item.withdraw()
            await item.intend({"application": app.place, "baseline": baseline})
            try:
                await self._objects.patch(
                    app.key(work.operation.workspace_id),
                    forward(app, work.operation.id),
                    resource_version=held.metadata.resource_version,
                    strategic=True,
                )
            except WriteConflict:
                await item.withdraw()
                continue
            except (WriteRefused, TargetGone) as error:
                await item.withdraw()
                raise failed(error, app.place) from error
            except DependencyUnavailable as error:
                await settle_item(item, error)
                raise
            event = await self._announce(work, app)
            await item.record({"application": app.place, "baseline": baseline, "event": event}, f"{app.place}: patched")
            return
        raise StepPostponed("CONFLICT", f"{app.place} keeps changing while it is being resized")

    async def _already(self, work: StepWork, app: AppOrder, item: ItemWork, held: Workload) -> None:
        """As wanted: by our own earlier try, whose end nobody saw, or by somebody else."""
        intent = item.interrupted
        if intent is not None and held.metadata.annotations.get(OPERATION_ANNOTATION) == work.operation.id:
            event = await self._announce(work, app)
            effect = {"application": app.place, "baseline": intent.get("baseline"), "event": event, "found": True}
            await item.record(effect, f"{app.place}: effect found, patched before the worker died", found=True)
            return
        if intent is not None:
            await item.withdraw()
        await item.skip(f"{app.place}: somebody else has set these sizes meanwhile")

    def _guard(self, work: StepWork, app: AppOrder, held: Workload) -> None:
        """Raises StepFailed where it came under protection, or a GitOps tool's care, since it was planned."""
        settings, operation = self._policy.settings, work.operation
        if held.metadata.labels.get(settings.protected_label) == "true":
            raise StepFailed("POLICY_DENIED", f"The label {settings.protected_label} protects {app.place} by now")
        waived = settings.waived(PolicyRule.MANAGED_EXTERNALLY, operation.requested_by, operation.workspace_id)
        if manager_of(held.metadata) is not None and not waived:
            raise StepFailed("MANAGED_EXTERNALLY", f"{app.place} is kept by a GitOps tool by now")

    async def _fresh(self, work: StepWork, app: AppOrder) -> Workload:
        held = await self._gatherer.read(app.key(work.operation.workspace_id))
        if held is None or held.metadata.deletion_timestamp is not None:
            raise StepFailed("TARGET_GONE", f"{app.place} was deleted or replaced meanwhile")
        return held

    # and back

    async def undo(self, work: StepWork) -> Undo:
        """What failed was taken back in its turn. A person's rollback takes back everything."""
        order = _order(work)
        undos: list[Undo] = []
        asked = work.operation.rollback_requested_at is not None
        for app in order.applications:
            item = work.item(app.uid)
            held = item.held
            if not held.touched or (held.state is ItemState.DONE and _finished(item) and not asked):
                continue
            undo = held.undo
            if undo is None or undo.state is UndoState.INTENDED:
                undo = await self._under_lock(work, order, app, item)
                await item.note_undo(undo)
            undos.append(undo)
        reasons = [undo.reason for undo in undos if undo.state is UndoState.SKIPPED]
        if reasons:
            return Undo(state=UndoState.SKIPPED, reason="; ".join(reasons)[:1000])
        undone = any(undo.state is UndoState.UNDONE for undo in undos)
        return Undo(state=UndoState.UNDONE if undone else UndoState.NEEDLESS)

    async def _under_lock(self, work: StepWork, order: OptimizeOrder, app: AppOrder, item: ItemWork) -> Undo:
        key = lock_key(order.workspace_id, app.application_id)
        if order.alone:
            return await self._take_back(work, app, item)
        try:
            await work.lock(key)
        except OperationInProgress as error:
            raise StepPostponed("OPERATION_IN_PROGRESS", f"another operation works on {app.place}") from error
        undo = await self._take_back(work, app, item)
        await work.unlock(key)
        return undo

    async def _take_back(self, work: StepWork, app: AppOrder, item: ItemWork) -> Undo:
        """The template as it was, only where it is still as we wrote it."""
        for _ in range(_CONFLICT_TRIES):
            held = await self._gatherer.read(app.key(work.operation.workspace_id))
            if held is None:
                return Undo(state=UndoState.SKIPPED, reason=f"{app.place} was deleted or replaced since")
            if stands(held, {one.name: one.before for one in app.containers}):
                if item.held.undo is None and not self._verifier.stuck(work, app):
                    return Undo(state=UndoState.NEEDLESS)
                return await self._free(work, app, item, held)
            if not stands(held, {one.name: one.after for one in app.containers}):
                return Undo(state=UndoState.SKIPPED, reason=f"the resources of {app.place} were changed since")
            refused = self._permitted.refusal(work, app.namespace)
            if refused:
                return Undo(state=UndoState.SKIPPED, reason=refused)
            await item.intend_undo()
            try:
                await self._objects.patch(
                    app.key(work.operation.workspace_id),
                    backward(app, work.operation.id),
                    resource_version=held.metadata.resource_version,
                    strategic=True,
                )
            except WriteConflict:
                continue
            except (WriteRefused, TargetGone) as error:
                return Undo(state=UndoState.SKIPPED, reason=str(error)[:500])
            # Read once more: what its controller has seen of it decides about the pods that are stuck.
        raise StepPostponed("CONFLICT", f"{app.place} keeps changing while it is being rolled back")

    async def _free(self, work: StepWork, app: AppOrder, item: ItemWork, held: Workload) -> Undo:
        """Evicts what the template alone does not bring back; under its uid, so that no pod goes twice.

        Raises StepPostponed where the controller has not seen the template yet: it would make the same pod again.
        """
        for pod in self._verifier.stuck(work, app):
            if held.status.observed_generation < held.metadata.generation:
                raise StepPostponed("NOT_OBSERVED", f"the controller of {app.place} has not seen its template yet")
            name = pod.metadata.name
            refused = self._permitted.refusal(work, app.namespace)
            if refused:
                return Undo(state=UndoState.SKIPPED, reason=refused)
            await item.intend_undo()
            try:
                await self._objects.evict(app.pod_key(work.operation.workspace_id, name, pod.metadata.uid))
            except (TargetGone, WriteConflict):
                continue
            except (EvictionBlocked, WriteRefused) as error:
                reason = f"the template of {app.place} is as it was, but {name} is stuck and cannot be evicted: {error}"
                return Undo(state=UndoState.SKIPPED, reason=reason[:500])
            await self._announce(work, app, f"Evicted {name}, which was stuck at the new size,")
        return Undo(state=UndoState.UNDONE)

    async def _announce(self, work: StepWork, app: AppOrder, what: str = "") -> str:
        """The Kubernetes Event: best effort, since the write itself has happened."""
        operation = work.operation
        what = what or f"Resized {', '.join(one.name for one in app.containers)}"
        told = f": {operation.reason}" if operation.reason else ""
        message = f"{what} by {operation.requested_by} (operation {operation.id}){told}"
        event = WrittenEvent(_EVENT_REASON, message[:1000], operation.action)
        ref = app.ref(operation.workspace_id)
        try:
            await self._workloads.write_event(ref, event, operation_id=operation.id, at=work.clock.now())
        except (WriteRefused, WriteConflict, TargetGone, DependencyUnavailable) as error:
            _log.warning("no event could be written for operation %s: %s", operation.id, error)
            return "not written"
        return "written"


def _finished(item: ItemWork) -> bool:
    """Skipped, patched and verified, or failed and taken back: a patch alone is not the end."""
    held = item.held
    if held.state is ItemState.FAILED:
        return not held.touched or (held.undo is not None and held.undo.state is not UndoState.INTENDED)
    return held.state is ItemState.SKIPPED or "verified" in (held.effect or {})


def _order(work: StepWork) -> OptimizeOrder:
    return msgspec.convert(work.operation.parameters, OptimizeOrder)


def _told(work: StepWork, order: OptimizeOrder, ended: Failure | None) -> StepDone:
    """Partial where some stand their new sizes and one did not. Raises StepFailed where none does."""
    items = {app.place: work.step.items[app.uid] for app in order.applications}
    result = {"applications": {place: _outcome(item) for place, item in items.items()}}
    done = [place for place, item in items.items() if item.state is ItemState.DONE]
    if ended is not None and not done:
        raise StepFailed(ended.code, ended.message, applications=result["applications"])
    if not done:
        return StepDone("Nothing was changed", result=result, outcome=Outcome.NOTHING_TO_DO, skipped=True)
    message = f"Resized and verified {len(done)} of {len(items)} applications"
    if ended is not None:
        return StepDone(f"{message}; {ended.message}", result=result, outcome=Outcome.PARTIAL)
    return StepDone(message, result=result, outcome=Outcome.CHANGED)


def _outcome(item: Any) -> dict[str, Any]:
    held: dict[str, Any] = {"state": item.state.value, "message": item.message}
    if item.effect is not None and "verified" in item.effect:
        held["verified"] = item.effect["verified"]
    if item.undo is not None:
        held["undo"] = ": ".join(filter(None, (item.undo.state.value, item.undo.reason)))
    return held
