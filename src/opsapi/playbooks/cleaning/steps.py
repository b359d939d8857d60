"""Carries a cleanup out: each object is kept sealed, deleted under its uid and version, and can be brought back."""

from datetime import timedelta
from typing import Any

import msgspec

from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Failure, ItemState, Outcome, Undo, UndoState
from opsapi.operations.procedures import Procedure, Replanner, StepDone, StepProcedure
from opsapi.operations.work import ItemWork, StepWork
from opsapi.playbooks.cleaning.gathering import Gathering
from opsapi.playbooks.cleaning.model import ACTION, DELETE, FIND, VERIFY, CleanOrder, Leftover
from opsapi.playbooks.cleaning.ports import Snapshots, SnapshotUnreadable
from opsapi.policy.book import PolicyBook
from opsapi.workspaces.ports import Cluster, Clusters
from opsapi.workspaces.writing import (
    JsonObject,
    Objects,
    OutcomeUnknown,
    TargetGone,
    WriteConflict,
    WriteRefused,
)

_CONFLICT_TRIES = 3
_SERVERS_OWN = (
    "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink", "deletionTimestamp",
    "deletionGracePeriodSeconds",
)  # fmt: skip
RESTORED_BY = "opsapi.dev/restored-by"


class CleaningSteps:
    def __init__(
        self, clusters: Clusters, objects: Objects, gathering: Gathering, snapshots: Snapshots, policy: PolicyBook
    ) -> None:
        self._clusters = clusters
        self._objects = objects
        self._gathering = gathering
        self._snapshots = snapshots
        self._policy = policy

    def procedure(self, replan: Replanner | None = None) -> Procedure:
        steps = (
            StepProcedure(FIND, self.find, timedelta(seconds=5)),
            StepProcedure(DELETE, self.delete, timedelta(seconds=30), self.undo),
            StepProcedure(VERIFY, self.verify, timedelta(seconds=10)),
        )
        return Procedure(ACTION, steps, timedelta(minutes=30), replan=replan)

    async def find(self, work: StepWork) -> StepDone:
        order = _order(work)
        reported = [msgspec.to_builtins(one) for one in order.reported]
        message = f"Found {len(order.items)} objects to delete and {order.reported_total} to report"
        result = {"reported": reported, "left_over": order.left_over, "unobserved": order.unobserved}
        if order.items:
            return StepDone(message, result=result)
        outcome = Outcome.PROPOSED if order.reported_total else Outcome.NOTHING_TO_DO
        return StepDone(message, result=result, outcome=outcome)

    async def delete(self, work: StepWork) -> StepDone:
        """What is not a leftover any more (it is referred to by now, runs again, was replaced) is passed over."""
        order = _order(work)
        cluster = self._cluster(order)
        seen = await self._gathering.look(cluster, self._policy.settings, order.limits)
        still = {one.uid for one in seen.leftovers if one.deletes}
        for one in order.items:
            item = work.item(str(one.key(order.workspace_id)))
            if not item.settled:
                await self._delete(work, order, one, item, still=one.uid in still)
        held = [work.step.items[str(one.key(order.workspace_id))] for one in order.items]
        done = [one.place for one, item in zip(order.items, held, strict=True) if item.state is ItemState.DONE]
        failed = {
            one.place: item.error.message
            for one, item in zip(order.items, held, strict=True)
            if item.state is ItemState.FAILED and item.error is not None
        }
        if failed and not done:
            raise StepFailed(
                "WRITE_REFUSED", f"Nothing could be deleted: {next(iter(failed.values()))}", objects=failed
            )
        outcome = Outcome.PARTIAL if failed else Outcome.CHANGED if done else Outcome.NOTHING_TO_DO
        skipped = {
            one.place: item.message or ""
            for one, item in zip(order.items, held, strict=True)
            if item.state is ItemState.SKIPPED
        }
        result: dict[str, Any] = {"deleted": done, "skipped": skipped, "failed": failed}
        return StepDone(f"Deleted {len(done)} of {len(order.items)} objects", result=result, outcome=outcome)

    async def _delete(self, work: StepWork, order: CleanOrder, one: Leftover, item: ItemWork, *, still: bool) -> None:
        key = one.key(order.workspace_id)
        effect: dict[str, Any] = {"object": one.place, "uid": one.uid}
        for _ in range(_CONFLICT_TRIES):
            try:
                held = await self._objects.get(key)
            except (TargetGone, WriteConflict):
                await self._gone(item, one, effect)
                return
            except WriteRefused as error:
                await item.fail(Failure(code="WRITE_REFUSED", message=str(error)[:500]))
                return
            if held["metadata"].get("deletionTimestamp"):
                await self._gone(item, one, effect)
                return
            if item.interrupted is not None:
                await item.withdraw()
            if not still:
                await item.skip(f"{one.place} is not a leftover any more")
                return
            await self._snapshots.keep(work.operation.id, key, held)
            version = held["metadata"]["resourceVersion"]
            await item.intend(effect | {"resource_version": version})
            try:
                await self._objects.delete(key, resource_version=version)
            except WriteConflict:
                await item.withdraw()
                continue
            except TargetGone:
                await item.withdraw()
                await item.skip(f"{one.place} went before it was deleted")
                return
            except WriteRefused as error:
                await item.withdraw()
                await item.fail(Failure(code="WRITE_REFUSED", message=str(error)[:500]))
                return
            except DependencyUnavailable as error:
                if not isinstance(error, OutcomeUnknown):
                    await item.withdraw()
                raise
            await item.record(effect, f"Deleted {one.place}")
            return
        # Something keeps writing it: then it is not left over.
        await item.skip(f"{one.place} keeps changing")

    async def _gone(self, item: ItemWork, one: Leftover, effect: dict[str, Any]) -> None:
        if item.interrupted is not None:
            await item.record(effect | {"found": True}, f"Effect found: {one.place} was deleted", found=True)
        else:
            await item.skip(f"{one.place} is gone already")

    async def verify(self, work: StepWork) -> StepDone:
        """Looks whether what was deleted is gone, or going."""
        order = _order(work)
        items = work.operation.step(DELETE).items
        there = []
        checked = 0
        for one in order.items:
            held = items.get(str(one.key(order.workspace_id)))
            if held is None or held.state is not ItemState.DONE:
                continue
            checked += 1
            if await self._stays(order, one):
                there.append(one.place)
        if there:
            raise StepFailed("NOT_DELETED", f"{there[0]} is still there", objects=there)
        return StepDone(f"Verified: {checked} objects are gone or going")

    async def _stays(self, order: CleanOrder, one: Leftover) -> bool:
        try:
            held = await self._objects.get(one.key(order.workspace_id))
        except (TargetGone, WriteConflict):
            return False
        except WriteRefused as error:
            raise StepFailed("WRITE_REFUSED", f"The cluster refused: {error}") from error
        return not held["metadata"].get("deletionTimestamp")

    async def undo(self, work: StepWork) -> Undo:
        """Creates again what was deleted, from its snapshot, the last first; never over a namesake."""
        order = _order(work)
        reasons, undone = [], 0
        for one in reversed(order.items):
            item = work.item(str(one.key(order.workspace_id)))
            held = item.held
            if not held.touched:
                continue
            if held.undo is not None and held.undo.state is not UndoState.INTENDED:
                undo = held.undo
            else:
                undo = await self._restore(work, order, one, item)
                await item.note_undo(undo)
            if undo.state is UndoState.SKIPPED:
                reasons.append(f"{one.place}: {undo.reason}")
            undone += undo.state is UndoState.UNDONE
        if reasons:
            return Undo(state=UndoState.SKIPPED, reason="; ".join(reasons)[:1000])
        return Undo(state=UndoState.UNDONE if undone else UndoState.NEEDLESS)

    async def _restore(self, work: StepWork, order: CleanOrder, one: Leftover, item: ItemWork) -> Undo:
        key = one.key(order.workspace_id)
        mark = work.operation.id
        there = await self._namesake(key_of=msgspec.structs.replace(key, uid=""))
        if there is not None:
            if there["metadata"].get("uid") == one.uid and not there["metadata"].get("deletionTimestamp"):
                return Undo(state=UndoState.NEEDLESS)
            if (there["metadata"].get("annotations") or {}).get(RESTORED_BY) == mark:
                return Undo(state=UndoState.UNDONE)
            return Undo(state=UndoState.SKIPPED, reason="another object bears its name by now")
        if one.kind == "Pod":
            return Undo(state=UndoState.SKIPPED, reason="a Pod that has ended would run again; its snapshot is kept")
        try:
            snapshot = await self._snapshots.find(mark, key)
        except SnapshotUnreadable as error:
            return Undo(state=UndoState.SKIPPED, reason=f"its snapshot cannot be read: {error}")
        if snapshot is None:
            return Undo(state=UndoState.SKIPPED, reason="its snapshot is not kept any more")
        await item.intend_undo()
        try:
            await self._objects.create(order.workspace_id, key.resource, restored(snapshot, mark))
        except WriteConflict:
            return Undo(state=UndoState.SKIPPED, reason="another object bears its name by now")
        except (WriteRefused, TargetGone) as error:
            return Undo(state=UndoState.SKIPPED, reason=str(error)[:500])
        return Undo(state=UndoState.UNDONE)

    async def _namesake(self, key_of: Any) -> JsonObject | None:
        try:
            return await self._objects.get(key_of)
        except TargetGone:
            return None

    def _cluster(self, order: CleanOrder) -> Cluster:
        found = self._clusters.find(order.workspace_id)
        if found is None:
            raise StepFailed("DEPENDENCY_UNAVAILABLE", f"workspace {order.workspace_id} is not served any more")
        return found


def restored(snapshot: JsonObject, operation_id: str) -> JsonObject:
    """As it is created again: without what the server gives, and inert. A Job comes back suspended and a Deployment
    or StatefulSet as it was; an expiry would only take it away again, so it is left out."""
    meta = {key: value for key, value in snapshot["metadata"].items() if key not in _SERVERS_OWN}
    annotations = {
        key: value for key, value in (meta.get("annotations") or {}).items() if not key.startswith("janitor/")
    }
    body = {key: value for key, value in snapshot.items() if key != "status"}
    body["metadata"] = meta | {"annotations": annotations | {RESTORED_BY: operation_id}}
    if snapshot["kind"] == "Job":
        body["spec"] = _job(snapshot["spec"])
    if snapshot["kind"] == "Service":
        body["spec"] = {key: value for key, value in snapshot["spec"].items() if key not in ("clusterIP", "clusterIPs")}
    return body


def _job(spec: JsonObject) -> JsonObject:
    """Suspended, so that it does not run again by itself; its selector and the labels for it are made anew."""
    template = spec["template"]
    meta = template.get("metadata") or {}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if "controller-uid" not in key}
    if spec.get("manualSelector"):
        return spec | {"suspend": True}
    bare = {key: value for key, value in spec.items() if key != "selector"}
    return bare | {"suspend": True, "template": template | {"metadata": meta | {"labels": labels}}}


def _order(work: StepWork) -> CleanOrder:
    return msgspec.convert(work.operation.parameters, CleanOrder)
