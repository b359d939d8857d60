"""A real server on a real socket: hostile bytes, slow clients, cut connections, shutdown."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from opsapi.http.server import CannotListen, HttpServer, UnsafeListener, bind, check_listener
from opsapi.http.settings import HttpSettings
from support.http import Served, World, call, credentials, parse_answers, request, served, world

WIDGETS = "/internal/v1/workspaces/ws-1/widgets"


@contextlib.asynccontextmanager
async def serving(w: World) -> AsyncIterator[Served]:
    async with served(w.app(), w.settings) as server:
        yield server


async def received(reader: asyncio.StreamReader) -> bytes:
    """All until the server closes."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := await asyncio.wait_for(reader.read(65536), 10):
            data += chunk
    return bytes(data)


async def test_the_short_cut_and_asgi_send_the_same_headers() -> None:
    w = world()
    headers = credentials(X_Request_Id="request-0001")
    async with serving(w) as server:
        [over_socket] = await server.exchange(request(headers=headers))
    in_process = await call(world().app(), headers=headers)
    names = set(over_socket.headers) - {"date"}
    assert names == set(in_process.headers)
    assert {n: over_socket.headers[n] for n in names - {"x-ratelimit-reset"}} == {
        n: in_process.headers[n] for n in names - {"x-ratelimit-reset"}
    }
    assert over_socket.body == in_process.body


async def test_one_connection_serves_many_requests_also_pipelined() -> None:
    async with serving(world()) as server:
        reader, writer = await server.connect()
        writer.write(request() * 3 + request(headers=credentials(Connection="close")))
        answers = parse_answers(await received(reader))
        writer.close()
    assert [a.status for a in answers] == [200] * 4
    assert [a.headers["x-ratelimit-remaining"] for a in answers] == ["99", "98", "97", "96"]
    assert all("server" not in a.headers for a in answers)
    assert "connection" not in answers[0].headers


async def test_a_head_request_gets_no_body() -> None:
    async with serving(world()) as server:
        reader, writer = await server.connect()
        writer.write(request("HEAD") + request(headers=credentials(Connection="close")))
        data = await received(reader)
        writer.close()
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"content-length" in head
    assert rest.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "raw",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX A: 1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_not_clean_http_is_refused_whole_and_the_connection_closed(raw: bytes) -> None:
    w = world()
    async with serving(w) as server:
        reader, writer = await server.connect()
        writer.write(raw)
        answers = parse_answers(await received(reader))
        writer.close()
    assert answers, "closed without a word"
    assert len(answers) == 1
    assert answers[0].status in (400, 401)
    assert answers[0].headers["connection"] == "close"
    assert answers[0].json()["error"]["request_id"] == answers[0].headers["x-request-id"]
    assert w.widgets.calls == []


async def test_a_header_value_cannot_begin_another_header_of_the_answer() -> None:
    async with serving(world()) as server:
        [answer] = await server.exchange(request(headers=credentials(X_Request_Id="abcdefgh%0d%0aX-Evil: 1")))
    assert "x-evil" not in answer.headers
    assert answer.headers["x-request-id"].startswith("req-")


async def test_ten_megabytes_from_nobody_are_not_taken_in_and_the_401_is_readable() -> None:
    w = world()
    async with serving(w) as server:
        reader, writer = await server.connect()
        size = 10_000_000
        head = f"POST {WIDGETS} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        writer.write(head)
        sent = 0

        async def pour() -> None:
            nonlocal sent
            with contextlib.suppress(ConnectionError):
                while sent < size:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    sent += 65536

        pouring = asyncio.create_task(pour())
        [answer] = parse_answers(await received(reader))
        pouring.cancel()
        writer.transport.abort()
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert sent < size
    assert w.widgets.calls == []


async def test_ten_chunked_megabytes_end_in_a_413() -> None:
    w = world()
    headers = credentials(Content_Type="application/json", Transfer_Encoding="chunked")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with serving(w) as server:
        answers = await server.exchange(request("POST", WIDGETS, headers), *([chunk] * 160))
    assert [(a.status, a.code) for a in answers] == [(413, "PAYLOAD_TOO_LARGE")]
    assert w.widgets.calls == []


async def test_a_small_body_that_nobody_read_does_not_cost_the_connection() -> None:
    async with serving(world()) as server:
        reader, writer = await server.connect()
        headers = {"Content-Type": "application/json"}
        writer.write(request("POST", WIDGETS, headers, b'{"name": "x"}'))
        writer.write(request(headers=credentials(Connection="close")))
        answers = parse_answers(await received(reader))
        writer.close()
    assert [a.status for a in answers] == [401, 200]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 300_000,
        b"GET /" + b"a" * 300_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(2000)) + b"\r\n",
    ],
)
async def test_oversized_heads_are_a_431_also_while_they_still_arrive(raw: bytes) -> None:
    async with serving(world(header_max_bytes=2048)) as server:
        answers = await server.exchange(raw)
    assert [(a.status, a.code) for a in answers] == [(431, "HEADERS_TOO_LARGE")]


async def test_a_head_that_does_not_arrive_in_time_is_a_408() -> None:
    async with serving(world(header_timeout_seconds=0.1)) as server:
        answers = await server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    assert [(a.status, a.code) for a in answers] == [(408, "REQUEST_TIMEOUT")]


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with serving(world(header_timeout_seconds=0.1)) as server:
        reader, writer = await server.connect()
        assert await received(reader) == b""
        writer.close()


async def test_an_idle_connection_is_closed_after_its_answer() -> None:
    async with serving(world(keep_alive_seconds=1)) as server:
        reader, writer = await server.connect()
        writer.write(request())
        assert len(parse_answers(await received(reader))) == 1
        writer.close()


async def test_the_trickle_of_a_body_that_was_answered_without_it_buys_no_time() -> None:
    async with serving(world(keep_alive_seconds=1)) as server:
        reader, writer = await server.connect()
        writer.write(request("POST", WIDGETS, {"Content-Length": "60000"}))
        await reader.readuntil(b"\r\n\r\n")

        async def trickle() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        await received(reader)
        trickling.cancel()
        writer.close()
        assert not server.server._server.server_state.connections


async def test_a_client_that_never_reads_its_answers_is_cut_off() -> None:
    large = request(path="/internal/v1/docs/swagger-ui-bundle.js", headers={})
    async with serving(world(body_timeout_seconds=0.1)) as server:
        reader, writer = await server.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(large * 40)
        connections = server.server._server.server_state.connections
        async with asyncio.timeout(10):
            while not connections:
                await asyncio.sleep(0)
            while connections:
                await asyncio.sleep(0.01)
        writer.transport.abort()


async def test_a_slow_body_is_a_408() -> None:
    async with serving(world(body_timeout_seconds=0.1)) as server:
        headers = credentials(Content_Type="application/json", Content_Length="100")
        answers = await server.exchange(request("POST", WIDGETS, headers) + b'{"name"')
    assert [(a.status, a.code) for a in answers] == [(408, "REQUEST_TIMEOUT")]


async def test_a_body_is_asked_for_only_once_the_guard_has_passed() -> None:
    async with serving(world()) as server:
        expecting = {"Content-Type": "application/json", "Content-Length": "13", "Expect": "100-continue"}
        [refused] = await server.exchange(request("POST", WIDGETS, expecting))
        reader, writer = await server.connect()
        writer.write(request("POST", WIDGETS, credentials() | expecting | {"Connection": "close"}))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b'{"name": "x"}')
        [made] = parse_answers(await received(reader))
        writer.close()
    assert (refused.status, made.status) == (401, 201)


async def test_more_connections_than_allowed_are_told_so() -> None:
    async with serving(world(max_connections=2)) as server:
        held = []
        for _ in range(2):
            reader, writer = await server.connect()
            writer.write(request())
            await reader.readuntil(b"\r\n\r\n")
            held.append(writer)
        reader, writer = await server.connect()
        [answer] = parse_answers(await received(reader))
        for each in (*held, writer):
            each.close()
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "DEPENDENCY_UNAVAILABLE", "1")


async def test_an_upgrade_is_not_offered() -> None:
    headers = credentials(Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="x", Sec_WebSocket_Version="13")
    async with serving(world()) as server:
        [answer] = await server.exchange(request(headers=headers))
    assert answer.status == 200


async def test_a_client_that_leaves_cancels_its_read() -> None:
    w = world()
    w.widgets.hold = asyncio.Event()
    async with serving(w) as server:
        _, writer = await server.connect()
        writer.write(request())
        await asyncio.wait_for(w.widgets.entered.wait(), 5)
        writer.transport.abort()
        await asyncio.wait_for(w.widgets.cancelled.wait(), 5)
    assert [entry.status for entry in w.audit.entries] == [499]


async def test_a_client_that_leaves_does_not_cancel_its_mutation() -> None:
    w = world()
    w.widgets.hold = asyncio.Event()
    async with serving(w) as server:
        _, writer = await server.connect()
        writer.write(request("POST", WIDGETS, credentials(Content_Type="application/json"), body=b'{"name": "x"}'))
        await asyncio.wait_for(w.widgets.entered.wait(), 5)
        writer.transport.abort()
        while server.server._server.server_state.connections:
            await asyncio.sleep(0)
        w.widgets.hold.set()
    assert not w.widgets.cancelled.is_set()
    assert [entry.status for entry in w.audit.entries] == [201]


async def test_a_stopping_server_lets_a_request_finish() -> None:
    w = world(drain_seconds=5)
    w.widgets.hold = asyncio.Event()
    async with serving(w) as server:
        reader, writer = await server.connect()
        writer.write(request())
        await asyncio.wait_for(w.widgets.entered.wait(), 5)
        server.server.stop()
        while server.server._server.servers[0].is_serving():
            await asyncio.sleep(0)
        w.widgets.hold.set()
        [answer] = parse_answers(await received(reader))
        writer.close()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_a_stopping_server_cuts_off_what_outlasts_the_drain_deadline() -> None:
    w = world(drain_seconds=0)
    w.widgets.hold = asyncio.Event()
    async with serving(w) as server:
        reader, writer = await server.connect()
        writer.write(request())
        await asyncio.wait_for(w.widgets.entered.wait(), 5)
        server.server.stop()
        [answer] = parse_answers(await received(reader))
        writer.close()
    assert (answer.status, answer.code) == (503, "DEPENDENCY_UNAVAILABLE")
    assert w.widgets.cancelled.is_set()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_plain_http_beyond_loopback_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(UnsafeListener) as refusal:
        check_listener(HttpSettings(host=host))
    for hint in (host, "http.tls.certificate", "http.tls_terminated_by_proxy", "127.0.0.1"):
        assert hint in str(refusal.value)
    check_listener(HttpSettings(host=host, tls_terminated_by_proxy=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_plain_http_on_loopback_is_allowed(host: str) -> None:
    check_listener(HttpSettings(host=host))


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port}"):
            bind(HttpSettings(port=port))


def test_a_host_that_is_no_address_of_this_machine_is_an_error() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1"):
        bind(HttpSettings(host="192.0.2.1", port=0))


async def test_an_ipv6_address_is_served_and_named() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    settings = HttpSettings(host="::1", port=0, request_log="off")
    try:
        server = HttpServer(world().app(), settings)
    except CannotListen as refusal:
        pytest.skip(f"this machine has no IPv6 loopback: {refusal}")
    assert server.url.startswith("http://[::1]:")
    server._listener.close()
