"""The ASGI application: takes a request in, answers it whatever happens, and records that it did."""

import asyncio
import logging
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from opsapi.accounts.addresses import AddressSet, client_address, parse_address
from opsapi.audit.model import AuditEntry, request_entry
from opsapi.http.bodies import ClientDisconnected
from opsapi.http.envelope import encode_error
from opsapi.http.errors import HeadersTooLarge, MethodNotAllowed, PayloadTooLarge, RequestTimeout
from opsapi.http.exchange import Answer, Exchange, Header, Receive, Scope, Send, open_exchange
from opsapi.http.guard import Guard
from opsapi.http.logs import RequestLog
from opsapi.http.metrics import RequestMetrics, registry_of
from opsapi.http.openapi import openapi_document
from opsapi.http.ports import HttpPorts
from opsapi.http.public import PublicPages
from opsapi.http.replays import Replays
from opsapi.http.routing import Route, Router
from opsapi.http.serving import Serving
from opsapi.http.settings import HttpSettings
from opsapi.http.tracing import Tracing
from opsapi.kit.endpoint import Bound, Idempotency
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
        self.metrics = RequestMetrics()
        declarations = [each.declaration for each in bound]
        self.openapi = msgspec.json.encode(openapi_document(declarations, settings), order="deterministic")
        self._public = PublicPages(settings, ports.readiness, registry_of(self.metrics, ports.collectors), self.openapi)
        self._serving = Serving(
            Router(Route.compile(each, settings) for each in bound),
            Guard(ports.authenticator, ports.limiter, ports.scopes, settings),
            None if ports.idempotency is None else Replays(ports.idempotency, settings.idempotency_wait_seconds),
            settings,
        )
        self._log = RequestLog(settings.request_log)
        self._tracing = None if settings.tracing is None else Tracing(settings.tracing)
        self._proxies = AddressSet(settings.trusted_proxies)
        secure = settings.tls is not None or settings.tls_terminated_by_proxy
        self._base = [*_SECURITY, (b"strict-transport-security", b"max-age=31536000")] if secure else [*_SECURITY]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = self._clock
        exchange = open_exchange(scope, clock.now(), clock.monotonic())
        forwarded = exchange.headers.get(b"x-forwarded-for")
        exchange.address = (
            _peer_address(exchange.peer)
            if forwarded is None
            else client_address(exchange.peer, [forwarded.decode("latin-1")], self._proxies)
        )
        scope["opsapi.task"] = asyncio.current_task()
        metrics = self.metrics
        metrics.in_flight += 1
        span = None if self._tracing is None else self._tracing.start(exchange)
        try:
            answer = await self._answer(exchange, scope, receive)
            if not exchange.disconnected:
                await self._send(send, exchange, answer)
        finally:
            metrics.in_flight -= 1
            scope["opsapi.task"] = None
        seconds = clock.monotonic() - exchange.started
        self._record(exchange, answer, seconds)
        if span is not None and self._tracing is not None:
            self._tracing.end(span, exchange, answer)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive) -> Answer:
        try:
            page = self._public.find(exchange.raw_path)
            if page is not None:
                exchange.public_name = page[0]
                return await page[1](exchange)
            return await self._serving.answer(exchange, scope, receive)
        except OpsError as error:
            return _failure(error, exchange)
        except ClientDisconnected:
            exchange.disconnected = True
            return Answer(_CLOSED, b"")
        except asyncio.CancelledError:
            if scope.get("opsapi.disconnected"):
                exchange.disconnected = True
                return Answer(_CLOSED, b"")
            return _failure(DependencyUnavailable("api_server", "the service is shutting down"), exchange)
        except Exception:
            _log.exception(
                "an endpoint failed", extra={"request_id": exchange.request_id, "endpoint": exchange.endpoint}
            )
            return _failure(InternalError(), exchange)

    async def _send(self, send: Send, exchange: Exchange, answer: Answer) -> None:
        headers = answer.headers
        own = {name for name, _ in headers} if headers else ()
        listed = [header for header in self._base if header[0] not in own] if own else self._base.copy()
        listed += headers
        listed.append((b"x-request-id", exchange.request_id.encode()))
        if answer.status not in (204, 304):
            listed.append((b"content-type", answer.content_type))
            listed.append((b"content-length", b"%d" % len(answer.body)))
        window = exchange.window
        if window is not None:
            listed.append((b"x-ratelimit-limit", b"%d" % window.limit))
            listed.append((b"x-ratelimit-remaining", b"%d" % window.remaining))
            listed.append((b"x-ratelimit-reset", b"%d" % window.reset))
        if not exchange.body_read and exchange.has_body and _leaves_too_much(exchange, answer):
            listed.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": listed})
        await send({"type": "http.response.body", "body": answer.body})

    def _record(self, exchange: Exchange, answer: Answer, seconds: float) -> None:
        endpoint = exchange.endpoint
        self.metrics.observe(endpoint, exchange.method, answer.status, answer.code, seconds)
        if exchange.public_name is None:
            if _is_audited(exchange, answer):
                self._ports.audit.record(_entry(exchange, answer, seconds))
            self._log.write(exchange, answer, seconds)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Runs the service's own lifespan around the server's."""
        await receive()
        started = False
        try:
            if self._ports.lifespan is None:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            else:
                async with self._ports.lifespan():
                    started = True
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
        except Exception as error:
            _log.exception("the service could not %s", "stop cleanly" if started else "start")
            kind = "shutdown" if started else "startup"
            await send({"type": f"lifespan.{kind}.failed", "message": type(error).__name__})
            return
        finally:
            if self._tracing is not None:
                self._tracing.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    def drain(self) -> None:
        self._public.drain()


def _failure(error: OpsError, exchange: Exchange) -> Answer:
    headers: list[Header] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="opsapi"'))
    return Answer(error.status, encode_error(error, exchange.request_id), headers, error.code)


def _is_audited(exchange: Exchange, answer: Answer) -> bool:
    if exchange.audit.committed:
        return False
    route = exchange.route
    quiet = (
        route is not None and not route.declaration.audit_reads and route.declaration.idempotency is Idempotency.SAFE
    )
    return not quiet or answer.status >= 400


def _entry(exchange: Exchange, answer: Answer, seconds: float) -> AuditEntry:
    return request_entry(
        at=exchange.received_at,
        method=exchange.method,
        path=exchange.path,
        request_id=exchange.request_id,
        status=answer.status,
        caller=exchange.caller,
        claimed_account_id=exchange.claimed_account,
        address=exchange.address,
        endpoint=exchange.endpoint if exchange.route is not None else None,
        trail=exchange.audit,
        error_code=answer.code,
        seconds=seconds,
    )


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
