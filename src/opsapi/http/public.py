"""What is served without an account: liveness, readiness, metrics, the OpenAPI document and its page."""

import asyncio
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from opsapi.accounts.errors import InvalidServiceAccount, IpNotAllowed
from opsapi.http.docs import DOCS_PATH, OPENAPI_PATH, DocsAssetsMissing, docs_pages
from opsapi.http.errors import MethodNotAllowed
from opsapi.http.exchange import Answer, Exchange
from opsapi.http.metrics import CONTENT_TYPE
from opsapi.http.ports import ReadinessCheck
from opsapi.http.settings import HttpSettings, MetricsSettings

_log = logging.getLogger("opsapi.http")
_FORWARDING = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via")
_CHECK_SECONDS = 2.0
_FRESH_SECONDS = 1.0

Page = Callable[[Exchange], Awaitable[Answer]]


class PublicPages:
    """By exact raw path; each has a name for the metrics and the log."""

    def __init__(
        self,
        settings: HttpSettings,
        checks: Sequence[ReadinessCheck],
        metrics: Callable[[], bytes],
        openapi: bytes,
    ) -> None:
        self._metrics = MetricsAccess(settings.metrics)
        self._exposition = metrics
        self._readiness = Readiness(checks)
        self._pages: dict[bytes, tuple[str, Page]] = {
            b"/livez": ("livez", self._live),
            b"/readyz": ("readyz", self._readiness.answer),
        }
        if settings.metrics.access != "off":
            self._pages[b"/metrics"] = ("metrics", self._scrape)
        if settings.docs == "public":
            self._add_docs(openapi)

    def find(self, raw_path: bytes) -> tuple[str, Page] | None:
        return self._pages.get(raw_path)

    def drain(self) -> None:
        """From now on not ready, so that load balancers look elsewhere."""
        self._readiness.draining = True

    def _add_docs(self, openapi: bytes) -> None:
        files = {OPENAPI_PATH.encode(): Answer(200, openapi)}
        try:
            files |= docs_pages()
        except DocsAssetsMissing as missing:
            _log.warning("no docs page: %s", missing)
        for path, file in files.items():
            self._pages[path] = ("docs" if path.startswith(DOCS_PATH.encode()) else "openapi", _static(file))

    async def _live(self, exchange: Exchange) -> Answer:
        _read_only(exchange)
        return Answer(200, b'{"status":"alive"}')

    async def _scrape(self, exchange: Exchange) -> Answer:
        _read_only(exchange)
        self._metrics.check(exchange)
        return Answer(200, self._exposition(), content_type=CONTENT_TYPE)


class MetricsAccess:
    def __init__(self, settings: MetricsSettings) -> None:
        self._token = None if settings.token is None else settings.token.reveal().encode()

    def check(self, exchange: Exchange) -> None:
        """Raises InvalidServiceAccount (a wrong token), IpNotAllowed (not a direct connection from this machine)."""
        if self._token is not None:
            given = exchange.headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise InvalidServiceAccount("metrics", "unknown" if given else "missing")
        elif not _is_loopback(exchange.peer) or any(name in exchange.headers for name in _FORWARDING):
            raise IpNotAllowed("metrics", exchange.address)


class Readiness:
    """Runs the checks together, each within a deadline, at most once a second however often it is asked."""

    def __init__(self, checks: Sequence[ReadinessCheck]) -> None:
        self._checks = checks
        self._last: tuple[float, dict[str, str]] | None = None
        self._lock = asyncio.Lock()
        self.draining = False

    async def answer(self, exchange: Exchange) -> Answer:
        _read_only(exchange)
        results = await self._results()
        ready = not self.draining and all(result == "ok" for result in results.values())
        status = "draining" if self.draining else "ready" if ready else "not_ready"
        return Answer(200 if ready else 503, msgspec.json.encode({"status": status, "checks": results}))

    async def _results(self) -> dict[str, str]:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._last is None or now - self._last[0] > _FRESH_SECONDS:
                results = await asyncio.gather(*map(self._run, self._checks))
                self._last = (now, dict(zip((check.name for check in self._checks), results, strict=True)))
            return self._last[1]

    async def _run(self, check: ReadinessCheck) -> str:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                reason = await check.failure()
        except TimeoutError:
            reason = f"no answer within {_CHECK_SECONDS:g} s"
        except Exception:
            _log.exception("readiness check failed", extra={"check": check.name})
            return "failed"
        if reason is not None:
            _log.warning("not ready: %s", reason, extra={"check": check.name})
        return "ok" if reason is None else "failed"


def _static(file: Answer) -> Page:
    tag = dict(file.headers).get(b"etag")

    async def page(exchange: Exchange) -> Answer:
        _read_only(exchange)
        if tag is not None and exchange.headers.get(b"if-none-match") == tag:
            return Answer(304, b"", list(file.headers))
        return Answer(200, file.body, list(file.headers), content_type=file.content_type)

    return page


def _read_only(exchange: Exchange) -> None:
    if exchange.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(exchange.method, ["GET", "HEAD"])


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
