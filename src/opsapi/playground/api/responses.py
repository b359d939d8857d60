"""What handlers return, and how it goes out."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from opsapi.playground.registry import ApiError

_encode = msgspec.json.Encoder().encode
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Response:
    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: list[tuple[str, str]] = field(default_factory=list)
    stream: AsyncIterator[bytes] | None = None


def json_response(value: Any, status: int = 200, content_type: str = JSON) -> Response:
    return Response(status, _encode(value) + b"\n", content_type)


def text_response(text: str, status: int = 200) -> Response:
    return Response(status, text.encode(), TEXT)


def error_response(error: ApiError) -> Response:
    response = json_response(error.status, error.code)
    retry = (error.status.get("details") or {}).get("retryAfterSeconds")
    if retry is not None:
        response.headers.append(("Retry-After", str(retry)))
    return response


def warning(text: str) -> tuple[str, str]:
    """A Warning header (RFC 7234) as API servers write it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return ("Warning", f'299 - "{escaped}"')
