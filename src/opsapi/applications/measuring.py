"""How loaded an application is: its pods from the cache, their usage from whatever measures, its past likewise."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from opsapi.applications.autoscaling import mean_of
from opsapi.applications.autoscaling_model import Measurement, PastLoad, PodLoad, ScalingPolicy, Trigger, Window
from opsapi.applications.pods import living, pods_of
from opsapi.applications.ports import WorkloadRef
from opsapi.applications.scaling_model import ScaleFacts
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.quantity import parse_quantity
from opsapi.telemetry.model import ContainerReading, Span, Unobserved, WorkloadSelector
from opsapi.telemetry.ports import Metrics
from opsapi.telemetry.utilisation import utilisation_history
from opsapi.workspaces.objects import SERVICE, Pod, PodTemplate, Service
from opsapi.workspaces.pods import is_ready
from opsapi.workspaces.ports import Cluster, Inventory

COMPONENT = "metrics"
STEP = timedelta(minutes=1)
RATE_WINDOW = timedelta(minutes=2)
OLDEST = timedelta(minutes=5)
"""What was measured longer ago says nothing about now."""
_RESOURCES = {Trigger.CPU: "cpu", Trigger.MEMORY: "memory"}
_MOST_RATES = 10
_COVERED = 0.75
"""Of the window's moments that must have a figure, so that a missed scrape does not count as a missing history."""


def selector_of(inventory: Inventory, ref: WorkloadRef, template: PodTemplate, pods: Sequence[Pod]) -> WorkloadSelector:
    """As measurements know the workload; with the Services whose selectors match its pods."""
    labels = template.metadata.labels.items()
    services = sorted(
        service.metadata.name
        for service in inventory.all(SERVICE, Service, ref.namespace)
        if service.spec.selector and service.spec.selector.items() <= labels
    )
    names = tuple(sorted(pod.metadata.name for pod in pods))
    return WorkloadSelector(ref.kind.kind, ref.namespace, ref.name, names, tuple(services))


def request_of(pod: Pod, resource: str) -> float | None:
    """What the pod's containers and sidecars request together, millicores or bytes; None where one states none, since
    a percentage of it is not defined then."""
    total = Decimal(0)
    sidecars = [one for one in pod.spec.init_containers if one.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        text = container.resources.requests.get(resource) or container.resources.limits.get(resource)
        if text is None:
            return None
        total += parse_quantity(text)
    return float(total * 1000 if resource == "cpu" else total) or None


def pod_loads(pods: Sequence[Pod], readings: Sequence[ContainerReading], resource: str) -> list[PodLoad]:
    """A pod of which one container has no reading counts as not measured: half a sum is a wrong sum."""
    used: dict[str, dict[str, float | None]] = {}
    for one in readings:
        figure = one.cpu_millicores if resource == "cpu" else one.memory_bytes
        used.setdefault(one.pod, {})[one.container] = figure
    loads = []
    for pod in pods:
        held = used.get(pod.metadata.name, {})
        figures = [held.get(container.name) for container in pod.spec.containers]
        extra = [figure for name, figure in held.items() if name not in {c.name for c in pod.spec.containers}]
        request = request_of(pod, resource)
        percentage = None
        if request is not None and figures and all(figure is not None for figure in figures):
            percentage = 100 * sum(figure for figure in (*figures, *extra) if figure is not None) / request
        loads.append(PodLoad(pod.metadata.name, is_ready(pod), percentage))
    return loads


class Measurer:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def measure(
        self, cluster: Cluster, facts: ScaleFacts, trigger: Trigger, policy: ScalingPolicy
    ) -> Measurement:
        """Now. Raises DependencyUnavailable where nothing measures, or what was measured is too old."""
        pods = running_pods(cluster.inventory, facts.ref)
        ready = [pod for pod in pods if is_ready(pod)]
        if not ready:
            missing = "None of its pods is ready, so its load says nothing"
            return Measurement(percentage=None, ready=0, measured=0, missing=missing)
        if trigger is Trigger.REQUEST_RATE:
            return await self._rate(cluster, facts, pods, len(ready), policy.per_pod)
        resource = _RESOURCES[trigger]
        if any(request_of(pod, resource) is None for pod in ready):
            missing = f"A container requests no {resource}, so no percentage of it is defined"
            return Measurement(percentage=None, ready=len(ready), measured=0, missing=missing)
        names = [pod.metadata.name for pod in pods]
        answer = await self._metrics.usage_now(facts.ref.workspace_id, facts.ref.namespace, names)
        if isinstance(answer, Unobserved):
            raise DependencyUnavailable(COMPONENT, answer.reason, workspace_id=facts.ref.workspace_id)
        fresh = [one for one in answer.figures if cluster.inventory.now() - one.at <= OLDEST]
        if not fresh:
            self._refuse_old(facts, answer.observed_at)
        loads = pod_loads(pods, fresh, resource)
        measured = sum(1 for load in loads if load.ready and load.percentage is not None)
        if not measured:
            reason = f"{answer.source} has no reading of a pod that is ready"
            raise DependencyUnavailable(COMPONENT, reason, workspace_id=facts.ref.workspace_id)
        return Measurement(
            percentage=mean_of(loads),
            ready=len(ready),
            measured=measured,
            source=answer.source,
            observed_at=min(one.at for one in fresh),
        )

    async def _rate(
        self, cluster: Cluster, facts: ScaleFacts, pods: Sequence[Pod], ready: int, per_pod: float
    ) -> Measurement:
        """All requests count as borne by the ready pods."""
        selector = selector_of(cluster.inventory, facts.ref, facts.workload.spec.template, pods)
        answer = await self._metrics.traffic(facts.ref.workspace_id, selector, RATE_WINDOW)
        if isinstance(answer, Unobserved):
            raise DependencyUnavailable(COMPONENT, answer.reason, workspace_id=facts.ref.workspace_id)
        if cluster.inventory.now() - answer.observed_at > OLDEST:
            self._refuse_old(facts, answer.observed_at)
        percentage = 100 * answer.figures.request_rate / (ready * per_pod)
        return Measurement(
            percentage=percentage,
            ready=ready,
            measured=ready,
            source=answer.source,
            observed_at=answer.observed_at,
        )

    def _refuse_old(self, facts: ScaleFacts, at: datetime) -> None:
        reason = f"the newest reading is of {at:%Y-%m-%dT%H:%M:%SZ}"
        raise DependencyUnavailable(COMPONENT, reason, workspace_id=facts.ref.workspace_id)

    async def window(
        self, cluster: Cluster, facts: ScaleFacts, trigger: Trigger, policy: ScalingPolicy, seconds: float
    ) -> Window:
        """The last `seconds`, for what would take pods away. Raises nothing: what is not known is `missing`."""
        pods = running_pods(cluster.inventory, facts.ref)
        selector = selector_of(cluster.inventory, facts.ref, facts.workload.spec.template, pods)
        span = Span.ending(cluster.inventory.now(), timedelta(seconds=seconds), STEP)
        if trigger is Trigger.REQUEST_RATE:
            return await self._rates(facts, selector, span, policy.per_pod)
        requests = [request_of(pod, _RESOURCES[trigger]) for pod in pods]
        request = max((one for one in requests if one is not None), default=None)
        answer = await utilisation_history(
            self._metrics,
            facts.ref.workspace_id,
            selector,
            span,
            cpu_request_millicores=request if trigger is Trigger.CPU else None,
            memory_request_bytes=round(request) if trigger is Trigger.MEMORY and request is not None else None,
        )
        if isinstance(answer, Unobserved):
            return Window(seconds, (), answer.reason)
        loads = []
        for one in answer.figures:
            share = one.cpu_percentage if trigger is Trigger.CPU else one.memory_percentage
            if share is not None:
                loads.append(PastLoad(one.at, share * one.pods / 100, one.pods))
        return _covered(seconds, loads, span, answer.missing.get("since", ""))

    async def _rates(self, facts: ScaleFacts, selector: WorkloadSelector, span: Span, per_pod: float) -> Window:
        """Rates at several moments; how many pods bore them is not known, nor needed."""
        seconds = (span.until - span.since).total_seconds()
        count = min(_MOST_RATES, max(1, int(seconds / STEP.total_seconds())))
        loads = []
        for index in range(count):
            at = span.until - index * timedelta(seconds=seconds / count)
            answer = await self._metrics.traffic(facts.ref.workspace_id, selector, STEP, at)
            if isinstance(answer, Unobserved):
                return Window(seconds, (), answer.reason)
            loads.append(PastLoad(at.timestamp(), answer.figures.request_rate / per_pod, None))
        return Window(seconds, tuple(loads))


def running_pods(inventory: Inventory, ref: WorkloadRef) -> list[Pod]:
    """Neither ended nor about to go."""
    return [pod for pod in living(pods_of(inventory, ref.kind, ref.uid)) if pod.metadata.deletion_timestamp is None]


def _covered(seconds: float, loads: Sequence[PastLoad], span: Span, why: str) -> Window:
    """Whether there are figures from the window's beginning on, with few gaps."""
    moments = span.moments()
    late = 2 * span.step.total_seconds()
    if not loads or loads[0].at > moments[0] + late or len(loads) < _COVERED * (len(moments) - 1):
        told = why or f"only {len(loads)} of the last {len(moments) - 1} minutes were measured"
        return Window(seconds, (), told)
    return Window(seconds, tuple(loads))
