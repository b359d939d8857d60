"""One request on its way through: what is known of it so far, and the answer it gets."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, count
from types import MappingProxyType
from typing import Any

from opsapi.http.errors import HeadersTooLarge
from opsapi.http.routing import Route
from opsapi.kit.caller import AuditTrail, Caller
from opsapi.kit.errors import ValidationFailed
from opsapi.kit.limits import Window

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
_SINGLE = frozenset(
    {
        b"authorization",
        b"x-service-account",
        b"x-on-behalf-of",
        b"x-agent-run",
        b"x-request-id",
        b"idempotency-key",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"host",
    }
)
_instance = os.urandom(6).hex()
_counter = count(1)


def new_request_id() -> str:
    """`req-`, a part unique to this process, and a number: cheap, and unique over replicas."""
    return f"req-{_instance}-{next(_counter):x}"


@dataclass(slots=True)
class Answer:
    """An answer's status and encoded body; `code` is the error code of a failure."""

    status: int
    body: bytes
    headers: list[Header] = field(default_factory=list)
    code: str | None = None
    content_type: str = "application/json"
    stream: AsyncIterator[bytes] | None = None
    """In place of a body: sent as it comes."""


class Exchange:
    """Filled in as the request passes the guard; whoever records it reads what was reached.

    A plain class with defaults on the class: an instance of it costs a third of a dataclass's.
    """

    address: str = ""
    public_name: str | None = None
    """Set where a public page answers."""
    route: Route | None = None
    caller: Caller | None = None
    claimed_account: str | None = None
    window: Window | None = None
    values: Mapping[str, str] = MappingProxyType({})
    workspace_id: str | None = None
    body_read: bool = False
    disconnected: bool = False
    idempotency_replayed: bool = False

    def __init__(
        self,
        method: str,
        raw_path: bytes,
        query: bytes,
        headers: dict[bytes, bytes],
        peer: str,
        received_at: datetime,
        started: float,
        request_id: str,
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.path = raw_path.decode("ascii", "backslashreplace")
        """As sent, still percent-encoded, so always one line of ASCII."""
        self.query = query
        self.headers = headers
        self.peer = peer
        self.received_at = received_at
        """Wall time; `started` is the clock's monotonic seconds of the same moment."""
        self.started = started
        self.request_id = request_id
        self.audit = AuditTrail()

    @property
    def endpoint(self) -> str:
        if self.route is not None:
            return self.route.declaration.name
        return self.public_name or "unknown"

    @property
    def declared_length(self) -> int | None:
        """Content-Length; None where the body is chunked or absent. The server has refused malformed ones."""
        text = self.headers.get(b"content-length")
        return int(text) if text is not None and text.isdigit() and len(text) < 19 else None

    @property
    def has_body(self) -> bool:
        return b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"


def open_exchange(scope: Scope, received_at: datetime, started: float) -> Exchange:
    """Never fails, so that whatever is wrong with the request can be answered and recorded."""
    listed = scope["headers"]
    headers: dict[bytes, bytes] = dict(listed)
    if len(headers) != len(listed) and b"x-forwarded-for" in headers:
        headers[b"x-forwarded-for"] = b", ".join(value for name, value in listed if name == b"x-forwarded-for")
    given = headers.get(b"x-request-id")
    client = scope.get("client")
    return Exchange(
        scope["method"],
        scope.get("raw_path") or scope["path"].encode(),
        scope["query_string"],
        headers,
        client[0] if client else "",
        received_at,
        started,
        given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id(),
    )


def check_head(headers: list[Header], exchange: Exchange, *, max_count: int, max_bytes: int) -> None:
    """Raises HeadersTooLarge, and ValidationFailed where a header that decides something is given twice."""
    line = len(exchange.raw_path) + len(exchange.query)
    if len(headers) > max_count or line + sum(map(len, chain.from_iterable(headers))) > max_bytes:
        raise HeadersTooLarge(max_bytes)
    if len(headers) != len(exchange.headers):
        names = [name for name, _ in headers]
        twice = sorted({name.decode("latin-1") for name in names if name in _SINGLE and names.count(name) > 1})
        if twice:
            raise ValidationFailed(dict.fromkeys(twice, "given more than once"))
