"""What health asks others."""

from typing import Protocol

from opsapi.operations.model import Depth


class PoolReading(Protocol):
    @property
    def active(self) -> int | None: ...
    @property
    def idle(self) -> int | None: ...
    @property
    def max(self) -> int | None: ...


class DatabaseReading(Protocol):
    """Connections of this process' pool; query figures over the last five minutes."""

    @property
    def connections(self) -> PoolReading: ...
    @property
    def avg_query_ms(self) -> float | None: ...
    @property
    def slow_queries(self) -> int: ...


class DatabaseProbe(Protocol):
    async def probe(self) -> DatabaseReading:
        """Asks the database something. Raises DependencyUnavailable."""
        ...


class Queue(Protocol):
    async def depth(self) -> Depth:
        """Raises DependencyUnavailable."""
        ...


class OwnFigures(Protocol):
    def response_time_ms(self) -> float | None:
        """The mean time to answer over the last requests; None before the first."""
        ...
