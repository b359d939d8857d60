"""What metrics.k8s.io said lately, in memory: it only tells the present, and sizing needs a past.

For each container the readings of the last hours, one a minute: the mean of its CPU and the peak of its working set.
A container takes 12 bytes a minute and about 600 for itself; nothing survives the process.
"""

from array import array
from collections.abc import Iterator
from datetime import datetime, timedelta

from opsapi.telemetry.model import ContainerSeries, Span, WorkloadSelector
from opsapi.telemetry.naming import is_pod_of
from opsapi.workspaces.ports import PodUsage

KEPT = timedelta(hours=6)
MOST_CONTAINERS = 40_000
"""Of one workspace; a container beyond it is not remembered."""
_MINUTE = 60
_SLOTS = KEPT // timedelta(seconds=_MINUTE)
_SLACK = 16
"""Slots that may be over before the oldest are cut off together."""
_KIBI = 1024
_PAUSE = 500


class Column:
    """One container's minutes. `at` holds Unix seconds of the latest reading in each; memory is in KiB, as
    metrics-server writes it."""

    __slots__ = ("at", "cpu", "memory", "merged")

    def __init__(self) -> None:
        self.at = array("I")
        self.cpu = array("f")
        self.memory = array("I")
        self.merged = 0

    def add(self, at: int, cpu: float, memory: int) -> None:
        """A reading that is not newer than the last one is the same one, seen again."""
        if self.at and at <= self.at[-1]:
            return
        kibi = min(-(-memory // _KIBI), 2**32 - 1)
        if self.at and at // _MINUTE == self.at[-1] // _MINUTE:
            self.merged += 1
            self.at[-1] = at
            self.cpu[-1] += (cpu - self.cpu[-1]) / self.merged
            self.memory[-1] = max(self.memory[-1], kibi)
            return
        self.merged = 1
        self.at.append(at)
        self.cpu.append(cpu)
        self.memory.append(kibi)
        if len(self.at) > _SLOTS + _SLACK:
            for column in (self.at, self.cpu, self.memory):
                del column[: len(column) - _SLOTS]


class Recollection:
    """One workspace's. Times are the cluster's."""

    def __init__(self, most: int = MOST_CONTAINERS) -> None:
        self._most = most
        self._columns: dict[str, dict[str, dict[str, Column]]] = {}
        """By namespace, pod and container."""
        self._count = 0
        self._newest = 0
        self._swept = 0
        self.since: datetime | None = None
        """The oldest moment that was ever remembered."""
        self.overflowing = False
        """Whether containers go unremembered for want of room."""

    @property
    def containers(self) -> int:
        return self._count

    def add(self, namespace: str, name: str, usage: PodUsage) -> None:
        at = int(usage.at.timestamp())
        if not 0 <= at < 2**32:
            return
        if self.since is None or usage.at < self.since:
            self.since = usage.at
        self._newest = max(self._newest, at)
        pod = self._columns.setdefault(namespace, {}).setdefault(name, {})
        for container, figures in usage.containers.items():
            column = pod.get(container)
            if column is None:
                if self._count >= self._most:
                    self.overflowing = True
                    continue
                column = pod[container] = Column()
                self._count += 1
            column.add(at, figures.cpu_millicores, figures.memory_bytes)

    def sweep(self) -> Iterator[None]:
        """Once a minute forgets pods that were last read too long ago; where there is no room left, those that are gone
        for five minutes. Pauses after every few pods, so that others get their turn."""
        if self._newest - self._swept < _MINUTE:
            return
        self._swept = self._newest
        yield from self._forget(self._newest - int(KEPT.total_seconds()))
        if self._count >= self._most:
            yield from self._forget(self._newest - 5 * _MINUTE)
        self.overflowing = self._count >= self._most

    def _forget(self, before: int) -> Iterator[None]:
        for namespace, pods in list(self._columns.items()):
            for index, (name, held) in enumerate(list(pods.items())):
                if all(column.at[-1] < before for column in held.values()):
                    self._count -= len(held)
                    del pods[name]
                if index % _PAUSE == 0:
                    yield
            if not pods:
                del self._columns[namespace]

    def series(self, workload: WorkloadSelector, span: Span) -> tuple[ContainerSeries, ...]:
        """Only moments with a reading in the step that ends there."""
        found = sorted(self._of(workload))
        made = (_stepped(pod, container, column, span) for pod, container, column in found)
        return tuple(one for one in made if one.at)

    def _of(self, workload: WorkloadSelector) -> Iterator[tuple[str, str, Column]]:
        for name, held in self._columns.get(workload.namespace, {}).items():
            if is_pod_of(workload, name):
                yield from ((name, container, column) for container, column in held.items())


def _stepped(pod: str, container: str, column: Column, span: Span) -> ContainerSeries:
    moments = span.moments()
    first, width = moments[0], span.step.total_seconds()
    sums: dict[int, tuple[float, int, int]] = {}
    for at, cpu, memory in zip(column.at, column.cpu, column.memory, strict=True):
        index = -int((first - at) // width)  # rounds up: a step holds the readings up to its end
        if 0 <= index < len(moments):
            total, count, peak = sums.get(index, (0.0, 0, 0))
            sums[index] = total + cpu, count + 1, max(peak, memory)
    indexes = sorted(sums)
    return ContainerSeries(
        pod,
        container,
        tuple(moments[index] for index in indexes),
        tuple(sums[index][0] / sums[index][1] for index in indexes),
        tuple(sums[index][2] * _KIBI for index in indexes),
    )
