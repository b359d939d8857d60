"""How far a container's memory limit is raised after an OOM kill, and what bounds it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from opsapi.kit.quantity import whole
from opsapi.playbooks.healing.model import MemoryOrder
from opsapi.workspaces.objects import Container, ResourceQuota

FACTOR = 1.25
LEAST = 100 * 2**20
"""One bump after an OOM kill: a quarter more, at least 100 MiB, as the Vertical Pod Autoscaler's OOM bump has it
(https://github.com/kubernetes/autoscaler/tree/master/vertical-pod-autoscaler)."""
_MI = 2**20


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds memory where the pods run; bytes. `ratio`: the most that a limit may be times its request."""

    maximum: int
    why: str
    ratio: float | None = None


def bounds_of(ours: str, limit_ranges: Iterable[Mapping[str, Any]]) -> Bounds:
    """Our own maximum, or the namespace's LimitRanges (type Container) where they are lower."""
    found = Bounds(maximum=whole(ours), why=f"the configured maximum of {ours}")
    for held in limit_ranges:
        for limit in (held.get("spec") or {}).get("limits") or ():
            if limit.get("type") != "Container":
                continue
            name = held["metadata"]["name"]
            most = (limit.get("max") or {}).get("memory")
            if most is not None and whole(most) < found.maximum:
                found = msgspec.structs.replace(
                    found, maximum=whole(most), why=f"LimitRange {name}'s maximum of {most}"
                )
            ratio = (limit.get("maxLimitRequestRatio") or {}).get("memory")
            if ratio is not None:
                found = msgspec.structs.replace(found, ratio=float(ratio))
    return found


def raised(container: Container, bounds: Bounds) -> MemoryOrder | str:
    """The order, or why there is none. A request that equals its limit is raised with it, so that the pod keeps its
    quality of service; so is one that a LimitRange's ratio would be broken by."""
    limit = container.resources.limits.get("memory")
    if not limit:
        return f"container {container.name} has no memory limit: its node ran out of memory"
    before = whole(limit)
    wanted = _up(max(int(before * FACTOR), before + LEAST))
    after = min(wanted, bounds.maximum // _MI * _MI)
    if after <= before:
        return f"container {container.name} has {limit} already: {bounds.why} forbids more"
    request = container.resources.requests.get("memory", "")
    asked = whole(request) if request else before
    new_request = after if asked == before else asked
    if bounds.ratio is not None and after > new_request * bounds.ratio:
        new_request = _up(int(-(-after // bounds.ratio)))
    changed = bool(request) and new_request != asked
    return MemoryOrder(
        container=container.name,
        limit_before=limit,
        limit_after=_text(after),
        request_before=request if changed else "",
        request_after=_text(new_request) if changed else "",
    )


def quota_shortage(orders: Iterable[MemoryOrder], pods: int, quotas: Iterable[ResourceQuota]) -> str:
    """Why a ResourceQuota does not hold `pods` pods with these limits, or ""; one more counts while they are replaced
    one by one."""
    held = list(orders)
    more_limit = sum(whole(order.limit_after) - whole(order.limit_before) for order in held) * pods
    more_request = sum(_more_request(order) for order in held) * pods
    surge = sum(whole(order.limit_after) for order in held)
    for quota in quotas:
        if quota.spec.is_scoped:
            continue
        for name, more in (
            ("limits.memory", more_limit + surge),
            ("requests.memory", more_request),
            ("memory", more_request),
        ):
            hard, used = quota.status.hard.get(name), quota.status.used.get(name, "0")
            if hard is not None and more > 0 and whole(used) + more > whole(hard):
                return f"ResourceQuota {quota.metadata.name} holds {hard} of {name}, {used} are used"
    return ""


def _more_request(order: MemoryOrder) -> int:
    return whole(order.request_after) - whole(order.request_before) if order.request_after else 0


def _up(count: int) -> int:
    """To whole MiB."""
    return -(-count // _MI) * _MI


def _text(count: int) -> str:
    return f"{count // _MI}Mi"
