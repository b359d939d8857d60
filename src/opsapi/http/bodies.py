"""Request bodies: read within limits of size and time, then decoded strictly."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import accumulate
from typing import Any

import msgspec

from opsapi.http.errors import MalformedJson, PayloadTooLarge, RequestTimeout
from opsapi.http.problems import join, problems
from opsapi.kit.endpoint import Body
from opsapi.kit.errors import ValidationFailed

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_NOT_BRACKET = re.compile(rb"[^\[\]{}]+")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_BYTE = re.compile(r" \(byte (\d+)\)$")
_INT64 = 2**63


class ClientDisconnected(Exception):
    """The caller went away before its body was complete."""


async def read_body(receive: Receive, *, declared: int | None, limit: int, seconds: float) -> bytes:
    """Stops reading at the first byte beyond `limit`.

    Raises PayloadTooLarge, RequestTimeout, ClientDisconnected.
    """
    if declared is not None and declared > limit:
        raise PayloadTooLarge(limit)
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
            body: bytes = message.get("body", b"")
            if message["type"] == "http.request" and not message.get("more_body", False) and len(body) <= limit:
                return body
            return await _read_on(receive, message, limit)
    except TimeoutError:
        raise RequestTimeout(seconds) from None


async def _read_on(receive: Receive, message: Message, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()


class BodyDecoder:
    """Compiled once for each declaration."""

    def __init__(self, body: type[Body], max_depth: int) -> None:
        self._type = body
        self._decoder = msgspec.json.Decoder(body)
        self._max_depth = max_depth

    def decode(self, raw: bytes) -> Body:
        """An empty body counts as `{}`. Raises MalformedJson, ValidationFailed."""
        raw = raw or b"{}"
        text = _utf8(raw)
        _bounded_depth(raw, self._max_depth)
        plain = _plain(text)
        if "\\u0000" in text:
            _refuse_nul(plain)
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            raise ValidationFailed(problems(plain, self._type) or {"body": str(error)[:300]}) from None
        except msgspec.DecodeError as error:
            raise _located(error, text) from None


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line, column = _place(raw[: error.start].decode())
        raise MalformedJson("not UTF-8", line=line, column=column) from None


def _bounded_depth(raw: bytes, limit: int) -> None:
    """So that no decoder recurses beyond what its stack holds."""
    brackets = _NOT_BRACKET.sub(b"", _STRING.sub(b"", raw))
    if len(brackets) > limit and any(depth > limit for depth in accumulate(map(_STEP.__getitem__, brackets))):
        raise MalformedJson(f"nested more than {limit} levels deep")


def _plain(text: str) -> Any:
    """Plain values, with what RFC 8259 leaves open or forbids refused: names twice in an object, NaN, huge numbers."""
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_int64, parse_float=_finite
        )
    except json.JSONDecodeError as error:
        raise MalformedJson(error.msg[:1].lower() + error.msg[1:], line=error.lineno, column=error.colno) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise MalformedJson(f"the name {repeated[:100]!r} stands twice in one object")
    return unique


def _no_constant(name: str) -> Any:
    raise MalformedJson(f"{name} is not JSON")


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -_INT64 <= int(digits) < _INT64:
        raise ValidationFailed({"body": f"the number {digits[:30]} is out of range"})
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValidationFailed({"body": f"the number {digits[:30]} is out of range"})
    return number


def _refuse_nul(plain: Any) -> None:
    """U+0000 is valid JSON, but no database or Kubernetes field holds it."""
    todo: list[tuple[str, Any]] = [("body", plain)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, str) and "\0" in value:
            raise ValidationFailed({path: "must not contain the character U+0000"})
        if isinstance(value, list):
            todo.extend((f"{path}[{index}]", item) for index, item in enumerate(value))
        elif isinstance(value, dict):
            todo.extend((join("" if path == "body" else path, name), item) for name, item in value.items())
            todo.extend((path, name) for name in value)


def _place(before: str) -> tuple[int, int]:
    """Line and column, both from 1, of what follows `before`."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _located(error: msgspec.DecodeError, text: str) -> MalformedJson:
    reason = str(error).removeprefix("JSON is malformed: ")
    at = _BYTE.search(reason)
    if at is None:
        return MalformedJson(reason)
    line, column = _place(text.encode()[: int(at[1])].decode(errors="ignore"))
    return MalformedJson(reason[: at.start()], line=line, column=column)
