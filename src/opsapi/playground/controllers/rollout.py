"""The arithmetic of a Deployment's rollout, pure. After pkg/controller/deployment/{rolling,sync}.go."""

import math
from dataclasses import dataclass

from opsapi.playground.registry import Obj

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"


@dataclass(frozen=True, slots=True)
class Slice:
    """One ReplicaSet as the arithmetic sees it: what is asked of it, and how many of its pods are available."""

    replicas: int
    available: int


def scaled_value(value: int | str, total: int, *, round_up: bool) -> int:
    """intstr: `3` or `"25%"` of total."""
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    share = int(value[:-1]) * total / 100
    return math.ceil(share) if round_up else math.floor(share)


def fenceposts(deployment: Obj) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods: surge rounds up, unavailable down; both 0 would be stuck, so then (0, 1)."""
    spec = deployment["spec"]
    replicas = int(spec.get("replicas", 1))
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = scaled_value(rolling.get("maxSurge", "25%"), replicas, round_up=True)
    unavailable = scaled_value(rolling.get("maxUnavailable", "25%"), replicas, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def scale_up_to(replicas: int, surge: int, new: Slice, total: int) -> int:
    """How many replicas the new ReplicaSet may have now, given `total` asked of all of them."""
    if new.replicas >= replicas or total >= replicas + surge:
        return min(new.replicas, replicas)
    return new.replicas + min(replicas + surge - total, replicas - new.replicas)


def scale_down_old(replicas: int, max_unavailable: int, new: Slice, old: list[Slice]) -> list[int]:
    """New sizes of the old ReplicaSets (oldest first): unhealthy pods go first, availability is never cut too far."""
    sizes = [item.replicas for item in old]
    minimum = replicas - max_unavailable
    everything = new.replicas + sum(sizes)
    budget = everything - minimum - (new.replicas - new.available)
    if budget <= 0:
        return sizes
    for index, item in enumerate(old):
        unhealthy = min(budget, sizes[index] - min(item.available, sizes[index]))
        sizes[index] -= unhealthy
        budget -= unhealthy
    spare = new.available + sum(item.available for item in old) - minimum
    for index, item in enumerate(old):
        cut = max(0, min(sizes[index], spare, item.available))
        sizes[index] -= cut
        spare -= cut
    return sizes


def proportions(sizes: list[int], old_maximum: list[int], allowed: int) -> list[int]:
    """Shares a resize in mid-rollout over the active ReplicaSets, largest first.

    `old_maximum` is each one's max-replicas annotation; `allowed` the new total with surge.
    """
    change = allowed - sum(sizes)
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    result, left = list(sizes), change
    for index in order:
        if not left:
            break
        fraction = round(sizes[index] * allowed / max(1, old_maximum[index])) - sizes[index]
        part = max(left, fraction) if change < 0 else min(left, fraction)
        result[index] = max(0, sizes[index] + part)
        left -= result[index] - sizes[index]
    if left and order:
        result[order[0]] = max(0, result[order[0]] + left)
    return result
