"""Runs the application on uvicorn: uvloop, httptools, TLS, limits, and a shutdown that lets requests finish."""

import asyncio
import gc
import ipaddress
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from uvicorn import Config, Server
from uvicorn.server import HANDLED_SIGNALS

from opsapi.http.allocator import keep_freed_memory
from opsapi.http.app import App
from opsapi.http.protocol import GuardedProtocol, protocol_for
from opsapi.http.settings import HttpSettings
from opsapi.http.tls import server_context

_log = logging.getLogger("opsapi.http")
_TICKS_A_SECOND = 10


class UnsafeListener(Exception):
    """Plain HTTP was asked for where tokens would cross a network in the clear."""


class CannotListen(Exception):
    """The address or port cannot be bound."""


def check_listener(settings: HttpSettings) -> None:
    """Raises UnsafeListener, saying what to do."""
    if settings.tls is not None or settings.tls_terminated_by_proxy or _is_loopback(settings.host):
        return
    raise UnsafeListener(
        f"http.host is {settings.host}, which others can reach, and there is no TLS: tokens would cross the network in "
        "the clear. Set http.tls.certificate and http.tls.private_key; or, where a proxy in front speaks TLS, "
        "http.tls_terminated_by_proxy: true (and http.trusted_proxies); or listen on 127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(settings: HttpSettings) -> socket.socket:
    """The listening socket, so that a taken port is an error before anything else starts. Raises CannotListen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(f"http.host {settings.host} is no address of this machine ({error.strerror})") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise CannotListen(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another http.port, or 0 for "
            "a free one"
        ) from None
    listener.setblocking(False)
    return listener


class HttpServer:
    """One server. `serve` runs until `stop` is called, or SIGINT or SIGTERM arrive."""

    def __init__(self, app: App, settings: HttpSettings, listener: socket.socket | None = None) -> None:
        """Raises UnsafeListener, CannotListen, TlsUnusable."""
        check_listener(settings)
        context = None if settings.tls is None else server_context(settings.tls)
        self._app = app
        self._settings = settings
        self._listener = listener if listener is not None else bind(settings)
        config = Config(
            app,
            loop="uvloop",
            http=protocol_for(settings),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            backlog=1024,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.drain_seconds,
            ssl_context_factory=None if context is None else lambda *_: context,
        )
        self._server = _SweepingServer(config, app)

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        scheme = "http" if self._settings.tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def started(self) -> bool:
        return self._server.started

    async def serve(self, when_started: Callable[[], Awaitable[None]] | None = None) -> None:
        """`when_started` is awaited once requests are answered."""
        self._server.when_started = when_started
        keep_freed_memory()
        await self._server.serve(sockets=[self._listener])

    def run(self, when_started: Callable[[], Awaitable[None]] | None = None) -> None:
        """`serve` in an event loop of its own, uvloop's."""
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self.serve(when_started))

    def stop(self) -> None:
        """Stops accepting, lets requests finish within the drain deadline, then ends `serve`."""
        self._server.should_exit = True


class _SweepingServer(Server):
    """Also ends connections whose request heads do not arrive, and tells the application when to drain."""

    def __init__(self, config: Config, app: App) -> None:
        super().__init__(config)
        self._app = app
        self.when_started: Callable[[], Awaitable[None]] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again at the end, which would kill the process before what it served with
        (the worker, the audit's queue) is brought to its end. A second signal, by then, does kill it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in HANDLED_SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in HANDLED_SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # What exists now lives as long as the service: the collector need not look at it ever again.
            gc.collect()
            gc.freeze()
            if self.when_started is not None:
                await self.when_started()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SECOND == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, GuardedProtocol):
                    connection.expire(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.drain()
        await super().shutdown(sockets)
