"""One request on its way through: what is known of it so far, and the answer it gets."""

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
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
    content_type: bytes = b"application/json"


@dataclass(slots=True)
class Exchange:
    """Filled in as the request passes the guard; whoever records it reads what was reached."""

    method: str
    raw_path: bytes
    headers: dict[bytes, bytes]
    peer: str
    received_at: datetime
    started: float
    request_id: str
    address: str = ""
    public_name: str | None = None
    """Set where a public page answers."""
    route: Route | None = None
    caller: Caller | None = None
    claimed_account: str | None = None
    window: Window | None = None
    values: dict[str, str] = field(default_factory=dict)
    workspace_id: str | None = None
    audit: AuditTrail = field(default_factory=AuditTrail)
    body_read: bool = False
    disconnected: bool = False
    idempotency_replayed: bool = False

    @property
    def path(self) -> str:
        """As sent, still percent-encoded, so always one line of ASCII."""
        return self.raw_path.decode("ascii", "backslashreplace")

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
        method=scope["method"],
        raw_path=scope.get("raw_path") or scope["path"].encode(),
        headers=headers,
        peer=client[0] if client else "",
        received_at=received_at,
        started=started,
        request_id=given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id(),
    )


def check_head(headers: list[Header], exchange: Exchange, *, max_count: int, max_bytes: int) -> None:
    """Raises HeadersTooLarge, and ValidationFailed where a header that decides something is given twice."""
    if len(headers) > max_count or sum(len(name) + len(value) + 4 for name, value in headers) > max_bytes:
        raise HeadersTooLarge(max_bytes)
    if len(headers) != len(exchange.headers):
        names = [name for name, _ in headers]
        twice = sorted({name.decode("latin-1") for name in names if name in _SINGLE and names.count(name) > 1})
        if twice:
            raise ValidationFailed(dict.fromkeys(twice, "given more than once"))
