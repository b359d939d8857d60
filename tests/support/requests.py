"""A plain HTTP client for stories: one request a call, both credentials, nothing clever."""

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def ok(self) -> Any:
        assert self.status in (200, 201, 202), f"{self.status}: {self.body.decode(errors='replace')}"
        return self.json


class Api(msgspec.Struct, frozen=True):
    """`path` is below /internal/v1."""

    url: str
    account: str
    token: str

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        address = urlsplit(self.url)
        connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
        sent = {"Authorization": f"Bearer {self.token}", "X-Service-Account": self.account} | (headers or {})
        raw = None
        if body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, f"/internal/v1{path}", raw, sent)
            answer = connection.getresponse()
            held = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, held, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.request("POST", path, body, headers)
