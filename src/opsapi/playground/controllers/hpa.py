"""HorizontalPodAutoscalers on resource metrics. After pkg/controller/podautoscaler/horizontal.go.

Pods, Object and External metrics need an adapter that a playground does not have, and fail as on a cluster without one.
"""

from collections.abc import Callable
from typing import Any

from opsapi.kit.quantity import format_cpu_quantity
from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController, set_condition
from opsapi.playground.controllers.hpa_formula import (
    History,
    PodSample,
    Proposal,
    bounded,
    memory_of,
    propose,
    stabilize,
)
from opsapi.playground.registry import Change, ChangeType, Obj
from opsapi.playground.scheduler.predicates import amount
from opsapi.playground.selection import matches

PERIOD = 15.0
_INITIALIZATION = 300.0
_READINESS_DELAY = 30.0
_TARGETS = {
    "Deployment": "deployments.apps",
    "StatefulSet": "statefulsets.apps",
    "ReplicaSet": "replicasets.apps",
}

ResourceUsage = Callable[[Obj], dict[str, dict[str, float]] | None]
"""Pod -> container -> resource (cpu in millicores, memory in bytes); None where metrics.k8s.io has nothing."""


class MetricError(Exception):
    """A metric could not be read; `reason` is the condition's, the text its message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class HpaController(ObjectController):
    name = "hpa"
    resource = "horizontalpodautoscalers.autoscaling"
    kind = "HorizontalPodAutoscaler"
    component = "horizontal-pod-autoscaler"

    def __init__(self, cluster: Cluster, usage: ResourceUsage) -> None:
        super().__init__(cluster)
        self._usage = usage
        self._histories: dict[str, History] = {}

    def _changed(self, change: Change) -> None:
        """Own status writes do not start another round; a new or changed spec does."""
        meta = change.new["metadata"]
        if change.type is ChangeType.DELETED:
            self._histories.pop(meta["uid"], None)
        elif change.old is None:
            # As in life, an autoscaler is first looked at a period after it appears.
            self.queue.add_after(f"{meta['namespace']}/{meta['name']}", PERIOD)

    def sync(self, namespace: str, name: str) -> None:
        hpa = self.registry.find(self.resource, namespace, name)
        if hpa is None:
            return
        self.queue.add_after(f"{namespace}/{name}", PERIOD)
        ref = hpa["spec"]["scaleTargetRef"]
        resource = _TARGETS.get(ref["kind"])
        target = self.registry.find(resource, namespace, ref["name"]) if resource else None
        if target is None or resource is None:
            self._no_target(hpa, resource or f"{ref['kind'].lower()}s")
            return
        text = "the HPA controller was able to get the target's current scale"
        conditions = self._with(hpa, [], "AbleToScale", "True", "SucceededGetScale", text)
        self._reconcile(hpa, target, resource, conditions)

    def _with(self, hpa: Obj, base: list[Obj], kind: str, status: str, reason: str, message: str) -> list[Obj]:
        conditions = base or hpa.get("status", {}).get("conditions") or []
        new = {"type": kind, "status": status, "reason": reason, "message": message}
        return set_condition(conditions, new, stamp=self.cluster.stamp())

    def _no_target(self, hpa: Obj, resource: str) -> None:
        ref = hpa["spec"]["scaleTargetRef"]
        problem = f'{resource} "{ref["name"]}" not found'
        self.warning(hpa, "FailedGetScale", problem)
        text = f"the HPA controller was unable to get the target's current scale: {problem}"
        conditions = self._with(hpa, [], "AbleToScale", "False", "FailedGetScale", text)
        self._write(hpa, {**hpa.get("status", {}), "conditions": conditions})

    def _reconcile(self, hpa: Obj, target: Obj, resource: str, conditions: list[Obj]) -> None:
        spec = hpa["spec"]
        current = int(target["spec"].get("replicas", 1))
        least, most = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
        status: Obj = {**hpa.get("status", {}), "currentReplicas": current}
        if current == 0 and least != 0:
            text = "scaling is disabled since the replica count of the target is zero"
            conditions = self._with(hpa, conditions, "ScalingActive", "False", "ScalingDisabled", text)
            self._write(hpa, {**status, "desiredReplicas": 0, "conditions": conditions})
            return
        if current > most:
            wanted, why = most, "Current number of replicas above Spec.MaxReplicas"
        elif current < least:
            wanted, why = least, "Current number of replicas below Spec.MinReplicas"
        else:
            outcome = self._from_metrics(hpa, target, current, conditions)
            conditions = outcome.conditions
            if outcome.metrics:
                status["currentMetrics"] = outcome.metrics
            if outcome.replicas is None:
                self._write(hpa, {**status, "conditions": conditions})
                return
            wanted, why = outcome.replicas, outcome.why
            wanted, conditions = self._normalized(hpa, current, wanted, conditions)
        if wanted != current:
            conditions = self._rescale(hpa, target, resource, wanted, why, conditions)
            status["lastScaleTime"] = self.cluster.stamp()
        self._write(hpa, {**status, "desiredReplicas": wanted, "conditions": conditions})

    def _history(self, hpa: Obj) -> History:
        history = self._histories.setdefault(hpa["metadata"]["uid"], History.empty())
        history.forget_before(self.clock.monotonic() - memory_of(hpa["spec"]))
        return history

    def _normalized(self, hpa: Obj, current: int, wanted: int, conditions: list[Obj]) -> tuple[int, list[Obj]]:
        history, now = self._history(hpa), self.clock.monotonic()
        steady = stabilize(current, wanted, hpa["spec"], history, now)
        if steady == wanted:
            reason, text = "ReadyForNewScale", "recommended size matches current size"
        elif wanted < current:
            reason = "ScaleDownStabilized"
            text = "recent recommendations were higher than current one, applying the highest recent recommendation"
        else:
            reason = "ScaleUpStabilized"
            text = "recent recommendations were lower than current one, applying the lowest recent recommendation"
        conditions = self._with(hpa, conditions, "AbleToScale", "True", reason, text)
        replicas, reason, text = bounded(current, steady, hpa["spec"], history, now)
        limited = "False" if reason == "DesiredWithinRange" else "True"
        return replicas, self._with(hpa, conditions, "ScalingLimited", limited, reason, text)

    def _rescale(self, hpa: Obj, target: Obj, resource: str, wanted: int, why: str, conditions: list[Obj]) -> list[Obj]:
        meta, current = target["metadata"], int(target["spec"].get("replicas", 1))
        changed = {**target, "spec": {**target["spec"], "replicas": wanted}}
        self.registry.update(resource, meta["namespace"], meta["name"], changed)
        self.normal(hpa, "SuccessfulRescale", f"New size: {wanted}; reason: {why}")
        history, now = self._history(hpa), self.clock.monotonic()
        (history.ups if wanted > current else history.downs).append((now, abs(wanted - current)))
        text = f"the HPA controller was able to update the target scale to {wanted}"
        return self._with(hpa, conditions, "AbleToScale", "True", "SucceededRescale", text)

    def _from_metrics(self, hpa: Obj, target: Obj, current: int, conditions: list[Obj]) -> "_Outcome":
        """The largest proposal of all metrics; where one cannot be read, none may scale down."""
        statuses: list[Any] = []
        best: tuple[int, str] | None = None
        failures: list[MetricError] = []
        for metric in hpa["spec"].get("metrics") or []:
            try:
                proposal, status, name = self._one_metric(metric, target, current)
            except MetricError as error:
                failures.append(error)
                statuses.append({"type": ""})
                continue
            statuses.append(status)
            if best is None or proposal.replicas > best[0]:
                best = (proposal.replicas, name)
        if failures and (best is None or best[0] < current):
            return self._failed(hpa, failures, statuses, conditions)
        if best is None:
            return _Outcome(None, "", statuses, conditions)
        text = f"the HPA was able to successfully calculate a replica count from {best[1]}"
        conditions = self._with(hpa, conditions, "ScalingActive", "True", "ValidMetricFound", text)
        why = f"{best[1]} above target" if best[0] > current else "All metrics below target"
        return _Outcome(best[0], why, statuses, conditions)

    def _failed(self, hpa: Obj, failures: list[MetricError], statuses: list[Any], conditions: list[Obj]) -> "_Outcome":
        first = failures[0]
        self.warning(hpa, first.reason, str(first))
        count = len(hpa["spec"].get("metrics") or [])
        kind = "failed to get cpu resource metric value" if "cpu" in str(first) else "failed to get metric value"
        summary = f"invalid metrics ({len(failures)} invalid out of {count}), first error is: {kind}: {first}"
        self.warning(hpa, "FailedComputeMetricsReplicas", summary)
        text = f"the HPA was unable to compute the replica count: {first}"
        conditions = self._with(hpa, conditions, "ScalingActive", "False", first.reason, text)
        return _Outcome(None, "", statuses, conditions)

    def _one_metric(self, metric: Obj, target: Obj, current: int) -> tuple[Proposal, Obj, str]:
        """(proposal, currentMetrics entry, its name). Raises MetricError."""
        kind = metric["type"]
        if kind not in ("Resource", "ContainerResource"):
            word = "external" if kind == "External" else "custom"
            text = f"unable to fetch metrics from {word} metrics API: the server could not find the requested resource"
            raise MetricError(f"FailedGet{kind}Metric", f"unable to get metric: {text}")
        field = "resource" if kind == "Resource" else "containerResource"
        wanted = metric[field]
        name, goal = wanted["name"], wanted["target"]
        samples = self._samples(target, name, wanted.get("container"))
        percent = goal["type"] == "Utilization"
        value = float(goal["averageUtilization"]) if percent else float(amount(name, goal["averageValue"]))
        proposal = propose(current, samples, value, percent=percent)
        if proposal is None:
            text = "did not receive metrics for targeted pods (pods might be unready)"
            raise MetricError("FailedGetResourceMetric", f"failed to get {name} utilization: {text}")
        rounded = int(proposal.average)
        shown: Obj = {"averageValue": format_cpu_quantity(rounded) if name == "cpu" else str(rounded)}
        if percent:
            shown = {"averageUtilization": proposal.utilization, **shown}
        entry: Obj = {"name": name, "current": shown}
        if kind == "ContainerResource":
            entry["container"] = wanted["container"]
        words = f"{name} resource utilization (percentage of request)" if percent else f"{name} resource"
        return proposal, {"type": kind, field: entry}, words

    def _samples(self, target: Obj, resource: str, container: str | None) -> list[PodSample]:
        namespace, selector = target["metadata"]["namespace"], target["spec"]["selector"]
        samples = []
        measured = 0
        for pod in self.registry.iterate("pods", namespace):
            if not matches(selector, pod["metadata"].get("labels")) or not pods.is_active(pod):
                continue
            usage = self._usage(pod)
            measured += usage is not None
            request = self._request(pod, resource, container)
            value = None
            if usage is not None:
                value = sum(item[resource] for name, item in usage.items() if container in (None, name))
            samples.append(PodSample(value, request, self._is_unready(pod, resource, value)))
        if not measured:
            text = f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
            raise MetricError("FailedGetResourceMetric", f"failed to get {resource} utilization: {text}")
        return samples

    @staticmethod
    def _request(pod: Obj, resource: str, container: str | None) -> float:
        total = 0.0
        for item in pod["spec"].get("containers") or []:
            if container not in (None, item["name"]):
                continue
            requests = (item.get("resources") or {}).get("requests") or {}
            if resource not in requests:
                where = f"container {item['name']} of Pod {pod['metadata']['name']}"
                text = f"failed to get {resource} utilization: missing request for {resource} in {where}"
                raise MetricError("FailedGetResourceMetric", text)
            total += amount(resource, requests[resource])
        return total

    def _is_unready(self, pod: Obj, resource: str, value: float | None) -> bool:
        """Pods whose CPU says little yet: pending ones, and those that have just started."""
        if pods.phase(pod) == "Pending":
            return True
        if resource != "cpu" or value is None:
            return False
        ready, start = pods.condition(pod, "Ready"), pod["status"].get("startTime")
        if ready is None or not start:
            return True
        age = (self.clock.now() - pods.parse_time(start)).total_seconds()
        changed = pods.parse_time(ready["lastTransitionTime"])
        if age < _INITIALIZATION:
            since = (self.clock.now() - changed).total_seconds()
            return ready["status"] == "False" or since < PERIOD
        delay = (changed - pods.parse_time(start)).total_seconds()
        return ready["status"] == "False" and delay < _READINESS_DELAY

    def _write(self, hpa: Obj, status: Obj) -> None:
        meta = hpa["metadata"]
        order = ("lastScaleTime", "currentReplicas", "desiredReplicas", "currentMetrics", "conditions")
        tidy = {name: status[name] for name in order if name in status}
        tidy.setdefault("desiredReplicas", 0)
        self.registry.patch_status(self.resource, meta["namespace"], meta["name"], tidy)


class _Outcome:
    """What the metrics say: replicas (None: nothing), why, currentMetrics and conditions."""

    __slots__ = ("conditions", "metrics", "replicas", "why")

    def __init__(self, replicas: int | None, why: str, metrics: list[Any], conditions: list[Obj]) -> None:
        self.replicas = replicas
        self.why = why
        self.metrics = metrics
        self.conditions = conditions
