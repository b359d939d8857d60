"""Calls an ASGI application in this process, without a network."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec


@dataclass(slots=True)
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def lines(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in self.body.splitlines() if line]


async def call(
    app: Any,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    enough: Callable[[Answer], bool] | None = None,
) -> Answer:
    """One request. A stream is read until it ends or, with `enough`, until that says so of what came."""
    answer = Answer()
    split = urlsplit(path)
    gone = asyncio.Event()
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {key.decode(): value.decode("latin-1") for key, value in message["headers"]}
            return
        answer.body += message.get("body", b"")
        if enough is not None and enough(answer):
            gone.set()

    scope = {
        "type": "http",
        "method": method,
        "path": unquote(split.path),
        "query_string": split.query.encode(),
        "headers": [(key.lower().encode(), value.encode("latin-1")) for key, value in (headers or {}).items()],
    }
    await app(scope, receive, send)
    return answer
