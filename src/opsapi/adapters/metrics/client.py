"""The Prometheus HTTP API: instant and range queries, bounded in time and size, with failures put into words."""

import asyncio
import math
import re
import ssl
from collections.abc import Iterable
from datetime import datetime
from typing import Generic, TypeVar

import aiohttp
import msgspec

from opsapi.telemetry.model import Span
from opsapi.telemetry.settings import MetricsSettings

MAX_POINTS = 10_000
"""Of a series in one range query; Prometheus refuses more than 11,000."""
MAX_BODY = 32 * 2**20
_AT_ONCE = 8
_THREAD_FROM = 256 * 1024
"""Bytes; decoding more than this is not done between other callers' requests."""
_MOST_WARNINGS = 5
_WARNING_LENGTH = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_END_OF_TIME = 253402300800.0
"""The year 10000 in Unix seconds."""

Labels = dict[str, str]
Point = tuple[float, str]


class Failed(Exception):
    """No answer; the reason is ours and quotes nobody."""


class _Vector(msgspec.Struct, frozen=True, gc=False):
    metric: Labels
    value: Point


class _Matrix(msgspec.Struct, frozen=True, gc=False):
    metric: Labels
    values: list[Point]


RowT = TypeVar("RowT")


class _Data(msgspec.Struct, Generic[RowT], frozen=True, rename="camel"):
    result_type: str
    result: list[RowT]


class _Body(msgspec.Struct, Generic[RowT], frozen=True, rename="camel"):
    status: str
    data: _Data[RowT] | None = None
    warnings: tuple[str, ...] = ()


class _Error(msgspec.Struct, frozen=True, rename="camel"):
    error_type: str = ""


class Sample(msgspec.Struct, frozen=True):
    """One figure of one series; finite."""

    labels: Labels
    at: float
    value: float


class Series(msgspec.Struct, frozen=True):
    """Finite figures by Unix seconds, ascending."""

    labels: Labels
    points: list[tuple[float, float]]


class Result(msgspec.Struct, Generic[RowT], frozen=True):
    rows: list[RowT]
    warnings: tuple[str, ...]


_vectors = msgspec.json.Decoder(_Body[_Vector])
_matrices = msgspec.json.Decoder(_Body[_Matrix])
_errors = msgspec.json.Decoder(_Error)
_ERROR_TYPES = ("bad_data", "execution", "timeout", "canceled", "internal", "unavailable", "not_found")


class PrometheusClient:
    """One server. Raises Failed; nothing of the server's own text leaves but warnings, cleaned."""

    def __init__(self, settings: MetricsSettings, *, max_body: int = MAX_BODY, max_points: int = MAX_POINTS) -> None:
        self._base = settings.url.rstrip("/")
        self._settings = settings
        self._max_body = max_body
        self._max_points = max_points
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def instant(self, query: str, at: datetime | None = None) -> Result[Sample]:
        form = {"query": query} | ({} if at is None else {"time": f"{at.timestamp():.3f}"})
        body = await self._ask("query", form)
        data, warnings = await self._read(_vectors, body, "vector")
        rows = [Sample(row.metric, row.value[0], value) for row in data if (value := _finite(row.value)) is not None]
        return Result(rows, warnings)

    async def range(self, query: str, span: Span) -> Result[Series]:
        """In as many requests as the server's limit of points asks for, one after the other."""
        moments = span.moments()
        joined: dict[tuple[tuple[str, str], ...], Series] = {}
        warnings: list[str] = []
        for first in range(0, len(moments), self._max_points):
            part = moments[first : first + self._max_points]
            form = {"query": query, "start": f"{part[0]:.3f}", "end": f"{part[-1]:.3f}"}
            body = await self._ask("query_range", form | {"step": f"{span.step.total_seconds():.3f}"})
            data, said = await self._read(_matrices, body, "matrix")
            warnings += said
            for row in data:
                held = joined.setdefault(tuple(sorted(row.metric.items())), Series(row.metric, []))
                held.points.extend((at, value) for at, text in row.values if (value := _finite((at, text))) is not None)
        return Result([one for one in joined.values() if one.points], _distinct(warnings))

    async def _ask(self, path: str, form: dict[str, str]) -> bytes:
        seconds = self._settings.timeout_seconds
        headers = {"Accept": "application/json", "User-Agent": "opsapi"}
        if self._settings.bearer_token is not None:
            headers["Authorization"] = f"Bearer {self._settings.bearer_token.reveal()}"
        if self._settings.password is not None:
            password = self._settings.password.reveal()
            headers["Authorization"] = aiohttp.encode_basic_auth(self._settings.username, password, encoding="utf-8")
        if self._settings.tenant:
            headers["X-Scope-OrgID"] = self._settings.tenant
        try:
            async with (
                self._at_once,
                asyncio.timeout(seconds),
                (await self._connected()).post(
                    f"{self._base}/api/v1/{path}",
                    data=form | {"timeout": f"{seconds:g}s"},
                    headers=headers,
                    allow_redirects=False,
                ) as response,
            ):
                body = await self._bounded(response)
                if response.status != 200:
                    raise Failed(_refusal(response.status, body))
                return body
        except TimeoutError as error:
            raise Failed(f"no answer within {seconds:g} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Failed("its certificate is not trusted") from error
        except aiohttp.ClientConnectorError as error:
            raise Failed(f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failed(f"the connection broke ({type(error).__name__})") from error

    async def _connected(self) -> aiohttp.ClientSession:
        """Opened by the first question, with the certificates as they are then."""
        if self._session is None:
            trust = await asyncio.to_thread(_trust, self._settings)
            if self._session is None:  # another question may have been first meanwhile
                self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, limit=_AT_ONCE))
        return self._session

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        held = bytearray()
        async for chunk in response.content.iter_any():
            held += chunk
            if len(held) > self._max_body:
                raise Failed(f"the answer is larger than {self._max_body // 2**20} MiB; ask for less")
        return bytes(held)

    async def _read(
        self, decoder: msgspec.json.Decoder[_Body[RowT]], body: bytes, kind: str
    ) -> tuple[list[RowT], tuple[str, ...]]:
        try:
            large = len(body) > _THREAD_FROM
            decoded = await asyncio.to_thread(decoder.decode, body) if large else decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Failed("it answers something else than the Prometheus HTTP API") from error
        if decoded.status != "success" or decoded.data is None or decoded.data.result_type != kind:
            raise Failed("it answers something else than was asked")
        return decoded.data.result, _distinct(decoded.warnings)


def _trust(settings: MetricsSettings) -> ssl.SSLContext | bool:
    """Raises Failed."""
    if settings.url.startswith("http://"):
        return True
    if not settings.verify_tls:
        return False
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Failed("ca_file holds no readable certificates") from error


def _refusal(status: int, body: bytes) -> str:
    match status:
        case 401 | 403:
            return f"it refuses the credentials ({status})"
        case 404 | 405:
            return f"the Prometheus HTTP API is not there ({status})"
        case _ if 300 <= status < 400:
            return f"it redirects ({status}), which is not followed"
    try:
        kind = _errors.decode(body).error_type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kind = ""
    return f"it refuses the query ({status}{f' {kind}' if kind in _ERROR_TYPES else ''})"


def _finite(point: Point) -> float | None:
    """None for NaN, the infinities, what is no number and moments outside of calendars."""
    at, text = point
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= at < _END_OF_TIME else None


def _distinct(warnings: Iterable[str]) -> tuple[str, ...]:
    cleaned = (_CONTROL.sub(" ", text)[:_WARNING_LENGTH].strip() for text in warnings)
    return tuple(dict.fromkeys(text for text in cleaned if text))[:_MOST_WARNINGS]
