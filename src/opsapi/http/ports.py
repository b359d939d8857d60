"""What the HTTP layer needs of the rest of the service; wiring fills it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.registry import Collector

from opsapi.audit.model import AuditEntry
from opsapi.kit.caller import Caller
from opsapi.kit.clock import Clock, SystemClock
from opsapi.kit.idempotency import IdempotencyStore
from opsapi.kit.limits import RateLimiter
from opsapi.kit.permissions import Grants


class Authenticator(Protocol):
    async def authenticate(
        self, account_id: str, token: str, address: str, on_behalf_of: str | None, agent_run: str | None
    ) -> Caller:
        """Raises accounts' InvalidServiceAccount or IpNotAllowed, and refuses a foreign `on_behalf_of`."""
        ...


class ScopeResolver(Protocol):
    async def workspace_exists(self, workspace_id: str) -> bool: ...

    async def workspace_of(self, application_id: str, grants: Grants) -> str:
        """The workspace that holds the application, looked for only where `grants` see.

        Raises ResourceNotFound, AmbiguousResource, DependencyUnavailable.
        """
        ...


class Recorder(Protocol):
    def record(self, entry: AuditEntry) -> None:
        """Takes the entry of a call that wrote none in its own transaction; never blocks."""
        ...

    def ensure_room(self) -> None:
        """Raises DependencyUnavailable where further entries could not be kept: what cannot be audited is not done."""
        ...


class ReadinessCheck(Protocol):
    @property
    def name(self) -> str: ...

    async def failure(self) -> str | None:
        """Why the service cannot serve, or None. The reason goes to the log, never to the (unauthenticated) caller."""
        ...


@dataclass(frozen=True, slots=True)
class HttpPorts:
    authenticator: Authenticator
    audit: Recorder
    limiter: RateLimiter
    scopes: ScopeResolver
    idempotency: IdempotencyStore | None = None
    clock: Clock = field(default_factory=SystemClock)
    readiness: Sequence[ReadinessCheck] = ()
    collectors: Sequence[Collector] = ()
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None
