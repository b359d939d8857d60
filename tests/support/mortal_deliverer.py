"""A process that hands out and delivers events, and kills itself with SIGKILL at a named point.

    python -m support.mortal_deliverer DATABASE_URL POINT

Ends with 0 once nothing waits any more. POINT is `never` or `<before|after>:<method>`, of the store of deliveries or of
the sender. `_take` and `_note_health` are inside transactions: what was written before it dies there must be gone.
"""

import asyncio
import sys

import sqlalchemy as sa
from msgspec import structs

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.adapters.sql.deliveries import SqlDeliveryStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import webhook_deliveries
from opsapi.adapters.webhooks.sender import http_sender
from opsapi.kit.clock import Clock, SystemClock
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.deliverer import Deliverer
from opsapi.webhooks.dispatcher import Dispatcher
from opsapi.webhooks.settings import WebhookSettings
from support.mortal_worker import arm

KEY = b"k" * 32
QUICK = WebhookSettings(
    poll_seconds=0.02,
    backoff_seconds=0.02,
    backoff_max_seconds=0.05,
    connect_timeout_seconds=0.3,
    timeout_seconds=0.3,
    drain_seconds=1,
)


def store_of(database: Database, clock: Clock) -> SqlDeliveryStore:
    return SqlDeliveryStore(database, AesGcmSealer([KEY]), clock)


async def waiting(database: Database) -> int:
    statement = sa.select(sa.func.count()).where(webhook_deliveries.c.state == "pending")
    async with database.read() as connection:
        return int((await connection.execute(statement)).scalar_one())


async def deliver_all(url: str, point: str = "never") -> None:
    """Until no event waits to be handed out and no delivery is pending."""
    clock, database, settings = SystemClock(), Database(url), QUICK
    store = store_of(database, clock)
    async with http_sender(allow=("127.0.0.1",), connect_seconds=0.3, total_seconds=0.3) as sender:
        if point != "never":
            when, method = point.split(":")
            for held in (store, sender):
                arm(held, method, when, 1)
            settings = structs.replace(QUICK, concurrency=1)  # so that calls end in the order in which they are counted
        deliverer = Deliverer(store, sender, Channels(()), clock, settings, lease_margin_seconds=0.3)
        dispatcher = Dispatcher(store, QUICK, deliverer.wake)
        running = asyncio.create_task(deliverer.run())
        handing_out = asyncio.create_task(dispatcher.run())
        while (await store.backlog()).events or await waiting(database):
            await asyncio.sleep(0.02)
        handing_out.cancel()
        deliverer.stop()
        await asyncio.gather(running, handing_out, return_exceptions=True)
    await database.close()


if __name__ == "__main__":
    asyncio.run(deliver_all(*sys.argv[1:]))
