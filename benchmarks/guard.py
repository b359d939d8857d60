"""What the guard costs: CPU time a request of guarded `health` against a raw ASGI application on the same server.

Both run in processes of their own under uvicorn (uvloop, httptools); the load alternates between them in short rounds,
so that whatever else the machine does falls on both. CPU time is the server's own, from /proc/<pid>/schedstat; the
ratio is the median of the rounds' ratios.

    python benchmarks/guard.py [--rounds 60] [--requests 500] [--max-ratio 2.5]
"""

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from opsapi.accounts.authentication import Authenticator
from opsapi.accounts.model import Account, Credential, Token
from opsapi.accounts.tokens import new_secret, sha256
from opsapi.adapters.limits.memory import MemoryRateLimiter
from opsapi.audit.model import AuditEntry
from opsapi.audit.recorder import AuditRecorder
from opsapi.http.app import create_app
from opsapi.http.ports import HttpPorts
from opsapi.http.server import HttpServer
from opsapi.http.settings import HttpSettings
from opsapi.kit.caller import AccountKind, Call
from opsapi.kit.clock import SystemClock
from opsapi.kit.endpoint import HEALTH, Idempotency, NoBody, NoParams, Reply, Scope, declared, endpoint
from opsapi.kit.permissions import Grants, Permission

ACCOUNT = "sa-benchmark"
CONNECTIONS = 4
GOAL = 2.5
ROUTES = {"static": "/", "guarded": "/internal/v1/health"}


class Pong(msgspec.Struct, frozen=True):
    status: str


class Health:
    """The smallest endpoint, so that the guard is what is measured."""

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
    )
    async def health(self, call: Call, params: NoParams, body: NoBody) -> Reply[Pong]:
        return Reply(Pong("healthy"), observed_at=call.received_at)


class OneAccount:
    """The account store behind the real authenticator."""

    def __init__(self, token: str, clock: SystemClock) -> None:
        now = clock.now()
        account = Account(
            id=ACCOUNT,
            name="benchmark",
            kind=AccountKind.SERVICE,
            description="",
            permissions=["system:read"],
            allowed_addresses=["127.0.0.0/8"],
            may_act_for=[],
            created_at=now,
            created_by="benchmark",
            updated_at=now,
        )
        held = Token(
            id="tok-1",
            account_id=ACCOUNT,
            description="",
            created_at=now,
            created_by="benchmark",
            expires_at=now + timedelta(days=1),
        )
        self._credential = Credential(account=account, token=held, sha256=sha256(token))

    async def credential(self, digest: bytes) -> Credential | None:
        return self._credential if digest == self._credential.sha256 else None


class NoScopes:
    async def workspace_exists(self, workspace_id: str) -> bool:
        return False

    async def workspace_of(self, application_id: str, grants: Grants) -> str:
        return ""


class CountedAudit:
    """Takes each batch and drops it: the database's cost is its own benchmark."""

    def __init__(self) -> None:
        self.taken = 0

    async def insert(self, entries: Sequence[AuditEntry]) -> None:
        self.taken += len(entries)


def serve_static(listener: socket.socket) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"20")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"status":"healthy"}'})

    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False
    )
    uvicorn.Server(config).run(sockets=[listener])


def serve_guarded(listener: socket.socket, token: str) -> None:
    clock = SystemClock()
    store: Any = OneAccount(token, clock)
    settings = HttpSettings(limits={"health": 10_000_000})
    audit_store: Any = CountedAudit()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        writing = asyncio.create_task(recorder.run())
        yield
        writing.cancel()

    recorder = AuditRecorder(audit_store, clock, capacity=1_000_000)
    ports = HttpPorts(
        authenticator=Authenticator(store, clock),
        audit=recorder,
        limiter=MemoryRateLimiter(),
        scopes=NoScopes(),
        lifespan=lifespan,
    )
    HttpServer(create_app(declared([Health()]), ports, settings), settings, listener).run()


@contextmanager
def server(kind: str, token: str) -> Iterator[tuple[int, int]]:
    """A server process: its pid and port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        command = [sys.executable, __file__, "--serve", kind, "--fd", str(listener.fileno()), "--token", token]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
    try:
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(20)


def cpu_seconds(pid: int) -> float:
    """Of the event loop's thread, to the nanosecond (/proc/<pid>/stat counts in hundredths of a second)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class Client:
    """Keep-alive connections, each sending the next request when the last is answered."""

    def __init__(self, port: int, request: bytes) -> None:
        self._request = request
        self._sockets = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(CONNECTIONS)]

    def run(self, requests: int) -> None:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(self._drive, self._sockets, [requests // CONNECTIONS] * CONNECTIONS))

    def _drive(self, connection: socket.socket, requests: int) -> None:
        for _ in range(requests):
            connection.sendall(self._request)
            answer = connection.recv(65536)
            while answer and not answer.endswith(b"}"):
                answer += connection.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {answer[:200]!r}")


def request_for(kind: str, token: str) -> bytes:
    lines = [f"GET {ROUTES[kind]} HTTP/1.1", "Host: localhost", "Accept: application/json", "User-Agent: benchmark"]
    lines += [f"Authorization: Bearer {token}", f"X-Service-Account: {ACCOUNT}", "", ""]
    return "\r\n".join(lines).encode()


def measure(rounds: int, requests: int) -> dict[str, list[float]]:
    """Microseconds of server CPU a request, of each round."""
    token = new_secret()
    with server("static", token) as static, server("guarded", token) as guarded:
        servers = {"static": static, "guarded": guarded}
        clients = {kind: Client(port, request_for(kind, token)) for kind, (_, port) in servers.items()}
        samples: dict[str, list[float]] = {kind: [] for kind in servers}
        for client in clients.values():
            client.run(requests)
        for _ in range(rounds):
            for kind, client in clients.items():
                before = cpu_seconds(servers[kind][0])
                client.run(requests)
                samples[kind].append((cpu_seconds(servers[kind][0]) - before) / requests * 1e6)
    return samples


def report(rounds: int = 60, requests: int = 500) -> tuple[str, float]:
    """A table, and the ratio that the goal is about."""
    samples = measure(rounds, requests)
    ratio = statistics.median(g / s for g, s in zip(samples["guarded"], samples["static"], strict=True))
    rows = [
        ("raw ASGI, static bytes", statistics.median(samples["static"]), 1.0),
        ("guarded health", statistics.median(samples["guarded"]), ratio),
    ]
    lines = [f"{'CPU a request':<28}{'µs':>8}{'ratio':>8}"]
    lines += [f"{name:<28}{micros:>8.1f}{of:>8.2f}" for name, micros, of in rows]
    lines.append(f"goal: at most {GOAL}; includes authentication, limit, audit entry, log line and metrics")
    return "\n".join(lines), ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--max-ratio", type=float, default=None, help="exit 1 above this ratio")
    parser.add_argument("--serve", choices=list(ROUTES), help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--token", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        listener = socket.socket(fileno=arguments.fd)
        if arguments.serve == "static":
            serve_static(listener)
        else:
            serve_guarded(listener, arguments.token)
        return
    table, ratio = report(arguments.rounds, arguments.requests)
    print(table)
    if arguments.max_ratio is not None and ratio > arguments.max_ratio:
        raise SystemExit(f"guarded health costs {ratio:.2f} times a static answer; the goal is {arguments.max_ratio}")


if __name__ == "__main__":
    main()
