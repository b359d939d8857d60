"""uvicorn's HTTP/1.1 protocol with what it leaves out: limits on the request's head in bytes and seconds, errors in our
envelope, the end of a refused upload, and the news that a client is gone."""

import asyncio
from functools import partial
from typing import Any, ClassVar

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn._types import HTTPScope
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
        # uvicorn declares its per-request state without None, yet begins with it.
        self.scope: HTTPScope | None = None  # type: ignore[assignment]
        self._head_bytes = 0
        self._head_since: float | None = None
        self._idle_since: float | None = None
        self._stalled_since: float | None = None
        self._lingering: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if len(self.connections) > self.settings.max_connections:
            busy = DependencyUnavailable("api_server", "too many connections", retry_after=1)
            self._refuse(busy, (b"retry-after: 1\r\n",))

    def data_received(self, data: bytes) -> None:
        idle_since, self._idle_since = self._idle_since, None
        if self._lingering is not None:
            self._lingering += len(data)
            if self._lingering > _LINGER_BYTES:
                self.flow.pause_reading()
            return
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self._refuse(ValidationFailed({"request": "not a valid HTTP/1.1 request"}))
            return
        except HttpParserUpgrade:
            self._after_upgrade()
        if self.scope is not None and "path" in self.scope:
            if self._head_since is not None:
                self._head_bytes, self._head_since = 0, None
            if self.cycle is not None and self.cycle.response_complete:
                # Only the rest of a body that was answered without it: however slowly it comes, it buys no time.
                self._idle_since = idle_since or self.loop.time()
            return
        self._head_bytes += len(data)
        if self._head_since is None:
            self._head_since = self.loop.time()
        if self._head_bytes > self.settings.header_max_bytes and not self.transport.is_closing():
            self._refuse(HeadersTooLarge(self.settings.header_max_bytes))

    def expire(self, now: float) -> None:
        """Ends a connection that is idle too long, reads no answers, or whose request head does not arrive in time."""
        if self._idle_since is not None and now - self._idle_since > self.config.timeout_keep_alive:
            self.transport.close()
            return
        if self._stalled_since is not None and now - self._stalled_since > self.settings.body_timeout_seconds:
            self.transport.abort()
            return
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

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_since = None

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        cycle = self.cycle
        cycle.scope["opsapi.respond"] = partial(respond, cycle)  # type: ignore[typeddict-unknown-key]
        if cycle.scope["method"] not in _READS:
            cycle.transport = _Lingering(self, cycle)  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        """As uvicorn's, but idleness is a time that `expire` looks at instead of a timer for each answer."""
        self.server_state.total_requests += 1
        if self._lingering is not None or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

    def _after_upgrade(self) -> None:
        """No upgrade is offered (RFC 9110, 7.8: then it is ignored), and what follows the head is not read as HTTP."""
        self.cycle.keep_alive = False

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


def respond(cycle: RequestResponseCycle, status: int, head: bytes, body: bytes, close: bool) -> bool:
    """What `cycle.send` does with a start and a body message, in one write and without looking at each header again.

    `head` is whole header lines of ours. False where the client reads too slowly: then `send` waits for it.
    """
    if cycle.flow.write_paused or cycle.response_started:
        return False
    if cycle.disconnected:
        return True
    if close:
        cycle.keep_alive = False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    lines = _default_lines(cycle.default_headers)
    cycle.transport.write(b"".join((STATUS_LINE[status], lines, head, end, body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class _DefaultLines:
    """The server's own headers (the date) as bytes; the list is a new one each second."""

    def __init__(self) -> None:
        self._of: list[tuple[bytes, bytes]] = []
        self._lines = b""

    def __call__(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        if headers is not self._of:
            self._lines = b"".join([b"%s: %s\r\n" % header for header in headers])
            self._of = headers
        return self._lines


_default_lines = _DefaultLines()


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
