"""The scheduler's filters, pure, and their messages as kube-scheduler words them.

The order of the filters is the real one's: the first that fails a node gives that node's reason.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from opsapi.kit.quantity import millicores, whole
from opsapi.playground.registry import Obj
from opsapi.playground.selection import matches_node_terms, tolerates

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


@dataclass(frozen=True, slots=True)
class Demand:
    """What a pod asks of a node: millicores, bytes, and any other resources in whole units."""

    cpu: int
    memory: int
    other: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class NodeState:
    """A node and what is already promised on it."""

    node: Obj
    cpu: int = 0
    memory: int = 0
    pods: int = 0
    other: Counter[str] = field(default_factory=Counter)
    ports: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, demand: Demand, ports: Sequence[tuple[str, int]], sign: int = 1) -> None:
        self.cpu += sign * demand.cpu
        self.memory += sign * demand.memory
        self.pods += sign
        for name, amount in demand.other:
            self.other[name] += sign * amount
        for port in ports:
            self.ports[port] += sign


@lru_cache(maxsize=4096)
def _amount(resource: str, quantity: str) -> int:
    return millicores(quantity) if resource == "cpu" else whole(quantity)


def amount(resource: str, quantity: Any) -> int:
    """A quantity in the scheduler's units: millicores for cpu, else whole base units."""
    return _amount(resource, str(quantity))


def _requests(container: Obj) -> dict[str, int]:
    resources = container.get("resources") or {}
    requests = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(name, quantity) for name, quantity in requests.items()}


def demand_of(spec: Obj) -> Demand:
    """Sum over containers and sidecars, or the largest init container where that is more; plus overhead."""
    total: Counter[str] = Counter()
    for container in spec.get("containers") or []:
        total.update(_requests(container))
    peak: dict[str, int] = {}
    sidecars: Counter[str] = Counter()
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            sidecars.update(_requests(container))
            continue
        for name, value in _requests(container).items():
            peak[name] = max(peak.get(name, 0), value + sidecars[name])
    total.update(sidecars)
    for name, value in peak.items():
        total[name] = max(total[name], value)
    for name, quantity in (spec.get("overhead") or {}).items():
        total[name] += amount(name, quantity)
    other = tuple(sorted((name, value) for name, value in total.items() if name not in ("cpu", "memory") and value))
    return Demand(total["cpu"], total["memory"], other)


def host_ports(spec: Obj) -> list[tuple[str, int]]:
    return [
        (port.get("protocol", "TCP"), int(port["hostPort"]))
        for container in spec.get("containers") or []
        for port in container.get("ports") or []
        if port.get("hostPort")
    ]


def untolerated_taint(tolerations: Sequence[Obj], node: Obj, effects: Iterable[str]) -> Obj | None:
    wanted = tuple(effects)
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in wanted and tolerates(list(tolerations), taint) is None:
            return dict(taint)
    return None


def fits_node_affinity(spec: Obj, node: Obj) -> bool:
    """nodeSelector and the required part of nodeAffinity."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or matches_node_terms(required.get("nodeSelectorTerms") or [], node)


def _is_unschedulable(spec: Obj, node: Obj) -> bool:
    taint = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}
    return bool(node["spec"].get("unschedulable")) and tolerates(spec.get("tolerations") or [], taint) is None


def _insufficient(state: NodeState, demand: Demand) -> list[str]:
    allocatable = state.node.get("status", {}).get("allocatable") or {}

    def free(name: str, used: int) -> int:
        return amount(name, allocatable.get(name, "0")) - used

    reasons = []
    if free("pods", state.pods) < 1:
        reasons.append("Too many pods")
    if demand.cpu and free("cpu", state.cpu) < demand.cpu:
        reasons.append("Insufficient cpu")
    if demand.memory and free("memory", state.memory) < demand.memory:
        reasons.append("Insufficient memory")
    reasons += [f"Insufficient {name}" for name, value in demand.other if free(name, state.other[name]) < value]
    return reasons


def reasons_against(spec: Obj, demand: Demand, state: NodeState) -> tuple[list[str], bool]:
    """(why this node will not do, empty when it will; whether evicting others could help)."""
    node = state.node
    if _is_unschedulable(spec, node):
        return ["node(s) were unschedulable"], False
    if spec.get("nodeName") and spec["nodeName"] != node["metadata"]["name"]:
        return ["node(s) didn't match the requested node name"], False
    taint = untolerated_taint(spec.get("tolerations") or [], node, ("NoSchedule", "NoExecute"))
    if taint is not None:
        return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"], False
    if not fits_node_affinity(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"], False
    if any(state.ports[port] for port in host_ports(spec)):
        return ["node(s) didn't have free ports for the requested pod ports"], True
    return _insufficient(state, demand), True


def unschedulable_message(total: int, reasons: Sequence[str], helpless: int, victimless: int) -> str:
    """`0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes …`

    `helpless`: nodes where preemption is not helpful; `victimless`: where it found nobody to evict.
    """
    if total == 0:
        return "no nodes available to schedule pods"
    counted = sorted(f"{count} {reason}" for reason, count in Counter(reasons).items())
    preemption = sorted(
        f"{count} {text}"
        for count, text in (
            (helpless, "Preemption is not helpful for scheduling"),
            (victimless, "No preemption victims found for incoming pod"),
        )
        if count
    )
    return (
        f"0/{total} nodes are available: {', '.join(counted)}. no new claims to deallocate, "
        f"preemption: 0/{total} nodes are available: {', '.join(preemption)}."
    )


def score(state: NodeState, demand: Demand, same_owner: int) -> float:
    """Least allocated, balanced against spreading one workload's pods over nodes; higher is better."""
    allocatable = state.node.get("status", {}).get("allocatable") or {}

    def free_share(name: str, used: int, extra: int) -> float:
        total = amount(name, allocatable.get(name, "0"))
        return (total - used - extra) / total if total else 0.0

    least = free_share("cpu", state.cpu, demand.cpu) + free_share("memory", state.memory, demand.memory)
    return least * 50 - same_owner * 100
