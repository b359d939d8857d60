"""Writes into workloads' templates: back to an earlier revision, or with more memory; and back again where that did not
heal."""

from typing import Any

from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed, StepPostponed
from opsapi.operations.model import Failure, Item, ItemState, Outcome, Undo, UndoState
from opsapi.operations.procedures import StepDone
from opsapi.operations.work import ItemWork, StepWork
from opsapi.playbooks.healing.evicting import Evicting
from opsapi.playbooks.healing.ground import Ground, TargetFailed, never_left, order_of
from opsapi.playbooks.healing.model import (
    CONTROLLER_REVISIONS,
    REPLICA_SETS,
    VERIFY,
    HealOrder,
    Remedy,
    RollbackOrder,
    TargetOrder,
)
from opsapi.workspaces.objects import DEPLOYMENT
from opsapi.workspaces.writing import JsonObject, ObjectKey, TargetGone, WriteConflict, WriteRefused

_CONFLICT_TRIES = 5
_HASHES = ("pod-template-hash", "controller-revision-hash")


class Change:
    """From one state of a template to another, both ways: `before` and `after` are what the fields at stake hold."""

    def __init__(self, before: Any, after: Any) -> None:
        self.before = before
        self.after = after


class Templates:
    def __init__(self, ground: Ground, evicting: Evicting) -> None:
        self._ground = ground
        self._evicting = evicting

    async def roll_back(self, work: StepWork) -> StepDone:
        return await self._all(work, Remedy.ROLL_BACK)

    async def raise_memory(self, work: StepWork) -> StepDone:
        return await self._all(work, Remedy.RAISE)

    async def undo_rollback(self, work: StepWork) -> Undo:
        return await self._undo_all(work, Remedy.ROLL_BACK)

    async def undo_memory(self, work: StepWork) -> Undo:
        return await self._undo_all(work, Remedy.RAISE)

    async def _all(self, work: StepWork, remedy: Remedy) -> StepDone:
        order = order_of(work)
        targets = order.targets_of(remedy)
        failures: list[Failure] = []
        for target in targets:
            item = work.item(target.uid)
            try:
                async with self._ground.locked(work, order, target):
                    if not item.settled:
                        await self._write(work, order, target, item)
                    if target.pods:
                        await self._observed(work, order, target)
                        await self._evicting.evict_all(work, order, target)
            except TargetFailed as failed:
                if not item.settled:
                    await item.fail(failed.failure)
                failures.append(failed.failure)
        if failures and len(failures) == len(targets):
            raise StepFailed(failures[0].code, failures[0].message)
        told = [work.step.items[target.uid].message or "" for target in targets if target.uid in work.step.items]
        written = any(work.step.items.get(target.uid, Item()).state is ItemState.DONE for target in targets)
        outcome = Outcome.PARTIAL if failures else Outcome.CHANGED if written else None
        return StepDone("; ".join(told)[:1000], result={remedy.value: told}, outcome=outcome)

    async def _write(self, work: StepWork, order: HealOrder, target: TargetOrder, item: ItemWork) -> None:
        change = await self._change(order, target)
        key = target.key(order.workspace_id)
        for _ in range(_CONFLICT_TRIES):
            await self._ground.workload(order, target)
            self._ground.allow(order, target)
            try:
                held = await self._ground.objects.get(key)
            except (TargetGone, WriteConflict, WriteRefused) as error:
                raise TargetFailed("TARGET_GONE", f"{target.place} cannot be read: {error}") from error
            stands = _stands(target, held)
            if stands == change.after:
                await self._already(item, target)
                return
            if stands != change.before:
                raise TargetFailed("CHANGED_MEANWHILE", f"somebody else changed the template of {target.place}")
            if item.interrupted is not None:
                await item.withdraw()
            version = held["metadata"]["resourceVersion"]
            await item.intend({"target": target.place, "remedy": target.remedy.value, "resource_version": version})
            if await self._patch(item, key, _patch(target, change.after), version):
                event = await self._ground.tell(work, target, _summary(target))
                await item.record({"target": target.place, "event": event}, _summary(target))
                return
        raise StepPostponed("CONFLICT", f"{target.place} keeps changing while it is being written")

    async def _patch(self, item: ItemWork, key: ObjectKey, body: JsonObject, version: str) -> bool:
        """False where it changed since it was read. Raises TargetFailed."""
        try:
            await self._ground.objects.patch(key, body, resource_version=version, strategic=True)
        except WriteConflict:
            await item.withdraw()
            return False
        except (WriteRefused, TargetGone) as error:
            await item.withdraw()
            raise TargetFailed("WRITE_REFUSED", f"the cluster refused: {error}") from error
        except DependencyUnavailable as error:
            if never_left(error):
                await item.withdraw()
            raise
        return True

    async def _already(self, item: ItemWork, target: TargetOrder) -> None:
        if item.interrupted is not None:
            message = f"Effect found: {_summary(target)}"
            await item.record({"target": target.place, "found": True}, message, found=True)
        else:
            await item.skip(f"{target.place} is as wanted by somebody else's change")

    async def _observed(self, work: StepWork, order: HealOrder, target: TargetOrder) -> None:
        """A controller that has not seen the new template yet would make a pod of the old one again.

        Raises TargetFailed.
        """
        until = work.clock.monotonic() + min(self._ground.settings.replacement_seconds, work.remaining - 1)
        while True:
            held = await self._ground.workload(order, target)
            if held.status.observed_generation >= held.metadata.generation:
                return
            if work.clock.monotonic() >= until:
                raise TargetFailed("NOT_OBSERVED", f"the controller of {target.place} does not see its new template")
            await work.sleep(self._ground.settings.poll_seconds)

    async def _undo_all(self, work: StepWork, remedy: Remedy) -> Undo:
        """Only what is not verified by now, but where somebody asked for all of it back; and only where it still stands
        as it was written."""
        order = order_of(work)
        verified = _verified(work) if work.operation.rollback_requested_at is None else set()
        reasons, undone = [], 0
        for target in order.targets_of(remedy):
            item = work.item(target.uid)
            if not item.held.touched:
                continue
            if target.uid in verified:
                reasons.append(f"{target.place}: it is healed, and left so")
                continue
            if item.held.undo is not None and item.held.undo.state is not UndoState.INTENDED:
                undo = item.held.undo
            else:
                undo = await self._undo_one(order, target, item)
                await item.note_undo(undo)
            if undo.state is UndoState.SKIPPED:
                reasons.append(f"{target.place}: {undo.reason}")
            undone += undo.state is UndoState.UNDONE
        if reasons:
            return Undo(state=UndoState.SKIPPED, reason="; ".join(reasons)[:1000])
        return Undo(state=UndoState.UNDONE if undone else UndoState.NEEDLESS)

    async def _undo_one(self, order: HealOrder, target: TargetOrder, item: ItemWork) -> Undo:
        key = target.key(order.workspace_id)
        try:
            change = await self._change(order, target)
            self._ground.allow(order, target)
        except TargetFailed as failed:
            return Undo(state=UndoState.SKIPPED, reason=failed.failure.message)
        for _ in range(_CONFLICT_TRIES):
            try:
                held = await self._ground.objects.get(key)
            except (TargetGone, WriteConflict, WriteRefused) as error:
                return Undo(state=UndoState.SKIPPED, reason=f"it was deleted or replaced meanwhile: {error}")
            stands = _stands(target, held)
            if stands == change.before:
                return Undo(state=UndoState.UNDONE if item.held.undo is not None else UndoState.NEEDLESS)
            if stands != change.after:
                return Undo(state=UndoState.SKIPPED, reason="somebody else changed the template since")
            await item.intend_undo()
            version = held["metadata"]["resourceVersion"]
            try:
                await self._ground.objects.patch(
                    key, _patch(target, change.before), resource_version=version, strategic=True
                )
            except WriteConflict:
                continue
            except (WriteRefused, TargetGone) as error:
                return Undo(state=UndoState.SKIPPED, reason=str(error)[:500])
            return Undo(state=UndoState.UNDONE)
        raise StepPostponed("CONFLICT", f"{target.place} keeps changing while it is being written back")

    async def _change(self, order: HealOrder, target: TargetOrder) -> Change:
        """Raises TargetFailed where a revision to go to, or to come back to, is no more."""
        rollback = target.rollback
        if rollback is None:
            return Change(_memory(target, after=False), _memory(target, after=True))
        return Change(
            await self._template(order, target, rollback, newer=True),
            await self._template(order, target, rollback, newer=False),
        )

    async def _template(
        self, order: HealOrder, target: TargetOrder, rollback: RollbackOrder, *, newer: bool
    ) -> JsonObject:
        name, uid, number = (
            (rollback.from_name, rollback.from_uid, rollback.from_number)
            if newer
            else (rollback.to_name, rollback.to_uid, rollback.to_number)
        )
        resource = REPLICA_SETS if target.kind == DEPLOYMENT.kind else CONTROLLER_REVISIONS
        key = ObjectKey(order.workspace_id, resource, target.namespace, name, uid)
        try:
            held = await self._ground.objects.get(key)
        except (TargetGone, WriteConflict, WriteRefused) as error:
            raise TargetFailed("REVISION_GONE", f"revision {number} of {target.place} is no more") from error
        spec = held["spec"] if resource == REPLICA_SETS else held["data"]["spec"]
        return _bare(spec["template"])


def _bare(template: JsonObject) -> JsonObject:
    """Without what controllers add to the template of a revision."""
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value is not None}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key not in _HASHES}
    held = {key: value for key, value in template.items() if key != "$patch"}
    return held | {"metadata": meta | ({"labels": labels} if labels else {})}


def _stands(target: TargetOrder, held: JsonObject) -> Any:
    """What the fields at stake hold now, in the form of `Change`."""
    template = held["spec"]["template"]
    if target.rollback is not None:
        return _bare(template)
    containers = {one["name"]: one.get("resources") or {} for one in template["spec"].get("containers") or ()}
    found = {}
    for order in target.memory:
        resources = containers.get(order.container, {})
        limit = (resources.get("limits") or {}).get("memory", "")
        request = (resources.get("requests") or {}).get("memory", "") if order.request_after else ""
        found[order.container] = (limit, request)
    return found


def _memory(target: TargetOrder, *, after: bool) -> dict[str, tuple[str, str]]:
    return {
        one.container: (one.limit_after, one.request_after) if after else (one.limit_before, one.request_before)
        for one in target.memory
    }


def _patch(target: TargetOrder, wanted: Any) -> JsonObject:
    """A strategic patch. A template is replaced as a whole, as `kubectl rollout undo` does."""
    if target.rollback is not None:
        return {"spec": {"template": {"$patch": "replace", **wanted}}}
    containers = []
    for name, (limit, request) in wanted.items():
        resources = {"limits": {"memory": limit}} | ({"requests": {"memory": request}} if request else {})
        containers.append({"name": name, "resources": resources})
    return {"spec": {"template": {"spec": {"containers": containers}}}}


def _summary(target: TargetOrder) -> str:
    if target.rollback is not None:
        back = target.rollback
        return f"Rolled {target.place} back from revision {back.from_number} to the template of {back.to_number}"
    limits = ", ".join(f"{one.container} from {one.limit_before} to {one.limit_after}" for one in target.memory)
    return f"Raised the memory limit of {target.place}: {limits}"


def _verified(work: StepWork) -> set[str]:
    step = next((one for one in work.operation.steps if one.name == VERIFY), None)
    items = step.items if step is not None else {}
    return {uid for uid, item in items.items() if item.state is ItemState.DONE}
