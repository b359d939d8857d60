"""Decides from measured load whether an application should have more or fewer replicas. Pure.

    desired = ceil(ready x metric / target)       target: the middle of the two thresholds

After the HorizontalPodAutoscaler (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/), with its
caution: what is not known counts against the direction, and shrinking looks back. Between the thresholds nothing moves.
Since growing and shrinking aim at one target, a load that stays never asks for both in turn.
"""

import math
from collections.abc import Iterable

from opsapi.applications.autoscaling_model import (
    Measurement,
    PastLoad,
    PodLoad,
    ScalingAction,
    Thresholds,
    Trigger,
    Window,
    Wish,
)

_SLACK = 1e-9
"""Of a float's error: 2 x 55 / 55 is 2, not 3."""
_POINTS_APART = 10.0
"""Percentage points (or percent, of a rate) by which a claim may differ from the measurement before we say so."""
NAMES = {
    Trigger.CPU: "CPU usage",
    Trigger.MEMORY: "Memory usage",
    Trigger.REQUEST_RATE: "The request rate",
}


def mean_of(pods: Iterable[PodLoad]) -> float | None:
    """The mean of the ready pods that were measured; None without any."""
    figures = [pod.percentage for pod in pods if pod.ready and pod.percentage is not None]
    return sum(figures) / len(figures) if figures else None


def replicas_for(load: float, target: float) -> int:
    """`load` in pods' worth (1.0 is one pod at 100 %), `target` in percent; never below one."""
    return max(1, math.ceil(load * 100 / target - _SLACK))


def most_after(current: int) -> int:
    """One step up: at most twice as many, or four more, whichever is more."""
    return max(2 * current, current + 4)


def wish(
    trigger: Trigger,
    current: int,
    measured: Measurement,
    thresholds: Thresholds,
    window: Window,
    *,
    maximum: int,
) -> Wish:
    """`current` are the replicas that are asked for now, `maximum` what policy allows at most. `window` matters for
    shrinking alone, and may be empty otherwise."""
    if current == 0:
        return _stay(current, "It is scaled to 0, which is left to people and autoscalers")
    if measured.percentage is None:
        return _stay(current, measured.missing or "Nothing was measured")
    if measured.percentage > thresholds.up:
        return _up(trigger, current, measured, measured.percentage, thresholds, maximum)
    if measured.percentage < thresholds.down:
        return _down(trigger, current, measured, measured.percentage, thresholds, window)
    reason = (
        f"{NAMES[trigger]} of {measured.percentage:.1f}% is between the thresholds of {thresholds.down:g}% and "
        f"{thresholds.up:g}%"
    )
    return _stay(current, reason)


def _up(
    trigger: Trigger, current: int, measured: Measurement, percentage: float, thresholds: Thresholds, maximum: int
) -> Wish:
    """Pods that are not ready, or not measured, count as idle: they may yet take their share."""
    load = measured.measured * percentage / 100
    desired = replicas_for(load, thresholds.target)
    exceeded = f"{NAMES[trigger]} of {percentage:.1f}% exceeded the {thresholds.up:g}% threshold"
    if desired <= current:
        idle = current - measured.measured
        return _stay(current, f"{exceeded}, but {idle} of {current} pods are not ready or not measured yet")
    limit = most_after(current)
    warnings = []
    if desired > limit:
        warnings.append(f"{desired} replicas would be needed; one step adds at most {limit - current}")
    if min(desired, limit) > maximum:
        warnings.append(f"Policy's maximum is {maximum} replicas; {min(desired, limit)} would be needed")
    replicas = min(desired, limit, max(current, maximum))
    if replicas == current:
        return _stay(current, f"{exceeded}, but policy's maximum of {maximum} replicas is reached", *warnings)
    return Wish(
        action=ScalingAction.UP,
        replicas=replicas,
        reason=f"{exceeded}: {_arithmetic(measured.measured, percentage, thresholds.target, desired)}",
        warnings=tuple(warnings),
    )


def _down(
    trigger: Trigger, current: int, measured: Measurement, percentage: float, thresholds: Thresholds, window: Window
) -> Wish:
    """Pods that are not ready, or not measured, count as fully used: they may be what keeps the others idle."""
    below = f"{NAMES[trigger]} of {percentage:.1f}% is below the {thresholds.down:g}% threshold"
    unknown = max(0, current - measured.measured)
    load = measured.measured * percentage / 100 + unknown
    desired = replicas_for(load, thresholds.target)
    if desired >= current:
        more = f": {unknown} pods that are not ready or not measured count as fully used" if unknown else ""
        return _stay(current, f"{below}, but {desired} replicas are needed{more}")
    if window.missing:
        return _stay(current, f"{below}, but nothing is taken away without a history: {window.missing}")
    highest = max((_wished(past, thresholds) for past in window.loads), default=desired)
    replicas = max(desired, highest)
    if replicas >= current:
        minutes = f"{window.seconds / 60:g} minutes"
        return _stay(current, f"{below}, but within the last {minutes} as many as {highest} replicas were needed")
    how = _arithmetic(measured.measured, percentage, thresholds.target, desired, unknown)
    if replicas > desired:
        how = f"{how}; the highest wish of the last {window.seconds / 60:g} minutes was {replicas}"
    return Wish(action=ScalingAction.DOWN, replicas=replicas, reason=f"{below}: {how}")


def _wished(past: PastLoad, thresholds: Thresholds) -> int:
    """What the same rule would have wished at that moment: between the thresholds, what there was."""
    needed = replicas_for(past.load, thresholds.target)
    if past.pods:
        share = 100 * past.load / past.pods
        if thresholds.down <= share <= thresholds.up:
            return max(needed, past.pods)
    return needed


def disagreement(trigger: Trigger, claimed: float | None, measured: float | None, source: str) -> str | None:
    """What to say where the caller's figure is not what was measured. Both in percent, or 1/s."""
    if claimed is None or measured is None:
        return None
    apart = abs(claimed - measured)
    allowed = _POINTS_APART if trigger is not Trigger.REQUEST_RATE else measured * _POINTS_APART / 100
    if apart <= allowed:
        return None
    unit = "/s" if trigger is Trigger.REQUEST_RATE else "%"
    return (
        f"current_metrics claims {claimed:g}{unit} for {trigger.value}; {measured:.1f}{unit} was measured "
        f"({source}), and that counts"
    )


def _arithmetic(ready: int, percentage: float, target: float, desired: int, unknown: int = 0) -> str:
    full = f" + {unknown} unknown x 100%" if unknown else ""
    return f"({ready} ready x {percentage:.1f}%{full}) / {target:g}% = {desired} replicas"


def _stay(current: int, reason: str, *warnings: str) -> Wish:
    return Wish(action=ScalingAction.NONE, replicas=current, reason=reason, warnings=warnings)
