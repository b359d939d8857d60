"""What is asked of metrics and what comes back: figures with where they come from, or the reason why there are none."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeAlias, TypeVar

import msgspec

FiguresT = TypeVar("FiguresT")
_NOTHING: Mapping[str, str] = {}
MOST_MOMENTS = 50_000
"""Of one span: a month of minutes."""


class Observed(msgspec.Struct, Generic[FiguresT], frozen=True):
    """Figures that were measured.

    `source` names who measured (`prometheus`, `metrics.k8s.io`), `query` what it was asked, `observed_at` the moment of
    the newest sample in them. `missing` maps a part that is null or absent in `figures` to the reason; `warnings` are
    the source's own words about an answer that may be incomplete: untrusted text, control characters removed.
    """

    figures: FiguresT
    source: str
    query: str
    observed_at: datetime
    missing: Mapping[str, str] = _NOTHING
    warnings: tuple[str, ...] = ()


class Unobserved(msgspec.Struct, frozen=True):
    """Nothing was measured: neither 0 nor good news. `source` is empty where there is none to ask."""

    reason: str
    source: str = ""


Answer: TypeAlias = Observed[FiguresT] | Unobserved


class WorkloadSelector(msgspec.Struct, frozen=True):
    """A workload as measurements know it: by its pods' names, across generations (`telemetry/naming.py`).

    `kind` is a Kubernetes kind (`Deployment`). `pods` are names known to be its own whatever their form; `services` the
    Services before it, by which ingresses count requests.
    """

    kind: str
    namespace: str
    name: str
    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


class Span(msgspec.Struct, frozen=True):
    """Moments `since`, `since + step`, … up to `until`; a figure at a moment covers the `step` that ends there."""

    since: datetime
    until: datetime
    step: timedelta

    def __post_init__(self) -> None:
        if self.since.tzinfo is None or self.until.tzinfo is None:
            raise ValueError("a span's ends have an offset")
        if self.since >= self.until or self.step < timedelta(seconds=1):
            raise ValueError("a span goes forward in steps of a second or more")
        if (self.until - self.since) / self.step >= MOST_MOMENTS:
            raise ValueError(f"a span has at most {MOST_MOMENTS} moments: a longer step makes fewer")

    @classmethod
    def ending(cls, until: datetime, length: timedelta, step: timedelta) -> "Span":
        return cls(until - length, until, step)

    def moments(self) -> list[float]:
        """Unix seconds."""
        count = int((self.until - self.since) / self.step) + 1
        first, width = self.since.timestamp(), self.step.total_seconds()
        return [first + width * index for index in range(count)]


class ContainerReading(msgspec.Struct, frozen=True):
    """What a container uses: CPU in millicores (a mean over the source's own window), working set in bytes, each null
    where it was not read. `at` is the moment of the reading, not of the question."""

    pod: str
    container: str
    cpu_millicores: float | None
    memory_bytes: int | None
    at: datetime


class ContainerSeries(msgspec.Struct, frozen=True):
    """One container of one pod over time; only moments with a figure stand in it. Three columns of one length: `at` in
    Unix seconds, ascending; CPU in millicores, the mean of the step; the working set in bytes, the peak of the step."""

    pod: str
    container: str
    at: tuple[float, ...]
    cpu_millicores: tuple[float | None, ...]
    memory_bytes: tuple[int | None, ...]


class UsageHistory(msgspec.Struct, frozen=True):
    """`since`: the first moment with a figure, so that callers see how far back the history goes."""

    series: tuple[ContainerSeries, ...]
    since: datetime
    step: timedelta

    @property
    def points(self) -> int:
        """Distinct moments with a figure of any container."""
        return len({at for one in self.series for at in one.at})

    def by_container(self) -> dict[str, list[ContainerSeries]]:
        """The series of every pod, by the container's name, which stays when pods are replaced."""
        found: dict[str, list[ContainerSeries]] = {}
        for one in self.series:
            found.setdefault(one.container, []).append(one)
        return found


class Throttling(msgspec.Struct, frozen=True):
    """Percent of the scheduler's periods in which a container was held back by its CPU limit."""

    pod: str
    container: str
    percent: float


class Restarts(msgspec.Struct, frozen=True):
    """Restarts of a container within the window, whole."""

    pod: str
    container: str
    count: int


class Traffic(msgspec.Struct, frozen=True):
    """Requests that a workload answered: 1/s, percent of them that failed on the server's side (5xx), milliseconds. The
    last three are null where there was no request, or where the source does not count them."""

    request_rate: float
    error_rate: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None


def moment(seconds: float) -> datetime:
    """Unix seconds -> a moment in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
