"""uvicorn's HTTP/1.1 protocol with what it leaves out: limits on the request's head in bytes and seconds, errors in our
envelope, the end of a refused upload, and the news that a client is gone."""

import asyncio
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from opsapi.http.envelope import encode_error
from opsapi.http.errors import HeadersTooLarge, RequestTimeout
from opsapi.http.exchange import new_request_id
from opsapi.http.settings import HttpSettings
from opsapi.kit.errors import DependencyUnavailable, OpsError, ValidationFailed

_LINGER_SECONDS = 2.0
_LINGER_BYTES = 256 * 1024
_READS = ("GET", "HEAD")


class GuardedProtocol(HttpToolsProtocol):
    """Made for one server by `protocol_for`. The server calls `expire` about once a second."""

    settings: ClassVar[HttpSettings]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._head_since: float | None = None
        self._lingering: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if len(self.connections) > self.settings.max_connections:
            busy = DependencyUnavailable("api_server", "too many connections", retry_after=1)
            self._refuse(busy, (b"retry-after: 1\r\n",))

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._lingering += len(data)
            if self._lingering > _LINGER_BYTES:
                self.flow.pause_reading()
            return
        super().data_received(data)
        if self.scope and "path" in self.scope:
            self._head_bytes = 0
            self._head_since = None
            return
        self._head_bytes += len(data)
        if self._head_since is None:
            self._head_since = self.loop.time()
        if self._head_bytes > self.settings.header_max_bytes and not self.transport.is_closing():
            self._refuse(HeadersTooLarge(self.settings.header_max_bytes))

    def expire(self, now: float) -> None:
        """Ends a connection whose request head has not arrived in time."""
        since = self._head_since
        if since is None or now - since < self.settings.header_timeout_seconds or self.transport.is_closing():
            return
        if self._head_bytes:
            self._refuse(RequestTimeout(self.settings.header_timeout_seconds))
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and cycle.scope["method"] in _READS:
            task: asyncio.Task[None] | None = cycle.scope.get("opsapi.task")  # type: ignore[assignment]
            if task is not None:
                cycle.scope["opsapi.disconnected"] = True  # type: ignore[typeddict-unknown-key]
                task.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        cycle = self.cycle
        if cycle.scope["method"] not in _READS:
            cycle.transport = _Lingering(self, cycle)  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        if self._lingering is None:
            super().on_response_complete()

    def linger(self) -> None:
        """A client that is still sending when it is answered must get to read the answer: closing at once would reset
        the connection under it. So our half is closed, and a little more is read and dropped."""
        if self._lingering is not None or self.transport.is_closing():
            return
        self._lingering = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        self._refuse(ValidationFailed({"request": "not a valid HTTP/1.1 request"}))

    def _refuse(self, error: OpsError, headers: tuple[bytes, ...] = ()) -> None:
        """Answers below ASGI, where there is no request to hand on, and closes."""
        self._head_since = None
        request_id = new_request_id()
        body = encode_error(error, request_id)
        self.transport.write(
            b"".join(
                (
                    STATUS_LINE[error.status],
                    *(b"%s: %s\r\n" % header for header in self.server_state.default_headers),
                    b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
                    b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n",
                    b"x-request-id: %s\r\nconnection: close\r\n" % request_id.encode(),
                    *headers,
                    b"\r\n",
                    body,
                )
            )
        )
        self.linger()


class _Lingering:
    """A request's view of its transport: an early close leaves the client time to read its answer."""

    __slots__ = ("_cycle", "_protocol", "is_closing", "write")

    def __init__(self, protocol: GuardedProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        if self._cycle.more_body:
            self._protocol.linger()
        else:
            self._protocol.transport.close()


def protocol_for(settings: HttpSettings) -> type[GuardedProtocol]:
    return type("ConfiguredProtocol", (GuardedProtocol,), {"settings": settings})
