"""What one node is: its status, role, and room. Pure."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from opsapi.workspaces.findings import Finding, FindingType
from opsapi.workspaces.objects import NODE, Node
from opsapi.workspaces.pods import quantity_bytes, quantity_millicores


class NodeCondition(StrEnum):
    """A node's status, worst first; a node has the first that fits."""

    NOT_READY = "not_ready"
    NETWORK_UNAVAILABLE = "network_unavailable"
    UNKNOWN = "unknown"
    PRESSURE = "pressure"
    CORDONED = "cordoned"
    READY = "ready"


NODE_RANK = {status: rank for rank, status in enumerate(NodeCondition)}
_ROLE = "node-role.kubernetes.io/"
_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")


class Room(msgspec.Struct, frozen=True, gc=False):
    """cpu millicores, memory and storage (ephemeral-storage) bytes, pods; None where the node does not say."""

    cpu: int | None
    memory: int | None
    storage: int | None
    pods: int | None


class NodeFacts(msgspec.Struct, frozen=True, gc=False):
    uid: str
    status: NodeCondition
    ready: bool
    capacity: Room
    allocatable: Room


def node_facts(node: Node) -> NodeFacts:
    return NodeFacts(
        node.metadata.uid,
        status_of(node),
        is_node_ready(node),
        _room(node.status.capacity),
        _room(node.status.allocatable),
    )


def is_node_ready(node: Node) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)


def status_of(node: Node) -> NodeCondition:
    """NotReady (also a kubelet that stopped reporting), no network, pressure and cordoned, told apart."""
    conditions = {c.type: c.status for c in node.status.conditions}
    if "Ready" not in conditions:
        return NodeCondition.UNKNOWN
    if conditions["Ready"] != "True":
        return NodeCondition.NOT_READY
    if conditions.get("NetworkUnavailable") == "True":
        return NodeCondition.NETWORK_UNAVAILABLE
    if any(conditions.get(pressure) == "True" for pressure in _PRESSURES):
        return NodeCondition.PRESSURE
    return NodeCondition.CORDONED if node.spec.unschedulable else NodeCondition.READY


def role_of(node: Node) -> str:
    """`control-plane` where the node is one, else its first role label, else `worker`."""
    roles = sorted(label[len(_ROLE) :] for label in node.metadata.labels if label.startswith(_ROLE))
    if "control-plane" in roles or "master" in roles:
        return "control-plane"
    return next((role for role in roles if role), "worker")


def node_findings(node: Node) -> tuple[Finding, ...]:
    """At most one per node. Cordoning is an operator's choice and no finding."""
    name = node.metadata.name
    match status_of(node):
        case NodeCondition.NOT_READY:
            reason = next((c.reason for c in node.status.conditions if c.type == "Ready"), "")
            return (Finding(FindingType.NODE_NOT_READY, NODE.kind, "", name, f"Not ready: {reason or 'no reason'}"),)
        case NodeCondition.NETWORK_UNAVAILABLE:
            return (Finding(FindingType.NODE_NETWORK_UNAVAILABLE, NODE.kind, "", name, "Network is unavailable"),)
        case NodeCondition.PRESSURE:
            held = [c.type for c in node.status.conditions if c.type in _PRESSURES and c.status == "True"]
            return (Finding(FindingType.NODE_PRESSURE, NODE.kind, "", name, ", ".join(held)),)
        case _:
            return ()


def total_of(values: Iterable[int | None]) -> int | None:
    """The sum; None where any is."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _room(quantities: dict[str, str]) -> Room:
    cpu, memory = quantities.get("cpu"), quantities.get("memory")
    storage, pods = quantities.get("ephemeral-storage"), quantities.get("pods")
    return Room(
        quantity_millicores(cpu) if cpu else None,
        quantity_bytes(memory) if memory else None,
        quantity_bytes(storage) if storage else None,
        quantity_bytes(pods) if pods else None,
    )
