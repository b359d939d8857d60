"""What a workspace uses of what it has: measured usage against quotas (shared) or the nodes' capacity (dedicated)."""

import msgspec

from opsapi.kit.endpoint import Partial
from opsapi.kit.quantity import format_bytes, format_cpu, percentage
from opsapi.workspaces.addons import observed, why_not
from opsapi.workspaces.model import Plan, Workspace
from opsapi.workspaces.objects import CLAIM, NODE, POD, RESOURCE_QUOTA
from opsapi.workspaces.overview_model import PodCounts, ResourceFigure, ResourceUsage
from opsapi.workspaces.pods import Phase
from opsapi.workspaces.ports import Inventory
from opsapi.workspaces.quotas import QuotaTotals, quota_totals
from opsapi.workspaces.tallies import Tallies
from opsapi.workspaces.usage import UsageFigures

NO_STORAGE_USAGE = "no source of volume or disk usage is connected"


class _Bound(msgspec.Struct, frozen=True):
    """Totals (cpu millicores, memory and storage bytes) or why there are none; `*_in` limits whose usage counts."""

    cpu: int | None = None
    memory: int | None = None
    storage: int | None = None
    reason: str = ""
    cpu_in: frozenset[str] | None = None
    memory_in: frozenset[str] | None = None


def resource_usage(
    workspace: Workspace, inventory: Inventory, tallies: Tallies, figures: UsageFigures
) -> tuple[ResourceUsage, list[Partial], list[str]]:
    """The figures, why any is null, and warnings about what a figure leaves out."""
    partial: list[Partial] = []
    warnings: list[str] = []
    bound = _bound(workspace, inventory, tallies)
    if workspace.plan is Plan.SHARED and bound.cpu_in:
        left_out = sorted(tallies.requested_in.keys() - bound.cpu_in)
        if left_out:
            shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
            warnings.append(f"namespaces without a CPU quota are left out of resource_usage.cpu: {shown}")
    cpu_used, memory_used = _used(workspace, figures, bound)
    pods_known = observed(inventory, POD)
    cpu = ResourceFigure(
        used=format_cpu(round(cpu_used)) if cpu_used is not None else None,
        total=format_cpu(bound.cpu) if bound.cpu is not None else None,
        percentage=percentage(cpu_used, bound.cpu) if cpu_used is not None and bound.cpu is not None else None,
        requested=format_cpu(tallies.requested.cpu) if pods_known else None,
    )
    memory = ResourceFigure(
        used=format_bytes(memory_used) if memory_used is not None else None,
        total=format_bytes(bound.memory) if bound.memory is not None else None,
        percentage=percentage(memory_used, bound.memory) if memory_used is not None and bound.memory else None,
        requested=format_bytes(tallies.requested.memory) if pods_known else None,
    )
    storage = ResourceFigure(
        used=None,
        total=format_bytes(bound.storage) if bound.storage is not None else None,
        percentage=None,
        requested=format_bytes(tallies.claimed) if observed(inventory, CLAIM) else None,
    )
    for name, figure in (("cpu", cpu), ("memory", memory)):
        _explain(partial, f"resource_usage.{name}", figure, figures.reason or "no usage was measured", bound.reason)
    _explain(partial, "resource_usage.storage", storage, NO_STORAGE_USAGE, bound.reason)
    if not pods_known:
        partial.append(Partial("resource_usage.pods", why_not(inventory, POD)))
    return (
        ResourceUsage(cpu=cpu, memory=memory, storage=storage, pods=_pods(tallies) if pods_known else None),
        partial,
        warnings,
    )


def _bound(workspace: Workspace, inventory: Inventory, tallies: Tallies) -> _Bound:
    if workspace.plan is Plan.SHARED:
        if not observed(inventory, RESOURCE_QUOTA):
            return _Bound(reason=why_not(inventory, RESOURCE_QUOTA))
        quotas: QuotaTotals = quota_totals(tallies.quotas.values())
        reason = "no ResourceQuota bounds it"
        return _Bound(quotas.cpu, quotas.memory, quotas.storage, reason, quotas.cpu_in, quotas.memory_in)
    if not observed(inventory, NODE):
        return _Bound(reason=why_not(inventory, NODE))
    if not tallies.nodes:
        return _Bound(reason="the cluster has no nodes")
    room = tallies.capacity
    return _Bound(room.cpu, room.memory, room.storage, "a node does not state its capacity")


def _used(workspace: Workspace, figures: UsageFigures, bound: _Bound) -> tuple[float | None, int | None]:
    """Nodes' usage where the workspace is all of its nodes, else that of its own pods."""
    whole_nodes = workspace.plan is Plan.DEDICATED and not workspace.namespaces
    if whole_nodes and figures.nodes:
        nodes = figures.nodes.values()
        return sum(n.cpu_millicores for n in nodes), sum(n.memory_bytes for n in nodes)
    if figures.pods_in is None:
        return None, None
    cpu, memory = 0.0, 0
    for namespace, used in figures.pods_in.items():
        if workspace.in_scope(namespace):
            cpu += used.cpu if not bound.cpu_in or namespace in bound.cpu_in else 0.0
            memory += used.memory if not bound.memory_in or namespace in bound.memory_in else 0
    return cpu, memory


def _explain(partial: list[Partial], path: str, figure: ResourceFigure, unused: str, unbound: str) -> None:
    if figure.used is None:
        partial.append(Partial(f"{path}.used", unused))
    if figure.total is None:
        partial.append(Partial(f"{path}.total", unbound))
    if figure.percentage is None:
        missing = unused if figure.used is None else unbound
        partial.append(Partial(f"{path}.percentage", missing))
    if figure.requested is None:
        partial.append(Partial(f"{path}.requested", "pods or claims could not be read"))


def _pods(tallies: Tallies) -> PodCounts:
    return PodCounts(
        running=tallies.phases[Phase.RUNNING],
        pending=tallies.phases[Phase.PENDING],
        failed=tallies.phases[Phase.FAILED],
        succeeded=tallies.phases[Phase.SUCCEEDED],
        unknown=tallies.phases[Phase.UNKNOWN],
    )
