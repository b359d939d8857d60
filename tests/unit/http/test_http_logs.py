"""Structured logs in which no token ever stands."""

import io
import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.accounts.tokens import new_secret
from opsapi.http.app import create_app
from opsapi.http.exchange import Answer, Exchange
from opsapi.http.logs import JsonFormatter, RequestLog, masked
from support.http import ADMIN, call, credentials, world


def formatted(message: str, *arguments: object, **extra: object) -> dict[str, Any]:
    logger = logging.Logger("test")
    record = logger.makeRecord("test", logging.INFO, "f", 1, message, arguments, None, extra=extra)
    line: dict[str, Any] = msgspec.json.decode(JsonFormatter().format(record))
    return line


def test_a_line_is_one_json_object_with_what_was_added() -> None:
    line = formatted("took %d", 3, request_id="req-1", items=[1])
    assert (line["message"], line["level"], line["logger"]) == ("took 3", "info", "test")
    assert (line["request_id"], line["items"]) == ("req-1", [1])
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_what_json_does_not_know_is_shown_by_its_repr() -> None:
    assert "object" in formatted("x", thing=object())["thing"]


def test_an_exception_stands_in_its_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError("opsa_" + "a" * 38)
    except ValueError:
        logger.exception("failed")
    [line] = stream.getvalue().splitlines()
    told = msgspec.json.decode(line)["exception"]
    assert "ValueError: opsa_aaaa…" in told


@pytest.mark.parametrize(
    "text", ["Authorization: Bearer {}", "BEARER {}", "basic {}", "token={}", "{}{}", "'{}'", '{{"a": "{}"}}']
)
def test_tokens_are_masked_wherever_they_stand(text: str) -> None:
    secret = new_secret()
    assert secret not in masked(text.replace("{}", secret))
    assert secret[9:] not in masked(text.replace("{}", secret))


@given(st.text())
def test_text_without_secrets_is_left_as_it_is(text: str) -> None:
    lowered = text.lower()
    if not any(word in lowered for word in ("opsa_", "bearer", "basic")):
        assert masked(text) == text


@given(before=st.text(), after=st.text())
def test_no_surrounding_text_saves_a_token_from_the_mask(before: str, after: str) -> None:
    secret = new_secret()
    assert secret not in masked(before + secret + after)


def exchange(status: int) -> tuple[Exchange, Answer, float]:
    made = Exchange("GET", b"/x", b"", {}, "127.0.0.1", datetime(2024, 1, 20, tzinfo=UTC), 0.0, "req-1")
    return made, Answer(status, b""), 0.0123456


@pytest.mark.parametrize(("mode", "statuses"), [("all", [200, 404, 500]), ("errors", [404, 500]), ("off", [])])
def test_the_request_log_writes_what_it_is_set_to(mode: str, statuses: list[int]) -> None:
    stream = io.StringIO()
    RequestLog(mode, stream).write([exchange(200), exchange(404), exchange(500)])
    lines = [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]
    assert [line["status"] for line in lines] == statuses
    assert all(line["duration_ms"] == 12.346 for line in lines)


async def test_a_request_leaves_one_line_without_its_token(capsys: pytest.CaptureFixture[str]) -> None:
    w = world(request_log="all")
    app = create_app(w.bound(), w.ports(), w.settings)
    secret = new_secret()
    await call(app, headers=credentials(X_Agent_Run="run-7"))
    await call(app, path=f"/internal/v1/{secret}", headers=credentials((ADMIN[0], secret)))
    written = capsys.readouterr().err
    first, second = [msgspec.json.decode(line) for line in written.splitlines()]
    assert (first["endpoint"], first["account"], first["status"]) == ("health", "sa-admin", 200)
    assert (first["agent_run"], first["code"]) == ("run-7", None)
    assert (second["status"], second["code"]) == (401, "INVALID_SERVICE_ACCOUNT")
    assert secret not in written
    assert ADMIN[1] not in written
