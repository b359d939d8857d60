"""Spans as a collector receives them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from opsapi.http.settings import TracingSettings
from support.http import call, credentials, world

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP endpoint and the bodies that it got."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        bodies.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/v1/traces", bodies


def spans(bodies: list[bytes]) -> list[Any]:
    found = []
    for body in bodies:
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                found += scope.spans
    return found


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


async def test_a_request_is_one_server_span_in_its_callers_trace() -> None:
    async with collector() as (endpoint, bodies):
        app = world(tracing=TracingSettings(endpoint=endpoint)).app()
        path = "/internal/v1/workspaces/ws-1/widgets"
        await call(app, path=path, headers=credentials(traceparent=f"00-{TRACE}-{PARENT}-01"))
        await call(app, headers={})
        tracing = app._tracing
        assert tracing is not None
        await asyncio.to_thread(tracing.shutdown)
        served, refused = spans(bodies)
    told = attributes(served)
    assert served.name == "GET /internal/v1/workspaces/{workspace_id}/widgets"
    assert (served.trace_id.hex(), served.parent_span_id.hex()) == (TRACE, PARENT)
    assert told["http.route"] == "/internal/v1/workspaces/{workspace_id}/widgets"
    assert (told["http.request.method"], told["http.response.status_code"]) == ("GET", 200)
    assert (told["url.path"], told["enduser.id"]) == (path, "sa-admin")
    assert attributes(refused)["http.response.status_code"] == 401
    assert b"opsa_" not in b"".join(bodies)


async def test_a_failure_of_the_service_marks_its_span() -> None:
    async with collector() as (endpoint, bodies):
        w = world(tracing=TracingSettings(endpoint=endpoint))
        w.widgets.failure = RuntimeError("boom")
        app = w.app()
        await call(app)
        tracing = app._tracing
        assert tracing is not None
        await asyncio.to_thread(tracing.shutdown)
        [span] = spans(bodies)
    assert attributes(span)["error.type"] == "INTERNAL_ERROR"
    assert span.status.code == 2


def test_without_an_endpoint_there_is_no_tracing() -> None:
    assert world().app()._tracing is None


def test_without_the_sdk_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from opsapi.http.tracing import Tracing, TracingUnavailable

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match=r"opsapi\[tracing\]"):
        Tracing(TracingSettings(endpoint="http://127.0.0.1:1/v1/traces"))
