"""A small declared domain, fakes of the HTTP layer's ports, a real server on a free port and raw sockets to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from opsapi.accounts.errors import DelegationNotAllowed, InvalidServiceAccount, IpNotAllowed
from opsapi.adapters.limits.memory import MemoryRateLimiter
from opsapi.audit.model import AuditEntry
from opsapi.http.app import App, create_app
from opsapi.http.ports import HttpPorts
from opsapi.http.server import HttpServer
from opsapi.http.settings import HttpSettings
from opsapi.kit.caller import AccountKind, Call, Caller
from opsapi.kit.endpoint import (
    APPLICATION_OPERATIONS,
    HEALTH,
    OTHER,
    WORKSPACE_OPERATIONS,
    Body,
    Bound,
    Example,
    Idempotency,
    NoBody,
    NoParams,
    Params,
    Partial,
    Reply,
    Scope,
    declared,
    endpoint,
)
from opsapi.kit.errors import AmbiguousResource, DependencyUnavailable, ResourceNotFound
from opsapi.kit.idempotency import Claimed, InProgress, Reused, StoredAnswer
from opsapi.kit.permissions import Grant, Grants, Permission

NOW = datetime(2024, 1, 20, 15, 30, tzinfo=UTC)
ADMIN = ("sa-admin", "opsa_admin-token-of-the-tests")
READER = ("sa-reader", "opsa_reader-token-of-the-tests")
PLAIN = ("sa-plain", "opsa_plain-token-of-the-tests")


def credentials(account: tuple[str, str] = ADMIN, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {account[1]}", "X-Service-Account": account[0]} | {
        name.replace("_", "-"): value for name, value in more.items()
    }


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Port(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    number: int


class Widget(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    size: int
    colour: Colour | None
    made_at: datetime
    ports: list[Port]
    labels: dict[str, str]


class WidgetPort(Body, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=20)]
    number: Annotated[int, Meta(ge=1, le=65535)]


class MakeWidget(Body, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=60)]
    size: Annotated[int, Meta(ge=0, le=1000)] = 1
    colour: Colour | None = None
    ports: list[WidgetPort] = msgspec.field(default_factory=list)
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class WidgetsParams(Params, frozen=True, kw_only=True):
    workspace_id: str
    limit: Annotated[int, Meta(ge=1, le=100, description="How many.")] = 20
    ready: bool | None = None
    colours: list[Colour] = msgspec.field(default_factory=list)
    search: str = ""
    above: float | None = None
    since: datetime | None = None


class WorkspaceParams(Params, frozen=True, kw_only=True):
    workspace_id: str


class ApplicationParams(Params, frozen=True, kw_only=True):
    application_id: str


class Secret(msgspec.Struct, frozen=True):
    secret: str


class Pong(msgspec.Struct, frozen=True):
    status: str


WIDGET = Widget(
    id="w-1",
    name="first",
    size=3,
    colour=Colour.RED,
    made_at=NOW,
    ports=[Port(name="http", number=80), Port(name="https", number=443)],
    labels={"team": "shop"},
)


@dataclass
class Widgets:
    """Endpoints whose handlers note that they ran, and wait or fail where a test says so."""

    calls: list[tuple[str, Call, Any, Any]] = field(default_factory=list)
    failure: Exception | None = None
    hold: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def _note(self, call: Call, params: Params, body: Body) -> None:
        self.calls.append((call.endpoint, call, params, body))
        self.entered.set()
        if self.failure is not None:
            raise self.failure
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    @endpoint(
        "GET",
        "/internal/v1/health",
        permission=Permission.SYSTEM_READ,
        scope=Scope.SYSTEM,
        limit=HEALTH,
        idempotency=Idempotency.SAFE,
        summary="Health",
        tag="Health",
        answer=Pong,
        examples=(Example("healthy", Pong("healthy")),),
    )
    async def health(self, call: Call, params: NoParams, body: NoBody) -> Reply[Pong]:
        """Says that all is well."""
        await self._note(call, params, body)
        return Reply(Pong("healthy"), observed_at=NOW)

    @endpoint(
        "GET",
        "/internal/v1/whoami",
        permission=None,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="Who am I",
        tag="Accounts",
        answer=Pong,
    )
    async def whoami(self, call: Call, params: NoParams, body: NoBody) -> Reply[Pong]:
        await self._note(call, params, body)
        return Reply(Pong(call.caller.account_id))

    @endpoint(
        "GET",
        "/internal/v1/workspaces/{workspace_id}/widgets",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="Widgets",
        tag="Widgets",
        answer=list[Widget],
        params=WidgetsParams,
        fields=True,
        examples=(Example("one", [WIDGET]),),
    )
    async def widgets(self, call: Call, params: WidgetsParams, body: NoBody) -> Reply[list[Widget]]:
        await self._note(call, params, body)
        return Reply(
            [WIDGET],
            observed_at=NOW + timedelta(microseconds=5),
            partial=[Partial("[].ports[].number", "not measured"), Partial("[].size", "unknown")],
            untrusted=["/0/name", "/0/labels"],
            next_cursor="abc",
        )

    @endpoint(
        "POST",
        "/internal/v1/workspaces/{workspace_id}/widgets",
        permission=Permission.WORKSPACE_WRITE,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.KEYED,
        summary="Make a widget",
        tag="Widgets",
        answer=Widget,
        params=WorkspaceParams,
        body=MakeWidget,
        success=(201, 202),
        errors=(AmbiguousResource,),
        examples=(Example("made", WIDGET, MakeWidget(name="first", size=3)),),
        dry_run=True,
    )
    async def make_widget(self, call: Call, params: WorkspaceParams, body: MakeWidget) -> Reply[Widget]:
        await self._note(call, params, body)
        made = Widget(
            id=f"w-{len(self.calls)}",
            name=body.name,
            size=body.size,
            colour=body.colour,
            made_at=NOW,
            ports=[],
            labels=body.labels,
        )
        return Reply(made, operation_id="op-1" if body.name == "slow" else None)

    @endpoint(
        "DELETE",
        "/internal/v1/workspaces/{workspace_id}",
        permission=Permission.WORKSPACES_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Remove",
        tag="Widgets",
        answer=Pong,
        params=WorkspaceParams,
    )
    async def remove(self, call: Call, params: WorkspaceParams, body: NoBody) -> Reply[Pong]:
        await self._note(call, params, body)
        return Reply(Pong("gone"))

    @endpoint(
        "POST",
        "/internal/v1/secrets",
        permission=Permission.ACCOUNTS_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.REFUSED,
        summary="A secret",
        tag="Accounts",
        answer=Secret,
        success=(201,),
    )
    async def make_secret(self, call: Call, params: NoParams, body: NoBody) -> Reply[Secret]:
        await self._note(call, params, body)
        return Reply(Secret("opsa_secret"))

    @endpoint(
        "GET",
        "/internal/v1/applications/{application_id}/details",
        permission=Permission.APPLICATION_READ,
        scope=Scope.APPLICATION,
        limit=APPLICATION_OPERATIONS,
        idempotency=Idempotency.SAFE,
        summary="Details",
        tag="Applications",
        answer=Pong,
        params=ApplicationParams,
        errors=(AmbiguousResource,),
    )
    async def details(self, call: Call, params: ApplicationParams, body: NoBody) -> Reply[Pong]:
        await self._note(call, params, body)
        return Reply(Pong(params.application_id))


def grants(*texts: str) -> Grants:
    return Grants(frozenset(Grant.parse(text) for text in texts))


@dataclass
class FakeAuthenticator:
    """Accounts in a dict; counts what it was asked."""

    accounts: dict[tuple[str, str], Grants] = field(
        default_factory=lambda: {
            ADMIN: grants("system:read", "workspaces:admin", "accounts:admin", "workspace:admin", "application:write"),
            READER: grants("workspace:read@ws-1", "application:read@ws-1"),
            PLAIN: grants(),
        }
    )
    refused_address: str | None = None
    asked: int = 0

    async def authenticate(
        self, account_id: str, token: str, address: str, on_behalf_of: str | None, agent_run: str | None
    ) -> Caller:
        self.asked += 1
        held = self.accounts.get((account_id, token))
        if held is None:
            raise InvalidServiceAccount(account_id, "unknown")
        if address == self.refused_address:
            raise IpNotAllowed(account_id, address)
        if on_behalf_of is not None and not on_behalf_of.endswith("@example.com"):
            raise DelegationNotAllowed(account_id, on_behalf_of)
        return Caller(account_id, AccountKind.AGENT, held, "tok-1", address, on_behalf_of, agent_run)


@dataclass
class FakeScopes:
    workspaces: set[str] = field(default_factory=lambda: {"ws-1", "ws-2"})
    applications: dict[str, str] = field(default_factory=lambda: {"app-1": "ws-1", "app-2": "ws-2"})

    async def workspace_exists(self, workspace_id: str) -> bool:
        return workspace_id in self.workspaces

    async def workspace_of(self, application_id: str, grants: Grants) -> str:
        if application_id == "app-twice":
            raise AmbiguousResource("application", application_id, ["ws-1", "ws-2"], "?workspace=")
        if application_id == "app-away":
            raise DependencyUnavailable("kubernetes_api", "away", workspace_id="ws-1")
        workspace = self.applications.get(application_id)
        if workspace is None or not grants.sees(workspace):
            raise ResourceNotFound("app", application_id + " (inner words)")
        return workspace


class FakeIdempotencyStore:
    def __init__(self) -> None:
        self.keys: dict[tuple[str, str, str, str], tuple[bytes, str, StoredAnswer | None]] = {}

    async def claim(
        self, account_id: str, method: str, path: str, key: str, fingerprint: bytes
    ) -> Claimed | InProgress | Reused | StoredAnswer:
        at = (account_id, method, path, key)
        known = self.keys.get(at)
        if known is None:
            claim_id = f"claim-{len(self.keys)}"
            self.keys[at] = (fingerprint, claim_id, None)
            return Claimed(claim_id)
        if known[0] != fingerprint:
            return Reused()
        return known[2] or InProgress()

    async def finish(self, claim_id: str, answer: StoredAnswer) -> None:
        for at, (fingerprint, claim, _) in self.keys.items():
            if claim == claim_id:
                self.keys[at] = (fingerprint, claim, answer)

    async def abandon(self, claim_id: str) -> None:
        self.keys = {at: known for at, known in self.keys.items() if known[1] != claim_id}


@dataclass
class FakeAudit:
    entries: list[AuditEntry] = field(default_factory=list)
    full: bool = False

    def ensure_room(self) -> None:
        if self.full:
            raise DependencyUnavailable("audit", "full")

    def record(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


class FixedTime:
    """Unix seconds that a test sets; a minute begins at 1705764600."""

    def __init__(self) -> None:
        self.now = 1705764601.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """The fakes and the application over them."""

    settings: HttpSettings
    widgets: Widgets = field(default_factory=Widgets)
    authenticator: FakeAuthenticator = field(default_factory=FakeAuthenticator)
    scopes: FakeScopes = field(default_factory=FakeScopes)
    audit: FakeAudit = field(default_factory=FakeAudit)
    store: FakeIdempotencyStore = field(default_factory=FakeIdempotencyStore)
    time: FixedTime = field(default_factory=FixedTime)

    def bound(self) -> list[Bound]:
        return declared([self.widgets])

    def ports(self, **more: Any) -> HttpPorts:
        return HttpPorts(
            authenticator=self.authenticator,
            audit=self.audit,
            limiter=MemoryRateLimiter(self.time),
            scopes=self.scopes,
            idempotency=self.store,
            **more,
        )

    def app(self, **more: Any) -> App:
        return create_app(self.bound(), self.ports(**more), self.settings)


def world(**settings: Any) -> World:
    given: dict[str, Any] = {"port": 0, "request_log": "off", "drain_seconds": 1}
    return World(HttpSettings(**(given | settings)))


@dataclass
class Raw:
    """What came back on a raw socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])


class Served:
    """A real server in this process, reached over sockets."""

    def __init__(self, server: HttpServer) -> None:
        self.url = server.url
        self.server = server
        host, port = server.url.split("//")[1].rsplit(":", 1)
        self.address = (host, int(port))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def exchange(self, *chunks: bytes) -> list[Raw]:
        """Sends the chunks on one connection and reads until the first answer is complete; what came with it too."""
        reader, writer = await self.connect()
        received = bytearray()

        async def write() -> None:
            with contextlib.suppress(ConnectionError):
                for chunk in chunks:
                    writer.write(chunk)
                    await writer.drain()

        writing = asyncio.create_task(write())
        try:
            with contextlib.suppress(ConnectionError):
                while data := await asyncio.wait_for(reader.read(65536), 10):
                    received += data
                    if _complete(bytes(received)):
                        break
        finally:
            writing.cancel()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return parse_answers(bytes(received))


def parse_answers(data: bytes) -> list[Raw]:
    answers = []
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            break
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        answers.append(Raw(int(lines[0].split(" ")[1]), headers, rest[:length]))
        data = rest[length:]
    return answers


def _complete(data: bytes) -> bool:
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return False
    lowered = head.lower()
    length = next((int(line[15:]) for line in lowered.split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return len(rest) >= length


@contextlib.asynccontextmanager
async def served(app: App, settings: HttpSettings) -> AsyncIterator[Served]:
    """Until the block ends; a server that will not start or stop fails the test."""
    server = HttpServer(app, settings)
    up = asyncio.Event()

    async def started() -> None:
        up.set()

    task = asyncio.create_task(server.serve(started))
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait({task, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    if not up.is_set():
        waiting.cancel()
        await task
        raise AssertionError("the server did not start")
    try:
        yield Served(server)
    finally:
        server.stop()
        await asyncio.wait_for(task, 15)


def request(
    method: str = "GET",
    path: str = "/internal/v1/health",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    *,
    length: bool = True,
) -> bytes:
    """One HTTP/1.1 request as bytes."""
    given = {"Host": "localhost"} | (credentials() if headers is None else headers)
    if body and length:
        given["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


async def call(
    app: App,
    method: str = "GET",
    path: str = "/internal/v1/health",
    *,
    headers: dict[str, str] | None = None,
    query: bytes = b"",
    body: bytes | list[bytes] = b"",
    peer: str = "127.0.0.1",
    receive: Callable[[], Any] | None = None,
) -> Raw:
    """One ASGI call; `body` as a list arrives in chunks without Content-Length."""
    given = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in (credentials() if headers is None else headers).items()
    ]
    chunks = body if isinstance(body, list) else [body]
    if isinstance(body, list):
        given.append((b"transfer-encoding", b"chunked"))
    elif body:
        given.append((b"content-length", str(len(body)).encode()))
    pending = list(chunks)

    async def from_chunks() -> dict[str, Any]:
        chunk = pending.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(pending)}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    raw_path = path.encode("latin-1")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": given,
        "client": (peer, 40000),
    }
    await app(scope, receive or from_chunks, send)
    app.records.flush()
    if not sent:
        return Raw(0, {}, b"")
    headers_out = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Raw(sent[0]["status"], headers_out, b"".join(message["body"] for message in sent[1:]))
