"""What a reading of metrics.k8s.io adds up to, worked out once a reading and not once a request."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec

from opsapi.kit.quantity import percentage
from opsapi.workspaces.findings import Finding, FindingType
from opsapi.workspaces.objects import POD, Pod
from opsapi.workspaces.pods import quantity_bytes, quantity_millicores
from opsapi.workspaces.ports import Inventory, NodeUsage, PodUsage, UsageSnapshot
from opsapi.workspaces.tallies import Tallies

HIGH = 90.0
"""Percent of a limit from which usage is high."""
CPU_HELD = timedelta(minutes=5)
"""How long high CPU must have been seen before it is a finding: short bursts are what a CPU limit is for."""
_CHUNK = 2_000


class Used(msgspec.Struct):
    """cpu millicores and memory bytes."""

    cpu: float = 0.0
    memory: int = 0


class UsageFigures(msgspec.Struct, frozen=True):
    """`pods_in` by namespace and `nodes` by name, None where not observed (`reason` says why)."""

    taken_at: datetime | None
    reason: str
    pods_in: dict[str, Used] | None = None
    nodes: dict[str, NodeUsage] | None = None
    findings: tuple[Finding, ...] = ()


class _Strain(msgspec.Struct):
    pods: int = 0
    peak: float = 0.0


class UsageBook:
    """Turns snapshots into figures, and remembers since when usage has been high."""

    def __init__(self, inventory: Inventory, tallies: Tallies) -> None:
        self._inventory = inventory
        self._tallies = tallies
        self._source: UsageSnapshot | None = None
        self._since: dict[tuple[str, FindingType], datetime] = {}
        self.figures = UsageFigures(None, "metrics have not been read yet")

    def read(self, snapshot: UsageSnapshot) -> Iterator[None]:
        """Works through a snapshot, yielding after every chunk so that the caller may let others run."""
        if snapshot is self._source:
            return
        pods_in: dict[str, Used] | None = None
        strains: dict[tuple[str, FindingType], _Strain] = {}
        if snapshot.pods is not None:
            pods_in = {}
            for position, ((namespace, name), used) in enumerate(snapshot.pods.items(), start=1):
                held = pods_in.get(namespace)
                if held is None:
                    held = pods_in[namespace] = Used()
                held.cpu += used.cpu_millicores
                held.memory += used.memory_bytes
                pod = self._inventory.get(POD, Pod, namespace, name)
                if pod is not None:
                    self._strain(pod, used, strains)
                if position % _CHUNK == 0:
                    yield
        findings = self._findings(strains, snapshot.taken_at) if snapshot.taken_at is not None else ()
        self._source = snapshot
        self.figures = UsageFigures(snapshot.taken_at, snapshot.reason, pods_in, snapshot.nodes, findings)

    def is_current(self, snapshot: UsageSnapshot) -> bool:
        return snapshot is self._source

    def _strain(self, pod: Pod, used: PodUsage, strains: dict[tuple[str, FindingType], _Strain]) -> None:
        for kind, peak in zip(
            (FindingType.HIGH_MEMORY_USAGE, FindingType.HIGH_CPU_USAGE), _peaks(pod, used), strict=True
        ):
            if peak >= HIGH:
                root = self._tallies.root_of(pod.metadata.controller) or pod.metadata.uid
                strain = strains.setdefault((root, kind), _Strain())
                strain.pods += 1
                strain.peak = max(strain.peak, peak)

    def _findings(self, strains: dict[tuple[str, FindingType], _Strain], taken_at: datetime) -> tuple[Finding, ...]:
        self._since = {key: self._since.get(key, taken_at) for key in strains}
        found = []
        for (root, kind), strain in strains.items():
            application = self._tallies.applications.get(root)
            if application is None:
                continue
            held = taken_at - self._since[(root, kind)]
            if kind is FindingType.HIGH_CPU_USAGE and held < CPU_HELD:
                continue
            meta = application.object.metadata
            text = _sentence(kind, strain, held)
            found.append(Finding(kind, application.kind.kind, meta.namespace, meta.name, text, strain.pods, root))
        return tuple(found)


def _sentence(kind: FindingType, strain: _Strain, held: timedelta) -> str:
    resource = "Memory" if kind is FindingType.HIGH_MEMORY_USAGE else "CPU"
    pods = "1 pod" if strain.pods == 1 else f"{strain.pods} pods"
    minutes = int(held.total_seconds() // 60)
    lasting = f" for {minutes} {'minute' if minutes == 1 else 'minutes'}" if minutes else ""
    return f"{resource} usage above {HIGH:.0f}% of the limit in {pods}{lasting}, at most {strain.peak}%"


def _peaks(pod: Pod, used: PodUsage) -> tuple[float, float]:
    """The highest (memory, cpu) percentage of its limit that a container of the pod uses; 0 without limits."""
    memory = cpu = 0.0
    for container in pod.spec.containers:
        limits = container.resources.limits
        usage = used.containers.get(container.name) if limits else None
        if usage is None:
            continue
        if "memory" in limits:
            memory = max(memory, percentage_of(usage.memory_bytes, quantity_bytes(limits["memory"])))
        if "cpu" in limits:
            cpu = max(cpu, percentage_of(usage.cpu_millicores, quantity_millicores(limits["cpu"])))
    return memory, cpu


def percentage_of(part: float, total: int) -> float:
    """Rounds only what is near the threshold or above: exact decimals are dear for every container of a fleet."""
    if total <= 0 or part * 100 < (HIGH - 1) * total:
        return 0.0
    return percentage(part, total) or 0.0
