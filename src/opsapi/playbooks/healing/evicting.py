"""Sends ill pods away by the eviction API: a few at a time, the next ones once new ones have become ready."""

from opsapi.diagnosis.pods import is_ready
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Failure, ItemState, Outcome, Undo, UndoState
from opsapi.operations.procedures import StepDone
from opsapi.operations.work import ItemWork, StepWork
from opsapi.playbooks.healing.facts import decoded, pods_of
from opsapi.playbooks.healing.ground import Ground, TargetFailed, kind_of, never_left, order_of
from opsapi.playbooks.healing.model import HealOrder, PodOrder, Remedy, TargetOrder
from opsapi.workspaces.objects import Pod
from opsapi.workspaces.writing import EvictionBlocked, TargetGone, WriteConflict, WriteRefused

BLOCKED = "EVICTION_BLOCKED"


class Evicting:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def restart(self, work: StepWork) -> StepDone:
        """Raises StepFailed where no application could be acted on."""
        order = order_of(work)
        targets = order.targets_of(Remedy.RESTART)
        failures: list[Failure] = []
        for target in targets:
            try:
                async with self._ground.locked(work, order, target):
                    await self.evict_all(work, order, target)
            except TargetFailed as failed:
                failures.append(failed.failure)
        told = _told(work, targets)
        if failures and len(failures) == len(targets):
            raise StepFailed(failures[0].code, failures[0].message, pods=told)
        evicted = [one for one in told if one["outcome"] == "evicted"]
        blocked = [one for one in told if one["outcome"] == "blocked"]
        if blocked and not evicted:
            names = ", ".join(one["pod"] for one in blocked)
            message = f"blocked: disruption budgets forbid the eviction of {names}"
            raise StepFailed(BLOCKED, message, pods=told)
        message = f"Evicted {len(evicted)} of {len(told)} unhealthy pods"
        if blocked:
            message += f", {len(blocked)} blocked by disruption budgets"
        outcome = Outcome.CHANGED if evicted else Outcome.NOTHING_TO_DO
        if blocked or failures:
            outcome = Outcome.PARTIAL
        return StepDone(message, result={"pods": told}, outcome=outcome)

    async def undo(self, work: StepWork) -> Undo:
        """Nothing is as it was before a pod was evicted."""
        if not any(item.touched for item in work.step.items.values()):
            return Undo(state=UndoState.NEEDLESS)
        return Undo(state=UndoState.SKIPPED, reason="evictions cannot be undone")

    async def evict_all(self, work: StepWork, order: HealOrder, target: TargetOrder) -> None:
        """Raises TargetFailed where the new pods do not become ready: then no further one is evicted."""
        for pod in target.pods:
            if work.item(pod.uid).settled:
                continue
            await self._replaced(work, order, target)
            await self._evict(work, order, target, pod)

    async def _replaced(self, work: StepWork, order: HealOrder, target: TargetOrder) -> None:
        """Waits until all but `at_once - 1` of the pods evicted so far have been made good by ready ones."""
        evicted = sum(
            1 for pod in target.pods if (held := work.step.items.get(pod.uid)) and held.state is ItemState.DONE
        )
        needed = target.ready + evicted - (target.at_once - 1)
        until = work.clock.monotonic() + min(self._ground.settings.replacement_seconds, work.remaining - 1)
        while evicted >= target.at_once:
            await self._ground.workload(order, target)
            ready = self._ready(order, target)
            if ready >= needed:
                return
            if work.clock.monotonic() >= until:
                told = (
                    f"{evicted} pods of {target.place} were evicted and {ready} are ready: restarting does not cure it"
                )
                raise TargetFailed("NOT_READY", told)
            await work.sleep(self._ground.settings.poll_seconds)

    def _ready(self, order: HealOrder, target: TargetOrder) -> int:
        pods = pods_of(self._ground.cluster(order).inventory, kind_of(target), target.uid)
        return sum(1 for pod in pods if is_ready(pod) and pod.metadata.deletion_timestamp is None)

    async def _evict(self, work: StepWork, order: HealOrder, target: TargetOrder, pod: PodOrder) -> None:
        await self._ground.workload(order, target)
        self._ground.allow(order, target)
        item = work.item(pod.uid)
        key = target.pod_key(order.workspace_id, pod)
        effect: dict[str, object] = {"pod": pod.name, "namespace": target.namespace, "uid": pod.uid}
        try:
            held = decoded(await self._ground.objects.get(key), Pod)
        except (TargetGone, WriteConflict):
            await self._gone(item, pod, effect)
            return
        except WriteRefused as error:
            raise TargetFailed("WRITE_REFUSED", f"the cluster refused: {error}") from error
        if held.metadata.deletion_timestamp is not None:
            await self._gone(item, pod, effect)
            return
        if item.interrupted is not None:
            await item.withdraw()
        why_not = _left_alone(held)
        if why_not:
            await item.skip(f"{pod.name} {why_not}")
            return
        await item.intend(effect)
        try:
            await self._ground.objects.evict(key)
        except EvictionBlocked as error:
            await item.withdraw()
            await item.fail(Failure(code=BLOCKED, message=f"blocked: {error}"[:500]))
            return
        except (TargetGone, WriteConflict):
            await item.withdraw()
            await item.skip(f"{pod.name} went before it was evicted")
            return
        except WriteRefused as error:
            await item.withdraw()
            raise TargetFailed("WRITE_REFUSED", f"the cluster refused: {error}") from error
        except DependencyUnavailable as error:
            if never_left(error):
                await item.withdraw()
            raise
        event = await self._ground.tell(work, target, f"Evicted unhealthy pod {pod.name}")
        await item.record(effect | {"event": event}, f"Evicted {pod.name}")

    async def _gone(self, item: ItemWork, pod: PodOrder, effect: dict[str, object]) -> None:
        """By our own earlier try, whose end nobody saw, or by somebody else."""
        if item.interrupted is not None:
            await item.record(effect | {"found": True}, f"Effect found: {pod.name} was evicted", found=True)
        else:
            await item.skip(f"{pod.name} is gone or going already")


def _left_alone(pod: Pod) -> str:
    """Why a pod is not evicted although it was planned, or ""; a ready pod never is, so never the last ready one."""
    if is_ready(pod):
        return "is ready again"
    if pod.metadata.controller is None:
        return "has no controller that would replace it"
    if pod.status.phase in ("Succeeded", "Failed"):
        return "has ended"
    return ""


def _told(work: StepWork, targets: tuple[TargetOrder, ...]) -> list[dict[str, str]]:
    told = []
    for target in targets:
        for pod in target.pods:
            held = work.step.items.get(pod.uid)
            outcome, message = "not tried", ""
            if held is not None:
                blocked = held.error is not None and held.error.code == BLOCKED
                outcome = {
                    ItemState.PENDING: "not tried",
                    ItemState.DONE: "evicted",
                    ItemState.SKIPPED: "skipped",
                    ItemState.FAILED: "blocked" if blocked else "failed",
                }[held.state]
                message = held.message or ""
            told.append({"pod": f"{target.namespace}/{pod.name}", "outcome": outcome, "message": message})
    return told
