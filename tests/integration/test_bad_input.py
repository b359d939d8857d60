"""Bad input over real HTTP gets the documented refusal, and no operation comes of it."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.requests import Api
from support.service import Running, running_demo

pytestmark = pytest.mark.slow

SCALE = "/workspaces/ws-demo/deployments/storefront/scale?project=shop"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_demo(tmp_path_factory.mktemp("bad-input")) as running:
        yield running


def operations(api: Api) -> Any:
    return api.get("/operations").ok()["data"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"replicas": -1, "reason": "r"}, 400, "VALIDATION_ERROR"),
        ({"replicas": 10**9, "reason": "r"}, 403, "POLICY_DENIED"),
        ({"replicas": "4", "reason": "r"}, 400, "VALIDATION_ERROR"),
        ({"replicas": 4, "reason": "r", "surprise": 1}, 400, "VALIDATION_ERROR"),
        (b'{"replicas": 4, "reason": "\xff"}', 400, "MALFORMED_JSON"),
        (b"[" * 100_000, 400, "MALFORMED_JSON"),
    ],
    ids=["negative", "absurd", "wrong type", "unknown field", "invalid UTF-8", "deep nesting"],
)
def test_a_bad_scale_request_is_refused_and_starts_nothing(service: Running, body: Any, status: int, code: str) -> None:
    api = service.api("admin")
    before = operations(api)
    answer = api.post(SCALE, body)
    assert (answer.status, answer.json["error"]["code"]) == (status, code), answer.body[:500]
    assert operations(api) == before


@pytest.mark.parametrize("name", ["..%2f..%2fsecrets", "%252e%252e%252fsecrets", "x" * 300, "no-such"])
def test_a_name_that_is_no_deployment_is_refused_and_starts_nothing(service: Running, name: str) -> None:
    api = service.api("agent")
    before = operations(api)
    answer = api.post(f"/workspaces/ws-demo/deployments/{name}/scale", {"replicas": 2, "reason": "r"})
    assert answer.status in (400, 404), answer.body[:500]
    assert answer.json["error"]["code"] in ("VALIDATION_ERROR", "RESOURCE_NOT_FOUND")
    assert operations(api) == before


@pytest.mark.parametrize("framing", ["Content-Length: 10000000", "Transfer-Encoding: chunked"])
def test_a_body_of_ten_megabytes_is_refused_before_it_is_read_whole(service: Running, framing: str) -> None:
    """The service may close before all is sent, so a broken pipe is no failure: the answer is what counts."""
    api = service.api("admin")
    before = operations(api)
    address = urlsplit(api.url)
    block = b"x" * 50_000
    if "chunked" in framing:
        block = b"c350\r\n" + block + b"\r\n"
    head = (
        f"POST /internal/v1{SCALE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.token}\r\n"
        f"X-Service-Account: {api.account}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    )
    with socket.create_connection((str(address.hostname), address.port), 30) as connection:
        connection.sendall(head.encode())
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                connection.sendall(block)
        answer = b""
        with suppress(ConnectionResetError):
            while piece := connection.recv(65_536):
                answer += piece
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert b'"PAYLOAD_TOO_LARGE"' in answer
    assert operations(api) == before


def test_absurd_replicas_name_the_configured_maximum(service: Running) -> None:
    refused = service.api("admin").post(
        "/workspaces/ws-demo/deployments/storefront/scale?project=shop", {"replicas": 10**9, "reason": "r"}
    )
    details = refused.json["error"]["details"]
    assert (details["rule"], details["limit"], details["asked"]) == ("max_replicas", 100, 10**9)
