"""Whether what was done has healed: ready and staying ready, no restarts, no fewer pods than there should be; and what
users see of it, where that is measured."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from opsapi.diagnosis.pods import is_ready
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.model import Failure, Undo, UndoState
from opsapi.operations.procedures import StepDone
from opsapi.operations.work import StepWork
from opsapi.playbooks.healing.facts import pods_of
from opsapi.playbooks.healing.ground import Ground, TargetFailed, kind_of, order_of
from opsapi.playbooks.healing.model import HealOrder, Remedy, TargetOrder
from opsapi.telemetry.model import Traffic, Unobserved, WorkloadSelector
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.objects import DAEMON_SET, POD, SERVICE, Service, Workload
from opsapi.workspaces.ports import Inventory, Sync

TRAFFIC_WINDOW = timedelta(minutes=5)
MORE_ERRORS = 1.0
"""Percentage points by which the error rate may be higher than before."""
SLOWER = 2.0
"""Times that the p95 latency may be of what it was before."""


@dataclass(slots=True)
class _Watch:
    target: TargetOrder
    since: float | None = None
    restarts: tuple[tuple[str, int], ...] = ()
    seen: str = "the cluster was never seen to answer"


class Verifying:
    def __init__(self, ground: Ground, metrics: Metrics | None) -> None:
        self._ground = ground
        self._metrics = metrics

    async def verify(self, work: StepWork) -> StepDone:
        """Raises StepFailed where one application is not healed in time; items say which are."""
        order, settings = order_of(work), self._ground.settings
        watches = [_Watch(target) for target in order.targets if not work.item(target.uid).settled]
        until = work.clock.monotonic() + min(settings.verify_seconds, work.remaining - 1)
        while watches:
            now = work.clock.monotonic()
            for watch in list(watches):
                if await self._ended(work, order, watch, now, late=now >= until):
                    watches.remove(watch)
            if watches:
                await work.sleep(settings.poll_seconds)
        return self._done(work, order)

    async def undo(self, _work: StepWork) -> Undo:
        """Looking changed nothing."""
        return Undo(state=UndoState.NEEDLESS)

    def _done(self, work: StepWork, order: HealOrder) -> StepDone:
        held = {target.place: work.step.items[target.uid] for target in order.targets}
        failed = {place: item.error for place, item in held.items() if item.error is not None}
        told = {place: (item.effect or {}).get("verified") for place, item in held.items() if item.effect is not None}
        if failed:
            first = next(iter(failed.values()))
            details = {place: failure.message for place, failure in failed.items()}
            raise StepFailed(first.code, first.message, applications=details, verified=told)
        message = "; ".join(item.message or "" for item in held.values())
        return StepDone(f"Verified: {message}"[:1000], result={"verification": told})

    async def _ended(self, work: StepWork, order: HealOrder, watch: _Watch, now: float, *, late: bool) -> bool:
        """Whether the target's verdict stands, and is kept."""
        target, settings = watch.target, self._ground.settings
        item = work.item(target.uid)
        try:
            workload = await self._ground.workload(order, target)
            settled, restarts, watch.seen = self._look(order, target, workload)
        except DependencyUnavailable as error:
            settled, restarts, watch.seen = False, (), f"the cluster does not answer: {error.message}"
        except TargetFailed as failed:
            await item.fail(failed.failure)
            return True
        if restarts != watch.restarts or not settled:
            watch.since, watch.restarts = None, restarts
        if settled and watch.since is None:
            watch.since = now
        if watch.since is not None and now - watch.since >= settings.hold_seconds:
            await self._conclude(work, order, watch)
            return True
        if late:
            told = f"{target.place} is not well after {settings.verify_seconds:g} s: {watch.seen}"
            await item.fail(Failure(code="NOT_READY", message=told))
        return late

    def _look(
        self, order: HealOrder, target: TargetOrder, workload: Workload
    ) -> tuple[bool, tuple[tuple[str, int], ...], str]:
        """(well now, each pod's restarts, in words). Both what the controller reports and the pods themselves count."""
        kind, status = kind_of(target), workload.status
        daemon = kind == DAEMON_SET
        desired = status.desired_number_scheduled if daemon else (workload.spec.replicas or 0)
        ready = status.number_ready if daemon else status.ready_replicas
        updated = status.updated_number_scheduled if daemon else status.updated_replicas
        total = desired if daemon else status.replicas
        inventory = self._ground.cluster(order).inventory
        pods = [pod for pod in pods_of(inventory, kind, target.uid) if pod.metadata.deletion_timestamp is None]
        pods = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
        restarts = tuple(
            (pod.metadata.uid, sum(status.restart_count for status in pod.status.container_statuses)) for pod in pods
        )
        seen = f"{ready} of {desired} replicas are ready"
        fresh = inventory.state(POD).sync is Sync.SYNCED
        rolled = target.remedy is Remedy.RESTART or (updated >= desired and total == desired)
        well = (
            fresh
            and status.observed_generation >= workload.metadata.generation
            and desired > 0
            and ready >= desired
            and rolled
            and len(pods) >= desired
            and all(is_ready(pod) for pod in pods)
        )
        return well, restarts, seen if fresh else f"{seen}, but pods could not be confirmed lately"

    async def _conclude(self, work: StepWork, order: HealOrder, watch: _Watch) -> None:
        """Ready for long enough; now what users see. Unobserved is said to be so, never verified."""
        target = watch.target
        hold = f"{self._ground.settings.hold_seconds:g} s"
        verified: dict[str, Any] = {"readiness": f"{watch.seen}, held for {hold}", "restarts": f"none in {hold}"}
        before = _before(work, target)
        now = await self.traffic(order, target)
        verified["traffic"] = {"before": before, "now": now}
        worse = _worse(before, now)
        item = work.item(target.uid)
        if worse:
            await item.fail(Failure(code="NOT_HEALED", message=f"{target.place}: {worse}", details=verified))
            return
        await item.record(
            {"verified": verified}, f"{target.name}: {watch.seen}, held for {hold}; {_users(before, now)}"
        )

    async def traffic(self, order: HealOrder, target: TargetOrder) -> dict[str, Any]:
        """`{"error_rate", "latency_p95_ms", "request_rate", "source"}`, or `{"unobserved": why}`."""
        if self._metrics is None:
            return {"unobserved": "no metrics are configured"}
        cluster = self._ground.cluster(order)
        selector = _measured(cluster.inventory, target)
        answer = await self._metrics.traffic(order.workspace_id, selector, TRAFFIC_WINDOW, cluster.inventory.now())
        if isinstance(answer, Unobserved):
            return {"unobserved": answer.reason}
        figures: Traffic = answer.figures
        return {
            "error_rate": figures.error_rate,
            "latency_p95_ms": figures.latency_p95_ms,
            "request_rate": figures.request_rate,
            "source": answer.source,
        }


def _measured(inventory: Inventory, target: TargetOrder) -> WorkloadSelector:
    """The workload with the Services before it, by which ingresses count requests."""
    pods = pods_of(inventory, kind_of(target), target.uid)
    labels = pods[0].metadata.labels if pods else target.selector
    services = tuple(
        held.metadata.name
        for held in inventory.all(SERVICE, Service, target.namespace)
        if held.spec.selector and held.spec.selector.items() <= labels.items()
    )
    return WorkloadSelector(target.kind, target.namespace, target.name, services=services)


def _before(work: StepWork, target: TargetOrder) -> dict[str, Any]:
    """As it was measured before anything was done."""
    before = (work.operation.result or {}).get("traffic_before") or {}
    found: dict[str, Any] = before.get(target.place) or {"unobserved": "it was not measured before"}
    return found


def _users(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What is known of the users' side, in words: only what was measured both times is compared."""
    names = {"error_rate": "error rate", "latency_p95_ms": "p95 latency"}
    compared = [word for key, word in names.items() if before.get(key) is not None and now.get(key) is not None]
    missing = [word for word in names.values() if word not in compared]
    told = [f"{' and '.join(compared)} no worse"] if compared else []
    told += [f"{' and '.join(missing)} not observed"] if missing else []
    return ", ".join(told)


def _worse(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Why users are worse off than before, or "", where both were measured."""
    errors = before.get("error_rate"), now.get("error_rate")
    if errors[0] is not None and errors[1] is not None and errors[1] > errors[0] + MORE_ERRORS:
        return f"its error rate rose from {errors[0]:g} % to {errors[1]:g} %"
    slow = before.get("latency_p95_ms"), now.get("latency_p95_ms")
    if slow[0] and slow[1] and slow[1] > slow[0] * SLOWER:
        return f"its p95 latency rose from {slow[0]:g} ms to {slow[1]:g} ms"
    return ""
