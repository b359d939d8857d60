"""Runs the API under uvicorn in this process: plain HTTP or TLS by a certificate authority made for the occasion."""

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from opsapi.playground.api.app import PlaygroundApi
from opsapi.playground.api.certificates import Authority, make_authority, write_private

_SHUTDOWN_SECONDS = 2


class _Protocol(HttpToolsProtocol):
    """Lets the application break its connection, as a server that dies does."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["opsapi.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def _unsupported_upgrade_warning(self) -> None:
        """kubectl exec tries an upgrade; the application answers it."""


@dataclass(slots=True)
class RunningServer:
    """`url` is where it answers; `ca` the PEM of its authority, empty for plain HTTP."""

    url: str
    ca: str
    app: PlaygroundApi
    port: int
    _listener: "_Listener"

    async def pause(self) -> None:
        """The API server goes away: its port refuses connections, open ones break. `resume` brings it back."""
        await self._listener.stop()

    async def resume(self) -> None:
        await self._listener.start()


class _Listener:
    """A uvicorn server that can stop and start again on the same port."""

    def __init__(self, app: PlaygroundApi, host: str, port: int, tls: dict[str, Any]) -> None:
        self._app = app
        self._host = host
        self.port = port
        self._tls = tls
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._server is not None:
            return
        self._app.closing.clear()
        listening = _bound(self._host, self.port)
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            timeout_keep_alive=60,
            **self._tls,
        )
        self._server = _QuietServer(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the API server ended before it started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        if self._server is None or self._task is None:
            return
        self._app.close()
        self._server.should_exit = True
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._task
        self._server = self._task = None


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leaves signals to the process that embeds the server."""
        yield


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio switches Nagle's algorithm off on accepted connections.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen(2048)
    made.setblocking(False)
    return made


@contextlib.asynccontextmanager
async def serve(
    app: PlaygroundApi, *, host: str = "127.0.0.1", port: int = 0, tls: bool = False
) -> AsyncIterator[RunningServer]:
    """Serves while the block runs. Port 0 takes a free one. Raises OSError where the port is taken."""
    folder = Path(tempfile.mkdtemp(prefix="playground-tls-")) if tls else None
    try:
        authority = make_authority(host) if tls else None
        listener = _Listener(app, host, port, _tls_options(authority, folder))
        await listener.start()
        shown = f"[{host}]" if ":" in host else host
        url = f"{'https' if tls else 'http'}://{shown}:{listener.port}"
        ca = authority.ca_pem if authority is not None else ""
        try:
            yield RunningServer(url, ca, app, listener.port, listener)
        finally:
            await listener.stop()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _tls_options(authority: Authority | None, folder: Path | None) -> dict[str, Any]:
    if authority is None or folder is None:
        return {}
    certificate, key = folder / "tls.crt", folder / "tls.key"
    write_private(certificate, authority.certificate_pem)
    write_private(key, authority.key_pem)
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
