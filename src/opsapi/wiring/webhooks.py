"""Webhooks on an opened state: stores, sender, and the two loops that hand out and deliver."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from opsapi.adapters.sql.deliveries import SqlDeliveryStore
from opsapi.adapters.sql.webhooks import SqlWebhookStore
from opsapi.adapters.webhooks.sender import HttpSender, http_sender, trust
from opsapi.settings.source import InvalidConfiguration
from opsapi.webhooks.administration import Administration
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.deliverer import Deliverer
from opsapi.webhooks.delivery_endpoints import DeliveryEndpoints
from opsapi.webhooks.dispatcher import Dispatcher
from opsapi.webhooks.endpoints import WebhookEndpoints
from opsapi.webhooks.settings import WebhookSettings
from opsapi.wiring.state import State
from opsapi.workspaces.ports import Sealer


@dataclass(frozen=True, slots=True)
class Webhooks:
    """`channels` is what domains ask whether a channel is known; `deliveries` tells the backlog."""

    store: SqlWebhookStore
    deliveries: SqlDeliveryStore
    channels: Channels
    administration: Administration
    deliverer: Deliverer
    dispatcher: Dispatcher

    def endpoints(self) -> list[object]:
        return [
            WebhookEndpoints(self.store, self.administration, self.channels),
            DeliveryEndpoints(self.deliveries, self.administration),
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hands out and delivers until the block ends; then attempts under way may end."""
        await self.store.reseal()
        delivering = asyncio.create_task(self.deliverer.run(), name="webhook deliveries")
        others = [asyncio.create_task(job) for job in (self.dispatcher.run(), self.dispatcher.purge())]
        try:
            yield
        finally:
            for task in others:
                task.cancel()
            self.deliverer.stop()
            await asyncio.gather(delivering, *others, return_exceptions=True)


@asynccontextmanager
async def opened_webhooks(state: State, sealer: Sealer | None) -> AsyncIterator[Webhooks]:
    """Nothing is delivered before `running`. Raises InvalidConfiguration."""
    settings, clock = state.settings.webhooks, state.clock
    async with _sender(settings) as sender:
        store = SqlWebhookStore(state.database, sealer, clock)
        deliveries = SqlDeliveryStore(state.database, sealer, clock)
        channels = Channels(settings.channels)
        deliverer = Deliverer(deliveries, sender, channels, clock, settings)
        yield Webhooks(
            store=store,
            deliveries=deliveries,
            channels=channels,
            administration=Administration(store, deliveries, sender, deliverer, channels, clock, settings),
            deliverer=deliverer,
            dispatcher=Dispatcher(deliveries, settings, deliverer.wake),
        )


async def refused_channels(settings: WebhookSettings) -> dict[str, str]:
    """Channels of the configuration that nothing may be sent to, with the reason. Raises InvalidConfiguration."""
    async with _sender(settings) as sender:
        reasons = {one.name: await sender.refusal(one.url.reveal()) for one in settings.channels}
    return {name: reason for name, reason in reasons.items() if reason is not None}


@asynccontextmanager
async def _sender(settings: WebhookSettings) -> AsyncIterator[HttpSender]:
    try:
        tls = trust(settings.ca_file)
    except OSError as error:
        raise InvalidConfiguration([f"webhooks.ca_file: {settings.ca_file}: {error.strerror or error}"]) from None
    async with http_sender(
        allow=settings.allow,
        connect_seconds=settings.connect_timeout_seconds,
        total_seconds=settings.timeout_seconds,
        tls=tls,
    ) as sender:
        yield sender


class WebhookCollector(Collector):
    """Reads memory only."""

    def __init__(self, deliverer: Deliverer) -> None:
        self._deliverer = deliverer

    def collect(self) -> Iterator[Metric]:
        figures = self._deliverer.figures
        attempts = CounterMetricFamily("opsapi_webhook_attempts", "Attempts that ended.", labels=["outcome"])
        attempts.add_metric(["delivered"], figures.delivered)
        attempts.add_metric(["failed"], figures.failed)
        yield attempts
        yield CounterMetricFamily("opsapi_webhook_dead_letters", "Deliveries that were given up.", figures.dead)
        yield GaugeMetricFamily("opsapi_webhook_sending", "Attempts that run in this process.", self._deliverer.busy)
