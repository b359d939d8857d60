"""Webhook deliveries a minute, a tenth of the endpoints failing, and none lost.

Events wait in the outbox; dispatcher and deliverer hand them out to ten endpoints on loopback, one of which refuses
each event twice before it takes it. The reference is the bare sender beside it: as many POSTs, as many at once, with
nothing written down. PostgreSQL is a private server that syncs to disk, as in production.

    python -m benchmarks.webhooks [--events 100] [--engine sqlite|postgresql]
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from benchmarks.engine import create_databases, migrate, private_postgres

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.adapters.sql.deliveries import SqlDeliveryStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.outbox import insert_event
from opsapi.adapters.sql.webhooks import SqlWebhookStore
from opsapi.adapters.webhooks.sender import HttpSender, http_sender
from opsapi.kit.caller import System
from opsapi.kit.clock import SystemClock
from opsapi.kit.ids import new_id
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.deliverer import Deliverer
from opsapi.webhooks.dispatcher import Dispatcher
from opsapi.webhooks.model import Event, EventType, Webhook
from opsapi.webhooks.payloads import payload
from opsapi.webhooks.ports import WebhookStore
from opsapi.webhooks.settings import WebhookSettings

ENDPOINTS = 10
REFUSALS = 2
GOAL = 1000
SETTINGS = WebhookSettings(
    backoff_seconds=0.2, backoff_max_seconds=0.4, poll_seconds=0.1, concurrency=32, drain_seconds=60
)


class Receivers:
    """One server; the path is the endpoint. `/0` refuses each event twice."""

    def __init__(self, wanted: int = 0) -> None:
        self._wanted = wanted
        self.complete = asyncio.Event()
        self.taken: Counter[tuple[str, str]] = Counter()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        start, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        await reader.readexactly(int(headers["content-length"]))
        key = start.split(" ")[1], headers["webhook-id"]
        self.asked[key] += 1
        refuse = key[0] == "/0" and self.asked[key] <= REFUSALS
        if not refuse:
            self.taken[key] += 1
            if len(self.taken) == self._wanted:
                self.complete.set()
        writer.write(f"HTTP/1.1 {500 if refuse else 204} x\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield


def new_event() -> Event:
    return Event(
        id=new_id("evt"),
        type=EventType.OPERATION_COMPLETED,
        workspace_id="ws-bench",
        occurred_at=SystemClock().now(),
        data={"operation_id": "op-1", "operation": "scale", "status": "completed", "reason": "traffic"},
    )


async def subscribe(store: WebhookStore, port: int) -> None:
    now = SystemClock().now()
    for number in range(ENDPOINTS):
        webhook = Webhook(
            id=f"wh-{number}",
            url=f"http://127.0.0.1:{port}/{number}",
            description="",
            event_types=[],
            workspaces=[],
            enabled=True,
            disabled_because=None,
            disabled_at=None,
            failing_since=None,
            last_success_at=None,
            previous_secret_until=None,
            created_at=now,
            created_by="system:bench",
            updated_at=now,
        )
        await store.add(webhook, b"s" * 32, System("bench", "subscribe"))


async def deliver(url: str, events: int) -> tuple[float, int, int]:
    """Seconds from the outbox to the last delivery, the attempts, and how many deliveries never arrived."""
    clock, database, sealer = SystemClock(), Database(url), AesGcmSealer([b"k" * 32])
    store, receivers = SqlDeliveryStore(database, sealer, clock), Receivers(events * ENDPOINTS)
    async with receivers.running(), sending() as sender:
        await subscribe(SqlWebhookStore(database, sealer, clock), receivers.port)
        made = [new_event() for _ in range(events)]
        async with database.write() as connection:
            for event in made:
                await insert_event(connection, event)
        deliverer = Deliverer(store, sender, Channels(()), clock, SETTINGS)
        dispatcher = asyncio.create_task(Dispatcher(store, SETTINGS, deliverer.wake).run())
        began = time.perf_counter()
        running = asyncio.create_task(deliverer.run())
        await receivers.complete.wait()
        deliverer.stop()
        await running
        taken = time.perf_counter() - began
        dispatcher.cancel()
        await asyncio.gather(dispatcher, return_exceptions=True)
    async with database.write() as connection:
        for table in ("webhook_deliveries", "webhooks", "outbox_events"):
            await connection.execute(sa.text(f"DELETE FROM {table}"))
    await database.close()
    lost = sum((f"/{number}", event.id) not in receivers.taken for number in range(ENDPOINTS) for event in made)
    return taken, sum(receivers.asked.values()), lost


@asynccontextmanager
async def sending() -> AsyncIterator[HttpSender]:
    async with http_sender(allow=("127.0.0.1",), connect_seconds=5, total_seconds=15) as sender:
        yield sender


async def bare(posts: int) -> float:
    """Seconds for as many POSTs with nothing around them."""
    receivers, body = Receivers(), payload(new_event())
    turns = asyncio.Semaphore(SETTINGS.concurrency)
    async with receivers.running(), sending() as sender:

        async def post(number: int) -> None:
            async with turns:
                url = f"http://127.0.0.1:{receivers.port}/{1 + number % (ENDPOINTS - 1)}"
                await sender.send(url, {"webhook-id": str(number)}, body)

        began = time.perf_counter()
        await asyncio.gather(*(post(number) for number in range(posts)))
        return time.perf_counter() - began


def measure(engine: str, url: str, events: int) -> None:
    asyncio.run(migrate(url))
    taken, attempts, lost = asyncio.run(deliver(url, events))
    reference = attempts / asyncio.run(bare(attempts)) * 60
    per_minute = events * ENDPOINTS / taken * 60
    print(
        f"{engine:<11}{events * ENDPOINTS:>11}{attempts:>10}{lost:>6}{per_minute:>13.0f}{reference:>15.0f}"
        f"{attempts / taken * 60 / reference:>8.2f}   goal {GOAL}/min, none lost"
    )
    if lost:
        raise SystemExit(f"{lost} deliveries were lost")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=100)
    options.add_argument("--engine", choices=("sqlite", "postgresql"), action="append")
    arguments = options.parse_args()
    wanted = arguments.engine or ["sqlite", "postgresql"]
    print("database    deliveries  attempts  lost  deliveries/min  bare POSTs/min  ratio")
    folder = Path(tempfile.mkdtemp(prefix="opsapi-bench-", dir="/tmp"))
    try:
        if "sqlite" in wanted:
            measure("sqlite", f"sqlite:///{folder / 'webhooks.db'}", arguments.events)
        if "postgresql" in wanted:
            with private_postgres(folder) as socket:
                asyncio.run(create_databases(socket))
                measure("postgresql", f"postgresql://postgres@/engine?host={socket}", arguments.events)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
