"""The ASGI application: takes a request in, answers it whatever happens, and records that it did."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import lru_cache

import msgspec

from opsapi.accounts.addresses import AddressSet, client_address, parse_address
from opsapi.http.bodies import ClientDisconnected
from opsapi.http.docs import OPENAPI_PATH
from opsapi.http.errors import HeadersTooLarge, PayloadTooLarge, RequestTimeout
from opsapi.http.exchange import Answer, Exchange, Header, Receive, Scope, Send, open_exchange
from opsapi.http.failures import failure
from opsapi.http.guard import Guard
from opsapi.http.logs import RequestLog
from opsapi.http.metrics import exposition, registry_of
from opsapi.http.openapi import openapi_document
from opsapi.http.ports import HttpPorts
from opsapi.http.public import PublicPages
from opsapi.http.records import Records
from opsapi.http.replays import Replays
from opsapi.http.routing import Route, Router
from opsapi.http.serving import Serving
from opsapi.http.settings import HttpSettings
from opsapi.http.tracing import Tracing
from opsapi.kit.endpoint import Bound
from opsapi.kit.errors import DependencyUnavailable, InternalError, OpsError

_log = logging.getLogger("opsapi.http")
_CLOSED = 499
"""In logs and metrics: the client went away before it was answered."""
_SECURITY: tuple[Header, ...] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_HSTS: Header = (b"strict-transport-security", b"max-age=31536000")
_UNSAFE = re.compile(rb"[\x00-\x1f\x7f]")
_DISCARDABLE = 64 * 1024
"""An unread body up to this size is dropped, so that the connection can be kept."""


def create_app(bound: Sequence[Bound], ports: HttpPorts, settings: HttpSettings) -> "App":
    """Raises TypeError where a declaration contradicts itself."""
    return App(bound, ports, settings)


class App:
    def __init__(self, bound: Sequence[Bound], ports: HttpPorts, settings: HttpSettings) -> None:
        self._ports = ports
        self._clock = ports.clock
        self._settings = settings
        self.records = Records(ports.audit, RequestLog(settings.request_log))
        declarations = [each.declaration for each in bound]
        self.openapi = msgspec.json.encode(openapi_document(declarations, settings), order="deterministic")
        self._registry = registry_of(self.records.metrics, ports.collectors)
        self._public = PublicPages(settings, ports.readiness, self._metrics, self.openapi)
        self._serving = Serving(
            Router(Route.compile(each, settings) for each in bound),
            Guard(ports.authenticator, ports.limiter, ports.scopes, settings),
            None if ports.idempotency is None else Replays(ports.idempotency, settings.idempotency_wait_seconds),
            ports.audit,
            {OPENAPI_PATH.encode(): Answer(200, self.openapi)} if settings.docs == "accounts" else {},
            settings,
        )
        self._tracing = None if settings.tracing is None else Tracing(settings.tracing)
        self._proxies = AddressSet(settings.trusted_proxies)
        secure = settings.tls is not None or settings.tls_terminated_by_proxy
        self._security = [*_SECURITY, _HSTS] if secure else [*_SECURITY]
        self._base = _lines(self._security)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope["type"], receive, send)
            return
        clock = self._clock
        exchange = open_exchange(scope, clock.now(), clock.monotonic())
        forwarded = exchange.headers.get(b"x-forwarded-for")
        exchange.address = (
            _peer_address(exchange.peer)
            if forwarded is None
            else client_address(exchange.peer, [forwarded.decode("latin-1")], self._proxies)
        )
        scope["opsapi.task"] = asyncio.current_task()
        metrics = self.records.metrics
        metrics.in_flight += 1
        span = None if self._tracing is None else self._tracing.start(exchange)
        answer = await self._answer(exchange, scope, receive)
        try:
            if not exchange.disconnected:
                await self._send(scope, send, exchange, answer)
        except asyncio.CancelledError:
            if not scope.get("opsapi.disconnected"):
                raise
        finally:
            metrics.in_flight -= 1
            scope["opsapi.task"] = None
            self.records.add(exchange, answer, clock.monotonic() - exchange.started)
            if span is not None and self._tracing is not None:
                self._tracing.end(span, exchange, answer)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> Answer:
        """Never fails: whatever happens has an answer."""
        try:
            page = self._public.find(exchange.raw_path)
            if page is not None:
                exchange.public_name = page[0]
                return await page[1](exchange)
            return await self._serving.answer(exchange, scope, receive)
        except OpsError as error:
            return failure(error, exchange)
        except ClientDisconnected:
            exchange.disconnected = True
            return Answer(_CLOSED, b"")
        except asyncio.CancelledError:
            if scope.get("opsapi.disconnected"):
                exchange.disconnected = True
                return Answer(_CLOSED, b"")
            return failure(DependencyUnavailable("api_server", "the service is shutting down"), exchange)
        except Exception:
            _log.exception(
                "an endpoint failed", extra={"request_id": exchange.request_id, "endpoint": exchange.endpoint}
            )
            return failure(InternalError(), exchange)

    async def _send(self, scope: Scope, send: Send, exchange: Exchange, answer: Answer) -> None:
        """Through the server's short cut where there is one, else by ASGI's messages; the bytes are the same."""
        if answer.stream is not None:
            await self._stream(send, exchange, answer, answer.stream)
            return
        body = answer.body
        head = self._head(exchange, answer)
        close = not exchange.body_read and exchange.has_body and _leaves_too_much(exchange, answer)
        respond = scope.get("opsapi.respond")
        if respond is not None and respond(answer.status, head, b"" if exchange.method == "HEAD" else body, close):
            return
        headers = _split(head)
        if close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Send, exchange: Exchange, answer: Answer, chunks: AsyncIterator[bytes]) -> None:
        """Each chunk as it comes; a client that goes away cancels this task, which ends the source too."""
        headers = _split(self._head(exchange, answer))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if exchange.method != "HEAD":
            async with aclosing(chunks) as source:  # type: ignore[type-var]  # an async generator
                async for chunk in source:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _head(self, exchange: Exchange, answer: Answer) -> bytes:
        """The header lines, each with its end."""
        window = exchange.window
        lines = f"x-request-id: {exchange.request_id}\r\n"
        if window is not None:
            lines += (
                f"x-ratelimit-limit: {window.limit}\r\nx-ratelimit-remaining: {window.remaining}\r\n"
                f"x-ratelimit-reset: {window.reset}\r\n"
            )
        if answer.status not in (204, 304):
            lines += f"content-type: {answer.content_type}\r\n"
            if answer.stream is None:
                lines += f"content-length: {len(answer.body)}\r\n"
        if not answer.headers:
            return self._base + lines.encode()
        own = {name for name, _ in answer.headers}
        listed = [header for header in self._security if header[0] not in own] + answer.headers
        return _lines(listed) + lines.encode()

    async def _other(self, kind: str, receive: Receive, send: Send) -> None:
        if kind == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Runs the service's own lifespan around the server's."""
        await receive()
        started = False
        try:
            if self._ports.lifespan is None:
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self.records.flush()
            else:
                async with self._ports.lifespan():
                    started = True
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
                    self.records.flush()
        except Exception as error:
            _log.exception("the service could not %s", "stop cleanly" if started else "start")
            kind = "shutdown" if started else "startup"
            await send({"type": f"lifespan.{kind}.failed", "message": type(error).__name__})
            return
        finally:
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.shutdown)
        await send({"type": "lifespan.shutdown.complete"})

    def _metrics(self) -> bytes:
        self.records.flush()
        return exposition(self._registry)

    def drain(self) -> None:
        self._public.drain()


def _lines(headers: list[Header]) -> bytes:
    """Raises ValueError where a value could begin another header."""
    for name, value in headers:
        if _UNSAFE.search(name) or _UNSAFE.search(value):
            raise ValueError(f"header {name!r} holds control characters")
    return b"".join([b"%s: %s\r\n" % header for header in headers])


def _split(head: bytes) -> list[Header]:
    return [(name, value) for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[:-1])]


def _leaves_too_much(exchange: Exchange, answer: Answer) -> bool:
    """Whether what the client may still send is better cut off than dropped."""
    if answer.status in (RequestTimeout.status, PayloadTooLarge.status, HeadersTooLarge.status):
        return True
    declared = exchange.declared_length
    return declared is None or declared > _DISCARDABLE


@lru_cache(maxsize=4096)
def _peer_address(peer: str) -> str:
    address = parse_address(peer)
    return peer if address is None else str(address)
