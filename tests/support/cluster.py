"""An API server of the playground in this process, for tests that want HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from opsapi.kit.clock import SystemClock
from opsapi.playground.api.app import ApiOptions, Control, PlaygroundApi, create_app
from opsapi.playground.api.faults import ApiFaults
from opsapi.playground.api.providers import LogProvider, MetricsProvider
from opsapi.playground.api.server import RunningServer, serve
from opsapi.playground.machinery.bootstrap import bootstrap
from opsapi.playground.machinery.housekeeping import Housekeeping
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.registry import User

ADMIN_TOKEN = "admin-token"
ADMIN = User("admin", ("system:masters",))


@dataclass(slots=True)
class ApiHandle:
    """`token` is a member of system:masters; `ca` is PEM, empty without TLS."""

    url: str
    token: str
    ca: str
    registry: ObjectRegistry
    app: PlaygroundApi
    faults: ApiFaults
    housekeeping: Housekeeping
    server: RunningServer = field(repr=False)

    def kubeconfig(self, token: str = "") -> dict[str, object]:
        """A kubeconfig document for `token` (the admin's by default)."""
        import base64

        cluster: dict[str, object] = {"server": self.url}
        if self.ca:
            cluster["certificate-authority-data"] = base64.b64encode(self.ca.encode()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "playground",
            "clusters": [{"name": "playground", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token or self.token}}],
            "contexts": [{"name": "playground", "context": {"cluster": "playground", "user": "user"}}],
        }


@asynccontextmanager
async def running_api(
    registry: ObjectRegistry | None = None,
    *,
    tokens: dict[str, User] | None = None,
    tls: bool = False,
    logs: LogProvider | None = None,
    metrics: MetricsProvider | None = None,
    faults: ApiFaults | None = None,
    control: Control | None = None,
    bootstrapped: bool = True,
) -> AsyncIterator[ApiHandle]:
    """Serves `registry` (a fresh one on the system clock by default) on a free loopback port.

    Housekeeping (garbage collection, namespaces) runs on the event loop as soon as something is to do.
    """
    registry = registry if registry is not None else ObjectRegistry(SystemClock())
    loop = asyncio.get_running_loop()
    housekeeping = Housekeeping(registry)

    def wake() -> None:
        loop.call_soon(housekeeping.drain)

    housekeeping.wake = wake
    if bootstrapped:
        bootstrap(registry)
        housekeeping.drain()
    used = faults if faults is not None else ApiFaults()
    options = ApiOptions({ADMIN_TOKEN: ADMIN, **(tokens or {})}, logs, metrics, used, control)
    app = create_app(registry, options)
    try:
        async with serve(app, tls=tls) as server:
            yield ApiHandle(server.url, ADMIN_TOKEN, server.ca, registry, app, used, housekeeping, server)
    finally:
        housekeeping.wake = None
        housekeeping.close()
