"""Structured JSON logs, one object a line, in which no token ever stands."""

import logging
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from opsapi.http.exchange import Answer, Exchange

_SECRET = re.compile(r"(?i)(opsa_[A-Za-z0-9_-]{4})[A-Za-z0-9_-]*|\b(bearer|basic)[ \t]+[A-Za-z0-9._~+/=-]+")
_HINTS = ("opsa_", "earer", "EARER", "asic", "ASIC")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_encoder = msgspec.json.Encoder(enc_hook=repr)


def masked(text: str) -> str:
    """Tokens and Authorization values cut to what identifies but does not open."""
    # Plain searches first: this runs for every line, and the expression costs more than writing it.
    if any(hint in text for hint in _HINTS):
        return _SECRET.sub(lambda found: (found[1] or found[2]) + "…", text)
    return text


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, what was passed as `extra`, and `exception`; masked as a whole."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and key != "color_message"}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return masked(_encoder.encode(line).decode())


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends every logger of the process to `stream` (standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _Line(msgspec.Struct, frozen=True):
    time: datetime
    level: str
    logger: str
    message: str
    request_id: str
    account: str | None
    endpoint: str
    method: str
    path: str
    status: int
    code: str | None
    duration_ms: float
    address: str
    workspace_id: str | None
    agent_run: str | None


class RequestLog:
    """One line a request, in the formatter's shape but past the logging machinery, which costs more than the guard."""

    def __init__(self, mode: str, stream: TextIO | None = None) -> None:
        self._least_status = {"all": 0, "errors": 400, "off": 1000}[mode]
        self._stream = stream

    def write(self, answered: Sequence[tuple[Exchange, Answer, float]]) -> None:
        lines = [_line(*each) for each in answered if each[1].status >= self._least_status]
        if lines:
            stream = self._stream or sys.stderr
            stream.write(masked(_encoder.encode_lines(lines).decode()))
            stream.flush()


def _line(exchange: Exchange, answer: Answer, seconds: float) -> _Line:
    caller = exchange.caller
    return _Line(
        exchange.received_at,
        "error" if answer.status >= 500 else "info",
        "opsapi.request",
        "request",
        exchange.request_id,
        caller.account_id if caller is not None else exchange.claimed_account,
        exchange.endpoint,
        exchange.method,
        exchange.path[:500],
        answer.status,
        answer.code,
        round(seconds * 1000, 3),
        exchange.address,
        exchange.workspace_id,
        caller.agent_run if caller is not None else None,
    )
