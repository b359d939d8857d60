"""The nodes of a workspace as the specification shows them, worst first, built once until something changes."""

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from opsapi.kit.quantity import format_bytes, format_cpu, percentage
from opsapi.workspaces.capacity import NODE_RANK, NodeCondition, NodeFacts, Room, role_of
from opsapi.workspaces.objects import NODE, Node
from opsapi.workspaces.ports import Inventory, NodeUsage
from opsapi.workspaces.tallies import Requested, Tallies
from opsapi.workspaces.usage import UsageFigures


class NodeRoom(msgspec.Struct, frozen=True):
    """Quantities; null where the node does not say. `storage` is its ephemeral storage."""

    cpu: str | None
    memory: str | None
    storage: str | None
    pods: str | None


class NodeLoad(msgspec.Struct, frozen=True):
    """Percentages of allocatable: `cpu_percentage` and `memory_percentage` measured, the requested ones promised to
    pods. `pod_count`: pods bound to the node that have not ended."""

    cpu_percentage: float | None
    memory_percentage: float | None
    storage_percentage: float | None
    pod_count: int
    cpu_requested_percentage: float | UnsetType | None = UNSET
    memory_requested_percentage: float | UnsetType | None = UNSET


class NodeConditionView(msgspec.Struct, frozen=True):
    type: str
    status: str
    last_transition: datetime | None
    reason: str | UnsetType = UNSET


class TaintView(msgspec.Struct, frozen=True):
    key: str
    effect: str
    value: str | UnsetType = UNSET


class NodeView(msgspec.Struct, frozen=True):
    name: str
    status: NodeCondition
    role: str
    version: str | None
    capacity: NodeRoom
    allocatable: NodeRoom
    usage: NodeLoad
    conditions: list[NodeConditionView]
    taints: list[TaintView]
    labels: dict[str, str]


class ClusterCapacity(msgspec.Struct, frozen=True):
    cpu: str | None
    memory: str | None
    storage: str | None


class ClusterLoad(msgspec.Struct, frozen=True):
    """Of the allocatable room of the nodes that were measured."""

    cpu_percentage: float | None
    memory_percentage: float | None
    storage_percentage: float | None


class ClusterMetrics(msgspec.Struct, frozen=True):
    """Over all nodes, whatever part of them the page shows."""

    total_capacity: ClusterCapacity
    total_usage: ClusterLoad
    health_status: str
    """`healthy` (every node ready, none under pressure), `degraded`, `unhealthy` (no node ready), `unknown`."""


class Nodes(msgspec.Struct, frozen=True):
    workspace_id: str
    total_nodes: int | None
    nodes: list[NodeView] | None
    cluster_metrics: ClusterMetrics


SortKey = tuple[int, float, str]
"""(rank of the status, minus the higher of the two usage percentages, name): worst first."""


class Page(msgspec.Struct, frozen=True):
    """`encoded` is `data` as JSON, None where it was not worth keeping."""

    data: Nodes
    next_key: SortKey | None
    encoded: msgspec.Raw | None = None


_PAGES = 32
"""Pages kept encoded until a node changes: a page of 200 nodes takes 110 KB, and 100 µs to encode."""
NO_NODES = ClusterMetrics(ClusterCapacity(None, None, None), ClusterLoad(None, None, None), "unknown")


class NodeBoard:
    """Built views of one workspace's nodes; a node's view is made again only when it, its usage or its pods change."""

    def __init__(self, inventory: Inventory, tallies: Tallies, figures: Callable[[], UsageFigures]) -> None:
        self._inventory = inventory
        self._tallies = tallies
        self._figures = figures
        self._built: dict[str, tuple[Node, NodeUsage | None, tuple[int, int, int], NodeView]] = {}
        self._version: tuple[int, int] | None = None
        self._source: UsageFigures | None = None
        self._keys: list[SortKey] = []
        self._ordered: list[NodeView] = []
        self._metrics = NO_NODES
        self._pages: dict[tuple[SortKey | None, int], Page] = {}

    def page(self, after: SortKey | None, limit: int) -> Page:
        """`limit` nodes after a key of the last page; nodes that got better or worse meanwhile may move across."""
        self._refresh()
        page = self._pages.get((after, limit))
        if page is None:
            page = self._page(after, limit)
            if len(self._pages) < _PAGES:
                self._pages[(after, limit)] = page
        return page

    def _page(self, after: SortKey | None, limit: int) -> Page:
        first = 0
        if after is not None:
            first = next((i for i, key in enumerate(self._keys) if key > after), len(self._keys))
        chosen = self._ordered[first : first + limit]
        more = first + limit < len(self._ordered)
        data = Nodes(self._inventory.workspace_id, len(self._ordered), chosen, self._metrics)
        encoded = msgspec.Raw(msgspec.json.encode(data))
        return Page(data, self._keys[first + limit - 1] if more else None, encoded)

    def _refresh(self) -> None:
        figures = self._figures()
        version = self._tallies.nodes_version, len(self._tallies.nodes)
        if version == self._version and figures is self._source:
            return
        self._version, self._source = version, figures
        self._pages.clear()
        usages = figures.nodes or {}
        built = {}
        for node in self._inventory.all(NODE, Node):
            name = node.metadata.name
            usage = usages.get(name)
            requested = self._tallies.requested_on.get(name) or Requested()
            held = requested.cpu, requested.memory, requested.pods
            known = self._built.get(name)
            if known is not None and known[0] is node and known[1] is usage and known[2] == held:
                built[name] = known
            else:
                built[name] = node, usage, held, view_of(node, self._tallies.nodes[name], usage, requested)
        self._built = built
        entries = sorted((_sort_key(view), view) for *_, view in built.values())
        self._keys = [key for key, _ in entries]
        self._ordered = [view for _, view in entries]
        self._metrics = cluster_metrics(self._tallies, usages)


def view_of(node: Node, facts: NodeFacts, usage: NodeUsage | None, requested: Requested) -> NodeView:
    allocatable = facts.allocatable
    cpu, memory = allocatable.cpu or 0, allocatable.memory or 0
    return NodeView(
        name=node.metadata.name,
        status=facts.status,
        role=role_of(node),
        version=node.status.node_info.kubelet_version.removeprefix("v") or None,
        capacity=_room_view(facts.capacity),
        allocatable=_room_view(allocatable),
        usage=NodeLoad(
            cpu_percentage=percentage(usage.cpu_millicores, cpu) if usage is not None else None,
            memory_percentage=percentage(usage.memory_bytes, memory) if usage is not None else None,
            storage_percentage=None,
            pod_count=requested.pods,
            cpu_requested_percentage=percentage(requested.cpu, cpu),
            memory_requested_percentage=percentage(requested.memory, memory),
        ),
        conditions=[
            NodeConditionView(c.type, c.status, c.last_transition_time, c.reason or UNSET)
            for c in node.status.conditions
        ],
        taints=[TaintView(t.key, t.effect, t.value or UNSET) for t in node.spec.taints],
        labels=node.metadata.labels,
    )


def cluster_metrics(tallies: Tallies, usages: dict[str, NodeUsage]) -> ClusterMetrics:
    nodes = tallies.nodes
    if not nodes:
        return NO_NODES
    measured = [(facts.allocatable, usages[name]) for name, facts in nodes.items() if name in usages]
    cpu_used = sum(usage.cpu_millicores for _, usage in measured)
    memory_used = sum(usage.memory_bytes for _, usage in measured)
    capacity = tallies.capacity
    cpu, memory, storage = capacity.cpu, capacity.memory, capacity.storage
    return ClusterMetrics(
        ClusterCapacity(
            format_cpu(cpu) if cpu is not None else None,
            format_bytes(memory) if memory is not None else None,
            format_bytes(storage) if storage is not None else None,
        ),
        ClusterLoad(
            percentage(cpu_used, sum(room.cpu or 0 for room, _ in measured)),
            percentage(memory_used, sum(room.memory or 0 for room, _ in measured)),
            None,
        ),
        health_of(nodes.values()),
    )


def health_of(nodes: Iterable[NodeFacts]) -> str:
    statuses = [facts.status for facts in nodes]
    if not statuses:
        return "unknown"
    if not any(facts_ready(status) for status in statuses):
        return "unhealthy"
    calm = {NodeCondition.READY, NodeCondition.CORDONED}
    return "healthy" if all(status in calm for status in statuses) else "degraded"


def facts_ready(status: NodeCondition) -> bool:
    return status in (NodeCondition.READY, NodeCondition.CORDONED, NodeCondition.PRESSURE)


def _room_view(room: Room) -> NodeRoom:
    return NodeRoom(
        format_cpu(room.cpu) if room.cpu is not None else None,
        format_bytes(room.memory) if room.memory is not None else None,
        format_bytes(room.storage) if room.storage is not None else None,
        str(room.pods) if room.pods is not None else None,
    )


def _sort_key(view: NodeView) -> SortKey:
    usage = view.usage
    return NODE_RANK[view.status], -max(usage.cpu_percentage or 0.0, usage.memory_percentage or 0.0), view.name
