"""Whether an application stands its new size: rolled out, ready and staying so, without kills or restarts; and what its
users see of it, where that is measured. What is not observed is said to be so, never called verified."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from opsapi.applications.measuring import running_pods, selector_of
from opsapi.applications.ports import WorkloadRef
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.work import StepWork
from opsapi.playbooks.optimizing.gathering import Gatherer
from opsapi.playbooks.optimizing.model import AppOrder, OptimizingSettings, same
from opsapi.playbooks.optimizing.patches import stands
from opsapi.playbooks.optimizing.recommending import quantities_of
from opsapi.telemetry.model import Unobserved
from opsapi.telemetry.ports import Metrics
from opsapi.workspaces.objects import DAEMON_SET, STATEFUL_SET, Pod, PodTemplate, Workload
from opsapi.workspaces.pods import is_ready
from opsapi.workspaces.ports import Cluster, Clusters

MORE_ERRORS = 1.0
"""Percentage points by which the error rate may be higher than before."""
SLOWER = 1.5
"""Times that the p95 latency may be of what it was before."""
MORE_THROTTLED = 10.0
"""Percentage points by which the CPU may be throttled more than before."""
_LEAST_WINDOW = 120.0


class NotStood(Exception):
    """It does not stand its new size: `code` and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Verifier:
    def __init__(self, clusters: Clusters, gatherer: Gatherer, metrics: Metrics, settings: OptimizingSettings) -> None:
        self._clusters = clusters
        self._gatherer = gatherer
        self._metrics = metrics
        self._settings = settings

    async def observe(self, work: StepWork, app: AppOrder) -> dict[str, Any]:
        """What users and the kernel see of it now: `{"error_rate", "latency_p95_ms", "throttled"}`, each null where it
        was not observed, and `unobserved` with the reasons."""
        cluster, ref = self._cluster(work), app.ref(work.operation.workspace_id)
        held = cluster.inventory.get(ref.kind, Workload, ref.namespace, ref.name)
        template = held.spec.template if held is not None else PodTemplate()
        selector = selector_of(cluster.inventory, ref, template, running_pods(cluster.inventory, ref))
        window = timedelta(seconds=max(_LEAST_WINDOW, self._settings.hold_seconds))
        workspace_id, reasons = ref.workspace_id, {}
        figures: dict[str, Any] = {"error_rate": None, "latency_p95_ms": None, "throttled": None}
        traffic = await self._metrics.traffic(workspace_id, selector, window)
        if isinstance(traffic, Unobserved):
            reasons["traffic"] = traffic.reason
        else:
            figures["error_rate"] = traffic.figures.error_rate
            figures["latency_p95_ms"] = traffic.figures.latency_p95_ms
        throttling = await self._metrics.throttling(workspace_id, selector, window)
        if isinstance(throttling, Unobserved):
            reasons["throttled"] = throttling.reason
        else:
            figures["throttled"] = max((one.percent for one in throttling.figures), default=None)
        return figures | ({"unobserved": reasons} if reasons else {})

    async def verify(self, work: StepWork, app: AppOrder, before: dict[str, Any]) -> dict[str, Any]:
        """What was seen. Raises NotStood."""
        until = work.clock.monotonic() + min(self._settings.verify_seconds, work.remaining - 1)
        since: float | None = None
        seen = "the cluster was never seen to answer"
        while True:
            now = work.clock.monotonic()
            workload = await self._look(work, app)
            if workload is None:
                since = None
            else:
                settled, seen = self._settled(work, app, workload)
                since = (since if since is not None else now) if settled else None
            if since is not None and now - since >= self._settings.hold_seconds:
                break
            if since is None and now >= until:
                raise NotStood("NOT_READY", f"Not rolled out after {self._settings.verify_seconds:g} s: {seen}")
            await work.sleep(self._settings.poll_seconds)
        after = await self.observe(work, app)
        worse = worse_than(before, after)
        if worse:
            raise NotStood("WORSE_THAN_BEFORE", worse)
        return {"readiness": f"{seen}, held for {self._settings.hold_seconds:g} s", "before": before, "after": after}

    def stuck(self, work: StepWork, app: AppOrder) -> list[Pod]:
        """Pods of the new size that nobody replaces: a StatefulSet's that do not become ready, whatever its template
        says."""
        if app.kind != STATEFUL_SET.kind:
            return []
        pods = running_pods(self._cluster(work).inventory, app.ref(work.operation.workspace_id))
        return [pod for pod in pods if _is_new(pod, app) and not is_ready(pod)]

    async def _look(self, work: StepWork, app: AppOrder) -> Workload | None:
        """None where the cluster does not answer. Raises NotStood where it is gone, or was changed by others."""
        try:
            held = await self._gatherer.read(app.key(work.operation.workspace_id))
        except DependencyUnavailable:
            return None
        if held is None:
            raise NotStood("TARGET_GONE", f"{app.place} was deleted or replaced meanwhile")
        if not stands(held, {one.name: one.after for one in app.containers}):
            raise NotStood("CHANGED_MEANWHILE", f"Somebody else changed the resources of {app.place}")
        return held

    def _settled(self, work: StepWork, app: AppOrder, workload: Workload) -> tuple[bool, str]:
        """Raises NotStood where a pod of the new size was killed or restarted."""
        cluster, ref = self._cluster(work), app.ref(work.operation.workspace_id)
        pods = running_pods(cluster.inventory, ref)
        _stand(app, [pod for pod in pods if _is_new(pod, app)])
        return rolled_out(ref, workload)

    def _cluster(self, work: StepWork) -> Cluster:
        found = self._clusters.find(work.operation.workspace_id)
        if found is None:
            raise StepFailed("DEPENDENCY_UNAVAILABLE", f"{work.operation.workspace_id} is not served any more")
        return found


def rolled_out(ref: WorkloadRef, workload: Workload) -> tuple[bool, str]:
    """Whether every pod is of the newest template and ready, and in words what was seen."""
    status = workload.status
    if ref.kind == DAEMON_SET:
        desired, updated, ready = status.desired_number_scheduled, status.updated_number_scheduled, status.number_ready
        total = desired
    else:
        desired = 1 if workload.spec.replicas is None else workload.spec.replicas
        updated, ready, total = status.updated_replicas, status.ready_replicas, status.replicas
    observed = status.observed_generation >= workload.metadata.generation
    seen = f"{updated} of {desired} pods have the new size, {ready} are ready"
    return observed and updated == desired == total and ready == desired, seen


def _is_new(pod: Pod, app: AppOrder) -> bool:
    wanted = {one.name: one.after for one in app.containers}
    held = {one.name: quantities_of(one) for one in pod.spec.containers}
    return all(same(held.get(name), after) for name, after in wanted.items())


def _stand(app: AppOrder, pods: Sequence[Pod]) -> None:
    """Raises NotStood."""
    for pod in pods:
        for status in pod.status.container_statuses:
            ended = status.state.terminated or status.last_state.terminated
            if ended is not None and ended.reason == "OOMKilled":
                told = f"Container {status.name} of {app.place} was killed for its memory at the new size"
                raise NotStood("OOM_KILLED", told)
            if status.restart_count > 0:
                raise NotStood("RESTARTED", f"Container {status.name} of {app.place} restarted at the new size")


def worse_than(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Why it is worse off than before, or "", where both were measured."""
    was, now = before.get("error_rate"), after.get("error_rate")
    if was is not None and now is not None and now > was + MORE_ERRORS:
        return f"The error rate rose from {was:g} % to {now:g} %"
    was, now = before.get("latency_p95_ms"), after.get("latency_p95_ms")
    if was and now and now > was * SLOWER:
        return f"The p95 latency rose from {was:g} ms to {now:g} ms"
    was, now = before.get("throttled"), after.get("throttled")
    if was is not None and now is not None and now > was + MORE_THROTTLED:
        return f"The CPU is throttled in {now:g} % of the time instead of {was:g} %"
    return ""


def unobserved(after: dict[str, Any]) -> str:
    """In words what could not be compared, or ""."""
    names = {"error_rate": "error rate", "latency_p95_ms": "latency", "throttled": "throttling"}
    missing = [told for field, told in names.items() if after.get(field) is None]
    return f"{', '.join(missing)} not observed" if missing else ""
