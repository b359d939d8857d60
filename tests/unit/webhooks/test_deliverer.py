"""The loop: nobody's hanging endpoint stops the others, and what went wrong is never lost."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping

import pytest
from standardwebhooks import Webhook

from opsapi.kit.clock import SystemClock
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.secret import Secret
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.deliverer import Deliverer
from opsapi.webhooks.dispatcher import Dispatcher
from opsapi.webhooks.model import Delivery, DeliveryState, DisabledBecause, EventType
from opsapi.webhooks.ports import DeliveryFilter, NewDelivery, Sent, WebhookPatch
from opsapi.webhooks.settings import ChannelSettings, WebhookSettings
from opsapi.webhooks.signing import secret_text
from support.webhooks import BY, SECRET, FakeSender, FakeWebhooks, make_event, make_webhook

SETTINGS = WebhookSettings(
    poll_seconds=0.01, backoff_seconds=0.001, backoff_max_seconds=0.002, drain_seconds=0, concurrency=6, per_endpoint=3
)
CHANNELS = Channels(
    [
        ChannelSettings(name="slack:#ops", url=Secret("https://slack.example.com/T/B/x")),
        ChannelSettings(name="webhook:pager", url=Secret("https://pager.example.com"), secret=secret_text(SECRET)),
    ]
)


class World:
    def __init__(self) -> None:
        self.store = FakeWebhooks(SystemClock())
        self.sender = FakeSender()
        self.deliverer = self.replica()
        self.dispatcher = Dispatcher(self.store, SETTINGS, self.deliverer.wake)

    def replica(self) -> Deliverer:
        return Deliverer(self.store, self.sender, CHANNELS, SystemClock(), SETTINGS)

    async def deliveries(self, target: str) -> list[Delivery]:
        return await self.store.deliveries(DeliveryFilter(target=target, limit=1000))

    async def until(self, target: str, state: DeliveryState, count: int = 1) -> list[Delivery]:
        async with asyncio.timeout(20):
            while True:
                found = await self.deliveries(target)
                if sum(one.state is state for one in found) >= count:
                    return found
                await asyncio.sleep(0.005)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    running = [asyncio.create_task(made.deliverer.run()), asyncio.create_task(made.dispatcher.run())]
    yield made
    made.deliverer.stop()
    await running[0]
    running[1].cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_an_event_arrives_signed_with_its_id(world: World) -> None:
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    event = make_event()
    world.store.announce(event)
    await world.until(webhook.id, DeliveryState.DELIVERED)
    ((url, headers, body),) = world.sender.sent
    assert url == webhook.url
    assert headers["webhook-id"] == event.id
    assert headers["content-type"] == "application/json"
    assert Webhook(secret_text(SECRET).reveal()).verify(body, headers)["data"] == event.data


async def test_a_refused_event_is_sent_again_with_the_same_id_and_body(world: World) -> None:
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    world.sender.answer = Sent(duration_ms=1, status=500, response="down")
    world.store.announce(make_event())
    while len(world.sender.sent) < 3:
        await asyncio.sleep(0.002)
    world.sender.answer = Sent(duration_ms=1, status=204)
    (delivery,) = await world.until(webhook.id, DeliveryState.DELIVERED)
    assert len({headers["webhook-id"] for _, headers, _ in world.sender.sent}) == 1
    assert len({body for _, _, body in world.sender.sent}) == 1
    assert [one.number for one in delivery.history] == list(range(1, delivery.attempts + 1))
    assert {one.status for one in delivery.history[:-1]} == {500}
    assert world.deliverer.figures.delivered == 1
    assert world.deliverer.figures.failed == delivery.attempts - 1


async def test_a_hanging_endpoint_holds_its_share_and_the_others_go_on(world: World) -> None:
    hanging = make_webhook(id="wh-hangs", url="https://hangs", event_types=[EventType.BACKUP_FAILED])
    quick = make_webhook(id="wh-quick", url="https://quick", event_types=[EventType.OPERATION_FAILED])
    release = asyncio.Event()
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    answer = world.sender.send

    async def send(url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        now[url] += 1
        most[url] = max(most[url], now[url])
        if url == "https://hangs":
            await release.wait()
        now[url] -= 1
        return await answer(url, headers, body)

    world.sender.send = send  # type: ignore[method-assign]
    for webhook in (hanging, quick):
        await world.store.add(webhook, SECRET, BY)
    world.store.announce(*(make_event(type=EventType.BACKUP_FAILED) for _ in range(50)))
    world.store.announce(*(make_event() for _ in range(50)))
    await world.until("wh-quick", DeliveryState.DELIVERED, 50)
    assert most["https://hangs"] == SETTINGS.per_endpoint
    assert all(one.state is DeliveryState.PENDING for one in await world.deliveries("wh-hangs"))
    release.set()
    await world.until("wh-hangs", DeliveryState.DELIVERED, 50)


async def test_one_that_just_failed_gets_one_at_a_time(world: World) -> None:
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    world.sender.answer = Sent(duration_ms=1, status=500)
    world.store.announce(make_event())
    while not world.deliverer.figures.failed:
        await asyncio.sleep(0.002)
    assert world.deliverer._room(webhook.id) <= 1
    world.sender.answer = Sent(duration_ms=1, status=200)
    await world.until(webhook.id, DeliveryState.DELIVERED)
    assert world.deliverer._room(webhook.id) == SETTINGS.per_endpoint


async def test_a_410_ends_it(world: World) -> None:
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    world.sender.answer = Sent(duration_ms=1, status=410)
    world.store.announce(make_event())
    (delivery,) = await world.until(webhook.id, DeliveryState.DEAD)
    assert len(world.sender.sent) == delivery.attempts == 1
    disabled = await world.store.webhook(webhook.id)
    assert disabled is not None
    assert (disabled.enabled, disabled.disabled_because) == (False, DisabledBecause.GONE)
    world.store.announce(make_event())
    assert await world.dispatcher.once() in (0, 1)
    assert len(await world.deliveries(webhook.id)) == 1


async def test_channels_get_theirs_and_an_unknown_one_is_a_dead_letter_that_says_so(world: World) -> None:
    event = make_event(channels=("slack:#ops", "webhook:pager", "slack:#gone"))
    world.store.announce(event)
    (dead,) = await world.until("slack:#gone", DeliveryState.DEAD)
    await world.until("slack:#ops", DeliveryState.DELIVERED)
    await world.until("webhook:pager", DeliveryState.DELIVERED)
    assert [one.error for one in dead.history] == ["the configuration has no such channel"]
    sent = {url: (headers, body) for url, headers, body in world.sender.sent}
    headers, body = sent["https://slack.example.com/T/B/x"]
    assert "webhook-signature" not in headers
    assert b'"text":' in body
    headers, body = sent["https://pager.example.com"]
    Webhook(secret_text(SECRET).reveal()).verify(body, headers)


async def test_what_cannot_be_recorded_at_once_is_recorded_later_and_sent_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsapi.webhooks.deliverer._RECORD_AGAIN_SECONDS", 0.001)
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    answer = world.sender.send

    async def send(url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        world.store.away = DependencyUnavailable("database", "it cannot be reached")
        return await answer(url, headers, body)

    world.sender.send = send  # type: ignore[method-assign]
    world.store.announce(make_event())
    while not world.sender.sent:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0)
    world.store.away = None
    (delivery,) = await world.until(webhook.id, DeliveryState.DELIVERED)
    assert delivery.attempts == len(world.sender.sent) == 1


async def test_a_fault_of_ours_is_a_failed_attempt_and_not_the_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    answer, faults = world.sender.send, [RuntimeError("vendor text")]

    async def send(url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        if faults:
            raise faults.pop()
        return await answer(url, headers, body)

    world.sender.send = send  # type: ignore[method-assign]
    with caplog.at_level(logging.CRITICAL):
        world.store.announce(make_event())
        (delivery,) = await world.until(webhook.id, DeliveryState.DELIVERED)
    assert [one.error for one in delivery.history] == ["failed within the service; its log says more", None]


async def test_without_its_secret_nothing_is_sent_unsigned(world: World) -> None:
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    world.store.secrets[webhook.id] = []
    world.store.announce(make_event())
    (dead,) = await world.until(webhook.id, DeliveryState.DEAD)
    assert dead.history[0].error == "no configured key opens the webhook's signing secret"
    assert world.sender.sent == []


async def test_a_ping_is_answered_even_of_a_disabled_webhook_and_says_nothing_bad_of_it() -> None:
    world = World()
    webhook = make_webhook(enabled=False)
    await world.store.add(webhook, SECRET, BY)
    world.sender.answer = Sent(duration_ms=1, status=410)
    ping = NewDelivery(
        id="dlv-1", event_id="evt-1", event_type="internal.webhook.ping", workspace_id="", target=webhook.id, body=b"{}"
    )
    _, verdict = await world.deliverer.send_now(ping)
    assert (verdict.state, verdict.attempt.status) == (DeliveryState.DEAD, 410)
    assert await world.store.webhook(webhook.id) == webhook
    assert [one.state for one in await world.deliveries(webhook.id)] == [DeliveryState.DEAD]


async def test_what_is_cut_off_by_the_stop_is_left_to_others() -> None:
    world = World()
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    world.store.announce(make_event())
    entered = asyncio.Event()

    async def hang(url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.sender.send = hang  # type: ignore[method-assign]
    running = asyncio.create_task(world.deliverer.run())
    await world.dispatcher.once()
    await entered.wait()
    world.deliverer.stop()
    await running
    (left,) = await world.deliveries(webhook.id)
    assert (left.state, left.attempts, left.history) == (DeliveryState.PENDING, 1, [])


async def test_disabling_between_claim_and_attempt_sends_nothing() -> None:
    world = World()
    webhook = make_webhook()
    await world.store.add(webhook, SECRET, BY)
    world.store.announce(make_event())
    await world.dispatcher.once()
    await world.store.update(webhook.id, WebhookPatch(enabled=False), BY)
    for held in world.store.held.values():  # a claim whose process died before the webhook was disabled
        held.delivery = Delivery(
            **{name: getattr(held.delivery, name) for name in held.delivery.__struct_fields__ if name != "state"},
            state=DeliveryState.PENDING,
        )
    running = asyncio.create_task(world.deliverer.run())
    (dead,) = await world.until(webhook.id, DeliveryState.DEAD)
    assert dead.history[0].error == "the webhook is disabled"
    assert world.sender.sent == []
    world.deliverer.stop()
    await running
