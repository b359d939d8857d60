"""The autoscaler's arithmetic, pure. After pkg/controller/podautoscaler/{replica_calculator,horizontal}.go."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from opsapi.playground.registry import Obj

TOLERANCE = 0.1
_DEFAULT_UP: Obj = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DEFAULT_DOWN: Obj = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


@dataclass(frozen=True, slots=True)
class PodSample:
    """One pod of the target: what it uses and what it requests (millicores or bytes); usage None: no metrics yet."""

    usage: float | None
    request: float
    unready: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """`utilization` in percent of requests, `average` per pod, both over the pods that counted."""

    replicas: int
    utilization: int
    average: float


def propose(current: int, pods: Sequence[PodSample], target: float, *, percent: bool) -> Proposal | None:
    """ceil(ratio x pods), with the real one's caution: unready and metric-less pods count against the direction.

    `target` is percent of requests where `percent`, else an amount per pod. None where no pod has metrics.
    """
    measured = [pod for pod in pods if pod.usage is not None and not pod.unready]
    if not measured:
        return None
    usage = sum(pod.usage or 0.0 for pod in measured)
    requests = sum(pod.request for pod in measured)
    utilization = int(usage * 100 / requests) if requests else 0
    average = usage / len(measured)
    ratio = utilization / target if percent else average / target
    unready = [pod for pod in pods if pod.unready]
    missing = [pod for pod in pods if pod.usage is None and not pod.unready]
    if not missing and not (unready and ratio > 1):
        wanted = current if 1 - TOLERANCE <= ratio <= 1 + TOLERANCE else math.ceil(ratio * len(measured))
        return Proposal(wanted, utilization, average)
    padded = [(pod.usage or 0.0, pod.request) for pod in measured]
    for pod in missing:
        full = pod.request * max(100.0, target) / 100 if percent else target
        padded.append((full if ratio < 1 else 0.0, pod.request))
    if unready and ratio > 1:
        padded += [(0.0, pod.request) for pod in unready]
    total, asked = sum(item[0] for item in padded), sum(item[1] for item in padded)
    again = (int(total * 100 / asked) / target if asked else 0.0) if percent else total / len(padded) / target
    if 1 - TOLERANCE <= again <= 1 + TOLERANCE or (ratio < 1 < again) or (ratio > 1 > again):
        return Proposal(current, utilization, average)
    wanted = math.ceil(again * len(padded))
    if (again < 1 and wanted > current) or (again > 1 and wanted < current):
        wanted = current
    return Proposal(wanted, utilization, average)


@dataclass(slots=True)
class History:
    """Past recommendations and changes of one autoscaler, as (reading, replicas or change)."""

    recommendations: list[tuple[float, int]]
    ups: list[tuple[float, int]]
    downs: list[tuple[float, int]]

    @classmethod
    def empty(cls) -> "History":
        return cls([], [], [])

    def forget_before(self, reading: float) -> None:
        for series in (self.recommendations, self.ups, self.downs):
            series[:] = [item for item in series if item[0] >= reading]


def rules_of(spec: Obj) -> tuple[Obj, Obj]:
    """(scaleUp, scaleDown) with defaults filled in."""
    behavior = spec.get("behavior") or {}
    return {**_DEFAULT_UP, **(behavior.get("scaleUp") or {})}, {**_DEFAULT_DOWN, **(behavior.get("scaleDown") or {})}


def memory_of(spec: Obj) -> float:
    """Seconds of history that the rules look back on."""
    windows = [60.0]
    for rules in rules_of(spec):
        windows.append(float(rules.get("stabilizationWindowSeconds") or 0))
        windows += [float(policy["periodSeconds"]) for policy in rules.get("policies") or []]
    return max(windows)


def stabilize(current: int, wanted: int, spec: Obj, history: History, now: float) -> int:
    """Up goes no higher than the lowest recommendation of its window, down no lower than the highest of its own."""
    up, down = rules_of(spec)
    lowest = highest = wanted
    for reading, replicas in history.recommendations:
        if reading > now - float(up.get("stabilizationWindowSeconds") or 0):
            lowest = min(lowest, replicas)
        if reading > now - float(down.get("stabilizationWindowSeconds") or 0):
            highest = max(highest, replicas)
    history.recommendations.append((now, wanted))
    return min(max(current, lowest), highest)


def _changed_within(series: list[tuple[float, int]], now: float, seconds: float) -> int:
    return sum(change for reading, change in series if reading > now - seconds)


def up_limit(current: int, rules: Obj, history: History, now: float) -> int:
    """The most replicas that the scaleUp policies allow now."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    limits = []
    for policy in rules.get("policies") or []:
        period = float(policy["periodSeconds"])
        start = current - _changed_within(history.ups, now, period) + _changed_within(history.downs, now, period)
        if policy["type"] == "Pods":
            limits.append(start + int(policy["value"]))
        else:
            limits.append(math.ceil(start * (1 + int(policy["value"]) / 100)))
    if not limits:
        return current
    return max(limits) if rules.get("selectPolicy", "Max") == "Max" else min(limits)


def down_limit(current: int, rules: Obj, history: History, now: float) -> int:
    """The fewest replicas that the scaleDown policies allow now."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    limits = []
    for policy in rules.get("policies") or []:
        period = float(policy["periodSeconds"])
        start = current + _changed_within(history.downs, now, period) - _changed_within(history.ups, now, period)
        if policy["type"] == "Pods":
            limits.append(start - int(policy["value"]))
        else:
            limits.append(int(start * (1 - int(policy["value"]) / 100)))
    if not limits:
        return current
    return min(limits) if rules.get("selectPolicy", "Max") == "Max" else max(limits)


def bounded(current: int, wanted: int, spec: Obj, history: History, now: float) -> tuple[int, str, str]:
    """(replicas, reason, message) within minReplicas, maxReplicas and the policies' rates."""
    least, most = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
    up, down = rules_of(spec)
    if wanted > current:
        rate = max(current, up_limit(current, up, history, now))
        if wanted > min(rate, most):
            if rate < most:
                word = "the desired replica count is increasing faster than the maximum scale rate"
                return rate, "ScaleUpLimit", word
            return most, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
    elif wanted < current:
        rate = min(current, down_limit(current, down, history, now))
        if wanted < max(rate, least):
            if rate > least:
                word = "the desired replica count is decreasing faster than the maximum scale rate"
                return rate, "ScaleDownLimit", word
            return least, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
    if wanted > most:
        return most, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
    if wanted < least:
        return least, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
    return wanted, "DesiredWithinRange", "the desired count is within the acceptable range"
