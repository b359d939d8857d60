"""What the API server asks of the rest of the playground: container logs and resource metrics."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from opsapi.playground.registry import Obj


@dataclass(frozen=True, slots=True)
class LogOptions:
    """corev1.PodLogOptions. `tail_lines` and `limit_bytes` are None where the client set no bound."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since_seconds: int | None = None
    since_time: datetime | None = None


LogProvider = Callable[[Obj, str, LogOptions], AsyncIterator[bytes]]
"""(pod, container, options) -> chunks of the log. It honours every option; it may raise ApiError before the first."""


class MetricsProvider(Protocol):
    """metrics.k8s.io/v1beta1 objects: NodeMetrics and PodMetrics with timestamp, window and usage."""

    def pods(self, namespace: str) -> list[Obj]:
        """ "" = in all namespaces."""
        ...

    def nodes(self) -> list[Obj]: ...
