"""A workspace that is closed leaves no connection behind, whatever its connections were doing and whether or not the
server takes note."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from opsapi.adapters.kubernetes import connect
from opsapi.adapters.kubernetes.connect import Endpoint, KubeconfigAccess
from opsapi.adapters.kubernetes.transport import Unreachable
from opsapi.workspaces.model import ClusterAccess
from support.certificates import Authority, encoded
from support.leaping import LeapingTime, until
from support.live import living

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the state of a connection is read from Linux")

ESTABLISHED = 1
"""The first byte of Linux's struct tcp_info, as in its enum of states."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


class DeafServer:
    """Reads each connection's request, says what it is told to say, and takes no note of anything after that."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._writers: list[asyncio.StreamWriter] = []
        self._sockets: list[socket.socket] = []
        self.answered = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._sockets.append(
            socket.fromfd(writer.get_extra_info("socket").fileno(), socket.AF_INET, socket.SOCK_STREAM)
        )
        if self._answer:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            writer.write(self._answer)
        self.answered += 1
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # every stream's transport has it

    @property
    def still_open(self) -> int:
        """Of the connections ever made, those that their client holds open. Loopback knows at once."""
        states = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for one in self._sockets]
        return states.count(ESTABLISHED)

    def stop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        for one in self._sockets:
            one.close()


@asynccontextmanager
async def deaf(answer: bytes, tls: ssl.SSLContext | None) -> AsyncIterator[DeafServer]:
    one = DeafServer(answer)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        one.stop()
        await server.wait_closed()


def kubeconfig(port: int, authority: Authority) -> str:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": encoded(authority.pem)}
    document = {
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
        "clusters": [{"name": "main", "cluster": cluster}],
        "users": [{"name": "main", "user": {"token": "secret"}}],
    }
    return yaml.safe_dump(document)


@pytest.mark.parametrize("reading", [True, False], ids=["in an answer", "in the TLS handshake"])
async def test_a_cluster_closed_while_it_connects_or_reads_leaves_no_connection(reading: bool, tmp_path: Path) -> None:
    authority = Authority()
    tls = authority.server_context(tmp_path) if reading else None
    async with deaf(HEAD if reading else b"", tls) as server:
        async with living(ClusterAccess(inline=kubeconfig(server.port, authority))):
            await until(lambda: server.answered >= 5, "five connections")
            assert server.still_open >= 5
        assert server.still_open == 0


async def test_credentials_read_while_the_workspace_closes_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    read_access: Callable[..., object] = connect.read_access

    async def slowly(*given: object, **named: object) -> Endpoint:
        begun.set()
        await go_on.wait()
        return await read_access(*given, **named)  # type: ignore[no-any-return,misc]

    monkeypatch.setattr(connect, "read_access", slowly)
    access = KubeconfigAccess(ClusterAccess(inline=kubeconfig(1, Authority())), LeapingTime())
    asking = asyncio.create_task(access.line())
    await begun.wait()
    await access.close()
    go_on.set()
    with pytest.raises(Unreachable, match="the workspace was closed"):
        await asking
