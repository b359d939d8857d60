"""The outbox: events are written in the transaction of the change that they tell of."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from opsapi.adapters.sql.tables import outbox_events
from opsapi.webhooks.model import Event


async def insert_event(connection: AsyncConnection, event: Event) -> None:
    """In a write transaction of whoever makes the change."""
    await connection.execute(
        sa.insert(outbox_events).values(
            id=event.id,
            type=event.type,
            workspace_id=event.workspace_id,
            occurred_at=event.occurred_at,
            data=event.data,
            channels=list(event.channels),
        )
    )
