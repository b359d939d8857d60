"""The service as a process."""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from opsapi.http.logs import configure_logging
from opsapi.http.server import HttpServer
from opsapi.settings.model import Settings
from opsapi.wiring import running


def serve_until_stopped(settings: Settings, announce: Callable[[str], Awaitable[None]]) -> None:
    """Runs until SIGINT or SIGTERM; `announce` is told the URL once requests are answered.

    Raises InvalidConfiguration, UnsafeListener, CannotListen, TlsUnusable, DependencyUnavailable, SchemaIsNewer.
    """
    configure_logging()

    async def serve() -> None:
        async with running(settings) as service:
            server = HttpServer(service.app, settings.http)

            async def started() -> None:
                await announce(server.url)

            await server.serve(started)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
