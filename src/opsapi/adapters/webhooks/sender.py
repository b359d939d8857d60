"""POSTs by aiohttp: only to addresses that were checked, with TLS verified, once, in bounded time and memory."""

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from opsapi import __version__
from opsapi.kit.addresses import AddressGuard, AddressRefused
from opsapi.webhooks.ports import Sent

_RESOLVING_THREADS = 16
_READ_BYTES = 2048
_SHOWN = 200
_LONGEST_HEADER = 8190
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_REFUSED = "its host has not a public address; the operator can allow it in the configuration: webhooks.allow"
_UNRESOLVED = "its host name cannot be resolved"


class HttpSender:
    """Implements Sender. Each request opens a connection of its own, so each is resolved and checked anew; what was
    checked is what is connected to."""

    def __init__(self, session: aiohttp.ClientSession, guard: AddressGuard, connect_seconds: float) -> None:
        self._session = session
        self._guard = guard
        self._connect_seconds = connect_seconds

    async def refusal(self, url: str) -> str | None:
        parsed = _parsed(url)
        if isinstance(parsed, str):
            return parsed
        host, port = str(parsed.host), parsed.port
        if parsed.scheme == "http" and not self._guard.allows(host):
            return "must be https; plain http is only for hosts that the configuration's webhooks.allow names"
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._guard.addresses(host, port or 443)
        except AddressRefused:
            return _REFUSED
        except (OSError, UnicodeError):  # of which a timeout is one
            return _UNRESOLVED
        return None

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        began = time.monotonic()

        def ended(error: str) -> Sent:
            return Sent(duration_ms=(time.monotonic() - began) * 1000, error=error)

        parsed = _parsed(url)
        if isinstance(parsed, str):
            return ended(f"the URL {parsed}")
        host = str(parsed.host)
        if parsed.scheme == "http" and not self._guard.allows(host):
            return ended("plain http is not allowed to this host")
        if _is_address(host) and not self._guard.permits(host, host):
            # Hosts written as addresses are never resolved, so the resolver's guard does not see them.
            return ended("the address is off limits")
        try:
            return await self._post(parsed, headers, body, began)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return ended(_in_our_words(error))

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes, began: float) -> Sent:
        async with self._session.post(url, headers=headers, data=body, allow_redirects=False) as response:
            accepted = 200 <= response.status < 300
            said = "" if accepted else await _beginning(response)
            return Sent(
                duration_ms=(time.monotonic() - began) * 1000,
                status=response.status,
                response=said or None,
                retry_after=None if accepted else _retry_after(response.headers.get("Retry-After", "")),
            )


def trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """The system's authorities and those of the file. Raises OSError (of which SSLError is one) where it has none."""
    tls = ssl.create_default_context()
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        tls.load_verify_locations(ca_file)
    return tls


@contextlib.asynccontextmanager
async def http_sender(
    *, allow: Iterable[str], connect_seconds: float, total_seconds: float, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpSender]:
    """`tls` as `trust` makes it."""
    # Threads of their own: names whose servers never answer hold none that others need.
    threads = ThreadPoolExecutor(_RESOLVING_THREADS, thread_name_prefix="webhook-names")
    guard = AddressGuard(allow, threads)
    connector = aiohttp.TCPConnector(
        resolver=_GuardedResolver(guard), ssl=tls or trust(), use_dns_cache=False, force_close=True, limit=0
    )
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=total_seconds, connect=connect_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a small body could become a large one
        trust_env=False,  # a proxy would undo the guard
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
        read_bufsize=_READ_BYTES,
        headers={"User-Agent": f"opsapi/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
    )
    try:
        yield HttpSender(session, guard, connect_seconds)
    finally:
        await session.close()
        threads.shutdown(wait=False, cancel_futures=True)


class _GuardedResolver(AbstractResolver):
    """Resolves for the connection itself, so that no second answer of the name's server can be another address."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._guard.addresses(host, port, family)
        ]

    async def close(self) -> None:
        return None


def _parsed(url: str) -> URL | str:
    """The URL, or what is wrong with it."""
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        return "is no URL"
    if parsed.scheme not in ("https", "http") or not host or port is None:
        return "must be https://host[:port][/path]"
    if parsed.user is not None or parsed.password is not None or parsed.fragment:
        return "must hold neither credentials nor a fragment"
    if not url.isprintable() or any(character.isspace() for character in url):
        return "holds characters that no URL has"
    return parsed


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host.partition("%")[0])
            return True
    return False


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """What a refusal begins with, printable on one line; nothing of it is trusted."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        raw = await response.content.read(_READ_BYTES)
        text = _HIDDEN.sub(" ", raw.decode(errors="replace")).strip()
        return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return ""


def _retry_after(text: str) -> float | None:
    """Whole seconds, or a date of HTTP."""
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _in_our_words(error: BaseException) -> str:
    """Vendor text names addresses and files, which are nobody's business."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return "the host has not a public address"
        cause = cause.__cause__ or getattr(cause, "os_error", None) or cause.__context__
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    return "the request failed"


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ServerTimeoutError, "no connection in time"),
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorDNSError, "the host name cannot be resolved"),
    (aiohttp.ClientConnectorCertificateError, "the certificate is not trusted or not for this host"),
    (aiohttp.ClientSSLError, "TLS could not be established"),
    (aiohttp.ClientConnectorError, "the connection was refused"),
    (aiohttp.InvalidURL, "the URL cannot be used"),
    (aiohttp.ClientPayloadError, "the answer broke off"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (aiohttp.ServerDisconnectedError, "the connection was closed without an answer"),
    (aiohttp.ClientConnectionError, "the connection was reset"),
    (OSError, "the connection was reset"),
)
