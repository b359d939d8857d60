"""From the outbox to deliveries: who is told of an event is decided once, in one transaction with the note of it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.ids import stable_id
from opsapi.webhooks.channels import is_slack
from opsapi.webhooks.model import Event, Webhook
from opsapi.webhooks.payloads import payload, slack_message
from opsapi.webhooks.ports import DeliveryStore, NewDelivery
from opsapi.webhooks.settings import WebhookSettings

BATCH = 100
_PURGE_SECONDS = 3600.0
_log = logging.getLogger(__name__)


def route(event: Event, webhooks: Sequence[Webhook]) -> list[NewDelivery]:
    """A delivery for each webhook that wants the event and for each channel that it names. A channel that is not in
    the configuration gets one too: as a dead letter it says so, and can be redelivered."""
    told = [(webhook.id, payload(event)) for webhook in webhooks if webhook.wants(event)]
    told += [
        (channel, slack_message(event) if is_slack(channel) else payload(event))
        for channel in dict.fromkeys(event.channels)
    ]
    return [
        NewDelivery(
            id=stable_id("dlv", event.id, target),
            event_id=event.id,
            event_type=event.type,
            workspace_id=event.workspace_id,
            target=target,
            body=body,
        )
        for target, body in told
    ]


class Dispatcher:
    """`run()` until cancelled. `dispatched` is called whenever there is something new to deliver."""

    def __init__(self, store: DeliveryStore, settings: WebhookSettings, dispatched: Callable[[], None]) -> None:
        self._store = store
        self._settings = settings
        self._dispatched = dispatched
        self._retry = timedelta(hours=settings.retry_hours)

    async def run(self) -> None:
        while True:
            if await self.once() < BATCH:
                await asyncio.sleep(self._settings.poll_seconds)

    async def once(self) -> int:
        """How many events were handed out; 0 where the database is away."""
        try:
            count = await self._store.dispatch(route, BATCH, self._retry)
        except DependencyUnavailable as error:
            _log.warning("events wait to be handed out: %s", error.message)
            return 0
        except Exception:
            # A fault of ours must not end the loop: no event would ever leave again.
            _log.exception("events cannot be handed out")
            return 0
        if count:
            self._dispatched()
        return count

    async def purge(self) -> None:
        """Every hour, until cancelled."""
        settings = self._settings
        while True:
            await asyncio.sleep(_PURGE_SECONDS)
            try:
                await self._store.purge(timedelta(days=settings.keep_days), timedelta(days=settings.keep_dead_days))
            except DependencyUnavailable as error:
                _log.warning("old deliveries wait to be purged: %s", error.message)
