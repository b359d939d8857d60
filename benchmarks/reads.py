"""What reads cost: CPU time a request of `overview` and `nodes` against guarded `health` on the same server.

One server process serves a workspace of 200 nodes and N pods behind the real guard; the load alternates between the
routes in short rounds. `overview` must not grow with the pods; `nodes` less `health` is held against encoding the same
Structs by msgspec alone, in the same run. The cluster's cache is the tests' fake one: what is measured is what is read.

    python -m benchmarks.reads [--pods 1000 10000] [--rounds 9] [--requests 400]
"""

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from benchmarks.guard import ACCOUNT, CountedAudit, OneAccount, cpu_seconds

from opsapi.accounts.authentication import Authenticator
from opsapi.accounts.tokens import new_secret
from opsapi.adapters.limits.memory import MemoryRateLimiter
from opsapi.audit.recorder import AuditRecorder
from opsapi.health.board import HealthBoard
from opsapi.health.endpoints import HealthEndpoints
from opsapi.http.app import create_app
from opsapi.http.ports import HttpPorts
from opsapi.http.server import HttpServer
from opsapi.http.settings import HttpSettings
from opsapi.kit.clock import SystemClock
from opsapi.kit.endpoint import declared
from opsapi.kit.permissions import Grants
from opsapi.operations.model import Depth
from opsapi.workspaces.objects import DEPLOYMENT, KINDS, NODE, POD, REPLICA_SET
from opsapi.workspaces.ports import ContainerUsage, NodeUsage, PodUsage, Sync, UsageSnapshot
from support.inventory import START, FakeCluster, FakeClusters
from support.objects import container, deployment, node, owner, pod, replica_set
from support.registrations import House

NODES = 200
ROUTES = {
    "health": "/internal/v1/health",
    "overview": "/internal/v1/workspaces/ws-123/overview",
    "nodes": f"/internal/v1/workspaces/ws-123/nodes?limit={NODES}",
}


def cluster_of(pods: int) -> FakeCluster:
    """Applications of 20 pods each, every tenth with one that crashes."""
    cluster = FakeCluster()
    fake = cluster.fake
    for kind in KINDS:
        if kind.optional:
            fake.set_sync(kind, Sync.UNSERVED)
    fake.put(NODE, *(node(f"n{i}", labels={"zone": "z", "kubernetes.io/hostname": f"n{i}"}) for i in range(NODES)))
    held = (container(requests={"cpu": "100m", "memory": "64Mi"}, limits={"memory": "128Mi"}),)
    for number in range(pods // 20):
        name = f"app{number}"
        fake.put(DEPLOYMENT, deployment(name, replicas=20))
        fake.put(REPLICA_SET, replica_set(f"{name}-1", controlled_by=owner("Deployment", name, f"uid-shop-{name}")))
        by = owner("ReplicaSet", f"{name}-1", f"uid-shop-{name}-1")
        for one in range(20):
            waiting = "CrashLoopBackOff" if number % 10 == 0 and one == 0 else ""
            on = f"n{(number * 20 + one) % NODES}"
            fake.put(POD, pod(f"{name}-1-{one}", controlled_by=by, node=on, waiting=waiting, containers=held))
    usage = {key: PodUsage({"main": ContainerUsage(50.0, 60 * 2**20)}, START) for key in fake.objects.get(POD, {})}
    nodes = {f"n{i}": NodeUsage(1900.0 + i, 2**33, START) for i in range(NODES)}
    cluster.used = UsageSnapshot(START, usage, nodes)
    return cluster


class Idle:
    """A database and a queue with nothing to tell."""

    async def probe(self) -> Any:
        class Reading:
            class connections:  # noqa: N801
                active, idle, max = 1, 1, 10

            avg_query_ms, slow_queries = 1.0, 0

        return Reading

    async def depth(self) -> Depth:
        return Depth(0, 0, None)


class OneWorkspace:
    async def workspace_exists(self, workspace_id: str) -> bool:
        return workspace_id == "ws-123"

    async def workspace_of(self, application_id: str, grants: Grants) -> str:
        return "ws-123"


def serve(listener: socket.socket, token: str, pods: int) -> None:
    clock = SystemClock()
    house = House(FakeClusters(cluster_of(pods)))
    idle = Idle()
    board = HealthBoard(house.views, clock, database=idle, queue=idle)
    store: Any = OneAccount(token, clock)
    account = msgspec.structs.replace(store._credential.account, permissions=["system:read", "workspace:read"])
    store._credential = msgspec.structs.replace(store._credential, account=account)
    limits = {"health": 10_000_000, "workspace_operations": 10_000_000}
    settings = HttpSettings(limits=limits)
    audit_store: Any = CountedAudit()
    recorder = AuditRecorder(audit_store, clock, capacity=1_000_000)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        writing = asyncio.create_task(recorder.run())
        async with board.running():
            yield
        writing.cancel()

    ports = HttpPorts(
        authenticator=Authenticator(store, clock),
        audit=recorder,
        limiter=MemoryRateLimiter(),
        scopes=OneWorkspace(),
        lifespan=lifespan,
    )
    app = create_app(declared([HealthEndpoints(board), house.workspaces]), ports, settings)
    HttpServer(app, settings, listener).run()


@contextmanager
def server(token: str, pods: int) -> Iterator[tuple[int, int]]:
    """A server process: its pid and port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        fd = listener.fileno()
        command = [sys.executable, "-m", "benchmarks.reads", "--serve", str(pods), "--fd", str(fd), "--token", token]
        process = subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.DEVNULL)
    try:
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(20)


class Client:
    """One keep-alive connection that sends the next request when the last is answered."""

    def __init__(self, port: int, path: str, token: str) -> None:
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Accept: application/json", "User-Agent: benchmark"]
        lines += [f"Authorization: Bearer {token}", f"X-Service-Account: {ACCOUNT}", "", ""]
        self._request = "\r\n".join(lines).encode()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)

    def run(self, requests: int) -> int:
        """Returns the last answer's size."""
        size = 0
        for _ in range(requests):
            self._socket.sendall(self._request)
            answer = bytearray(self._socket.recv(1 << 20))
            head = answer.index(b"\r\n\r\n") + 4
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {bytes(answer[:300])!r}")
            lines = bytes(answer[:head]).lower().split(b"\r\n")
            size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            missing = head + size - len(answer)
            while missing > 0:
                missing -= len(self._socket.recv(1 << 20))
        return size


def measure(pods: int, rounds: int, requests: int) -> tuple[dict[str, float], dict[str, int]]:
    """Median microseconds of server CPU a request and the answers' sizes, by route."""
    token = new_secret()
    with server(token, pods) as (pid, port):
        clients = {name: Client(port, path, token) for name, path in ROUTES.items()}
        sizes = {name: client.run(requests) for name, client in clients.items()}
        samples: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(rounds):
            for name, client in clients.items():
                before = cpu_seconds(pid)
                client.run(requests)
                samples[name].append((cpu_seconds(pid) - before) / requests * 1e6)
    return {name: statistics.median(taken) for name, taken in samples.items()}, sizes


def bare_encoding(rounds: int, requests: int) -> float:
    """Median microseconds of encoding the page of nodes by msgspec alone."""
    house = House(FakeClusters(cluster_of(0)))
    page, _, _ = house.views.all()[0].nodes(None, NODES)
    encoder = msgspec.json.Encoder()
    samples = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(requests):
            encoder.encode(page.data)
        samples.append((time.process_time() - began) / requests * 1e6)
    return statistics.median(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pods", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--token", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(socket.socket(fileno=given.fd), given.token, given.serve)
        return
    bare = bare_encoding(given.rounds, given.requests)
    print(f"{'CPU a request':<34}{'µs':>9}{'ratio':>8}{'bytes':>10}")
    for pods in given.pods:
        micros, sizes = measure(pods, given.rounds, given.requests)
        health = micros["health"]
        print(f"{f'health ({pods} pods)':<34}{health:>9.1f}{1.0:>8.2f}{sizes['health']:>10}")
        ratio = micros["overview"] / health
        print(f"{'overview, of health (goal 2)':<34}{micros['overview']:>9.1f}{ratio:>8.2f}{sizes['overview']:>10}")
        more = micros["nodes"] - health
        print(f"{'nodes less health, of encoding':<34}{more:>9.1f}{more / bare:>8.2f}{sizes['nodes']:>10}")
    print(f"{'encoding 200 nodes (goal 1.5)':<34}{bare:>9.1f}")


if __name__ == "__main__":
    main()
