"""HTTP to one API server: authenticated, bounded in time, with failures told apart."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.adapters.kubernetes.wire import Status, decode_status
from opsapi.kit.clock import Clock

USER_AGENT = "opsapi"
_ERROR_BODY = 64 * 1024


class Refused(Exception):
    """The API server answered with a failure."""

    def __init__(self, status: int, body: Status, retry_after: float | None) -> None:
        self.status = status
        self.reason = body.reason
        self.message = body.message or body.reason or f"HTTP {status}"
        self.causes = (body.details.causes or ()) if body.details is not None else ()
        self.retry_after = retry_after
        super().__init__(f"{status} {self.reason}: {self.message}")


class Unreachable(Exception):
    """No answer. `sent` False is certain that the server never saw the request."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class Line(msgspec.Struct, frozen=True):
    """An authenticated way to the server, as good as its credentials are."""

    server: str
    session: aiohttp.ClientSession
    authorization: str | None
    server_hostname: str | None = None
    proxy: str | None = None

    def __repr__(self) -> str:
        return f"Line({self.server!r}, credentials hidden)"


class Access(Protocol):
    """Where lines come from. Raises Unreachable(sent=False) where there are no credentials to be had."""

    async def line(self) -> Line: ...

    def rejected(self, line: Line) -> None:
        """The server answered 401: the next line is to have fresh credentials."""
        ...

    async def close(self) -> None: ...


class Transport:
    """Requests by method and path. Every answer's Date header feeds the cluster's clock."""

    def __init__(self, access: Access, tuning: Tuning, clock: Clock, cluster_clock: ClusterClock) -> None:
        self._access = access
        self._tuning = tuning
        self._clock = clock
        self._cluster_clock = cluster_clock

    async def close(self) -> None:
        await self._access.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None, *, large: bool = False) -> bytes:
        """The body of a 2xx answer. The request timeout bounds the whole, or each read where much is expected.
        Raises Refused, Unreachable."""
        limit = aiohttp.ClientTimeout(
            total=None if large else self._tuning.request_timeout,
            connect=self._tuning.request_timeout,
            sock_connect=self._tuning.connect_timeout,
            sock_read=self._tuning.request_timeout,
        )
        async with self._exchange("GET", path, query, None, {}, limit) as response:
            return await response.read()

    async def send(
        self, method: str, path: str, body: object, *, query: Mapping[str, str] | None = None, content_type: str
    ) -> bytes:
        """A write. Never repeated here; Raises Refused, Unreachable."""
        limit = aiohttp.ClientTimeout(total=self._tuning.request_timeout, sock_connect=self._tuning.connect_timeout)
        headers = {"Content-Type": content_type}
        async with self._exchange(method, path, query, msgspec.json.encode(body), headers, limit) as response:
            return await response.read()

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], *, read_timeout: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The chunks of a 2xx answer, as they come. Raises Refused, Unreachable, also between chunks."""
        limit = aiohttp.ClientTimeout(
            total=None,
            connect=self._tuning.request_timeout,
            sock_connect=self._tuning.connect_timeout,
            sock_read=read_timeout,
        )
        async with self._exchange("GET", path, query, None, {}, limit) as response:
            yield response.content.iter_any()

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        headers: dict[str, str],
        limit: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        line = await self._access.line()
        if line.authorization is not None:
            headers["Authorization"] = line.authorization
        url = URL(f"{line.server}{path}{'?' + urlencode(query) if query else ''}", encoded=True)
        sent = self._clock.monotonic()
        answered = False
        try:
            async with line.session.request(
                method,
                url,
                data=body,
                headers=headers | {"Accept": "application/json", "User-Agent": USER_AGENT},
                timeout=limit,
                allow_redirects=False,
                proxy=line.proxy,
                server_hostname=line.server_hostname,
            ) as response:
                answered = True
                self._cluster_clock.observe(response.headers.get("Date"), sent, self._clock.monotonic())
                if response.status == 401:
                    self._access.rejected(line)
                if not 200 <= response.status < 300:
                    raise await _refusal(response)
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise Unreachable(_worded(error), sent=answered) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(_worded(error), sent=True) from error


async def _refusal(response: aiohttp.ClientResponse) -> Refused:
    held = bytearray()
    async for chunk in response.content.iter_any():
        held += chunk
        if len(held) > _ERROR_BODY:
            break
    body = decode_status(bytes(held))
    retry_after = _seconds(response.headers.get("Retry-After"))
    if retry_after is None and body.details is not None and body.details.retry_after_seconds:
        retry_after = float(body.details.retry_after_seconds)
    return Refused(response.status, body, retry_after)


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds, the form that the API server writes; a date is left to our own back-off."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None


def _worded(error: BaseException) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "the connection timed out"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return f"TLS failed: {error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.InvalidURL):
        return "the server's address is no valid URL"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"the connection broke ({type(error).__name__})"
