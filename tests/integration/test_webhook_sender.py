"""The sender against a receiver that does everything wrong: bounded in time and memory, and never led inward."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from opsapi.adapters.webhooks.sender import HttpSender, http_sender, trust
from support.certificates import Authority
from support.receiver import Answer, Receiver, answers, babbles, closes, drips, hangs, resets, speaks_no_http

HEADERS = {"content-type": "application/json", "webhook-id": "evt-1"}
LOOPBACK = ("127.0.0.1",)


@asynccontextmanager
async def sending(*allow: str, total: float = 0.5, ca_file: Path | None = None) -> AsyncIterator[HttpSender]:
    async with http_sender(allow=allow, connect_seconds=total, total_seconds=total, tls=trust(ca_file)) as sender:
        yield sender


async def test_what_is_sent_arrives_once_as_it_is() -> None:
    async with Receiver() as receiver, sending(*LOOPBACK) as sender:
        sent = await sender.send(receiver.url(), HEADERS, b'{"a":"\xc3\xb6"}')
    assert (sent.status, sent.error, sent.response, sent.accepted) == (204, None, None, True)
    (request,) = receiver.received
    assert request.body == b'{"a":"\xc3\xb6"}'
    assert request.id == "evt-1"
    assert request.headers["user-agent"].startswith("opsapi/")


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (hangs, None, "no answer in time"),
        (drips, None, "no answer in time"),
        (resets, None, "the connection was reset"),
        (closes, None, "the connection was closed without an answer"),
        (speaks_no_http, None, "the answer is not HTTP"),
        (answers(500), 500, None),
        (answers(410), 410, None),
        (answers(200, b"x" * 100_000), 200, None),
    ],
    ids=["hangs", "drips", "resets", "closes", "ssh", "500", "410", "long"],
)
async def test_whatever_the_receiver_does_has_an_end_and_a_name(
    answer: Answer, status: int | None, error: str | None
) -> None:
    async with Receiver() as receiver, sending(*LOOPBACK) as sender:
        receiver.by_path["/in"] = answer
        sent = await sender.send(receiver.url(), HEADERS, b"{}")
    assert (sent.status, sent.error) == (status, error)


async def test_of_an_endless_refusal_a_little_is_kept_on_one_printable_line() -> None:
    async with Receiver() as receiver, sending(*LOOPBACK) as sender:
        receiver.by_path["/in"] = babbles
        sent = await sender.send(receiver.url(), HEADERS, b"{}")
    assert sent.status == 500
    assert sent.response is not None
    assert sent.response.startswith("<b> [31m x")
    assert len(sent.response) == 200
    assert sent.response.isprintable()


async def test_a_closed_port_refuses_and_a_name_that_does_not_exist_is_not_found() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        async with sending(*LOOPBACK, "nothing.invalid", total=5) as sender:
            closed = await sender.send(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
            unknown = await sender.send("http://nothing.invalid/", HEADERS, b"{}")
    assert (closed.error, unknown.error) == ("the connection was refused", "the host name cannot be resolved")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with Receiver() as receiver, sending(*LOOPBACK) as sender:
        receiver.by_path["/in"] = answers(status, Location=receiver.url("/inward"))
        sent = await sender.send(receiver.url(), HEADERS, b"{}")
    assert (sent.status, sent.accepted) == (status, False)
    assert receiver.at("/inward") == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/", "https://localhost:{port}/", "https://[::1]:{port}/", "https://127.1:{port}/",
        "https://2130706433:{port}/", "https://0x7f000001:{port}/", "https://[::ffff:127.0.0.1]:{port}/",
        "https://169.254.169.254/latest/meta-data/", "https://0.0.0.0:{port}/", "https://[::]:{port}/",
        "https://[64:ff9b::7f00:1]/", "https://[fe80::1%25lo]:{port}/", "http://127.0.0.1:{port}/",
        "http://user:secret@127.0.0.1:{port}/", "ftp://127.0.0.1/", "file:///etc/passwd", "//127.0.0.1", "", "https://",
        "https://１２７.０.０.１:{port}/", "https://localhost.:{port}/",
    ],
)  # fmt: skip
async def test_nothing_is_sent_inward_however_the_url_is_written(url: str) -> None:
    async with Receiver() as receiver, sending() as sender:
        written = url.format(port=receiver.port)
        refusal = await sender.refusal(written)
        sent = await sender.send(written, HEADERS, b"{}")
    assert refusal is not None
    assert sent.status is None
    assert sent.error is not None
    assert "127.0.0.1" not in refusal + sent.error
    assert receiver.received == []


async def test_a_name_that_is_public_when_checked_and_private_when_connected_gets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = ["203.0.114.7", "127.0.0.1"]

    def resolve(host: str, port: int, *rest: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (turns.pop(0), port))]

    async with Receiver() as receiver, sending() as sender:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        url = f"https://rebinding.example:{receiver.port}/"
        assert await sender.refusal(url) is None
        sent = await sender.send(url, HEADERS, b"{}")
    assert sent.error == "the host has not a public address"
    assert (turns, receiver.received) == ([], [])


async def test_an_allowed_host_may_be_private_and_speak_plain_http() -> None:
    async with Receiver() as receiver, sending("localhost") as sender:
        assert await sender.refusal(receiver.url(host="localhost")) is None
        assert (await sender.send(receiver.url(host="localhost"), HEADERS, b"{}")).status == 204
        assert await sender.refusal(receiver.url()) is not None


async def test_tls_is_verified_against_the_host_by_the_given_authority(tmp_path: Path) -> None:
    authority = Authority()
    issued = authority.issue("localhost")
    for name, pem in (("cert.pem", issued.certificate), ("key.pem", issued.key), ("ca.pem", authority.pem)):
        (tmp_path / name).write_bytes(pem)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with Receiver(tls=tls) as receiver:
        async with sending("127.0.0.0/8", ca_file=tmp_path / "ca.pem", total=5) as sender:
            assert (await sender.send(receiver.url(host="localhost"), HEADERS, b"{}")).status == 204
        async with sending("127.0.0.0/8", total=5) as sender:
            untrusted = await sender.send(receiver.url(host="localhost"), HEADERS, b"{}")
    assert untrusted.error == "the certificate is not trusted or not for this host"
    assert len(receiver.received) == 1


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("-3", None)])
async def test_a_wish_for_a_pause_is_read(header: str, seconds: float | None) -> None:
    async with Receiver() as receiver, sending(*LOOPBACK) as sender:
        receiver.by_path["/in"] = answers(429, Retry_After=header)
        sent = await sender.send(receiver.url(), HEADERS, b"{}")
    assert (sent.status, sent.retry_after) == (429, seconds)
