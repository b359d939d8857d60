"""What pods of a template ask of quotas and nodes, and how much of it is there. Pure."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from opsapi.applications.scaling_model import BudgetHit, Capacity, QuotaHit
from opsapi.kit.quantity import format_cpu_quantity, parse_quantity, whole
from opsapi.workspaces.objects import Container, Node, Pod, PodDisruptionBudget, PodSpec, PodTemplate, ResourceQuota
from opsapi.workspaces.pods import effective_requests

_PODS = ("pods", "count/pods")
_COMPUTE = {
    "cpu": ("requests", "cpu"),
    "requests.cpu": ("requests", "cpu"),
    "limits.cpu": ("limits", "cpu"),
    "memory": ("requests", "memory"),
    "requests.memory": ("requests", "memory"),
    "limits.memory": ("limits", "memory"),
}
"""The quota resources that pods count against: https://kubernetes.io/docs/concepts/policy/resource-quotas/"""
_CORDONING = frozenset({"NoSchedule", "NoExecute"})


def pod_demand(spec: PodSpec, bound: str, resource: str) -> Decimal | None:
    """What one pod counts, in base units; None where a container does not state it (a LimitRange may fill it in).

    All containers and sidecars together, or the largest init container beside the sidecars started before it:
    https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    """
    stated = [_stated(container, bound, resource) for container in (*spec.containers, *spec.init_containers)]
    if any(amount is None for amount in stated):
        return None
    amounts = [amount for amount in stated if amount is not None]
    main = sum(amounts[: len(spec.containers)], Decimal(0))
    sidecars = peak = Decimal(0)
    for container, amount in zip(spec.init_containers, amounts[len(spec.containers) :], strict=True):
        if container.restart_policy == "Always":
            sidecars += amount
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + amount)
    return max(main + sidecars, peak)


def _stated(container: Container, bound: str, resource: str) -> Decimal | None:
    """Kubernetes sets a request that is left out to the limit, where there is one."""
    resources = container.resources
    asked = resources.limits if bound == "limits" else resources.limits | resources.requests
    text = asked.get(resource)
    try:
        return None if text is None else parse_quantity(text)
    except ValueError:
        return None


def quota_hits(quotas: Iterable[ResourceQuota], template: PodTemplate, added: int) -> list[QuotaHit]:
    """Each resource that `added` pods count against, of each quota of their namespace."""
    hits = []
    for quota in sorted(quotas, key=lambda held: held.metadata.name):
        hard = quota.status.hard or quota.spec.hard
        for resource, limit in sorted(hard.items()):
            if resource in _PODS:
                hits.append(_hit(quota, resource, limit, Decimal(added)))
            elif resource in _COMPUTE:
                one = pod_demand(template.spec, *_COMPUTE[resource])
                hits.append(_hit(quota, resource, limit, None if one is None else one * added))
    return hits


def _hit(quota: ResourceQuota, resource: str, hard: str, needed: Decimal | None) -> QuotaHit:
    used = quota.status.used.get(resource)
    fits, reason = None, None
    if needed is None:
        reason = f"the pod template does not state {resource}; a LimitRange may"
    elif used is None:
        reason = "the quota has not been counted yet"
    elif quota.spec.is_scoped:
        reason = "the quota only counts some pods (scopes)"
    else:
        fits = parse_quantity(used) + needed <= parse_quantity(hard)
    return QuotaHit(
        quota=quota.metadata.name,
        resource=resource,
        hard=hard,
        used=used or "0",
        needed=_quantity(resource, needed) if needed is not None else "unknown",
        fits=fits,
        reason=reason,
    )


def _quantity(resource: str, amount: Decimal) -> str:
    if resource.endswith("cpu"):
        return format_cpu_quantity(int(amount * 1000))
    for suffix, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if amount and amount % size == 0:
            return f"{int(amount) // size}{suffix}"
    return str(int(amount))


def capacity(nodes: Iterable[tuple[Node, Sequence[Pod]]], template: PodTemplate, added: int) -> Capacity:
    """Whether the schedulable nodes' free requests hold `added` pods. Stops counting once they do."""
    if added <= 0:
        return Capacity(wanted=0, room_for=0, fits=True)
    cpu, memory = effective_requests(Pod(metadata=template.metadata, spec=template.spec))
    room = 0
    for node, pods in nodes:
        if room >= added:
            break
        room += _room_on(node, pods, cpu, memory, added - room)
    return Capacity(wanted=added, room_for=min(room, added), fits=room >= added)


def _room_on(node: Node, pods: Sequence[Pod], cpu: int, memory: int, wanted: int) -> int:
    if not _schedulable(node):
        return 0
    allocatable = node.status.allocatable
    live = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
    held = [effective_requests(pod) for pod in live]
    fitting = [wanted]
    try:
        if cpu:
            free = parse_quantity(allocatable.get("cpu", "0")) * 1000 - sum(one for one, _ in held)
            fitting.append(int(free // cpu))
        if memory:
            fitting.append((whole(allocatable.get("memory", "0")) - sum(one for _, one in held)) // memory)
        if "pods" in allocatable:
            fitting.append(whole(allocatable["pods"]) - len(live))
    except ValueError:
        return 0
    return max(0, min(fitting))


def _schedulable(node: Node) -> bool:
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
    return ready and not node.spec.unschedulable and not any(t.effect in _CORDONING for t in node.spec.taints)


def budget_hits(budgets: Iterable[PodDisruptionBudget], template: PodTemplate, removed: int) -> list[BudgetHit]:
    """The budgets over the template's pods, and whether they still hold when `removed` of the healthy ones go."""
    labels = template.metadata.labels
    covering = [
        budget for budget in budgets if budget.spec.selector is not None and budget.spec.selector.matches(labels)
    ]
    return [
        BudgetHit(
            name=budget.metadata.name,
            desired_healthy=budget.status.desired_healthy,
            healthy_after=max(0, budget.status.current_healthy - removed),
            violated=removed > 0 and budget.status.current_healthy - removed < budget.status.desired_healthy,
        )
        for budget in sorted(covering, key=lambda held: held.metadata.name)
    ]
