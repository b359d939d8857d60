"""What a container should request, after what it used. Pure.

    CPU request            = p95 of usage, at least 10m; no CPU limit is invented
    memory request = limit = highest usage x 1.15, at least 100 MiB; after an OOM kill at least 1.25 x the limit hit

Nothing is recommended from fewer than 100 readings or less than 3 hours, nor for a resource that an autoscaler steers
by: a smaller request would make it add pods for the same load.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from opsapi.applications.costs import CostSettings, monthly_cpu, monthly_memory
from opsapi.kit.duration import format_age
from opsapi.kit.quantity import format_cpu_quantity
from opsapi.playbooks.optimizing.model import Quantities, Row, amount
from opsapi.telemetry.model import ContainerSeries
from opsapi.workspaces.objects import Container, HorizontalPodAutoscaler, Pod

MEBIBYTE = 2**20
SHARE = 0.95
HEADROOM, AFTER_OOM = Decimal("1.15"), Decimal("1.25")
LEAST_CPU = 10
LEAST_MEMORY = 100 * MEBIBYTE
LEAST_POINTS = 100
LEAST_SPAN = timedelta(hours=3)
_OOM = "OOMKilled"


@dataclass(frozen=True, slots=True)
class Used:
    """One resource of one container over all its pods. `points` are moments with a figure, `span` from the first to the
    last of them."""

    figures: tuple[float, ...]
    points: int
    span: timedelta

    @property
    def mean(self) -> float:
        return math.fsum(self.figures) / len(self.figures) if self.figures else 0.0

    @property
    def p95(self) -> float:
        """The nearest rank: a value that was measured."""
        return sorted(self.figures)[math.ceil(SHARE * len(self.figures)) - 1]


def used(series: Iterable[ContainerSeries], step: timedelta) -> tuple[Used, Used]:
    """CPU in millicores, memory in bytes."""
    cpu: list[float] = []
    memory: list[float] = []
    cpu_at: set[float] = set()
    memory_at: set[float] = set()
    for one in series:
        for at, millicores, held in zip(one.at, one.cpu_millicores, one.memory_bytes, strict=True):
            if millicores is not None:
                cpu.append(millicores)
                cpu_at.add(at)
            if held is not None:
                memory.append(held)
                memory_at.add(at)
    return _used(cpu, cpu_at, step), _used(memory, memory_at, step)


def _used(figures: Sequence[float], moments: set[float], step: timedelta) -> Used:
    """A figure covers the step that ends at its moment."""
    span = timedelta(seconds=max(moments) - min(moments)) + step if moments else timedelta()
    return Used(tuple(figures), len(moments), span)


def cpu_request(cpu: Used) -> int:
    """Whole millicores."""
    return max(LEAST_CPU, math.ceil(cpu.p95 - 1e-9))


def memory_bound(peak: float, oom_limit: float | None) -> int:
    """Bytes, in whole MiB."""
    wanted = Decimal(peak) * HEADROOM
    if oom_limit is not None:
        wanted = max(wanted, Decimal(oom_limit) * AFTER_OOM)
    return max(LEAST_MEMORY, math.ceil(wanted / MEBIBYTE) * MEBIBYTE)


def quantities_of(container: Container) -> Quantities:
    asked, most = container.resources.requests, container.resources.limits
    return Quantities(
        cpu_request=asked.get("cpu"),
        memory_request=asked.get("memory"),
        cpu_limit=most.get("cpu"),
        memory_limit=most.get("memory"),
    )


def recommend(
    container: Container,
    cpu: Used,
    memory: Used,
    *,
    unknown: Mapping[str, str],
    oom_limit: float | None,
    replicas: int,
    costs: CostSettings,
    change_percentage: float,
) -> Row:
    """`unknown`: reasons that are known already, by resource; those of too short a history are added."""
    reasons = dict(unknown)
    for resource, one in (("cpu", cpu), ("memory", memory)):
        if resource not in reasons and (reason := _too_short(one)):
            reasons[resource] = reason
    current = quantities_of(container)
    wanted = current
    if "cpu" not in reasons:
        wanted = _with_cpu(wanted, cpu_request(cpu), change_percentage)
    if "memory" not in reasons:
        bound = memory_bound(max(memory.figures), oom_limit)
        wanted = _with_memory(wanted, bound, change_percentage, force=oom_limit is not None)
    return Row(
        container=container.name,
        points=min(cpu.points, memory.points),
        current=current,
        recommended=wanted,
        unknown=reasons,
        cpu_p95_millicores=round(cpu.p95, 1) if cpu.figures else None,
        memory_max_bytes=round(max(memory.figures)) if memory.figures else None,
        oom_killed=oom_limit is not None,
        savings=None if wanted == current else round(_savings(current, wanted, cpu, memory, costs) * replicas, 2),
    )


def _too_short(one: Used) -> str:
    if one.points >= LEAST_POINTS and one.span >= LEAST_SPAN:
        return ""
    over = f" over {format_age(one.span)}" if one.points else ""
    return f"{one.points} readings{over}; at least {LEAST_POINTS} over 3h are needed"


def _with_cpu(held: Quantities, millicores: int, worth: float) -> Quantities:
    """Within a limit that is set: a request above it would be refused, and more than it was never used."""
    limit = amount(held.cpu_limit)
    if limit is not None:
        millicores = min(millicores, int(limit * 1000))
    request = amount(held.cpu_request)
    if not _differs(None if request is None else float(request * 1000), millicores, worth):
        return held
    return _replaced(held, cpu_request=format_cpu_quantity(millicores))


def _with_memory(held: Quantities, bound: int, worth: float, *, force: bool) -> Quantities:
    request, limit = amount(held.memory_request), amount(held.memory_limit)
    differs = any(
        _differs(None if one is None else float(one), bound, 0 if force else worth) for one in (request, limit)
    )
    if not differs:
        return held
    mebibytes = bound // MEBIBYTE
    text = f"{mebibytes}Mi" if mebibytes % 1024 else f"{mebibytes // 1024}Gi"
    return _replaced(held, memory_request=text, memory_limit=text)


def _replaced(held: Quantities, **changes: str) -> Quantities:
    return Quantities(**{name: changes.get(name, getattr(held, name)) for name in held.__struct_fields__})


def _differs(held: float | None, wanted: float, worth: float) -> bool:
    return held is None or held == 0 or abs(wanted - held) * 100 > worth * held


def _savings(current: Quantities, wanted: Quantities, cpu: Used, memory: Used, costs: CostSettings) -> float:
    """Of one replica. A request that is left out is the limit, as Kubernetes has it."""

    def cpu_of(held: Quantities) -> float:
        asked = float(amount(held.cpu_request) or amount(held.cpu_limit) or 0) * 1000
        return monthly_cpu(costs, asked, cpu.mean)

    def memory_of(held: Quantities) -> float:
        asked = float(amount(held.memory_request) or amount(held.memory_limit) or 0)
        return monthly_memory(costs, asked, memory.mean)

    return cpu_of(current) - cpu_of(wanted) + memory_of(current) - memory_of(wanted)


def oom_limits(pods: Iterable[Pod]) -> dict[str, float]:
    """The highest memory limit at which each container was killed, as far as its pods still tell."""
    found: dict[str, float] = {}
    for pod in pods:
        limits = {one.name: one.resources.limits.get("memory") for one in pod.spec.containers}
        for status in pod.status.container_statuses:
            ends = (status.state.terminated, status.last_state.terminated)
            limit = amount(limits.get(status.name))
            if limit is not None and any(end is not None and end.reason == _OOM for end in ends):
                found[status.name] = max(found.get(status.name, 0.0), float(limit))
    return found


def steered_by(autoscaler: HorizontalPodAutoscaler | None) -> dict[str, str]:
    """The resources that an HPA scales by, each with the reason."""
    found = {}
    for metric in autoscaler.spec.metrics if autoscaler is not None else ():
        resource = metric.resource or metric.container_resource
        if metric.type in ("Resource", "ContainerResource") and resource is not None and autoscaler is not None:
            found[resource.name] = f"HorizontalPodAutoscaler {autoscaler.metadata.name} scales by its {resource.name}"
    return found
